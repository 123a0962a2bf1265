//! A disk in a file with an old system in slot a, and what must be true of it.

use std::sync::Arc;

use evenkeel_crds::managed_os_image::Pull;
use evenkeel_node_agent::{
    boot,
    disk::{Disk, Sizes},
    install,
    slots::{self, Memory, SlotReport, SlotState},
    stage::{Meter, StageError, StageRequest, Staged, stage},
};
use evenkeel_registry::RegistryOptions;
use evenkeel_trust::Policy;
use tempfile::TempDir;

use crate::{image::Recipe, registry::Registry};

const SIZE: u64 = 1000 << 20;
const SLOT_SIZE: u64 = 32 << 20;

pub struct Machine {
    pub folder: TempDir,
    pub disk: Disk,
    pub options: RegistryOptions,
    pub trust: Option<Policy>,
}

impl Machine {
    /// An empty disk.
    pub fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        let sizes = Sizes { disk: Some(SIZE), slot: Some(SLOT_SIZE), slots: 2 };
        let disk = install::create_disk(&path, sizes).unwrap();
        let pull = Pull { plain_http: true, ..Pull::default() };
        let options = RegistryOptions { pull, ..RegistryOptions::default() };
        Self { folder, disk, options, trust: None }
    }

    /// A disk that boots an old system from slot a, and has the same system, kept as well, in slot b: what a refused
    /// image must take away, so that the slot does not boot half of it.
    pub async fn with_old_system() -> Self {
        let machine = Self::empty();
        let registry = Registry::start();
        let image = registry.push(&Recipe::default().build(), "os:old").await;
        for slot in ["b", "a"] {
            let staged = machine.stage_into(&image, slot, &Arc::default()).await.unwrap();
            install::make_bootable(&machine.disk, &machine.disk.slot(slot).unwrap(), &staged.record).unwrap();
        }
        machine
    }

    pub async fn stage(&self, image: &str) -> Result<Staged, StageError> {
        self.stage_into(image, "b", &Arc::default()).await
    }

    pub async fn stage_into(
        &self,
        image: &str,
        slot: &str,
        meter: &Arc<Meter>,
    ) -> Result<Staged, StageError> {
        let request = StageRequest {
            cloud_config: None,
            disk: self.disk.clone(),
            slot: slot.to_owned(),
            image: image.to_owned(),
            registry: self.options.clone(),
            trust: self.trust.clone(),
            plan_id: None,
        };
        stage(&request, meter).await
    }

    pub fn slot(&self, name: &str) -> SlotReport {
        let entries = boot::open(&self.disk).unwrap().entries().unwrap();
        let mut report = slots::report(&self.disk, &entries, &Memory::default()).unwrap();
        report.remove(report.iter().position(|slot| slot.name == name).unwrap())
    }

    /// The image is refused with a reason and with words that a person needs; slot b neither boots nor counts as
    /// complete, and the old system in slot a is the one that boots.
    pub async fn refuses(&self, image: &str, reason: &str, retryable: bool, words: &[&str]) {
        self.refused_untouched(image, reason, retryable, words).await;
        let b = self.slot("b");
        assert!(b.state != SlotState::Complete && !b.bootable && !b.default, "{b:?}");
    }

    /// The image is refused before anything was written.
    pub async fn refused_untouched(&self, image: &str, reason: &str, retryable: bool, words: &[&str]) {
        let error = self.stage(image).await.unwrap_err().plan_error();
        assert_eq!((error.reason.as_str(), error.retryable), (reason, retryable), "{}", error.message);
        for word in words {
            assert!(error.message.contains(word), "{word:?} is not in: {}", error.message);
        }
        let a = self.slot("a");
        assert!(a.state == SlotState::Complete && a.bootable && a.default, "{a:?}");
    }
}
