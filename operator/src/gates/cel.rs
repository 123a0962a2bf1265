//! Expressions over objects, in CEL.
//!
//! The interpreter knows no bound of its own on what an expression may cost. So expressions are short, comprehensions are not
//! nested deeply, objects are small, and each is evaluated on a thread of its own that is not waited for for ever.

use std::{thread, time::Duration};

use cel::{
    Context as Variables, Program, Value,
    common::ast::{EntryExpr, Expr, IdedExpr},
};
use evenkeel_crds::health_gate::CelGate;
use kube::{ResourceExt as _, api::DynamicObject};
use tokio::{sync::oneshot, time::timeout};

use super::{
    Verdict,
    objects::{Wanted, find},
};
use crate::{api::ApiError, context::Context};

/// Comprehensions (`all`, `exists`, `map`, `filter`) that may be within each other: each multiplies the cost by the length of
/// a list.
const COMPREHENSIONS_MAX: usize = 2;
/// Brackets that may be within each other. The parser follows them by recursion.
const BRACKETS_MAX: usize = 32;
/// Bytes of one object, as JSON: what etcd takes.
const OBJECT_BYTES_MAX: usize = 1_572_864;
/// Time for all objects of a gate.
const TIME: Duration = Duration::from_secs(5);
/// Stack of an evaluation: an expression of 2048 characters may be some thousand steps deep, of a few kB each.
const STACK_BYTES: usize = 64 << 20;

/// Looks at a gate's objects.
pub async fn judge(context: &Context, gate: &CelGate, node: &str) -> Result<Verdict, ApiError> {
    let wanted = Wanted {
        api_version: &gate.api_version,
        kind: &gate.kind,
        namespace: gate.namespace.as_deref(),
        name: gate.name.as_deref(),
        selector: gate.selector.as_ref(),
    };
    match find(context, &wanted).await? {
        Ok(objects) => Ok(evaluate(gate.expression.clone(), objects, node.to_owned()).await),
        Err(verdict) => Ok(verdict),
    }
}

/// Why an expression cannot be used, before there is any object.
pub fn check(expression: &str) -> Result<(), String> {
    let expression = expression.to_owned();
    let compiled = on_a_deep_stack(move || compile(&expression).map(|_| ()));
    compiled.and_then(|thread| thread.join().map_err(|_| "the parser failed on it".to_owned())).flatten()
}

/// Whether an expression holds for each object.
async fn evaluate(expression: String, objects: Vec<DynamicObject>, node: String) -> Verdict {
    let (sender, receiver) = oneshot::channel();
    let thread = on_a_deep_stack(move || {
        // Nobody may be left who waits for it.
        let _ = sender.send(hold(&expression, &objects, &node));
    });
    if let Err(error) = thread {
        return Verdict::Unknown(error);
    }
    match timeout(TIME, receiver).await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(_)) => Verdict::Unknown("the evaluation failed".into()),
        Err(_) => Verdict::Unknown(format!("the expression takes longer than {} s", TIME.as_secs())),
    }
}

fn on_a_deep_stack<T: Send + 'static>(
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<thread::JoinHandle<T>, String> {
    let builder = thread::Builder::new().name("cel".into()).stack_size(STACK_BYTES);
    builder.spawn(run).map_err(|error| format!("no thread for the expression: {error}"))
}

fn hold(expression: &str, objects: &[DynamicObject], node: &str) -> Verdict {
    let program = match compile(expression) {
        Ok(program) => program,
        // No error that passes, and so none that `onError` is asked about.
        Err(why) => return Verdict::NotMet(why),
    };
    for object in objects {
        let name = object.name_any();
        match holds(&program, object, node) {
            Ok(true) => {}
            Ok(false) => return Verdict::NotMet(format!("it does not hold for {name}")),
            Err(why) => return Verdict::Unknown(format!("{name}: {why}")),
        }
    }
    Verdict::Met
}

