//! [`Delivery`] to item and back.

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::TimeDelta;
use domain::attempt::{Attempt, AttemptError, AttemptOutcome};
use domain::delivery::{Delivery, DeliveryState, DeliverySubject, GiveUpReason, GivenUp};
use domain::endpoint::HoldReason;
use domain::event::{EventName, TestEvent};
use domain::id::{EventId, JobId};
use domain::time;
use serde::{Deserialize, Serialize};

use super::job_item::{self, instant};
use super::{Item, StoreError, corrupt};

pub(super) const SK_PREFIX: &str = "delivery#";

/// The `pk` of all tests.
const TEST_PK: &str = "test";

#[derive(Serialize, Deserialize)]
struct DeliveryItem {
    pk: String,
    sk: String,
    v: u64,
    event: String,
    url: String,
    body: String,
    shard_no: u32,
    created_at: i64,
    state: StateItem,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Key of the `undelivered` index: there from the end to a new beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    undelivered: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<AttemptItem>,
    round: usize,
    round_at: i64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    manual: bool,
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
    excerpt: String,
}

pub(super) fn pk(job: Option<&JobId>) -> String {
    job.map_or_else(|| TEST_PK.to_owned(), job_item::pk)
}

pub(super) fn sk(event: &EventId) -> String {
    format!("{SK_PREFIX}{}", event.as_str())
}

/// The delivery's job, from its keys; none for a test.
pub(super) fn job_of(item: &Item) -> Result<Option<JobId>, StoreError> {
    let test = AttributeValue::S(TEST_PK.into());
    if item.get("pk") == Some(&test) { Ok(None) } else { job_item::id_of(item).map(Some) }
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
    let (state, given_up) = match delivery.state {
        DeliveryState::Pending { .. } => (StateItem::Pending, None),
        DeliveryState::Delivered => (StateItem::Delivered, None),
        DeliveryState::GivenUp(given_up) => (StateItem::GivenUp, Some(given_up)),
        DeliveryState::Exhausted(given_up) => (StateItem::Exhausted, Some(given_up)),
    };
    let (next_at, held) = match delivery.state {
        DeliveryState::Pending { next_at, held } => (Some(next_at), held),
        DeliveryState::Delivered | DeliveryState::GivenUp(_) | DeliveryState::Exhausted(_) => {
            (None, None)
        }
    };
    // What is still under way, or to be announced, is never deleted, however long it takes.
    let last = delivery.attempts.last().map_or(delivery.created_at, |attempt| attempt.at);
    let over_since = match delivery.state {
        DeliveryState::Delivered => Some(last),
        DeliveryState::Exhausted(given_up) => Some(given_up.at),
        DeliveryState::Pending { .. } | DeliveryState::GivenUp(_) => None,
    };
    let item = DeliveryItem {
        pk: pk(delivery.subject.job_id()),
        sk: sk(&delivery.event_id),
        v: delivery.version,
        event: delivery.subject.event_name().to_owned(),
        url: delivery.url.clone(),
        body: delivery.body.clone(),
        shard_no: delivery.shard,
        created_at: time::millis(delivery.created_at),
        state,
        next_at: next_at.map(time::millis),
        held: held.map(|held| held.name().to_owned()),
        ended_at: given_up.map(|given_up| time::millis(given_up.at)),
        reason: given_up.map(|given_up| given_up.reason.name().to_owned()),
        undelivered: given_up.and(delivery.subject.job_id()).map(|_| delivery.shard),
        attempts: delivery.attempts.iter().map(attempt_item).collect(),
        round: delivery.round_start,
        round_at: time::millis(delivery.round_at),
        manual: delivery.manual,
        lease: delivery.leased_until.map(time::millis),
        expires_at: over_since.map(|at| (at + retention).timestamp()),
    };
    serde_dynamo::to_item(item).map_err(|error| corrupt("delivery", error))
}

pub(super) fn decode(item: Item) -> Result<Delivery, StoreError> {
    let job_id = job_of(&item)?;
    let item: DeliveryItem =
        serde_dynamo::from_item(item).map_err(|error| corrupt("delivery", error))?;
    let given_up = || {
        let at = item.ended_at.ok_or_else(|| corrupt("delivery", "it ended at no time"))?;
        let reason = item.reason.as_deref();
        let reason = GiveUpReason::ALL.into_iter().find(|it| Some(it.name()) == reason);
        let reason = reason.ok_or_else(|| corrupt("delivery", "it ended for no reason"))?;
        Ok(GivenUp { at: instant(at)?, reason })
    };
    let state = match (item.state, item.next_at) {
        (StateItem::Pending, Some(at)) => {
            let held = item.held.as_deref().map(hold).transpose()?;
            DeliveryState::Pending { next_at: instant(at)?, held }
        }
        (StateItem::Pending, None) => {
            return Err(corrupt("delivery", "it is pending and nothing is due"));
        }
        (StateItem::Delivered, _) => DeliveryState::Delivered,
        (StateItem::GivenUp, _) => DeliveryState::GivenUp(given_up()?),
        (StateItem::Exhausted, _) => DeliveryState::Exhausted(given_up()?),
    };
    let subject = match (job_id, EventName::parse(&item.event)) {
        (Some(job_id), Some(event)) => DeliverySubject::Render { job_id, event },
        (None, None) if item.event == TestEvent::NAME => DeliverySubject::Test,
        (Some(_) | None, _) => {
            return Err(corrupt("delivery", format!("`{}` is no event of it", item.event)));
        }
    };
    Ok(Delivery {
        subject,
        event_id: event(&item.sk)?,
        url: item.url,
        body: item.body,
        shard: item.shard_no,
        created_at: instant(item.created_at)?,
        state,
        attempts: item.attempts.into_iter().map(attempt).collect::<Result<_, _>>()?,
        round_start: item.round,
        round_at: instant(item.round_at)?,
        manual: item.manual,
        leased_until: item.lease.map(instant).transpose()?,
        version: item.v,
    })
}

