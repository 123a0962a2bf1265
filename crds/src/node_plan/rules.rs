//! What an order must be, and how it may change, as the API server checks it.

use kube_core::{Message, Rule};

/// All of it in one rule.
///
/// Each write to a plan pays for it, those to its status as well, and each field of a plan that a rule looks at costs the API
/// server two copies of the schema of all fields: they were a tenth of all memory that it took in a rollout. So a field is looked
/// at as seldom as can be, which a list of one value and `all` do for what CEL has no variables for, and only for what was
/// broken once more, to say so. What comes out of `orValue` is of unknown length: it is compared with what has one.
/// A blank stands for the plan ID of an order that was not there: an empty one is refused for its length, in those words alone.
pub(super) fn order() -> Rule {
    Rule::new(compact(RULE)).message(Message::Expression(compact(SAYS))).optional_old_self(true)
}

/// Without a target nothing is ordered. With one, all of the order is there; and while it is the same order, its image and its
/// cloud-config stay as they are, and its target moves forward.
const RULE: &str = "
    [self.?target.orValue('')].all(to, to == ''
    ? !has(self.planId) && !has(self.image)
    : has(self.planId) && has(self.image)
    && (to != 'Booted' || has(self.notAfter))
    && (to != 'Reverted' || has(self.revert))
    && (self.planId != oldSelf.?planId.orValue(' ')
    || self.image == oldSelf.?image.orValue('')
    && (has(self.cloudConfig)
    ? self.cloudConfig.sha256 == oldSelf.?cloudConfig.?sha256.orValue('')
    : !oldSelf.?cloudConfig.hasValue())
    && [oldSelf.?target.orValue('')].all(from, to == 'Reverted' || from == '' || from == 'Staged'
    || from == 'Booted' && to != 'Staged' || from == 'Committed' && to == 'Committed')))";

/// What is said of the first of these that is broken.
const SAYS: &str = "
    !has(self.target) || !has(self.planId) || !has(self.image)
    ? 'planId, image and target are set together'
    : self.target == 'Booted' && !has(self.notAfter)
    ? 'a target of Booted needs notAfter: an approval to reboot runs out'
    : self.target == 'Reverted' && !has(self.revert)
    ? 'a target of Reverted needs revert: the cause is part of the order'
    : self.image != oldSelf.?image.orValue('')
    ? \"an order's image does not change: a new image needs a new planId\"
    : has(self.cloudConfig) != oldSelf.?cloudConfig.hasValue()
    || has(self.cloudConfig) && self.cloudConfig.sha256 != oldSelf.?cloudConfig.?sha256.orValue('')
    ? \"an order's cloudConfig does not change: another one needs a new planId\"
    : \"an order's target moves forward only: Staged, Booted, Committed, and Reverted from any of them\"";

/// In one line.
fn compact(expression: &str) -> String {
    expression.split_whitespace().collect::<Vec<_>>().join(" ")
}
