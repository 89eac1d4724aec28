//! The roles of `template.yaml`: what keeps a function from letting itself in.

use serde_json::{Value, json};

use crate::source;

const FUNCTIONS: [&str; 5] = ["Submit", "Poller", "Webhook", "Deliver", "Jobs"];

/// A role's statements about the table itself.
fn statements(function: &str) -> Vec<Value> {
    let template: Value = serde_saphyr::from_str(&source::text("template.yaml")).unwrap();
    let role = &template["Resources"][format!("{function}Role")]["Properties"];
    let document = &role["Policies"][0]["PolicyDocument"]["Statement"];
    let all = document.as_array().unwrap().iter().cloned();
    all.filter(|statement| statement["Resource"] == "Table.Arn").collect()
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
