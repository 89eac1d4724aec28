//! Jobs, deliveries and endpoints in all their states.

use aws_in_memory::builders::{JobBuilder, job};
use chrono::TimeDelta;
use domain::attempt::{Attempt, AttemptError, AttemptOutcome};
use domain::delivery::{Delivery, DeliveryState, GiveUpReason, GivenUp};
use domain::endpoint::{Breaker, Disabled, DisabledReason, Endpoint, Failing, HoldReason};
use domain::event::{Event, EventName};
use domain::failure::{Failure, FailureCode};
use domain::id::RenderJobId;
use domain::job::{Job, Observation, OutboxEntry, RenderResult, RenderStatus, Report, Transition};
use serde_json::json;

pub(crate) use aws_in_memory::builders::noon;

/// A job without optional members.
pub(crate) fn bare_job() -> Job {
    shotstack_job().build()
}

/// A job with all optional members.
pub(crate) fn full_job() -> Job {
    let metadata = json!({"campaign": {"id": 7}, "tags": ["a", null]});
    shotstack_job()
        .payload_version("product-promo-v4")
        .callback_url(Some("https://shop.example/hooks"))
        .metadata(&metadata)
        .build()
}

fn shotstack_job() -> JobBuilder {
    job().provider("shotstack").subscribed_events(EventName::ALL)
}

pub(crate) fn accepted() -> Report {
    Report::Accepted(RenderJobId::parse("2abd5c11-0f3d").unwrap())
}

pub(crate) fn rejected() -> Report {
    Report::Rejected(Failure::new(FailureCode::ProviderRejected, "\"src\" is required"))
}

pub(crate) fn observed(status: RenderStatus) -> Report {
    Report::Observed(Observation {
        render_job_id: None,
        status,
        provider_status: "word".into(),
        progress: Some(0.5),
    })
}

pub(crate) fn completed(url: Option<&str>) -> Report {
    let expires_at = url.map(|_| noon() + TimeDelta::days(1));
    observed(RenderStatus::Completed(RenderResult { url: url.map(Into::into), expires_at }))
}

pub(crate) fn failed() -> Report {
    let failure = Failure::new(FailureCode::RenderFailed, "no such clip").with_provider_code("E42");
    observed(RenderStatus::Failed(failure))
}

/// The job, and the job after each of the reports.
pub(crate) fn life(job: Job, reports: &[Report]) -> Vec<Job> {
    let mut life = vec![job];
    for report in reports {
        let last = life.last().unwrap();
        let Transition::Changed(job) = last.apply(report, last.attempt_count + 1, noon()) else {
            panic!("{report:?} changes nothing")
        };
        life.push(*job);
    }
    life
}

/// The lives of jobs whose events or views differ.
pub(crate) fn lives() -> Vec<Vec<Job>> {
    let (queued, processing) = (observed(RenderStatus::Queued), observed(RenderStatus::Processing));
    let url = Some("https://cdn.example/product-123.mp4");
    vec![
        life(bare_job(), &[accepted(), processing.clone(), completed(url)]),
        life(full_job(), &[queued, processing, failed()]),
        life(full_job(), &[completed(None)]),
        life(bare_job(), &[rejected()]),
        life(bare_job(), &[Report::SubmitUnclear, Report::DeadlinePassed]),
        life(full_job(), &[accepted(), observed(RenderStatus::Cancelled)]),
        life(full_job(), &[accepted(), Report::DeadlinePassed, completed(url)]),
    ]
}

/// A series of failures without a success.
pub(crate) fn failing() -> Failing {
    Failing { since: noon(), failures: 7, windows: 2, window_at: noon() }
}

/// An endpoint in every state.
pub(crate) fn endpoints() -> Vec<Endpoint> {
    let healthy = Endpoint::unknown("https://shop.example/hooks");
    let later = noon() + TimeDelta::minutes(1);
    let mut all = vec![
        Endpoint { failing: Some(failing()), ..healthy.clone() },
        Endpoint { breaker: Breaker::Open { until: later, round: 0 }, ..healthy.clone() },
        Endpoint { breaker: Breaker::HalfOpen { until: later, round: 1 }, ..healthy.clone() },
        Endpoint { throttled_until: Some(later), slow_until: Some(later), ..healthy.clone() },
    ];
    all.extend(DisabledReason::ALL.map(|reason| Endpoint {
        disabled: Some(Disabled { at: noon(), reason, announced: true }),
        ..healthy.clone()
    }));
    all.push(healthy);
    all
}

/// A delivery in every state, with every outcome in its attempts.
pub(crate) fn deliveries() -> Vec<Delivery> {
    let job = full_job();
    let (status, at) = (domain::job::State::Completed, noon());
    let event = Event::of(&job, &OutboxEntry::new(EventName::Completed, status, at));
    let fresh = Delivery::of(&job, &event, "https://shop.example/hooks", at).unwrap();
    let outcomes = AttemptError::ALL.map(AttemptOutcome::Failed);
    let outcomes =
        outcomes.into_iter().chain([AttemptOutcome::Answered(500), AttemptOutcome::Answered(204)]);
    let attempts: Vec<Attempt> = outcomes
        .map(|outcome| Attempt { at, duration_ms: 12, outcome, excerpt: "words".into() })
        .collect();
    let held = HoldReason::ALL.map(Some).into_iter().chain([None]);
    let pending = held.map(|held| DeliveryState::Pending { next_at: at, held });
    let ends = GiveUpReason::ALL.map(|reason| GivenUp { at, reason }).into_iter();
    let ends = ends.flat_map(|end| [DeliveryState::GivenUp(end), DeliveryState::Exhausted(end)]);
    let states = pending.chain([DeliveryState::Delivered]).chain(ends);
    let tried = states.map(|state| Delivery { state, attempts: attempts.clone(), ..fresh.clone() });
    [fresh.clone()].into_iter().chain(tried).collect()
}
