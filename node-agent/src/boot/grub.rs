//! GRUB: the kept slot, the trial and its tries in the environment block, which GRUB overwrites in its place; one
//! script per slot.
//!
//! The block decides, and is written as a whole: a trial is `evenkeel_trial` with `evenkeel_tries` left, and a slot
//! with a script that is not it is kept. So a trial is given up in the block before its script goes or changes, and is
//! armed in the block when the script is there. A script under another name is that of a kept slot which an initrd gave
//! up.

use std::{fs, io};

use evenkeel_node_agent_core::{
    boot_entry::{BootEntry, EntryBody, EntryName, Tries, next_generation},
    grub_config::{self, CONFIG, ENV, GIVEN_UP},
    grub_env::GrubEnv,
    layout::RECOVERY_SLOT,
    slot_record::SlotRecord,
};

use super::{
    BootError, Bootloader, LAST_RESORT, LoaderProgram, entry_body,
    files::{self, failed},
    is_default,
    signed::{self, BY_SHIM, FIRST},
};
use crate::{disk::SlotRegion, esp::Esp};

const SAVED: &str = "saved_entry";
const TRIAL: &str = "evenkeel_trial";
const TRIES: &str = "evenkeel_tries";
const GIVEN: &str = "evenkeel_given";
const CANARY: &str = "evenkeel_loader";
/// Before the boot ID of the boot that asked GRUB to show that it can write.
const ASKED: &str = "asked:";
/// The kernel's name for this boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// GRUB on one boot partition.
pub struct Grub {
    esp: Box<dyn Esp>,
}

impl Grub {
    /// Uses the partition.
    pub fn new(esp: Box<dyn Esp>) -> Self {
        Self { esp }
    }

    /// Whether the partition is GRUB's.
    pub(super) fn is_on(esp: &dyn Esp) -> Result<bool, BootError> {
        let there = esp.list(grub_config::FOLDER);
        let there = there.map_err(|source| failed("list", grub_config::FOLDER, source))?;
        Ok(there.iter().any(|file| ENV.ends_with(&file.name)))
    }

    /// Writes GRUB itself, its configuration to where this build of it looks for one, and a block that asks it to
    /// show in its first boot that it can write. Where shim starts GRUB, one that firmware with Secure Boot on would not start
    /// does not take its place.
    pub fn install(&self, program: &LoaderProgram, config_path: &str) -> Result<(), BootError> {
        files::replace(&*self.esp, config_path, CONFIG.as_bytes())?;
        if !Self::is_on(&*self.esp)? {
            let mut env = GrubEnv::default();
            env.set(CANARY, &format!("{ASKED}{}", this_boot()));
            files::write(&*self.esp, ENV, &encode(&env)?)?;
        }
        match &program.shim {
            // What is started comes before what starts it: an older shim starts a newer GRUB, and not always the reverse.
            Some(shim) => {
                files::replace(&*self.esp, BY_SHIM, &program.loader)?;
                files::replace(&*self.esp, FIRST, shim)
            }
            None if signed::starts_by_shim(&*self.esp)? => Ok(()),
            None => {
                files::replace(&*self.esp, FIRST, &program.loader)?;
                self.remove(BY_SHIM)
            }
        }
    }

    fn env(&self) -> Result<GrubEnv, BootError> {
        let bytes = files::read(&*self.esp, ENV)?.unwrap_or_default();
        GrubEnv::decode(&bytes).map_err(|source| failed("read", ENV, io::Error::other(source)))
    }

    /// Nothing is written where nothing changes.
    fn change(&self, work: impl FnOnce(&mut GrubEnv)) -> Result<(), BootError> {
        let before = self.env()?;
        let mut env = before.clone();
        work(&mut env);
        if env == before {
            return Ok(());
        }
        let written = self.esp.overwrite(ENV, &encode(&env)?);
        written.map_err(|source| failed("overwrite", ENV, source))
    }

    /// A trial that is given up is not booted, whatever its script says.
    fn give_up(&self, slot: &str) -> Result<(), BootError> {
        self.change(|env| {
            if env.get(TRIAL) == Some(slot) {
                env.set(TRIES, "0");
            }
        })
    }

