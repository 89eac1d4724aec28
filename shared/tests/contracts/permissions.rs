//! The roles of `template.yaml`: what keeps a function from letting itself in.

use serde_json::{Value, json};

use crate::source;

const FUNCTIONS: [&str; 5] = ["Submit", "Poller", "Webhook", "Deliver", "Jobs"];

fn role(function: &str) -> Value {
    let template: Value = serde_saphyr::from_str(&source::text("template.yaml")).unwrap();
    template["Resources"][format!("{function}Role")]["Properties"].clone()
}

/// The statements in a part of a role, also those of a choice by a condition.
fn statements_in(part: &Value) -> Vec<Value> {
    match part {
        Value::Object(members) if members.contains_key("Action") => vec![part.clone()],
        Value::Object(members) => members.values().flat_map(statements_in).collect(),
        Value::Array(elements) => elements.iter().flat_map(statements_in).collect(),
        _ => Vec::new(),
    }
}

/// A role's statements about the table itself.
fn statements(function: &str) -> Vec<Value> {
    let mut about = statements_in(&role(function)["Policies"]);
    about.retain(|statement| match &statement["Resource"] {
        Value::Array(several) => several.iter().any(|one| one == "Table.Arn"),
        one => one == "Table.Arn",
    });
    about
}

fn names(statement: &Value, action: &str) -> bool {
    match &statement["Action"] {
        Value::Array(actions) => actions.iter().any(|named| named == action),
        one => one == action,
    }
}

/// The conditions, by effect, under which a role may do something to the table.
fn conditions(function: &str, effect: &str, action: &str) -> Vec<Value> {
    let all = statements(function).into_iter();
    let about = all.filter(|it| it["Effect"] == effect && names(it, action));
    about.map(|statement| statement["Condition"].clone()).collect()
}

#[test]
fn permissions_are_named_one_by_one() {
    for function in FUNCTIONS {
        let role = role(function);
        assert_eq!(role["ManagedPolicyArns"], Value::Null, "{function}");
        let statements = statements_in(&role["Policies"]);
        assert!(statements.len() >= 5, "{function}");
        for statement in statements {
            assert_eq!(statement["NotAction"], Value::Null, "{function}: {statement}");
            assert!(!statement["Action"].to_string().contains('*'), "{function}: {statement}");
        }
        let scans = conditions(function, "Allow", "dynamodb:Scan");
        let queries = conditions(function, "Allow", "dynamodb:Query");
        match function {
            "Jobs" => assert_eq!(scans, [Value::Null]),
            _ => assert!(scans.is_empty(), "{function} scans"),
        }
        let api_keys = json!({"dynamodb:LeadingKeys": ["api-keys"]});
        match function {
            "Submit" => assert_eq!(queries, [json!({"ForAllValues:StringEquals": api_keys})]),
            "Jobs" => assert_eq!(queries, [Value::Null]),
            _ => assert!(queries.is_empty(), "{function} queries the table"),
        }
    }
}

#[test]
fn keys_specs_and_configuration_are_of_jobs() {
    let leading = |items: &[&str]| json!({"dynamodb:LeadingKeys": items});
    let all_are_keys = json!({"ForAllValues:StringEquals": leading(&["api-keys"])});
    let of_jobs = &["api-keys", "provider-specs", "config"];
    let all_are_configuration = json!({"ForAllValues:StringEquals": leading(&["config"])});
    let all_are_secrets = json!({"ForAllValues:StringEquals": leading(&["secrets"])});
    let any_is_of_jobs = json!({"ForAnyValue:StringEquals": leading(of_jobs)});
    for function in FUNCTIONS {
        let may_put = conditions(function, "Allow", "dynamodb:PutItem");
        assert_eq!(may_put, [Value::Null], "{function} puts its own items");
        let denied = conditions(function, "Deny", "dynamodb:PutItem");
        let deletes = conditions(function, "Allow", "dynamodb:DeleteItem");
        // For `TransactWriteItems`, which is the sum of its parts.
        let checks = conditions(function, "Allow", "dynamodb:ConditionCheckItem");
        if function == "Jobs" {
            assert_eq!((denied, deletes), (vec![], vec![all_are_keys.clone()]));
            assert_eq!(checks, [all_are_keys.clone(), all_are_configuration.clone()]);
        } else {
            assert_eq!((denied, deletes), (vec![any_is_of_jobs.clone()], vec![]), "{function}");
            assert_eq!(checks, [Value::Null; 0], "{function}");
        }
        // The changes of secrets, and the turns to read them.
        let updates = conditions(function, "Allow", "dynamodb:UpdateItem");
        assert_eq!(updates, std::slice::from_ref(&all_are_secrets), "{function}");
        assert!(conditions(function, "Allow", "dynamodb:BatchWriteItem").is_empty(), "{function}");
    }
}
