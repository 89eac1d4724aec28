//! `relay provider set-webhook-secrets`: stores what a provider signs its callbacks with, if the
//! provider's spec can read it. It uses SSM with the operator's credentials, as for a provider's
//! key.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use aws_sdk_ssm::Client;
use clap::Args;
use domain::id::ProviderName;
use domain::provider::{Catalogue, ProviderSpec};
use domain::verifier::SecretsError;
use serde_json::Value;
use shared::secrets::SecretName;

use crate::api::Api;
use crate::secret_change;

/// The least characters of a secret. What is shorter is a part of one.
const MIN_LENGTH: usize = 8;

#[derive(Args)]
pub(crate) struct SetWebhookSecrets {
    /// The provider, such as `viralsync`.
    #[arg(value_parser = ProviderName::parse)]
    name: ProviderName,
    /// The stack's name. Region and credentials come from the environment, as
    /// `aws configure export-credentials --format env` writes them.
    #[arg(long)]
    stack: String,
    /// The stack's table (its output `TableName`), where it is not found by the stack's name.
    #[arg(long)]
    table: Option<String>,
    /// A file with the secrets, separated by commas while one replaces another. Without it they
    /// are read from the standard input.
    #[arg(long, value_name = "FILE")]
    secrets_file: Option<PathBuf>,
}

/// Runs the command; `print` prints a line. With an API the spec in force in the stack decides,
/// and else the shipped one.
pub(crate) fn run(
    command: &SetWebhookSecrets,
    api: Option<&Api>,
    print: impl Fn(String),
) -> Result<()> {
    let name = &command.name;
    let shown = api.map(|api| api.get(&["v1", "providers", name.as_str()], &[])).transpose()?;
    let spec = spec(name, shown.as_ref())?;
    let text = match &command.secrets_file {
        Some(file) => crate::read(file)?,
        None => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read the secrets")?;
            text
        }
    };
    let secrets = checked(&spec, &text)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    runtime.block_on(async {
        let config = shared::aws::config().context("cannot find AWS credentials and a region")?;
        let version = store(&Client::new(&config), command, &secrets, &print).await?;
        let of_stack = (command.stack.as_str(), command.table.as_deref());
        print(secret_change::tell(&config, of_stack, &secret(command), version).await);
        Ok(())
    })
}

fn spec(name: &ProviderName, shown: Option<&Value>) -> Result<ProviderSpec> {
    let spec = match shown.and_then(|it| it.get("spec")).filter(|spec| !spec.is_null()) {
        Some(spec) => spec.to_string(),
        None => Catalogue::shipped(name)
            .with_context(|| {
                format!("{name} is not shipped; give --url, so that its spec is known")
            })?
            .to_owned(),
    };
    ProviderSpec::parse(name.as_str(), &spec).map_err(|error| anyhow!("{error}"))
}

/// The secrets as they are stored. A refusal says what is expected, and nothing of the text.
fn checked(spec: &ProviderSpec, text: &str) -> Result<String> {
    let name = &spec.name;
    let scheme = spec.webhook.as_ref().and_then(|webhook| webhook.signature.as_ref());
    let scheme = scheme.with_context(|| {
        format!("the spec of {name} has no signature: its callbacks are confirmed by asking")
    })?;
    let secrets: Vec<&str> = text.split(',').map(str::trim).collect();
    let expected = "expected is the secret alone, as the provider's console shows it, or several \
                    separated by commas";
    scheme.parse_secrets(text).map_err(|error| match error {
        SecretsError::Version => anyhow!(
            "the secrets begin with a version, as in `v1,whsec_…`: leave out what is before \
             `whsec_`; {expected}"
        ),
        error => anyhow!("{error}; {expected}"),
    })?;
    if secrets
        .iter()
        .any(|secret| secret.contains(|it: char| it.is_whitespace() || it.is_control()))
    {
        bail!("a secret has white space within; {expected}");
    }
    if secrets.iter().any(|secret| secret.starts_with(['"', '\'', '`'])) {
        bail!("a secret begins with a quotation mark; {expected}, without quotation marks");
    }
    if secrets.iter().any(|secret| secret.chars().count() < MIN_LENGTH) {
        bail!("a secret is shorter than {MIN_LENGTH} characters; {expected}");
    }
    Ok(secrets.join(","))
}

