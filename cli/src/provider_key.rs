//! `relay provider set-key`: stores a provider's key together with the hosts that it may be sent
//! to.
//!
//! It uses SSM with the operator's credentials, and not the stack's API: an API key that may
//! change a spec must not decide where a provider's key goes.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use aws_sdk_ssm::Client;
use clap::Args;
use domain::id::ProviderName;
use domain::provider::key::KeyHost;
use domain::provider::{Catalogue, ProviderKey, ProviderSpec};
use serde_json::Value;
use shared::secrets::SecretName;

use crate::api::Api;
use crate::secret_change;

#[derive(Args)]
pub(crate) struct SetKey {
    /// The provider, such as `shotstack`.
    #[arg(value_parser = ProviderName::parse)]
    name: ProviderName,
    /// The stack's name. Region and credentials come from the environment, as
    /// `aws configure export-credentials --format env` writes them.
    #[arg(long)]
    stack: String,
    /// A host that the key may be sent to, such as `api.shotstack.io`; by default those of the
    /// provider's spec. With `--url` that is the spec in force in the stack.
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// Take the hosts of a spec that was put through the API.
    #[arg(long)]
    yes: bool,
    /// The stack's table (its output `TableName`), where it is not found by the stack's name.
    #[arg(long)]
    table: Option<String>,
    /// A file with the key. Without it the key is read from the standard input.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// Runs the command; `print` prints a line.
pub(crate) fn run(command: &SetKey, api: Option<&Api>, print: impl Fn(String)) -> Result<()> {
    let shown = match (command.host.is_empty(), api) {
        (true, Some(api)) => Some(api.get(&["v1", "providers", command.name.as_str()], &[])?),
        (true, None) | (false, _) => None,
    };
    let hosts = hosts(command, shown.as_ref())?;
    let key = match &command.key_file {
        Some(file) => crate::read(file)?,
        None => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read the key")?;
            text
        }
    };
    let key = ProviderKey::new(&key, hosts)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    runtime.block_on(async {
        let config = shared::aws::config().context("cannot find AWS credentials and a region")?;
        let version = store(&Client::new(&config), command, &key, &print).await?;
        let of_stack = (command.stack.as_str(), command.table.as_deref());
        print(secret_change::tell(&config, of_stack, &secret(command), version).await);
        Ok(())
    })
}

