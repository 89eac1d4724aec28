//! The webhook configuration: where webhooks go by default. Secrets and headers are not here;
//! that there is a configuration, even without a receiver, says that a secret was made.
//!
//! And who may change it: secrets and headers are parameters of SSM, which can be
//! overwritten but not on a condition. So whoever changes them takes hold of the
//! configuration first, by a conditional write of this table.

use std::num::NonZeroU16;

use chrono::{DateTime, TimeDelta, Utc};
use domain::endpoint::Limits;
use domain::event::{EventName, EventSet};
use domain::time;
use serde::{Deserialize, Serialize};

use super::job_item::instant;
use super::{Item, Put, Store, StoreError, corrupt, unavailable};

const PK: &str = "config";
const SK: &str = "webhook";
const HOLD_SK: &str = "hold";

/// How long a hold lasts that nobody lets go of. Longer than the function that takes it may
/// run (29 s) by more than clocks differ: when it is over, its holder is gone.
const HOLD: TimeDelta = TimeDelta::seconds(45);

/// Where webhooks go unless a job says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookConfig {
    /// The default receiver, if there is one. A text here: it is judged again when it is
    /// used.
    pub url: Option<String>,
    /// Which of the events that are told of it gets.
    pub events: EventSet,
    /// What the receiver can bear, as its owner says.
    pub limits: Limits,
    /// When it was last set.
    pub updated_at: DateTime<Utc>,
}

/// Nobody else changes the configuration meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    version: u64,
    /// None when nobody has hold.
    until: Option<DateTime<Utc>>,
    /// The version of the parameter with the secrets that a holder wrote last, and when.
    written: Option<(i64, DateTime<Utc>)>,
}

impl Hold {
    /// What nobody ever had hold of.
    const NEVER: Self = Self { version: 0, until: None, written: None };

    /// Notes that the secrets were written, as this version of their parameter.
    pub fn wrote(&mut self, version: i64, now: DateTime<Utc>) {
        self.written = Some((version, now));
    }

    /// The least version of that parameter that may be read now. SSM may answer with what was
    /// there a moment ago, and whoever took an older one for the newest would write a secret
    /// away. Later any will do: its owner may have deleted it and made another.
    #[must_use]
    pub fn least_version(&self, now: DateTime<Utc>) -> i64 {
        self.written.filter(|(_, at)| now - *at < HOLD).map_or(0, |(version, _)| version)
    }

    /// Until when somebody has hold at `now`.
    fn busy_until(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.until.filter(|until| *until > now)
    }

    fn taken(&self, now: DateTime<Utc>) -> Self {
        Self { version: self.version.saturating_add(1), until: Some(now + HOLD), ..self.clone() }
    }

    fn let_go(&self) -> Self {
        Self { version: self.version.saturating_add(1), until: None, ..self.clone() }
    }
}

/// What came of reaching for the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// It is ours.
    Held(Hold),
    /// Somebody else has hold of it, until then at the latest.
    Busy(DateTime<Utc>),
}

impl Store {
    /// The webhook configuration, if there ever was one.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn webhook_config(&self) -> Result<Option<WebhookConfig>, StoreError> {
        let item = self.get(PK, SK, "read the webhook configuration").await?;
        item.map(decode).transpose()
    }

    /// Replaces the webhook configuration.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub async fn put_webhook_config(&self, config: &WebhookConfig) -> Result<(), StoreError> {
        let put = self.client.put_item().table_name(&self.table);
        put.set_item(Some(encode(config)?)).send().await.map(drop).map_err(|error| {
            unavailable("store the webhook configuration", error.into_service_error())
        })
    }

    /// Takes hold of the webhook configuration, unless somebody else has. Let go of it with
    /// [`Store::let_go`]; a hold whose taker crashed ends by itself.
    ///
    /// # Errors
    /// When the table cannot be read or written; the hold may be taken all the same.
    pub async fn take_hold(&self, now: DateTime<Utc>) -> Result<Reached, StoreError> {
        let doing = "take hold of the webhook configuration";
        let item = self.get(PK, HOLD_SK, doing).await?;
        let before = item.map(decode_hold).transpose()?.unwrap_or(Hold::NEVER);
        if let Some(until) = before.busy_until(now) {
            return Ok(Reached::Busy(until));
        }
        let hold = before.taken(now);
        Ok(match self.put_hold(&hold, doing).await? {
            Put::Stored => Reached::Held(hold),
            // Somebody else took it a moment ago.
            Put::Refused(item) => {
                let theirs = item.map(decode_hold).transpose()?;
                let until = theirs.and_then(|theirs| theirs.busy_until(now));
                Reached::Busy(until.unwrap_or(now))
            }
        })
    }

    /// Lets go of the webhook configuration.
    ///
    /// # Errors
    /// When the table cannot be written. Then the hold ends by itself.
    pub async fn let_go(&self, hold: &Hold) -> Result<(), StoreError> {
        match self.put_hold(&hold.let_go(), "let go of the webhook configuration").await? {
            // Refused: it has ended by itself, and somebody else has it.
            Put::Stored | Put::Refused(_) => Ok(()),
        }
    }

    async fn put_hold(&self, hold: &Hold, doing: &'static str) -> Result<Put, StoreError> {
        let item = encode_hold(hold)?;
        self.put_version(item, hold.version, doing).await
    }
}

