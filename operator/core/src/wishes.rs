//! What people ask for in a word beside the spec: annotations of the image object, and of a Node.

use evenkeel_crds::{
    names::{ALLOW_DIGEST, APPROVE, RUN_NOW},
    node_plan::Wipe,
    rollout_status::RunNow,
};
use jiff::Timestamp;

use crate::policy::short;

/// Longest name of a person that is kept, in characters; the schema's limit.
const NAME_MAX: usize = 128;

/// Somebody's word that a rollout goes on after a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approved {
    /// The step, as [`step_token`] names it.
    pub step: String,
    /// Who.
    pub by: String,
}

/// What was asked for, and what of it cannot be understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// That windows are ignored.
    pub run_now: Option<RunNow>,
    /// That the rollout goes on after a step.
    pub approved: Option<Approved>,
    /// That an image is tried although it failed.
    pub allowed: Option<String>,
    /// What cannot be understood, and how it is to be written.
    pub wrong: Vec<String>,
}

/// The name of a step of one rollout: what is rolled out is part of it, so that no word is taken for another one's.
pub fn step_token(release: &str, step: usize) -> String {
    format!("{}-{}", short(release), step + 1)
}

/// What a Node's machine is to lose, as its annotation says it: `state`, `oem`, or both with a comma. `None` for anything else.
pub fn wipe(text: &str) -> Option<Wipe> {
    text.split(',').try_fold(Wipe::default(), |wipe, word| match word.trim() {
        "state" => Some(Wipe { state: true, ..wipe }),
        "oem" => Some(Wipe { oem: true, ..wipe }),
        _ => None,
    })
}

impl Wishes {
    /// Reads them; `get` gives an annotation's value.
    pub fn read<'a>(get: impl Fn(&str) -> Option<&'a String>) -> Self {
        let mut wishes = Self::default();
        if let Some(text) = get(RUN_NOW) {
            let until = text.split_whitespace().next().and_then(|word| word.parse::<Timestamp>().ok());
            match (until, name(text)) {
                (Some(until), Some(by)) => {
                    wishes.run_now = Some(RunNow { by, until: evenkeel_crds::condition::Time(until) });
                }
                _ => wishes.wrong.push(format!(
                    "the annotation {RUN_NOW} is ignored: write until when and who, as `2026-05-01T04:00:00Z alice`"
                )),
            }
        }
        if let Some(text) = get(APPROVE) {
            match (text.split_whitespace().next(), name(text)) {
                (Some(step), Some(by)) => wishes.approved = Some(Approved { step: step.to_owned(), by }),
                _ => wishes.wrong.push(format!(
                    "the annotation {APPROVE} is ignored: write the step and who, as `0123456789ab-1 alice`"
                )),
            }
        }
        if let Some(text) = get(ALLOW_DIGEST) {
            let release = text.trim();
            if is_release(release) {
                wishes.allowed = Some(release.to_owned());
            } else {
                wishes.wrong.push(format!(
                    "the annotation {ALLOW_DIGEST} is ignored: write a digest, `sha256:…`, as status.denied has it"
                ));
            }
        }
        wishes
    }
}

/// `sha256:` and 64 digits, and with a cloud-config `+` and 16.
fn is_release(text: &str) -> bool {
    let is_hex = |digits: &str, count: usize| {
        digits.len() == count && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    };
    let (digest, config) =
        text.split_once('+').map_or((text, None), |(digest, config)| (digest, Some(config)));
    digest.strip_prefix("sha256:").is_some_and(|digits| is_hex(digits, 64))
        && config.is_none_or(|digits| is_hex(digits, 16))
}

/// All after the first word.
fn name(text: &str) -> Option<String> {
    let name: Vec<&str> = text.split_whitespace().skip(1).collect();
    (!name.is_empty()).then(|| name.join(" ").chars().take(NAME_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Wishes {
        let pairs: Vec<(&str, String)> =
            pairs.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        Wishes::read(|key| pairs.iter().find(|(name, _)| *name == key).map(|(_, value)| value))
    }

    #[test]
    fn a_wish_without_a_name_is_no_wish() {
        let wishes =
            read(&[(RUN_NOW, "2026-05-01T04:00:00Z"), (APPROVE, "0123456789ab-1"), (ALLOW_DIGEST, "1.2")]);
        assert_eq!((&wishes.run_now, &wishes.approved, &wishes.allowed), (&None, &None, &None));
        assert_eq!(wishes.wrong.len(), 3);
        let wishes = read(&[(RUN_NOW, "2026-05-01T04:00:00Z alice b."), (APPROVE, " 0123456789ab-1  bob ")]);
        assert_eq!(wishes.run_now.unwrap().by, "alice b.");
        assert_eq!(wishes.approved.unwrap(), Approved { step: "0123456789ab-1".into(), by: "bob".into() });
        assert!(wishes.wrong.is_empty());
    }

    #[test]
    fn a_step_is_named_for_its_image() {
        assert_eq!(step_token("sha256:0123456789abcdef", 0), "0123456789ab-1");
        assert_eq!(step_token("sha256:0123456789abcdef+fedcba9876543210", 1), "0123456789ab+fedcba98-2");
    }
}