fn holds(program: &Program, object: &DynamicObject, node: &str) -> Result<bool, String> {
    let mut object = object.clone();
    object.metadata.managed_fields = None;
    let object = serde_json::to_value(&object).map_err(|error| error.to_string())?;
    if object.to_string().len() > OBJECT_BYTES_MAX {
        return Err(format!("the object is larger than {OBJECT_BYTES_MAX} bytes"));
    }
    let mut variables = Variables::default();
    let known = |error: &dyn std::fmt::Display| format!("the object cannot be given to CEL: {error}");
    variables.add_variable("object", whole(object)).map_err(|error| known(&error))?;
    variables.add_variable("node", node).map_err(|error| known(&error))?;
    match program.execute(&variables) {
        Ok(Value::Bool(holds)) => Ok(holds),
        Ok(other) => Err(format!("the expression comes to a {}, not to true or false", other.type_of())),
        Err(error) => {
            Err(format!("{} (`has(object.a.b)` asks whether a field is there)", cut(error.to_string())))
        }
    }
}

/// Numbers of JSON as CEL has them in Kubernetes: what is whole is an `int`, whatever its sign.
fn whole(value: serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(bool) => Value::Bool(bool),
        serde_json::Value::Number(number) => number
            .as_i64()
            .map(Value::Int)
            .or_else(|| number.as_f64().map(Value::Float))
            .unwrap_or(Value::Null),
        serde_json::Value::String(text) => Value::String(text.into()),
        serde_json::Value::Array(list) => Value::List(list.into_iter().map(whole).collect::<Vec<_>>().into()),
        serde_json::Value::Object(map) => {
            let entries = map.into_iter().map(|(key, value)| (key, whole(value)));
            Value::Map(entries.collect::<std::collections::HashMap<String, Value>>().into())
        }
    }
}

/// An error may quote a whole object.
fn cut(mut text: String) -> String {
    if text.len() > 300 {
        text.truncate(text.floor_char_boundary(300));
        text.push('…');
    }
    text
}

fn compile(expression: &str) -> Result<Program, String> {
    let mut open = 0_usize;
    for character in expression.chars() {
        match character {
            '(' | '[' | '{' => open += 1,
            ')' | ']' | '}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > BRACKETS_MAX {
            return Err(format!("more than {BRACKETS_MAX} brackets are within each other"));
        }
    }
    let program =
        Program::compile(expression).map_err(|error| format!("not CEL: {}", cut(error.to_string())))?;
    if comprehensions(program.expression()) > COMPREHENSIONS_MAX {
        return Err(format!(
            "more than {COMPREHENSIONS_MAX} of all, exists, map and filter are within each other"
        ));
    }
    Ok(program)
}

/// How many comprehensions are within each other.
fn comprehensions(expression: &IdedExpr) -> usize {
    let deepest = |parts: &mut dyn Iterator<Item = &IdedExpr>| parts.map(comprehensions).max().unwrap_or(0);
    match &expression.expr {
        Expr::Comprehension(comprehension) => {
            let parts = [
                &comprehension.accu_init,
                &comprehension.loop_cond,
                &comprehension.loop_step,
                &comprehension.result,
            ];
            comprehensions(&comprehension.iter_range).max(1 + deepest(&mut parts.into_iter()))
        }
        Expr::Call(call) => deepest(&mut call.target.iter().map(AsRef::as_ref).chain(&call.args)),
        Expr::List(list) => deepest(&mut list.elements.iter()),
        Expr::Select(select) => comprehensions(&select.operand),
        Expr::Map(map) => map.entries.iter().map(|entry| in_entry(&entry.expr)).max().unwrap_or(0),
        Expr::Struct(built) => built.entries.iter().map(|entry| in_entry(&entry.expr)).max().unwrap_or(0),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => 0,
    }
}

fn in_entry(entry: &EntryExpr) -> usize {
    match entry {
        EntryExpr::StructField(field) => comprehensions(&field.value),
        EntryExpr::MapEntry(entry) => comprehensions(&entry.key).max(comprehensions(&entry.value)),
    }
}

