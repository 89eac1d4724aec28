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

#[test]
fn template_lets_only_jobs_write_specs() {
    let template: Value = serde_saphyr::from_str(&source::text("template.yaml")).unwrap();
    for function in ["Submit", "Poller", "Webhook", "Deliver", "Jobs"] {
        let role = &template["Resources"][format!("{function}Role")]["Properties"]["Policies"];
        let role = role.to_string();
        let is_denied = role.contains(r#""dynamodb:LeadingKeys":["provider-specs"]"#);
        assert_eq!(is_denied, function != "Jobs", "{function}");
        assert!(!role.contains("GetParametersByPath"), "{function}");
    }
}

/// Otherwise a function would list or poll the shards of another number.
#[test]
fn template_gives_functions_the_same_shards() {
    let template = source::text("template.yaml");
    let settings: Vec<_> = template.lines().filter(|it| it.contains("POLLER_SHARDS:")).collect();
    assert_eq!(settings, ["          POLLER_SHARDS: !Ref PollerShards"; 3]);
}

/// The template always sets the schedule, so the code's default serves tools and tests.
#[test]
fn template_schedule_is_the_default() {
    let template: Value = serde_saphyr::from_str(&source::text("template.yaml")).unwrap();
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