/// The hosts that were given, or those of the spec: the one that the API showed, or else the
/// shipped one.
fn hosts(command: &SetKey, shown: Option<&Value>) -> Result<Vec<KeyHost>> {
    if !command.host.is_empty() {
        let hosts = command.host.iter();
        let hosts = hosts.map(|host| {
            KeyHost::parse(host).map_err(|reason| anyhow::anyhow!("--host {host}: it {reason}"))
        });
        return hosts.collect();
    }
    let name = &command.name;
    // One that is not in force sends no request, so it has no say in where a key goes.
    let in_force = shown.filter(|it| it.get("inForce").and_then(Value::as_bool) == Some(true));
    let is_stored =
        in_force.and_then(|it| it.get("origin")).and_then(Value::as_str) == Some("stored");
    let spec = match in_force.and_then(|it| it.get("spec")).filter(|spec| !spec.is_null()) {
        Some(spec) => spec.to_string(),
        None => Catalogue::shipped(name)
            .with_context(|| match shown {
                Some(_) => {
                    format!("the spec of {name} is not in force; name its hosts with --host")
                }
                None => format!("{name} is not shipped; name its hosts with --host, or give --url"),
            })?
            .to_owned(),
    };
    let spec = ProviderSpec::parse(name.as_str(), &spec)
        .map_err(|error| anyhow::anyhow!("{error}; name the hosts with --host"))?;
    let mut hosts: Vec<KeyHost> = Vec::new();
    for url in spec.base_urls.values() {
        let host = KeyHost::of(url).with_context(|| format!("{url} has no host"))?;
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    // The stack may send requests to another host than the spec says.
    let used = shown.and_then(|it| it.get("keyHost")).and_then(Value::as_str);
    if let Some(used) = used {
        let used = KeyHost::parse(used).map_err(|reason| anyhow::anyhow!("{used}: it {reason}"))?;
        if !hosts.contains(&used) {
            hosts.push(used);
        }
    }
    if is_stored && !command.yes {
        bail!(
            "the spec of {name} was put through the API, and sends requests to {}. If these \
             hosts are the provider's, repeat the command with --yes",
            listed(&hosts)
        );
    }
    Ok(hosts)
}

async fn store(
    client: &Client,
    command: &SetKey,
    key: &ProviderKey,
    print: &impl Fn(String),
) -> Result<i64> {
    let parameter = secret_change::parameter(&command.stack, &secret(command));
    print(format!("{parameter}: a key that may be sent to {}", listed(key.hosts())));
    secret_change::put(client, &command.stack, &secret(command), &key.reveal()).await
}

fn secret(command: &SetKey) -> SecretName {
    SecretName::ProviderKey(command.name.clone())
}

pub(crate) fn listed(hosts: &[KeyHost]) -> String {
    hosts.iter().map(KeyHost::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use aws_in_memory::InMemoryAws;
    use serde_json::json;

    use super::*;

    fn command(name: &str, host: &[&str], yes: bool) -> SetKey {
        SetKey {
            name: ProviderName::parse(name).unwrap(),
            stack: "test".into(),
            host: host.iter().map(|&host| host.to_owned()).collect(),
            yes,
            table: None,
            key_file: None,
        }
    }

    fn chosen(command: &SetKey, shown: Option<&Value>) -> Result<String, String> {
        hosts(command, shown).map(|hosts| listed(&hosts)).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn provider_key_is_stored_with_its_hosts() {
        let aws = InMemoryAws::new(&[]);
        let client = Client::new(&aws.config());
        let key = ProviderKey::new("k-4242\n", vec![KeyHost::parse("API.acme.example").unwrap()]);
        let printed = RefCell::new(Vec::new());
        let print = |line| printed.borrow_mut().push(line);
        let command = command("acme", &[], false);
        let version = store(&client, &command, &key.unwrap(), &print).await;
        assert_eq!(version.unwrap(), 1);
        let stored = aws.parameter("providers/acme/api-key");
        assert_eq!(stored.as_deref(), Some(r#"{"hosts":["api.acme.example"],"key":"k-4242"}"#));
        let printed = printed.into_inner().join("\n");
        assert!(printed.contains("api.acme.example") && !printed.contains("4242"), "{printed}");
    }

    #[test]
    fn key_hosts_are_given_or_shipped() {
        let shotstack = command("shotstack", &[], false);
        assert_eq!(chosen(&shotstack, None).as_deref(), Ok("api.shotstack.io"));
        let given = command("shotstack", &["a.example", "*.b.example:8443"], false);
        assert_eq!(chosen(&given, None).as_deref(), Ok("a.example, *.b.example:8443"));
        let wrong = chosen(&command("shotstack", &["https://a.example"], false), None);
        assert!(wrong.unwrap_err().starts_with("--host https://a.example: it is not a host"));
        let unknown = chosen(&command("acme", &[], false), None).unwrap_err();
        assert!(unknown.contains("--host"), "{unknown}");
    }

    /// An API key alone must not bring an operator to send a key elsewhere.
    #[test]
    fn key_hosts_of_stored_spec_need_consent() {
        let spec = Catalogue::shipped(&ProviderName::parse("shotstack").unwrap()).unwrap();
        let spec = spec.replace("https://api.shotstack.io", "https://evil.example");
        let spec: Value = serde_json::from_str(&spec).unwrap();
        let shown = json!({"origin": "stored", "inForce": true, "spec": spec});
        let refused = chosen(&command("shotstack", &[], false), Some(&shown)).unwrap_err();
        assert!(refused.contains("evil.example") && refused.contains("--yes"), "{refused}");
        let agreed = chosen(&command("shotstack", &[], true), Some(&shown));
        assert_eq!(agreed.as_deref(), Ok("evil.example"));
        let shipped = json!({"origin": "shipped", "inForce": true, "spec": spec});
        assert!(chosen(&command("shotstack", &[], false), Some(&shipped)).is_ok());
    }

    #[test]
    fn key_hosts_are_of_spec_in_force() {
        let spec = Catalogue::shipped(&ProviderName::parse("shotstack").unwrap()).unwrap();
        let spec = spec.replace("https://api.shotstack.io", "https://wrong.example");
        let spec: Value = serde_json::from_str(&spec).unwrap();
        for spec in [spec, Value::Null] {
            let shown = json!({
                "origin": "stored", "inForce": false, "spec": spec, "keyHost": "api.shotstack.io",
            });
            let shotstack = command("shotstack", &[], false);
            assert_eq!(chosen(&shotstack, Some(&shown)).as_deref(), Ok("api.shotstack.io"));
            let unused =
                json!({"origin": "stored", "inForce": false, "spec": spec, "keyHost": null});
            let refused = chosen(&command("acme", &[], true), Some(&unused)).unwrap_err();
            assert!(refused.contains("not in force") && refused.contains("--host"), "{refused}");
        }
    }

    #[test]
    fn key_hosts_contain_the_one_used() {
        let spec = Catalogue::shipped(&ProviderName::parse("shotstack").unwrap()).unwrap();
        let spec: Value = serde_json::from_str(spec).unwrap();
        let shown = json!({
            "origin": "shipped", "inForce": true, "spec": spec, "keyHost": "proxy.example:8443",
        });
        let hosts = chosen(&command("shotstack", &[], false), Some(&shown));
        assert_eq!(hosts.as_deref(), Ok("api.shotstack.io, proxy.example:8443"));
        let stored = json!({
            "origin": "stored", "inForce": true, "spec": spec, "keyHost": "proxy.example:8443",
        });
        let refused = chosen(&command("shotstack", &[], false), Some(&stored)).unwrap_err();
        assert!(refused.contains("proxy.example:8443") && refused.contains("--yes"), "{refused}");
    }
}
