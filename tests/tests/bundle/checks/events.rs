//! The events of a request, on the bus and at its receiver.

use std::collections::BTreeSet;

use domain::delivery::{Delivery, DeliveryState};
use domain::id::EventId;
use domain::job::{Job, State};
use serde_json::Value;

use crate::checks::invariant::Invariant;
use crate::harness::backend::CallerRequest;
use crate::harness::bundle::Bundle;
use crate::harness::provider_hosts::video_url;
use crate::harness::renders::ProviderRender;

/// The event of a state. It is written out so that the test does not depend on the code under
/// test.
fn event_of(state: State) -> Option<&'static str> {
    match state {
        State::Submitting | State::SubmitUnknown => None,
        State::Queued => Some("video.render.queued"),
        State::Processing => Some("video.render.processing"),
        State::Completed => Some("video.render.completed"),
        State::Failed | State::TimedOut => Some("video.render.failed"),
        State::Cancelled => Some("video.render.cancelled"),
    }
}

impl Bundle {
    /// Checks that a request has exactly the events that it subscribes to and that its job's states
    /// call for.
    pub(crate) async fn check_events(
        &self,
        request: &CallerRequest,
        job: &Job,
        made: &[&ProviderRender],
    ) {
        let tag = &request.tag;
        let entered = job.timeline.iter().map(|line| line.state).chain([job.state]);
        let events: BTreeSet<&str> = entered.filter_map(event_of).collect();
        let expected: Vec<&str> =
            events.into_iter().filter(|event| request.subscribes_to(event)).collect();

        let published = self.events_of(job);
        let deliveries = self.aws.store().deliveries(&job.id).await.unwrap();
        for event in &expected {
            match published.iter().find(|body| body["event"] == *event) {
                Some(body) => self.check_event(request, job, made, body),
                None => {
                    self.checker.violated(
                        Invariant::EveryJobSettles,
                        format!("the bus has no {event} of {tag}"),
                    );
                }
            }
            let id = EventId::of(&job.id, event);
            let delivery = deliveries.iter().find(|delivery| delivery.event_id == id);
            self.check_delivery(request, job, event, delivery);
        }
        let delivered = deliveries.iter().map(|it| serde_json::from_str(&it.body).unwrap());
        for body in published.into_iter().chain(delivered) {
            if !expected.iter().any(|event| body["event"] == *event) {
                self.checker.violated(
                    Invariant::OneTerminalTruth,
                    format!("{tag} has an event that it must not have: {body}"),
                );
            }
        }
    }

    /// The events on the bus about a job.
    fn events_of(&self, job: &Job) -> Vec<Value> {
        let events = self.aws.events().into_iter();
        let renders = events.filter(|event| event.detail_type.starts_with("video.render."));
        let bodies = renders.map(|event| serde_json::from_str::<Value>(&event.detail).unwrap());
        bodies.filter(|body| body["jobId"] == job.id.as_str()).collect()
    }

    /// Checks that an event repeats the request and its result.
    fn check_event(
        &self,
        request: &CallerRequest,
        job: &Job,
        made: &[&ProviderRender],
        body: &Value,
    ) {
        let name = body["event"].as_str().unwrap_or_default();
        let is_completed = name == "video.render.completed";
        let video = is_completed.then(|| video_url(&request.tag));
        let render = made.last().filter(|_| is_completed).map(|render| render.id.as_str());
        let echoed = ["provider", "sourceRecordId", "payloadVersion", "metadata"];
        let says = |member: &str| body[member].as_str();
        let is_true = echoed.into_iter().all(|member| body[member] == request.body[member])
            && says("eventId") == Some(EventId::of(&job.id, name).as_str())
            && says("resultUrl") == video.as_deref()
            && (!is_completed || says("renderJobId") == render)
            && body["failure"].is_object() == (name == "video.render.failed");
        if !is_true {
            self.checker.violated(
                Invariant::OneTerminalTruth,
                format!("the event of {} is wrong: {body}", request.tag),
            );
        }
    }

    /// Checks the delivery of an event.
    fn check_delivery(
        &self,
        request: &CallerRequest,
        job: &Job,
        event: &str,
        delivery: Option<&Delivery>,
    ) {
        let default = self.checker.default_receiver(&job.id);
        let receiver = request.receiver().map(str::to_owned).or(default);
        let redirected = self.checker.redirected(&EventId::of(&job.id, event));
        let receiver = redirected.or(receiver);
        let is_well = match (delivery, &receiver) {
            (None, None) => true,
            (None, Some(_)) => false,
            (Some(delivery), receiver) => {
                let is_there = receiver.as_ref().is_none_or(|url| *url == delivery.url);
                is_there
                    && match delivery.state {
                        DeliveryState::Delivered => self.was_taken(delivery),
                        DeliveryState::Exhausted(_) => true,
                        DeliveryState::Pending { .. } | DeliveryState::GivenUp(_) => false,
                    }
            }
        };
        if !is_well {
            let tag = &request.tag;
            self.checker.violated(
                Invariant::EveryJobSettles,
                format!("the webhook {event} of {tag} for {receiver:?} is {delivery:?}"),
            );
        }
    }

    /// Whether the receiver accepted a delivery.
    fn was_taken(&self, delivery: &Delivery) -> bool {
        self.receivers.received().into_iter().any(|webhook| {
            webhook.id == delivery.event_id.as_str()
                && delivery.url.ends_with(&format!("/{}", webhook.receiver))
                && (200..300).contains(&webhook.answered)
        })
    }
}