// Values are written where they are handed over.
#[cfg(test)]
#[allow(clippy::needless_pass_by_value)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(status: serde_json::Value) -> DynamicObject {
        let value = json!({
            "apiVersion": "ceph.rook.io/v1", "kind": "CephCluster",
            "metadata": { "name": "rook", "labels": { "a.b/c": "d" } },
            "status": status,
        });
        serde_json::from_value(value).unwrap()
    }

    fn judged(expression: &str, status: serde_json::Value) -> Verdict {
        hold(expression, &[object(status)], "n1")
    }

    #[test]
    fn expressions_hold_or_do_not_or_say_why_not() {
        let met = [
            "object.status.health == 'HEALTH_OK'",
            "has(object.status.health)",
            "!has(object.status.nothing) || object.status.nothing == 1",
            "object.status.osds.all(osd, osd.up)",
            "object.status.osds.filter(osd, osd.up).size() == 2",
            "object.status.free > 10 && object.status.free < 100",
            "object.status.ratio > 0.5",
            "object.metadata.labels['a.b/c'] == 'd'",
            "node == 'n1'",
            "object.status.health.matches('^HEALTH_')",
            "object.status.health in ['HEALTH_OK', 'HEALTH_WARN']",
        ];
        let status = json!({
            "health": "HEALTH_OK", "osds": [{ "up": true }, { "up": true }], "free": 20, "ratio": 0.75,
        });
        for expression in met {
            assert_eq!(check(expression), Ok(()), "{expression}");
            assert_eq!(judged(expression, status.clone()), Verdict::Met, "{expression}");
        }
        let no = judged("object.status.health == 'HEALTH_OK'", json!({ "health": "HEALTH_ERR" }));
        assert_eq!(no, Verdict::NotMet("it does not hold for rook".into()));
    }

    #[test]
    fn a_field_that_is_not_there_is_named_with_the_remedy() {
        let Verdict::Unknown(why) = judged("object.status.health == 'x'", json!({})) else { panic!() };
        assert!(why.contains("rook") && why.contains("health") && why.contains("has("), "{why}");
        let Verdict::Unknown(why) = judged("object.status.free", json!({ "free": 1 })) else { panic!() };
        assert!(why.contains("not to true or false"), "{why}");
    }

    #[test]
    fn what_is_no_expression_or_costs_too_much_is_refused() {
        let deep = format!("{}1{} == 1", "(".repeat(33), ")".repeat(33));
        let nested = "object.a.all(x, object.a.all(y, object.a.exists(z, z == x + y)))";
        for expression in
            ["object.", "a b", "'", "\"\\", "object[", "}{", "1 +", "f(", "\u{0}", "`", deep.as_str(), nested]
        {
            assert!(check(expression).is_err(), "{expression} was taken");
        }
        let two = "object.a.all(x, object.a.exists(y, y == x)) && object.b.all(x, x)";
        assert_eq!(check(two), Ok(()));
    }

    #[test]
    fn long_chains_do_not_use_up_the_stack() {
        for expression in [
            format!("object{}", ".a".repeat(1000)),
            format!("{}true", "!".repeat(2000)),
            format!("{}true", "false||".repeat(280)),
            format!("{}true", "true?true:".repeat(200)),
            format!("{}1 == 1", "-".repeat(2000)),
        ] {
            let _ = check(&expression);
            let _ = judged(&expression, json!({}));
        }
    }

    #[tokio::test]
    async fn an_evaluation_ends_in_time() {
        let list: Vec<i64> = (0..20_000).collect();
        let objects = vec![object(json!({ "a": list }))];
        let expression = "object.status.a.all(x, object.status.a.all(y, x + y >= 0))";
        let verdict = evaluate(expression.into(), objects, "n1".into()).await;
        let Verdict::Unknown(why) = verdict else { panic!("{verdict:?}") };
        assert!(why.contains("takes longer"), "{why}");
    }
}
