//! The template's settings for receivers, and the target policy that the functions make of them.

use std::process::Command;

use domain::address::{PrivateHosts, PrivateNetworks, ReceiverPorts, TargetPolicy};
use domain::retry::DeliverySchedule;
use serde_json::Value;
use shared::setup;

use crate::source;

/// Each environment variable, with the template's parameter for it.
const SETTINGS: [(&str, &str); 5] = [
    ("RECEIVER_PORTS", "ReceiverPorts"),
    ("ALLOW_HTTP_RECEIVERS", "AllowHttpReceivers"),
    ("PRIVATE_RECEIVER_NETWORKS", "PrivateReceiverNetworks"),
    ("PRIVATE_RECEIVER_HOSTS", "PrivateReceiverHosts"),
    ("ALLOW_INSECURE_TARGETS", "AllowInsecureTargets"),
];

/// Otherwise a URL could be accepted by one function and never be posted to by another.
#[test]
fn template_gives_functions_the_same_policy() {
    let template = source::text("template.yaml");
    for function in ["Submit", "Deliver", "Jobs"] {
        let resource = source::between(
            &template,
            &format!("\n  {function}Function:\n"),
            &format!("\n  {function}Role:\n"),
        );
        let [resource] = resource[..] else { panic!("{function}: {}", resource.len()) };
        for (variable, parameter) in SETTINGS {
            let line = format!("          {variable}: !Ref {parameter}\n");
            assert!(resource.contains(&line), "{function} does not get {variable}");
        }
    }
}

/// Otherwise a spec could be taken by one function and be left out by another.
#[test]
fn template_gives_functions_the_same_providers() {
    let template = source::text("template.yaml");
    for function in ["Submit", "Poller", "Webhook", "Jobs"] {
        let resource = source::between(
            &template,
            &format!("\n  {function}Function:\n"),
            &format!("\n  {function}Role:\n"),
        );
        let [resource] = resource[..] else { panic!("{function}: {}", resource.len()) };
        for (variable, parameter) in [
            ("PROVIDER_BASE_URLS", "ProviderBaseUrls"),
            ("PROVIDER_ENVIRONMENTS", "ProviderEnvironments"),
            ("PRIVATE_PROVIDER_HOSTS", "PrivateProviderHosts"),
            ("ALLOW_INSECURE_TARGETS", "AllowInsecureTargets"),
        ] {
            let line = format!("          {variable}: !Ref {parameter}\n");
            assert!(resource.contains(&line), "{function} does not get {variable}");
        }
    }
}

/// Otherwise a function would list or poll the shards of another number.
#[test]
fn template_gives_functions_the_same_shards() {
    let template = source::text("template.yaml");
    let settings: Vec<_> = template.lines().filter(|it| it.contains("POLLER_SHARDS:")).collect();
    assert_eq!(settings, ["          POLLER_SHARDS: !Ref PollerShards"; 3]);
}

fn template() -> Value {
    serde_saphyr::from_str(&source::text("template.yaml")).unwrap()
}

/// The resources of a type, by their logical id.
fn resources<'a>(template: &'a Value, kind: &str) -> Vec<(&'a str, &'a Value)> {
    let resources = template["Resources"].as_object().unwrap().iter();
    let resources = resources.filter(|(_, resource)| resource["Type"] == kind);
    resources.map(|(id, resource)| (id.as_str(), &resource["Properties"])).collect()
}

/// Otherwise callers could use up the throttle of a provider's callbacks.
#[test]
fn callback_routes_have_limits_of_their_own() {
    let template = template();
    let routes = resources(&template, "AWS::ApiGatewayV2::Route");
    let callbacks: Vec<_> = routes
        .into_iter()
        .filter(|(_, route)| route["Target"].as_str().unwrap().contains("{WebhookIntegration}"))
        .collect();
    let stage = &template["Resources"]["ApiStage"];
    let limits = stage["Properties"]["RouteSettings"].as_object().unwrap();
    assert_eq!(limits.len(), callbacks.len());
    for (id, route) in &callbacks {
        let own = &limits[route["RouteKey"].as_str().unwrap()];
        assert_eq!(own["ThrottlingRateLimit"], "CallbackRateLimit", "{id}");
        assert_eq!(own["ThrottlingBurstLimit"], "CallbackBurstLimit", "{id}");
        let depends_on = stage["DependsOn"].as_array().unwrap();
        assert!(depends_on.contains(&Value::from(*id)), "{id} exists before its limits");
    }
    let default = |parameter: &str| template["Parameters"][parameter]["Default"].as_u64().unwrap();
    assert!(!callbacks.is_empty() && default("CallbackRateLimit") > default("ApiRateLimit"));
    assert!(default("CallbackBurstLimit") > default("ApiBurstLimit"));
}

