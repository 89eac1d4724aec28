//! Jobs and deliveries as the functions make them.

use aws_in_memory::builders::{JobBuilder, job};
use chrono::TimeDelta;
use domain::attempt::{Attempt, AttemptError, Outcome};
use domain::delivery::{Delivery, DeliveryState, GiveUpReason, GivenUp};
use domain::endpoint::{Breaker, Disabled, DisabledReason, Endpoint, Failing, Hold};
use domain::event::{Event, EventName};
use domain::failure::{Failure, FailureCode};
use domain::id::RenderJobId;
use domain::job::{Job, Notice, Observation, RenderResult, RenderStatus, Report, Step};
use serde_json::json;

pub(crate) use aws_in_memory::builders::noon;

/// A job that says as little as a job can.
pub(crate) fn bare_job() -> Job {
    shotstack_job().build()
}

/// A job that carries everything a caller may give it.
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

/// The job after each of the reports, itself first.
pub(crate) fn life(job: Job, reports: &[Report]) -> Vec<Job> {
    let mut life = vec![job];
    for report in reports {
        let last = life.last().unwrap();
        let Step::Changed(job) = last.apply(report, last.attempt_count + 1, noon()) else {
            panic!("{report:?} changes nothing")
        };
        life.push(*job);
    }
    life
}

/// Every way that a life can go, as far as its events and views differ.
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

/// A time of nothing but failures.
pub(crate) fn failing() -> Failing {
    Failing { since: noon(), failures: 7, occasions: 2, occasion_at: noon() }
}

/// An endpoint of every kind.
pub(crate) fn endpoints() -> Vec<Endpoint> {
    let well = Endpoint::unknown("https://shop.example/hooks");
    let later = noon() + TimeDelta::minutes(1);
    let mut all = vec![
        Endpoint { failing: Some(failing()), ..well.clone() },
        Endpoint { breaker: Breaker::Open { until: later, round: 0 }, ..well.clone() },
        Endpoint { breaker: Breaker::HalfOpen { until: later, round: 1 }, ..well.clone() },
        Endpoint { quiet_until: Some(later), slow_until: Some(later), ..well.clone() },
    ];
    all.extend(DisabledReason::ALL.map(|reason| Endpoint {
        disabled: Some(Disabled { at: noon(), reason, announced: true }),
        ..well.clone()
    }));
    all.push(well);
    all
}

/// A delivery in every state, with every outcome among its attempts.
pub(crate) fn deliveries() -> Vec<Delivery> {
    let job = full_job();
    let (status, at) = (domain::job::State::Completed, noon());
    let event = Event::of(&job, &Notice { event: EventName::Completed, status, at });
    let fresh = Delivery::of(&job, &event, "https://shop.example/hooks", at).unwrap();
    let outcomes = AttemptError::ALL.map(Outcome::Failed);
    let outcomes = outcomes.into_iter().chain([Outcome::Answered(500), Outcome::Answered(204)]);
    let attempts: Vec<Attempt> = outcomes
        .map(|outcome| Attempt { at, duration_ms: 12, outcome, excerpt: "words".into() })
        .collect();
    let held = Hold::ALL.map(Some).into_iter().chain([None]);
    let pending = held.map(|held| DeliveryState::Pending { next_at: at, held });
    let ends = GiveUpReason::ALL.map(|reason| GivenUp { at, reason }).into_iter();
    let ends = ends.flat_map(|end| [DeliveryState::GivenUp(end), DeliveryState::Exhausted(end)]);
    let states = pending.chain([DeliveryState::Delivered]).chain(ends);
    let tried = states.map(|state| Delivery { state, attempts: attempts.clone(), ..fresh.clone() });
    [fresh.clone()].into_iter().chain(tried).collect()
}
