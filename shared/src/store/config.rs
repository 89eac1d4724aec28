//! The webhook configuration: where webhooks go by default. The secret is not here; that
//! there is a configuration, even without a receiver, says that the secret was made.

use chrono::{DateTime, Utc};
use domain::time;
use serde::{Deserialize, Serialize};

use super::job_item::instant;
use super::{Item, StoreError, corrupt};

pub(super) const PK: &str = "config";
pub(super) const SK: &str = "webhook";

/// Where webhooks go unless a job says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookConfig {
    /// The default receiver, if there is one. A text here: it is judged again when it is
    /// used.
    pub url: Option<String>,
    /// When it was last set.
    pub updated_at: DateTime<Utc>,
}

#[derive(Serialize, Deserialize)]
struct ConfigItem {
    pk: String,
    sk: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    updated_at: i64,
}

pub(super) fn encode(config: &WebhookConfig) -> Result<Item, StoreError> {
    let item = ConfigItem {
        pk: PK.into(),
        sk: SK.into(),
        url: config.url.clone(),
        updated_at: time::millis(config.updated_at),
    };
    serde_dynamo::to_item(item).map_err(|error| corrupt("webhook configuration", error))
}

pub(super) fn decode(item: Item) -> Result<WebhookConfig, StoreError> {
    let item: ConfigItem =
        serde_dynamo::from_item(item).map_err(|error| corrupt("webhook configuration", error))?;
    Ok(WebhookConfig { url: item.url, updated_at: instant(item.updated_at)? })
}
