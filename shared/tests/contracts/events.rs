//! `docs/events.schema.json` against the events of the domain.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use domain::delivery::{DeliveryState, GiveUpReason, GivenUp};
use domain::endpoint::{Disabled, DisabledReason, Endpoint};
use domain::event::{DeliveryExhausted, EndpointDisabled, Event, EventName, TestEvent};
use domain::job::State;
use serde::Serialize;
use serde_json::{Value, json};

use crate::contract::Contract;
use crate::{source, values};

fn schema() -> Value {
    serde_json::from_str(&source::text("docs/events.schema.json")).unwrap()
}

fn render_event() -> Contract {
    Contract::closed_at(&schema(), "/$defs/renderEvent")
}

/// Every event of every life, as it is published.
fn render_events() -> Vec<Value> {
    let ends = values::lives().into_iter().map(|life| life.last().unwrap().clone());
    let bodies = ends.flat_map(|job| {
        let event = |entry| Event::of(&job, entry).to_body().unwrap();
        job.outbox.iter().map(event).collect::<Vec<_>>()
    });
    bodies.map(|body| serde_json::from_str(&body).unwrap()).collect()
}

#[test]
fn job_event_fits_the_schema() {
    let events = render_events();
    let names: BTreeSet<&str> =
        events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, EventName::ALL.map(EventName::as_str).into_iter().collect());
    let statuses: BTreeSet<&str> = events.iter().map(|e| e["status"].as_str().unwrap()).collect();
    let all = State::ALL.into_iter().filter(|state| state.event().is_some()).map(State::name);
    assert_eq!(statuses, all.collect());
    for event in events {
        render_event().assert_valid("an event", &event);
        // Exactly one of the document's alternatives matches it.
        Contract::new(&schema()).assert_valid("an event", &event);
    }
}

#[test]
fn event_schema_binds_members_to_status() {
    let contract = render_event();
    let events = render_events();
    let of = |status: &str| events.iter().find(|event| event["status"] == status).unwrap().clone();
    for (status, member, value) in [
        ("completed", "failure", json!({"code": "render_failed", "message": "m"})),
        ("failed", "resultUrl", json!("https://cdn.example/x.mp4")),
        ("failed", "failure", Value::Null),
        ("timed_out", "event", json!("video.render.timed_out")),
        ("queued", "status", json!("processing")),
        ("cancelled", "occurredAt", json!("2026-05-24T12:00:00Z")),
        ("processing", "eventId", json!("evt_1")),
        ("completed", "secret", json!("s")),
    ] {
        let mut event = of(status);
        event[member] = value;
        assert!(!contract.accepts(&event), "{status} with another {member}");
    }
}

#[test]
fn exhausted_event_fits_the_schema() {
    let exhausted = Contract::closed_at(&schema(), "/$defs/deliveryExhausted");
    let mut reasons = BTreeSet::new();
    for delivery in values::deliveries() {
        let DeliveryState::GivenUp(given_up) = delivery.state else { continue };
        let event = DeliveryExhausted::of(&delivery, given_up).unwrap();
        exhausted.assert_valid("the event", &serde_json::to_value(&event).unwrap());
        let again = DeliveryExhausted::of(&delivery, given_up);
        assert_eq!(again, Some(event.clone()), "a repeat differs");
        reasons.insert(given_up.reason.name());

        let at = given_up.at + TimeDelta::milliseconds(1);
        let again = DeliveryExhausted::of(&delivery, GivenUp { at, ..given_up }).unwrap();
        assert_ne!(id(&again), id(&event), "another occurrence has the same id");
    }
    assert_eq!(reasons, GiveUpReason::ALL.map(GiveUpReason::name).into_iter().collect());
}

#[test]
fn disabled_event_fits_the_schema() {
    let contract = Contract::closed_at(&schema(), "/$defs/endpointDisabled");
    for reason in DisabledReason::ALL {
        for failing in [None, Some(values::failing())] {
            let url = "https://shop.example/hooks/s3cret";
            let endpoint = Endpoint { failing, ..Endpoint::unknown(url) };
            let disabled = Disabled { at: values::noon(), reason, announced: false };
            let event = EndpointDisabled::of(&endpoint, disabled);
            contract.assert_valid("the event", &serde_json::to_value(&event).unwrap());
            assert!(!event.to_body().unwrap().contains("s3cret"), "the path may be a secret");

            let at = disabled.at + TimeDelta::milliseconds(1);
            let again = EndpointDisabled::of(&endpoint, Disabled { at, ..disabled });
            assert_ne!(id(&again), id(&event), "another occurrence has the same id");
        }
    }
}

fn id(event: &impl Serialize) -> Value {
    serde_json::to_value(event).unwrap()["eventId"].clone()
}

#[test]
fn test_event_fits_the_schema() {
    let event = TestEvent::new([7; 16], values::noon()).to_body().unwrap();
    let event: Value = serde_json::from_str(&event).unwrap();
    Contract::closed_at(&schema(), "/$defs/webhookTest").assert_valid("the event", &event);
    Contract::new(&schema()).assert_valid("an event", &event);
}

#[test]
fn event_examples_fit_the_schema() {
    for kind in ["renderEvent", "deliveryExhausted", "endpointDisabled", "webhookTest"] {
        let at = format!("/$defs/{kind}");
        let schema = schema();
        let examples = schema.pointer(&format!("{at}/examples")).unwrap().as_array().unwrap();
        let contract = Contract::closed_at(&schema, &at);
        examples.iter().for_each(|example| contract.assert_valid(kind, example));
    }
}
