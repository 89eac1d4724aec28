//! A provider's account: the secret of its callbacks, and its own webhooks.
//!
//! The account is read at submit. Later changes do not affect existing renders.

use std::collections::HashMap;

use serde::Deserialize;

use crate::callback::Destination;
use crate::signature::SigningSecret;

/// A URL that gets the callbacks of all renders of an account.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AccountWebhook {
    /// `None` removes the webhook.
    pub(crate) url: Option<String>,
    /// `None` stands for the account's secret.
    pub(crate) secret: Option<SigningSecret>,
    /// Only renders whose body contains this text. No provider has this filter; it keeps tests on
    /// one simulator apart.
    #[serde(default)]
    pub(crate) tag: String,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ProviderAccount {
    pub(crate) secret: Option<SigningSecret>,
    webhooks: Vec<AccountWebhook>,
}

impl ProviderAccount {
    /// Adds a webhook, or replaces the one with the same tag.
    pub(crate) fn put_webhook(&mut self, webhook: AccountWebhook) {
        self.webhooks.retain(|it| it.tag != webhook.tag);
        self.webhooks.push(webhook);
    }

    /// The account's destinations for a body, the newest last.
    pub(crate) fn destinations(&self, body: &str) -> Vec<Destination> {
        let matching = self.webhooks.iter().filter(|it| body.contains(&it.tag));
        let destination = |webhook: &AccountWebhook| {
            let url = webhook.url.clone()?;
            let secret = webhook.secret.clone().or_else(|| self.secret.clone());
            Some(Destination { url, secret })
        };
        matching.filter_map(destination).collect()
    }
}

/// The accounts: one for each provider.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    by_provider: HashMap<&'static str, ProviderAccount>,
}

impl Accounts {
    pub(crate) fn at(&mut self, provider: &'static str) -> &mut ProviderAccount {
        self.by_provider.entry(provider).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook(json: &str) -> AccountWebhook {
        serde_json::from_str(json).unwrap()
    }

    fn urls(account: &ProviderAccount, body: &str) -> Vec<String> {
        account.destinations(body).into_iter().map(|it| it.url).collect()
    }

    #[test]
    fn webhook_replaces_same_tag() {
        let mut account = ProviderAccount::default();
        account.put_webhook(webhook(r#"{"url":"http://all"}"#));
        account.put_webhook(webhook(r#"{"url":"http://m-1","tag":"m-1"}"#));
        assert_eq!(urls(&account, "with m-1"), ["http://all", "http://m-1"]);
        assert_eq!(urls(&account, "without"), ["http://all"]);

        account.put_webhook(webhook(r#"{"url":null}"#));
        assert_eq!(urls(&account, "with m-1"), ["http://m-1"]);
    }

    #[test]
    fn webhook_falls_back_to_account_secret() {
        let secret = |text: &str| SigningSecret::try_from(text.to_owned()).unwrap();
        let mut account =
            ProviderAccount { secret: Some(secret("ours")), ..ProviderAccount::default() };
        account.put_webhook(webhook(r#"{"url":"http://a"}"#));
        account.put_webhook(webhook(r#"{"url":"http://b","secret":"its","tag":"b"}"#));

        let secrets: Vec<_> =
            account.destinations("b").into_iter().filter_map(|it| it.secret).collect();
        assert_eq!(secrets, [secret("ours"), secret("its")]);
    }
}