    fn forget_trial(&self, slot: &str) -> Result<(), BootError> {
        self.change(|env| {
            if env.get(TRIAL) == Some(slot) {
                end_trial(env);
            }
        })
    }

    fn remove(&self, path: &str) -> Result<(), BootError> {
        self.esp.remove(path).map_err(|source| failed("remove", path, source))
    }

    fn remove_script(&self, slot: &str) -> Result<(), BootError> {
        self.remove(&grub_config::script_path(slot))?;
        self.remove(&grub_config::given_up_path(slot))
    }

    fn write_script(&self, slot: &SlotRegion, record: &SlotRecord, generation: u64) -> Result<(), BootError> {
        let body = entry_body(slot, record, generation);
        let path = grub_config::script_path(&slot.name);
        let unfinished = format!("{path}.new");
        files::write(&*self.esp, &unfinished, grub_config::encode(&body).as_bytes())?;
        self.remove_script(&slot.name)?;
        self.esp.rename(&unfinished, &path).map_err(|source| failed("rename", &unfinished, source))
    }

    /// The scripts that GRUB sees.
    fn scripts(&self) -> Result<Vec<EntryBody>, BootError> {
        self.scripts_named(".cfg")
    }

    fn scripts_named(&self, suffix: &str) -> Result<Vec<EntryBody>, BootError> {
        let folder = grub_config::FOLDER;
        let files = self.esp.list(folder).map_err(|source| failed("list", folder, source))?;
        let mut scripts = Vec::new();
        for file in files {
            let Some(slot) = file.name.strip_suffix(suffix) else { continue };
            let path = format!("{folder}/{}", file.name);
            let bytes = files::read(&*self.esp, &path)?.unwrap_or_default();
            match grub_config::parse(&String::from_utf8_lossy(&bytes)) {
                Some(body) if body.slot == slot => scripts.push(body),
                _ => tracing::warn!(path, "this boot script cannot be understood and is passed over"),
            }
        }
        Ok(scripts)
    }

    /// GRUB was asked before the last boot to write a word, and if it did not, it cannot count tries.
    fn check_canary(&self, boot_id: &str) -> Result<(), BootError> {
        match self.env()?.get(CANARY).and_then(|value| value.strip_prefix(ASKED)) {
            Some(asked) if !asked.is_empty() && asked != boot_id => Err(BootError::CannotCount),
            _ => Ok(()),
        }
    }
}

impl Bootloader for Grub {
    fn esp(&self) -> &dyn Esp {
        &*self.esp
    }

    fn can_count(&self) -> Result<(), BootError> {
        self.check_canary(&this_boot())
    }

    fn arm_trial(&self, slot: &SlotRegion, record: &SlotRecord, tries: u32) -> Result<(), BootError> {
        let boot_id = this_boot();
        self.check_canary(&boot_id)?;
        self.place_files(slot, record)?;
        files::entry_fits(&*self.esp)?;
        let name = slot.name.as_str();
        self.change(|env| {
            env.set(TRIAL, name);
            env.set(TRIES, "0");
            env.set(GIVEN, "");
        })?;
        self.write_script(slot, record, next_generation(&self.entries()?))?;
        self.change(|env| {
            env.set(TRIES, &tries.to_string());
            env.set(GIVEN, &tries.to_string());
            env.set(CANARY, &format!("{ASKED}{boot_id}"));
        })
    }

    fn commit(&self, slot: &str) -> Result<(), BootError> {
        if !self.scripts()?.iter().any(|body| body.slot == slot) {
            return Err(BootError::NoEntry(slot.to_owned()));
        }
        self.change(|env| {
            if env.get(TRIAL) == Some(slot) {
                env.set(SAVED, &entry_id(slot));
                end_trial(env);
            }
        })?;
        files::collect(&*self.esp, &self.entries()?, None)
    }

    fn disarm(&self, slot: &str) -> Result<(), BootError> {
        if self.env()?.get(TRIAL) != Some(slot) {
            return self.remove(&grub_config::given_up_path(slot));
        }
        self.give_up(slot)?;
        self.remove_script(slot)?;
        self.forget_trial(slot)
    }

