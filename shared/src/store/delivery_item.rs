//! [`Delivery`] to item and back.

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::TimeDelta;
use domain::delivery::{Attempt, AttemptError, Delivery, DeliveryState, Outcome};
use domain::event::EventName;
use domain::id::{EventId, JobId};
use domain::time;
use serde::{Deserialize, Serialize};

use super::job_item::{id_of, instant, pk};
use super::{Item, StoreError, corrupt};

pub(super) const SK_PREFIX: &str = "delivery#";

#[derive(Serialize, Deserialize)]
struct DeliveryItem {
    pk: String,
    sk: String,
    v: u64,
    event: EventName,
    url: String,
    body: String,
    shard_home: u32,
    created_at: i64,
    state: StateItem,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<AttemptItem>,
    round: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StateItem {
    Pending,
    Delivered,
    GivenUp,
    Exhausted,
}

#[derive(Serialize, Deserialize)]
struct AttemptItem {
    at: i64,
    ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    words: String,
}

pub(super) fn sk(event: &EventId) -> String {
    format!("{SK_PREFIX}{}", event.as_str())
}

/// The delivery's event, from its keys.
pub(super) fn event_of(item: &Item) -> Result<EventId, StoreError> {
    match item.get("sk") {
        Some(AttributeValue::S(sk)) => event(sk),
        _ => Err(corrupt("delivery", "it has no sk")),
    }
}

fn event(sk: &str) -> Result<EventId, StoreError> {
    let id =
        sk.strip_prefix(SK_PREFIX).ok_or_else(|| corrupt("delivery", "its sk is another's"))?;
    EventId::parse(id).map_err(|error| corrupt("delivery", error))
}

pub(super) fn encode(delivery: &Delivery, retention: TimeDelta) -> Result<Item, StoreError> {
    let (state, next_at) = match delivery.state {
        DeliveryState::Pending { next_at } => (StateItem::Pending, Some(time::millis(next_at))),
        DeliveryState::Delivered => (StateItem::Delivered, None),
        DeliveryState::GivenUp => (StateItem::GivenUp, None),
        DeliveryState::Exhausted => (StateItem::Exhausted, None),
    };
    // What is still under way is never deleted, however long its schedule.
    let over = matches!(delivery.state, DeliveryState::Delivered | DeliveryState::Exhausted);
    let last = delivery.attempts.last().map_or(delivery.created_at, |attempt| attempt.at);
    let item = DeliveryItem {
        pk: pk(&delivery.job_id),
        sk: sk(&delivery.event_id),
        v: delivery.version,
        event: delivery.event,
        url: delivery.url.clone(),
        body: delivery.body.clone(),
        shard_home: delivery.shard,
        created_at: time::millis(delivery.created_at),
        state,
        next_at,
        attempts: delivery.attempts.iter().map(attempt_item).collect(),
        round: delivery.round_start,
        lease: delivery.leased_until.map(time::millis),
        expires_at: over.then(|| (last + retention).timestamp()),
    };
    serde_dynamo::to_item(item).map_err(|error| corrupt("delivery", error))
}

pub(super) fn decode(item: Item) -> Result<Delivery, StoreError> {
    let job_id: JobId = id_of(&item)?;
    let item: DeliveryItem =
        serde_dynamo::from_item(item).map_err(|error| corrupt("delivery", error))?;
    let state = match (item.state, item.next_at) {
        (StateItem::Pending, Some(at)) => DeliveryState::Pending { next_at: instant(at)? },
        (StateItem::Pending, None) => {
            return Err(corrupt("delivery", "it is pending and nothing is due"));
        }
        (StateItem::Delivered, _) => DeliveryState::Delivered,
        (StateItem::GivenUp, _) => DeliveryState::GivenUp,
        (StateItem::Exhausted, _) => DeliveryState::Exhausted,
    };
    Ok(Delivery {
        job_id,
        event_id: event(&item.sk)?,
        event: item.event,
        url: item.url,
        body: item.body,
        shard: item.shard_home,
        created_at: instant(item.created_at)?,
        state,
        attempts: item.attempts.into_iter().map(attempt).collect::<Result<_, _>>()?,
        round_start: item.round,
        leased_until: item.lease.map(instant).transpose()?,
        version: item.v,
    })
}

fn attempt_item(attempt: &Attempt) -> AttemptItem {
    let (status, error) = match attempt.outcome {
        Outcome::Answered(status) => (Some(status), None),
        Outcome::Failed(error) => (None, Some(error.name().to_owned())),
    };
    AttemptItem {
        at: time::millis(attempt.at),
        ms: attempt.duration_ms,
        status,
        error,
        words: attempt.excerpt.clone(),
    }
}

fn attempt(item: AttemptItem) -> Result<Attempt, StoreError> {
    let outcome = match (item.status, item.error) {
        (Some(status), None) => Outcome::Answered(status),
        (None, Some(name)) => AttemptError::ALL
            .into_iter()
            .find(|error| error.name() == name)
            .map(Outcome::Failed)
            .ok_or_else(|| corrupt("delivery", format!("`{name}` is no error of an attempt")))?,
        (Some(_), Some(_)) | (None, None) => {
            return Err(corrupt("delivery", "an attempt needs either a status or an error"));
        }
    };
    Ok(Attempt { at: instant(item.at)?, duration_ms: item.ms, outcome, excerpt: item.words })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_on_the_way() {
        let now = time::from_millis(1_800_000_000_123).unwrap();
        let job_id = JobId::from_bytes([7; 16]);
        let event_id = EventId::of(&job_id, EventName::Completed.as_str());
        let outcomes = AttemptError::ALL
            .map(Outcome::Failed)
            .into_iter()
            .chain([Outcome::Answered(500), Outcome::Answered(204)]);
        let attempts: Vec<Attempt> = outcomes
            .map(|outcome| Attempt { at: now, duration_ms: 12, outcome, excerpt: "ok".into() })
            .collect();
        for state in [
            DeliveryState::Pending { next_at: now },
            DeliveryState::Delivered,
            DeliveryState::GivenUp,
            DeliveryState::Exhausted,
        ] {
            let delivery = Delivery {
                job_id: job_id.clone(),
                event_id: event_id.clone(),
                event: EventName::Completed,
                url: "https://shop.example/hooks".into(),
                body: "{\"a\":1}".into(),
                shard: 2,
                created_at: now,
                state,
                attempts: attempts.clone(),
                round_start: 1,
                leased_until: Some(now),
                version: 4,
            };
            let item = encode(&delivery, TimeDelta::days(90)).unwrap();
            let over = matches!(state, DeliveryState::Delivered | DeliveryState::Exhausted);
            assert_eq!(item.contains_key("expires_at"), over, "{state:?}");
            assert_eq!(decode(item).unwrap(), delivery);
        }
        assert!(decode(Item::new()).is_err());
    }
}