#[derive(Serialize, Deserialize)]
struct ConfigItem {
    pk: String,
    sk: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// Absent for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    events: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    most: Option<NonZeroU16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate: Option<NonZeroU16>,
    updated_at: i64,
}

fn encode(config: &WebhookConfig) -> Result<Item, StoreError> {
    let item = ConfigItem {
        pk: PK.into(),
        sk: SK.into(),
        url: config.url.clone(),
        events: (config.events != all()).then(|| config.events.to_bits()),
        most: config.limits.max_in_flight,
        rate: config.limits.per_second,
        updated_at: time::millis(config.updated_at),
    };
    serde_dynamo::to_item(item).map_err(|error| corrupt("webhook configuration", error))
}

fn decode(item: Item) -> Result<WebhookConfig, StoreError> {
    let item: ConfigItem =
        serde_dynamo::from_item(item).map_err(|error| corrupt("webhook configuration", error))?;
    Ok(WebhookConfig {
        url: item.url,
        events: item.events.map_or_else(all, EventSet::from_bits),
        limits: Limits { max_in_flight: item.most, per_second: item.rate },
        updated_at: instant(item.updated_at)?,
    })
}

/// Also those that later releases add.
fn all() -> EventSet {
    EventName::ALL.into_iter().collect()
}

#[derive(Serialize, Deserialize)]
struct HoldItem {
    pk: String,
    sk: String,
    v: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written: Option<(i64, i64)>,
}

fn encode_hold(hold: &Hold) -> Result<Item, StoreError> {
    let until = hold.until.map(time::millis);
    let written = hold.written.map(|(version, at)| (version, time::millis(at)));
    let item = HoldItem { pk: PK.into(), sk: HOLD_SK.into(), v: hold.version, until, written };
    serde_dynamo::to_item(item).map_err(|error| corrupt("hold", error))
}

fn decode_hold(item: Item) -> Result<Hold, StoreError> {
    let item: HoldItem = serde_dynamo::from_item(item).map_err(|error| corrupt("hold", error))?;
    let until = item.until.map(instant).transpose()?;
    let written = item.written.map(|(version, at)| Ok((version, instant(at)?))).transpose()?;
    Ok(Hold { version: item.v, until, written })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_on_the_way() {
        let updated_at = time::from_millis(1_800_000_000_123).unwrap();
        for events in [all(), EventSet::ends(), EventSet::from_iter([EventName::Failed])] {
            for url in [None, Some("https://shop.example/hooks".to_owned())] {
                let limits = Limits::new(url.as_ref().map(|_| 5), Some(9)).unwrap();
                let config = WebhookConfig { url, events, limits, updated_at };
                assert_eq!(decode(encode(&config).unwrap()).unwrap(), config);
            }
        }
        let mut written = Hold::NEVER.taken(updated_at);
        written.wrote(7, updated_at);
        for hold in [Hold::NEVER, written.let_go(), written] {
            assert_eq!(decode_hold(encode_hold(&hold).unwrap()).unwrap(), hold);
        }
    }

    #[test]
    fn a_hold_ends_by_itself() {
        let now = time::from_millis(1_800_000_000_123).unwrap();
        let hold = Hold::NEVER.taken(now);
        assert_eq!(hold.busy_until(now), Some(now + HOLD));
        assert_eq!(hold.busy_until(now + HOLD), None);
        assert_eq!(hold.let_go().busy_until(now), None);
    }

    #[test]
    fn what_was_written_a_moment_ago_is_remembered_for_a_while() {
        let now = time::from_millis(1_800_000_000_123).unwrap();
        let mut hold = Hold::NEVER.taken(now);
        assert_eq!(hold.least_version(now), 0);
        hold.wrote(7, now);
        let next = hold.let_go().taken(now);
        assert_eq!(next.least_version(now), 7);
        assert_eq!(next.least_version(now + HOLD), 0);
    }
}
