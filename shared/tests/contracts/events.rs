//! `docs/events.schema.json` against the events that the domain makes.

use std::collections::BTreeSet;

use domain::delivery::DeliveryState;
use domain::event::{DeliveryExhausted, Event, EventName, TestEvent};
use domain::job::State;
use serde_json::{Value, json};

use crate::contract::Contract;
use crate::{source, values};

fn schema() -> Value {
    serde_json::from_str(&source::text("docs/events.schema.json")).unwrap()
}

fn render_event() -> Contract {
    Contract::closed_at(&schema(), "/$defs/renderEvent")
}

/// Every event of every life, as it goes over the wire.
fn render_events() -> Vec<Value> {
    let ends = values::lives().into_iter().map(|life| life.last().unwrap().clone());
    let bodies = ends.flat_map(|job| {
        let event = |notice| Event::of(&job, notice).to_body().unwrap();
        job.outbox.iter().map(event).collect::<Vec<_>>()
    });
    bodies.map(|body| serde_json::from_str(&body).unwrap()).collect()
}

#[test]
fn every_event_of_a_job_is_one_of_the_schema() {
    let events = render_events();
    let told: BTreeSet<&str> =
        events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(told, EventName::ALL.map(EventName::as_str).into_iter().collect());
    let statuses: BTreeSet<&str> = events.iter().map(|e| e["status"].as_str().unwrap()).collect();
    let all = State::ALL.into_iter().filter(|state| state.event().is_some()).map(State::name);
    assert_eq!(statuses, all.collect());
    for event in events {
        render_event().demand("an event", &event);
        // The document as a whole has exactly one meaning for it.
        Contract::new(&schema()).demand("an event", &event);
    }
}

#[test]
fn the_schema_knows_which_members_belong_to_which_end() {
    let contract = render_event();
    let events = render_events();
    let of = |status: &str| events.iter().find(|event| event["status"] == status).unwrap().clone();
    for (status, member, wrong) in [
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
        event[member] = wrong;
        assert!(!contract.accepts(&event), "{status} with another {member}");
    }
}

#[test]
fn the_end_of_a_delivery_is_told_as_the_schema_says() {
    let exhausted = Contract::closed_at(&schema(), "/$defs/deliveryExhausted");
    let given_up = |delivery: &domain::delivery::Delivery| delivery.state == DeliveryState::GivenUp;
    for delivery in values::deliveries().into_iter().filter(given_up) {
        let event = DeliveryExhausted::of(&delivery).unwrap();
        exhausted.demand("the event", &serde_json::to_value(&event).unwrap());
        assert_eq!(DeliveryExhausted::of(&delivery), Some(event.clone()), "said twice");

        let again = domain::delivery::Delivery { round_start: 9, ..delivery.clone() };
        let id =
            |event: &DeliveryExhausted| serde_json::to_value(event).unwrap()["eventId"].clone();
        assert_ne!(id(&DeliveryExhausted::of(&again).unwrap()), id(&event), "another round");
    }
}

#[test]
fn a_test_is_told_as_the_schema_says() {
    let event = TestEvent::new([7; 16], values::noon()).to_body().unwrap();
    let event: Value = serde_json::from_str(&event).unwrap();
    Contract::closed_at(&schema(), "/$defs/webhookTest").demand("the event", &event);
    Contract::new(&schema()).demand("an event", &event);
}

#[test]
fn the_examples_are_events() {
    for kind in ["renderEvent", "deliveryExhausted", "webhookTest"] {
        let at = format!("/$defs/{kind}");
        let schema = schema();
        let examples = schema.pointer(&format!("{at}/examples")).unwrap().as_array().unwrap();
        let contract = Contract::closed_at(&schema, &at);
        examples.iter().for_each(|example| contract.demand(kind, example));
    }
}
