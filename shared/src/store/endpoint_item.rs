//! [`Endpoint`] to item and back.

use std::num::NonZeroU16;

use chrono::TimeDelta;
use domain::endpoint::{
    Breaker, Disabled, DisabledReason, Endpoint, EndpointLimits, Failing, InFlight,
};
use domain::headers::HeadersId;
use domain::id::EndpointId;
use domain::time;
use serde::{Deserialize, Serialize};

use super::job_item::instant;
use super::{Item, StoreError, corrupt};

pub(super) const SK: &str = "endpoint";

const PK_PREFIX: &str = "endpoint#";

/// When the item of an endpoint whose state is the default again expires: later than any pause
/// that the receiver may have asked for.
const DEFAULT_STATE_TTL: TimeDelta = TimeDelta::days(2);

#[derive(Serialize, Deserialize)]
struct EndpointItem {
    pk: String,
    sk: String,
    v: u64,
    host: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failing: Option<FailingItem>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    breaker: Option<BreakerItem>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    throttled_until: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slow_until: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disabled: Option<DisabledItem>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_in_flight: Option<NonZeroU16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    per_second: Option<NonZeroU16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    headers: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next_slot: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    in_flight: Vec<(u64, i64)>,
    updated_at: i64,
    /// Absent while its owner has set limits or headers: they must outlast a quiet year.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct FailingItem {
    since: i64,
    failures: u32,
    windows: u8,
    window_at: i64,
}

#[derive(Serialize, Deserialize)]
struct BreakerItem {
    until: i64,
    round: u8,
    probing: bool,
}

#[derive(Serialize, Deserialize)]
struct DisabledItem {
    at: i64,
    reason: String,
    announced: bool,
}

pub(super) fn pk(id: &EndpointId) -> String {
    format!("{PK_PREFIX}{id}")
}

pub(super) fn encode(endpoint: &Endpoint, retention: TimeDelta) -> Result<Item, StoreError> {
    let keep =
        if endpoint.is_blank() { DEFAULT_STATE_TTL } else { retention.max(DEFAULT_STATE_TTL) };
    let item = EndpointItem {
        pk: pk(&endpoint.id),
        sk: SK.into(),
        v: endpoint.version,
        host: endpoint.host.clone(),
        failing: endpoint.failing.map(|failing| FailingItem {
            since: time::millis(failing.since),
            failures: failing.failures,
            windows: failing.windows,
            window_at: time::millis(failing.window_at),
        }),
        breaker: match endpoint.breaker {
            Breaker::Closed => None,
            Breaker::Open { until, round } => {
                Some(BreakerItem { until: time::millis(until), round, probing: false })
            }
            Breaker::HalfOpen { until, round } => {
                Some(BreakerItem { until: time::millis(until), round, probing: true })
            }
        },
        throttled_until: endpoint.throttled_until.map(time::millis),
        slow_until: endpoint.slow_until.map(time::millis),
        disabled: endpoint.disabled.map(|disabled| DisabledItem {
            at: time::millis(disabled.at),
            reason: disabled.reason.name().to_owned(),
            announced: disabled.announced,
        }),
        max_in_flight: endpoint.limits.max_in_flight,
        per_second: endpoint.limits.per_second,
        headers: endpoint.headers.map(|id| id.to_string()),
        next_slot: endpoint.next_slot.map(time::millis),
        in_flight: endpoint
            .in_flight
            .iter()
            .map(|place| (place.token, time::millis(place.until)))
            .collect(),
        updated_at: time::millis(endpoint.updated_at),
        expires_at: (!endpoint.is_configured()).then(|| (endpoint.updated_at + keep).timestamp()),
    };
    serde_dynamo::to_item(item).map_err(|error| corrupt("endpoint", error))
}

