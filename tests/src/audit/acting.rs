//! Which replica of the operator acted, and whether it was the one with the lease.

use super::Request;

const OPERATOR: &str = ":evenkeel-operator";
/// What every replica may write: the lease itself, and what it tells people.
const FOR_ALL: [&str; 2] = ["leases", "events"];

/// Who had the lease, one after the other. Replicas are told apart by their tokens.
#[derive(Clone, Debug, Default)]
pub struct Reigns {
    /// Tokens with which the lease was written, each time that it was another one than before.
    pub holders: Vec<String>,
    /// How much was written by the replica with the lease.
    pub acts: usize,
    /// What was written by another one.
    pub intrusions: Vec<Request>,
}

impl Reigns {
    pub(super) fn of(requests: &[Request]) -> Self {
        let mut writes: Vec<&Request> = requests
            .iter()
            .filter(|request| request.is_write() && request.user.ends_with(OPERATOR))
            .collect();
        // The log is in the order of the answers.
        writes.sort_by_key(|request| request.at);
        let mut reigns = Self::default();
        for write in writes {
            let holds = reigns.holders.last() == Some(&write.token);
            if write.resource == "leases" {
                if !holds {
                    reigns.holders.push(write.token.clone());
                }
            } else if FOR_ALL.contains(&write.resource.as_str()) {
            } else if holds {
                reigns.acts += 1;
            } else {
                reigns.intrusions.push(write.clone());
            }
        }
        reigns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn write(second: i64, token: &str, resource: &str) -> Request {
        Request {
            user: "system:serviceaccount:s:evenkeel-operator".into(),
            token: token.into(),
            verb: "patch".into(),
            resource: resource.into(),
            name: "n".into(),
            at: Timestamp::from_second(second).unwrap(),
            code: 200,
            node: None,
        }
    }

    #[test]
    fn who_acts_after_another_took_the_lease_is_found() {
        let log = [
            write(1, "a", "leases"),
            write(2, "a", "nodes"),
            write(4, "b", "leases"),
            write(3, "a", "nodeplans"),
            write(6, "a", "nodes"),
            write(5, "b", "nodes"),
            write(7, "a", "events"),
        ];
        let reigns = Reigns::of(&log);
        assert_eq!(
            (reigns.holders.as_slice(), reigns.acts),
            (["a".to_owned(), "b".to_owned()].as_slice(), 3)
        );
        let at: Vec<i64> = reigns.intrusions.iter().map(|request| request.at.as_second()).collect();
        assert_eq!(at, [6]);
    }
}
