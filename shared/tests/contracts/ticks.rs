//! The template's schedule: a tick for each shard, and the permission to make it.

use serde_json::Value;

use crate::source;

/// Each condition about the number of shards, with the smallest number for which it holds.
const CONDITIONS: [(&str, u64); 5] = [
    ("HasTwoShards", 2),
    ("HasFourShards", 4),
    ("HasEightShards", 8),
    ("HasSixteenShards", 16),
    ("HasThirtyTwoShards", 32),
];

fn template() -> Value {
    serde_saphyr::from_str(&source::text("template.yaml")).unwrap()
}

/// The rules of the schedule: name and resource.
fn rules(template: &Value) -> Vec<(&String, &Value)> {
    let resources = template["Resources"].as_object().unwrap();
    resources.iter().filter(|(_, it)| it["Type"] == "AWS::Events::Rule").collect()
}

/// The smallest number of shards for which a resource or target exists.
fn exists_from(condition: Option<&str>) -> u64 {
    let Some(condition) = condition else { return 1 };
    CONDITIONS.iter().find(|(name, _)| *name == condition).unwrap().1
}

#[test]
fn every_shard_has_one_tick() {
    let template = template();
    let mut ticks: Vec<(u64, u64)> = Vec::new();
    for (name, rule) in rules(&template) {
        let of_rule = exists_from(rule["Condition"].as_str());
        let targets = rule["Properties"]["Targets"].as_array().unwrap();
        // EventBridge takes five targets a rule ("Amazon EventBridge quotas").
        assert!(targets.len() <= 5, "{name}");
        for target in targets {
            let (condition, target) = match target {
                Value::Array(choice) => (choice[0].as_str(), &choice[1]),
                target => (None, target),
            };
            assert_eq!(target["Arn"], "PollerFunction.Arn", "{name}");
            let input: Value = serde_json::from_str(target["Input"].as_str().unwrap()).unwrap();
            ticks.push((input["shard"].as_u64().unwrap(), of_rule.max(exists_from(condition))));
        }
    }
    ticks.sort_unstable();
    let allowed = &template["Parameters"]["PollerShards"]["AllowedValues"];
    let allowed: Vec<u64> = allowed.as_array().unwrap().iter().filter_map(Value::as_u64).collect();
    let expected: Vec<(u64, u64)> = (0..*allowed.iter().max().unwrap())
        .map(|shard| (shard, *allowed.iter().find(|number| **number > shard).unwrap()))
        .collect();
    assert_eq!(ticks, expected);
}

/// By the rule itself, because CloudFormation shortens the names that it makes.
#[test]
fn every_tick_may_call_the_poller() {
    let template = template();
    let permissions = template["Resources"].as_object().unwrap().values();
    let permissions: Vec<&Value> = permissions
        .filter(|it| it["Type"] == "AWS::Lambda::Permission")
        .filter(|it| it["Properties"]["Principal"] == "events.amazonaws.com")
        .collect();
    let rules = rules(&template);
    assert_eq!(permissions.len(), rules.len());
    for (name, rule) in rules {
        let source = format!("{name}.Arn");
        let permission = permissions.iter().find(|it| it["Properties"]["SourceArn"] == source);
        let permission = permission.unwrap_or_else(|| panic!("{name} has no permission"));
        assert_eq!(permission["Properties"]["FunctionName"], "PollerFunction");
        assert_eq!(permission["Condition"], rule["Condition"], "{name}");
    }
}