pub(super) fn decode(item: Item) -> Result<Endpoint, StoreError> {
    let item: EndpointItem =
        serde_dynamo::from_item(item).map_err(|error| corrupt("endpoint", error))?;
    let id = item.pk.strip_prefix(PK_PREFIX).unwrap_or_default();
    let in_flight = item.in_flight.into_iter();
    let in_flight = in_flight.map(|(token, until)| Ok(InFlight { token, until: instant(until)? }));
    Ok(Endpoint {
        id: EndpointId::parse(id).map_err(|error| corrupt("endpoint", error))?,
        host: item.host,
        failing: item.failing.as_ref().map(failing).transpose()?,
        breaker: item.breaker.as_ref().map_or(Ok(Breaker::Closed), breaker)?,
        throttled_until: item.throttled_until.map(instant).transpose()?,
        slow_until: item.slow_until.map(instant).transpose()?,
        disabled: item.disabled.as_ref().map(disabled).transpose()?,
        limits: EndpointLimits { max_in_flight: item.max_in_flight, per_second: item.per_second },
        headers: item.headers.as_deref().map(headers).transpose()?,
        next_slot: item.next_slot.map(instant).transpose()?,
        in_flight: in_flight.collect::<Result<_, StoreError>>()?,
        updated_at: instant(item.updated_at)?,
        version: item.v,
    })
}

fn headers(text: &str) -> Result<HeadersId, StoreError> {
    HeadersId::parse(text).ok_or_else(|| corrupt("endpoint", "its headers have no such id"))
}

fn failing(item: &FailingItem) -> Result<Failing, StoreError> {
    Ok(Failing {
        since: instant(item.since)?,
        failures: item.failures,
        windows: item.windows,
        window_at: instant(item.window_at)?,
    })
}

fn breaker(item: &BreakerItem) -> Result<Breaker, StoreError> {
    let (until, round) = (instant(item.until)?, item.round);
    Ok(match item.probing {
        true => Breaker::HalfOpen { until, round },
        false => Breaker::Open { until, round },
    })
}

fn disabled(item: &DisabledItem) -> Result<Disabled, StoreError> {
    let reason = DisabledReason::ALL.into_iter().find(|reason| reason.name() == item.reason);
    let reason = reason.ok_or_else(|| corrupt("endpoint", "it is disabled for no reason"))?;
    Ok(Disabled { at: instant(item.at)?, reason, announced: item.announced })
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::AttributeValue;

    use super::*;

    #[test]
    fn endpoint_round_trips() {
        let now = time::from_millis(1_800_000_000_123).unwrap();
        let unknown = Endpoint::unknown("https://shop.example/hooks/s3cret");
        let breakers = [
            Breaker::Closed,
            Breaker::Open { until: now, round: 3 },
            Breaker::HalfOpen { until: now, round: 4 },
        ];
        for (breaker, reason) in breakers.into_iter().zip(DisabledReason::ALL) {
            let endpoint = Endpoint {
                failing: Some(Failing { since: now, failures: 7, windows: 2, window_at: now }),
                breaker,
                throttled_until: Some(now),
                slow_until: Some(now),
                disabled: Some(Disabled { at: now, reason, announced: true }),
                limits: EndpointLimits::new(Some(3), Some(9)).unwrap(),
                headers: Some(HeadersId::from_random([7; 8])),
                next_slot: Some(now),
                in_flight: vec![InFlight { token: u64::MAX, until: now }],
                updated_at: now,
                version: 9,
                ..unknown.clone()
            };
            let item = encode(&endpoint, TimeDelta::days(90)).unwrap();
            assert!(!format!("{item:?}").contains("s3cret"), "the path may be a secret");
            assert_eq!(decode(item).unwrap(), endpoint);
        }
        assert!(decode(Item::new()).is_err());
    }

    #[test]
    fn endpoint_item_expires_unless_configured() {
        let now = time::from_millis(1_800_000_000_000).unwrap();
        let days = |endpoint: &Endpoint| {
            let item = encode(endpoint, TimeDelta::days(90)).unwrap();
            item.get("expires_at").map(|at| {
                let AttributeValue::N(at) = at else { panic!("{at:?}") };
                (at.parse::<i64>().unwrap() - 1_800_000_000) / 86_400
            })
        };
        let blank = Endpoint { updated_at: now, ..Endpoint::unknown("https://shop.example/hooks") };
        assert_eq!(days(&blank), Some(2));
        let failing = Some(Failing { since: now, failures: 1, windows: 1, window_at: now });
        assert_eq!(days(&Endpoint { failing, ..blank.clone() }), Some(90));
        for limits in [(Some(1), None), (None, Some(1))] {
            let limits = EndpointLimits::new(limits.0, limits.1).unwrap();
            assert_eq!(days(&Endpoint { limits, ..blank.clone() }), None);
        }
        let headers = Some(HeadersId::from_random([7; 8]));
        assert_eq!(days(&Endpoint { headers, ..blank }), None);
    }
}