async fn store(
    client: &Client,
    command: &SetWebhookSecrets,
    secrets: &str,
    print: &impl Fn(String),
) -> Result<i64> {
    let version = secret_change::put(client, &command.stack, &secret(command), secrets).await?;
    let parameter = secret_change::parameter(&command.stack, &secret(command));
    print(format!("{parameter}: {} in force", secrets.split(',').count()));
    Ok(version)
}

fn secret(command: &SetWebhookSecrets) -> SecretName {
    SecretName::ProviderWebhookSecrets(command.name.clone())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use aws_in_memory::InMemoryAws;

    use super::*;

    fn shipped(name: &str) -> ProviderSpec {
        spec(&ProviderName::parse(name).unwrap(), None).unwrap()
    }

    fn result(name: &str, text: &str) -> Result<String, String> {
        checked(&shipped(name), text).map_err(|error| error.to_string())
    }

    #[test]
    fn secrets_are_taken_as_pasted() {
        assert_eq!(result("viralsync", " vs_secret_1\r\n").as_deref(), Ok("vs_secret_1"));
        assert_eq!(
            result("viralsync", "vs_secret_1,\n vs_secret_2").as_deref(),
            Ok("vs_secret_1,vs_secret_2")
        );
        let whsec = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        assert_eq!(result("replicate", whsec).as_deref(), Ok(whsec));
    }

    #[test]
    fn secrets_malformed_are_refused_unseen() {
        for (name, text, said) in [
            ("viralsync", "v1,whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "leave out"),
            ("replicate", "v1,whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "leave out"),
            ("replicate", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "begins with `whsec_`"),
            ("replicate", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "base64"),
            ("viralsync", "", "empty"),
            ("viralsync", " \n", "empty"),
            ("viralsync", "MfKQ9r8GKYq,", "empty"),
            ("viralsync", "MfKQ9r8G KYqrTwjU", "white space"),
            ("viralsync", "MfKQ9r8G\nKYqrTwjU", "white space"),
            ("viralsync", "\"MfKQ9r8GKYqrTwjU\"", "quotation mark"),
            ("viralsync", "MfKQ9r", "shorter than 8"),
            ("shotstack", "MfKQ9r8GKYqrTwjU", "no signature"),
        ] {
            let refusal = result(name, text).unwrap_err();
            assert!(refusal.contains(said), "{text}: {refusal}");
            assert!(!refusal.contains("MfKQ9r"), "{refusal}");
        }
        let unknown = spec(&ProviderName::parse("acme").unwrap(), None).unwrap_err().to_string();
        assert!(unknown.contains("--url"), "{unknown}");
    }

    #[tokio::test]
    async fn secrets_are_stored_unseen() {
        let aws = InMemoryAws::new(&[("providers/viralsync/webhook-secrets", "before")]);
        let command = SetWebhookSecrets {
            name: ProviderName::parse("viralsync").unwrap(),
            stack: "test".into(),
            table: None,
            secrets_file: None,
        };
        let printed = RefCell::new(Vec::new());
        let print = |line| printed.borrow_mut().push(line);
        store(&Client::new(&aws.config()), &command, "vs_1,vs_2", &print).await.unwrap();
        let stored = aws.parameter("providers/viralsync/webhook-secrets");
        assert_eq!(stored.as_deref(), Some("vs_1,vs_2"));
        let printed = printed.into_inner().join("\n");
        assert!(printed.contains("2 in force") && !printed.contains("vs_1"), "{printed}");
    }
}
