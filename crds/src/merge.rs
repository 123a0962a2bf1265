//! Merge patches: what a part of an object is to be, and nothing of what others know of it.

use serde_json::Value;

/// The merge patch that makes what is like `known` what `wanted` says. What `known` has and `wanted` has not is removed; a
/// field that neither has, such as one of a later version, is left alone.
#[must_use]
pub fn replacing(known: &Value, wanted: &Value) -> Value {
    patch(known, wanted, &|_, _| true)
}

/// The same, but for what `known` says already: for an object that is still as it is known.
#[must_use]
pub fn changing(known: &Value, wanted: &Value) -> Value {
    patch(known, wanted, &|known, wanted| known != Some(wanted))
}

/// Says each field of `wanted` of which `says` is true, given what is known of it.
fn patch(known: &Value, wanted: &Value, says: &dyn Fn(Option<&Value>, &Value) -> bool) -> Value {
    let (Value::Object(known), Value::Object(wanted)) = (known, wanted) else { return wanted.clone() };
    let gone = known.keys().filter(|key| !wanted.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let said = wanted.iter().filter(|(key, value)| says(known.get(*key), value)).map(|(key, value)| {
        let value = known.get(key).map_or_else(|| value.clone(), |known| patch(known, value, says));
        (key.clone(), value)
    });
    Value::Object(gone.chain(said).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_wanted_any_more_is_removed_and_lists_are_replaced() {
        let known = json!({ "a": 1, "b": { "c": 1, "d": 2 }, "list": [1, 2], "scalar": 1 });
        let wanted = json!({ "b": { "d": 3, "e": 4 }, "list": [3], "scalar": { "now": "not" } });
        let patch = json!({
            "a": null, "b": { "c": null, "d": 3, "e": 4 }, "list": [3], "scalar": { "now": "not" },
        });
        assert_eq!(replacing(&known, &wanted), patch);
        assert_eq!(replacing(&json!({}), &wanted), wanted);
    }

    #[test]
    fn what_is_as_it_is_wanted_is_not_said_again() {
        let known =
            json!({ "a": 1, "b": { "c": 1, "d": 2 }, "e": { "f": 1 }, "list": [1, 2], "gone": { "g": 1 } });
        let wanted =
            json!({ "a": 1, "b": { "c": 1, "d": 3 }, "e": { "f": 1 }, "list": [1, 2], "new": { "h": 1 } });
        let patch = json!({ "b": { "d": 3 }, "gone": null, "new": { "h": 1 } });
        assert_eq!(changing(&known, &wanted), patch);
        assert_eq!(changing(&known, &known), json!({}));
    }
}