fn hold(name: &str) -> Result<HoldReason, StoreError> {
    let hold = HoldReason::ALL.into_iter().find(|hold| hold.name() == name);
    hold.ok_or_else(|| corrupt("delivery", format!("`{name}` is no reason to hold")))
}

fn attempt_item(attempt: &Attempt) -> AttemptItem {
    let (status, error) = match attempt.outcome {
        AttemptOutcome::Answered(status) => (Some(status), None),
        AttemptOutcome::Failed(error) => (None, Some(error.name().to_owned())),
    };
    AttemptItem {
        at: time::millis(attempt.at),
        ms: attempt.duration_ms,
        status,
        error,
        excerpt: attempt.excerpt.clone(),
    }
}

fn attempt(item: AttemptItem) -> Result<Attempt, StoreError> {
    let outcome = match (item.status, item.error) {
        (Some(status), None) => AttemptOutcome::Answered(status),
        (None, Some(name)) => AttemptError::ALL
            .into_iter()
            .find(|error| error.name() == name)
            .map(AttemptOutcome::Failed)
            .ok_or_else(|| corrupt("delivery", format!("`{name}` is no error of an attempt")))?,
        (Some(_), Some(_)) | (None, None) => {
            return Err(corrupt("delivery", "an attempt needs either a status or an error"));
        }
    };
    Ok(Attempt { at: instant(item.at)?, duration_ms: item.ms, outcome, excerpt: item.excerpt })
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn delivery_round_trips() {
        let now = time::from_millis(1_800_000_000_123).unwrap();
        let job_id = JobId::from_bytes([7; 16]);
        let event_id = EventId::of(&job_id, EventName::Completed.as_str());
        let outcomes = AttemptError::ALL
            .map(AttemptOutcome::Failed)
            .into_iter()
            .chain([AttemptOutcome::Answered(500), AttemptOutcome::Answered(204)]);
        let attempts: Vec<Attempt> = outcomes
            .map(|outcome| Attempt { at: now, duration_ms: 12, outcome, excerpt: "ok".into() })
            .collect();
        let held = HoldReason::ALL.map(Some).into_iter().chain([None]);
        let pending = held.map(|held| DeliveryState::Pending { next_at: now, held });
        let ends = GiveUpReason::ALL.map(|reason| GivenUp { at: now, reason });
        let ends = ends.into_iter().flat_map(|given_up| {
            [DeliveryState::GivenUp(given_up), DeliveryState::Exhausted(given_up)]
        });
        let states: Vec<_> = pending.chain([DeliveryState::Delivered]).chain(ends).collect();
        let subjects = [
            DeliverySubject::Render { job_id, event: EventName::Completed },
            DeliverySubject::Test,
        ];
        for (state, subject) in
            states.iter().flat_map(|state| subjects.each_ref().map(|it| (*state, it)))
        {
            let delivery = Delivery {
                subject: subject.clone(),
                event_id: event_id.clone(),
                url: "https://shop.example/hooks".into(),
                body: "{\"a\":1}".into(),
                shard: 2,
                created_at: now,
                state,
                attempts: attempts.clone(),
                round_start: 1,
                round_at: now,
                manual: true,
                leased_until: Some(now),
                version: 4,
            };
            let item = encode(&delivery, TimeDelta::days(90)).unwrap();
            let over = matches!(state, DeliveryState::Delivered | DeliveryState::Exhausted(_));
            assert_eq!(item.contains_key("expires_at"), over, "{state:?}");
            // A test that was given up is not sent again, so it is not in the index.
            let undelivered = state.name() == "exhausted" && subject.job_id().is_some();
            assert_eq!(item.contains_key("undelivered"), undelivered, "{state:?}");
            assert_eq!(decode(item).unwrap(), delivery);
        }
        assert!(decode(Item::new()).is_err());
    }

    #[test]
    fn test_delivery_belongs_to_no_job() {
        let event = TestEvent::new([7; 16], time::from_millis(1_800_000_000_000).unwrap());
        let delivery =
            Delivery::of_test(&event, "https://shop.example/hooks", DateTime::UNIX_EPOCH).unwrap();
        let mut item = encode(&delivery, TimeDelta::days(90)).unwrap();
        item.insert("event".into(), AttributeValue::S(EventName::Completed.as_str().into()));
        assert!(decode(item.clone()).is_err());
        item.insert("event".into(), AttributeValue::S(TestEvent::NAME.into()));
        item.insert("pk".into(), AttributeValue::S(job_item::pk(&JobId::from_bytes([7; 16]))));
        assert!(decode(item).is_err());
    }
}