    fn clear(&self, slot: &str) -> Result<(), BootError> {
        self.give_up(slot)?;
        let kept =
            self.entries()?.into_iter().filter(|entry| entry.name.slot != slot && entry.name.tries.is_none());
        if let Some(other) = kept.max_by_key(|entry| entry.body.generation) {
            self.change(|env| {
                if env.get(SAVED) == Some(&entry_id(slot)) {
                    env.set(SAVED, &entry_id(&other.name.slot));
                }
            })?;
        }
        self.remove_script(slot)?;
        self.forget_trial(slot)
    }

    fn make_default(&self, slot: &SlotRegion, record: &SlotRecord) -> Result<(), BootError> {
        self.place_files(slot, record)?;
        let entries = self.entries()?;
        if !is_default(&entries, slot, record) {
            self.write_script(slot, record, next_generation(&entries))?;
        }
        self.change(|env| {
            env.set(SAVED, &entry_id(&slot.name));
            // Whatever was to be tried is not what boots next any more.
            if env.get(TRIAL) == Some(&slot.name) {
                end_trial(env);
            } else if env.get(TRIAL).is_some() {
                env.set(TRIES, "0");
            }
        })
    }

    fn make_last_resort(&self, slot: &SlotRegion, record: &SlotRecord) -> Result<(), BootError> {
        self.place_files(slot, record)?;
        self.write_script(slot, record, LAST_RESORT)
    }

    fn entries(&self) -> Result<Vec<BootEntry>, BootError> {
        let (env, scripts) = (self.env()?, self.scripts()?);
        let mut given_up = self.scripts_named(GIVEN_UP)?;
        // A rename that was cut off may have left both.
        given_up.retain(|body| scripts.iter().all(|script| script.slot != body.slot));
        let saved = saved(&env, &scripts);
        let number = |name: &str| env.get(name).and_then(|value| value.parse::<u32>().ok()).unwrap_or(0);
        let highest = scripts.iter().map(|body| body.generation).max().unwrap_or(0);
        let with_order = |mut body: EntryBody| {
            let slot = body.slot.clone();
            let left = number(TRIES);
            let trial = env.get(TRIAL) == Some(&slot);
            let tries = trial.then(|| Tries { left, done: number(GIVEN).saturating_sub(left) });
            // The block decides which of the kept ones boots, and a trial comes before it.
            if trial {
                body.generation = highest + 2;
            } else if saved.as_ref() == Some(&slot) {
                body.generation = highest + 1;
            }
            BootEntry { name: EntryName { slot, tries }, body }
        };
        let unusable = |body: EntryBody| {
            let tries = Some(Tries { left: 0, done: 0 });
            BootEntry { name: EntryName { slot: body.slot.clone(), tries }, body }
        };
        // A trial that was given no tries yet is not one that has used them up.
        let armed = |body: &EntryBody| env.get(TRIAL) != Some(&body.slot) || env.get(GIVEN).is_some();
        Ok(scripts
            .into_iter()
            .filter(armed)
            .map(with_order)
            .chain(given_up.into_iter().map(unusable))
            .collect())
    }
}

/// Without its dashes, so that the block has room for it.
fn this_boot() -> String {
    fs::read_to_string(BOOT_ID).unwrap_or_default().trim().replace('-', "")
}

/// The slot that the configuration takes for the kept one: the saved one if GRUB sees its script, else the last by name
/// that is not on trial; the recovery slot only if there is no other.
fn saved(env: &GrubEnv, scripts: &[EntryBody]) -> Option<String> {
    let mut slots: Vec<&str> = scripts.iter().map(|body| body.slot.as_str()).collect();
    slots.sort_unstable_by_key(|slot| (*slot != RECOVERY_SLOT, *slot));
    let saved = slots.iter().find(|slot| env.get(SAVED) == Some(&entry_id(slot)));
    saved.or_else(|| slots.iter().rfind(|slot| env.get(TRIAL) != Some(slot))).map(|slot| (*slot).to_owned())
}

fn end_trial(env: &mut GrubEnv) {
    for name in [TRIAL, TRIES, GIVEN] {
        env.set(name, "");
    }
}

fn entry_id(slot: &str) -> String {
    format!("evenkeel-{slot}")
}

fn encode(env: &GrubEnv) -> Result<Vec<u8>, BootError> {
    let block = env.encode().map_err(|source| failed("write", ENV, io::Error::other(source)))?;
    Ok(block.to_vec())
}
