//! Which functions can be reached from their own messages, by the template's permissions and event
//! sources. Lambda stops such a function after about 16 hops unless it is allowed to recurse
//! (Lambda developer guide, "Use Lambda recursive loop detection to prevent infinite loops").

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::source;

/// Edges from a resource to those that what it sends can reach next.
type Paths = BTreeMap<String, BTreeSet<String>>;

/// The properties and the type of each resource.
fn resources(template: &Value) -> BTreeMap<&str, (&str, &Map<String, Value>)> {
    let resources = template["Resources"].as_object().unwrap();
    let described = resources.iter().map(|(name, resource)| {
        let properties = resource["Properties"].as_object().unwrap();
        (name.as_str(), (resource["Type"].as_str().unwrap(), properties))
    });
    described.collect()
}

/// All texts within a value, those of its intrinsic functions included.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(elements) => elements.iter().flat_map(texts).collect(),
        Value::Object(members) => members.values().flat_map(texts).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}

/// The resources among `all` that a value names, by `!Ref`, `!GetAtt` or within `!Sub`; all of
/// them for `*`.
fn named<'a>(value: &Value, all: &[&'a str]) -> BTreeSet<&'a str> {
    let words = texts(value)
        .into_iter()
        .flat_map(|text| text.split(|it: char| !it.is_ascii_alphanumeric() && it != '*'));
    words
        .flat_map(|word| all.iter().copied().filter(move |name| word == *name || word == "*"))
        .collect()
}

/// Whether a policy statement allows one of these actions.
fn allows(statement: &Value, actions: &[&str]) -> bool {
    let is_allowed = |action: &str| actions.contains(&action) || action == "*";
    statement["Effect"] == "Allow" && texts(&statement["Action"]).into_iter().any(is_allowed)
}

fn paths(template: &Value) -> Paths {
    let resources = resources(template);
    let of_kind = |kind: &str| {
        let found = resources.iter().filter(|(_, (theirs, _))| *theirs == kind);
        found.map(|(name, _)| *name).collect::<Vec<_>>()
    };
    let (queues, functions) = (of_kind("AWS::SQS::Queue"), of_kind("AWS::Serverless::Function"));
    let mut paths = Paths::new();
    let mut join = |from: &str, to: BTreeSet<&str>| {
        let to = to.into_iter().map(str::to_owned);
        paths.entry(from.to_owned()).or_default().extend(to);
    };
    for (name, (kind, properties)) in &resources {
        match *kind {
            "AWS::Serverless::Function" => {
                let role = texts(&properties["Role"])[0].split('.').next().unwrap();
                for policy in resources[role].1["Policies"].as_array().unwrap() {
                    let document = policy.get("PolicyDocument");
                    // A policy that depends on a condition.
                    let document = document.or_else(|| policy.get(1)?.get("PolicyDocument"));
                    for statement in document.unwrap()["Statement"].as_array().unwrap() {
                        if allows(statement, &["sqs:SendMessage", "sqs:*"]) {
                            join(name, named(&statement["Resource"], &queues));
                        }
                        let invokes = ["lambda:InvokeFunction", "lambda:InvokeAsync", "lambda:*"];
                        if allows(statement, &invokes) {
                            join(name, named(&statement["Resource"], &functions));
                        }
                    }
                }
                for event in properties.get("Events").iter().flat_map(|it| it.as_object().unwrap())
                {
                    for queue in named(&event.1["Properties"]["Queue"], &queues) {
                        join(queue, BTreeSet::from([*name]));
                    }
                }
            }
            // Dead letters are moved on, and back again.
            "AWS::SQS::Queue" => {
                for dead in properties.get("RedrivePolicy").iter().flat_map(|it| named(it, &queues))
                {
                    join(name, BTreeSet::from([dead]));
                    join(dead, BTreeSet::from([*name]));
                }
            }
            _ => {}
        }
    }
    paths
}

/// Whether what `from` sends can come back to it.
fn reaches_itself(from: &str, paths: &Paths) -> bool {
    let next = |at: &str| paths.get(at).into_iter().flatten().cloned();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut open: Vec<String> = next(from).collect();
    while let Some(at) = open.pop() {
        open.extend(next(&at).filter(|to| !seen.contains(to)));
        seen.insert(at);
    }
    seen.contains(from)
}

#[test]
fn template_allows_recursion_exactly_where_needed() {
    let template: Value = serde_saphyr::from_str(&source::text("template.yaml")).unwrap();
    let paths = paths(&template);
    let mut recursive = Vec::new();
    for (name, (kind, properties)) in resources(&template) {
        if kind != "AWS::Serverless::Function" {
            continue;
        }
        let allowed = properties.get("RecursiveLoop").and_then(Value::as_str);
        let expected = reaches_itself(name, &paths).then_some("Allow");
        assert_eq!(allowed, expected, "RecursiveLoop of {name}");
        recursive.extend(expected.map(|_| name));
    }
    // The test itself finds the two loops that there are by design.
    assert_eq!(recursive, ["DeliverFunction", "PollerFunction"]);
}