/// Names and defaults; a text that is too long for the table ends in `…` there.
#[test]
fn readme_lists_the_parameters() {
    let (template, readme) = (template(), source::text("README.md"));
    let [table] = source::between(&readme, "## Configuration\n", "\n\nReceivers are https")[..]
    else {
        panic!("it has one such table")
    };
    let mut listed: Vec<(String, String)> = Vec::new();
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let names = cells[1].split(", ").map(|name| name.trim_matches('`').to_owned());
        let names: Vec<String> = names.collect();
        let default = cells[2].trim_matches('`');
        // Several parameters share a row, and their defaults its cell.
        let several: Vec<&str> = default.split(", ").collect();
        for (number, name) in names.iter().enumerate() {
            let own = if several.len() == names.len() { several[number] } else { default };
            listed.push((name.clone(), own.to_owned()));
        }
    }
    listed.sort();
    let parameters = template["Parameters"].as_object().unwrap();
    let names: Vec<&String> = listed.iter().map(|(name, _)| name).collect();
    let mut expected: Vec<&String> = parameters.keys().collect();
    expected.sort();
    assert_eq!(names, expected);
    for (name, shown) in &listed {
        let default = match &parameters[name]["Default"] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match shown.strip_suffix('…') {
            Some(beginning) => assert!(default.starts_with(beginning), "{name}: {default}"),
            // For local use only, and not shown.
            None if name == "AllowInsecureTargets" => {}
            None => assert_eq!(*shown, default, "{name}"),
        }
    }
}

/// The document calculates with what the template says.
#[test]
fn scaling_document_matches_the_template() {
    let (template, document) = (template(), source::text("docs/scaling.md"));
    let [section] = source::between(&document, "## What the template says\n", "\n## ")[..] else {
        panic!("it has one such section")
    };
    let rows: Vec<Vec<&str>> = section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.split('|').map(|cell| cell.trim().trim_matches('`')).collect())
        .collect();
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        let [_, place, value, ..] = row[..] else { panic!("{row:?}") };
        let found = template.pointer(&format!("/{place}")).unwrap_or(&Value::Null);
        let found = match found {
            Value::Array(items) => {
                items.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")
            }
            other => other.to_string(),
        };
        assert_eq!(found, value, "{place}");
    }
}

/// The template always sets the schedule, so the code's default serves tools and tests.
#[test]
fn template_schedule_is_the_default() {
    let template = template();
    let schedule = &template["Parameters"]["DeliverySchedule"]["Default"];
    assert_eq!(schedule, &DeliverySchedule::default().to_string());
}

/// The next tests run this test in a process of its own, with other settings. Without settings,
/// the policy allows public receivers only.
#[test]
fn target_policy_is_read() {
    match setup::target_policy() {
        Ok(policy) => println!("read: {policy:?}"),
        Err(error) => panic!("refused: {error}"),
    }
}

fn read_with(settings: &[(&str, &str)]) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    for (variable, _) in SETTINGS {
        child.env_remove(variable);
    }
    let output = child
        .args(["--exact", "settings::target_policy_is_read", "--nocapture"])
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn target_policy_follows_the_settings() {
    let opened = TargetPolicy::public()
        .with_ports(ReceiverPorts::parse("443,8443").unwrap())
        .with_private_networks(PrivateNetworks::parse("10.20.0.0/16").unwrap())
        .with_private_hosts(PrivateHosts::parse("*.internal").unwrap())
        .with_plain_http();
    for (settings, policy) in [
        (&[][..], TargetPolicy::public()),
        (
            &[
                ("RECEIVER_PORTS", "443,8443"),
                ("ALLOW_HTTP_RECEIVERS", "true"),
                ("PRIVATE_RECEIVER_NETWORKS", "10.20.0.0/16"),
                ("PRIVATE_RECEIVER_HOSTS", "*.internal"),
            ],
            opened,
        ),
        (&[("ALLOW_INSECURE_TARGETS", "true")], TargetPolicy::local_use()),
        // The template passes an unset list as an empty text.
        (
            &[("PRIVATE_RECEIVER_NETWORKS", ""), ("PRIVATE_RECEIVER_HOSTS", "")],
            TargetPolicy::public(),
        ),
    ] {
        let output = read_with(settings);
        assert!(output.contains(&format!("read: {policy:?}\n")), "{settings:?}: {output}");
    }
}

#[test]
fn setting_invalid_is_refused_by_name() {
    for (variable, value, problem) in [
        ("RECEIVER_PORTS", "443,https", "`https` is not a port; a list is like 443,8443"),
        ("ALLOW_HTTP_RECEIVERS", "yes", "`yes` is neither true nor false"),
        (
            "PRIVATE_RECEIVER_NETWORKS",
            "10.1.2.3/8",
            "`10.1.2.3/8` names a host within its network; the network is 10.0.0.0/8",
        ),
        (
            "PRIVATE_RECEIVER_HOSTS",
            "*.com",
            "`*.com` is not specific enough; name a host below a domain of your own",
        ),
        ("ALLOW_INSECURE_TARGETS", "1", "`1` is neither true nor false"),
    ] {
        let output = read_with(&[(variable, value)]);
        let refused = format!("refused: the environment variable {variable} is wrong: {problem}\n");
        assert!(output.contains(&refused), "{variable}: {output}");
    }
}
