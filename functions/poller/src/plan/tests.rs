use domain::event::EventName;
use domain::failure::{Failure, FailureCode};
use domain::id::RenderJobId;
use domain::job::{OutboxEntry, Report, Transition};

use super::*;
use crate::fixtures::{SCHEDULE, job, start};

/// The spread of a job whose poll times are not shifted.
const MIDDLE: f64 = 0.5;

fn after(job: &Job, report: &Report) -> Job {
    match job.apply(report, 0, start()) {
        Transition::Changed(job) => *job,
        Transition::Unchanged => panic!("unchanged"),
    }
}

fn accepted(job: &Job) -> Job {
    after(job, &Report::Accepted(RenderJobId::parse("r").unwrap()))
}

/// A job that its provider refused, and whose event is not published.
fn failed() -> Job {
    let failure = Failure::new(FailureCode::ProviderRejected, "no scenes");
    after(&job(Tracking::WebhookFirst), &Report::Rejected(failure))
}

/// The next task and the job's age in seconds at it, after a poll at the age `last_polled`.
fn next(job: &Job, last_polled: i64) -> (i64, Task) {
    let last_polled = start() + TimeDelta::seconds(last_polled);
    let next = Plan::of(job, SCHEDULE).next(job.created_at, MIDDLE, last_polled, None);
    ((next.at - start()).num_seconds(), next.task)
}

#[test]
fn unanswered_submit_is_repaired_after_timeout() {
    for tracking in [Tracking::PollOnly, Tracking::WebhookFirst] {
        assert_eq!(next(&job(tracking), 0), (45, Task::Repair));
        assert_eq!(next(&job(tracking), 45), (55, Task::Repair), "and again if that failed");
    }
}

#[test]
fn polled_job_follows_its_schedule() {
    let job = accepted(&job(Tracking::PollOnly));
    let ages: Vec<_> = [0, 2, 4, 7, 8].map(|last_polled| next(&job, last_polled).0).into();
    assert_eq!(ages, [2, 4, 7, 7, 13]);
}

#[test]
fn callback_job_waits_for_safety_poll() {
    let job = accepted(&job(Tracking::WebhookFirst));
    assert_eq!(next(&job, 0), (120, Task::Poll));
    assert_eq!(next(&job, 120), (180, Task::Poll));
}

#[test]
fn unknown_submit_is_searched_for() {
    let job = after(&job(Tracking::WebhookFirst), &Report::SubmitUnclear);
    let ages: Vec<_> = [0, 2, 22].map(|last_polled| next(&job, last_polled).0).into();
    assert_eq!(ages, [2, 22, 42]);
}

#[test]
fn stale_outbox_is_repaired() {
    let job = failed();
    assert_eq!(job.outbox.len(), 1);
    let ages: Vec<_> = [0, 15, 25, 45, 85, 165, 325, 645].map(|last| next(&job, last).0).into();
    assert_eq!(ages, [15, 25, 45, 85, 165, 325, 645, 965], "the waits grow to 320 s");
    let days = 86_400;
    assert!((1..=320).contains(&(next(&job, days).0 - days)), "and no longer");
}

#[test]
fn repairs_of_one_second_are_spread() {
    let ended = failed();
    let plan = Plan::of(&ended, SCHEDULE);
    let hour = start() + TimeDelta::hours(1);
    let at = |spread| (plan.next(ended.created_at, spread, hour, None).at - hour).num_seconds();
    let seen: std::collections::BTreeSet<i64> =
        (0..100).map(|part| at(f64::from(part) / 100.0) / 20).collect();
    assert!(seen.len() > 12, "{seen:?}");
}

#[test]
fn unpublished_event_does_not_stop_polls() {
    let mut job = accepted(&job(Tracking::PollOnly));
    job.outbox.push(OutboxEntry::new(EventName::Queued, State::Queued, start()));
    let tasks: Vec<_> = [0, 2, 4, 8, 14, 15].map(|last_polled| next(&job, last_polled)).into();
    let expected = [
        (2, Task::Poll),
        (4, Task::Poll),
        (7, Task::Poll),
        (13, Task::Poll),
        (15, Task::Repair),
        (19, Task::Poll),
    ];
    assert_eq!(tasks, expected);
}

#[test]
fn timed_out_job_is_polled_ever_more_rarely() {
    let mut job = after(&accepted(&job(Tracking::PollOnly)), &Report::DeadlinePassed);
    job.outbox.clear();
    let deadline = 1_800;
    let series = std::iter::successors(Some(deadline), |last| Some(next(&job, *last).0));
    let minutes: Vec<_> = series.map(|at| (at - deadline) / 60).take(20).collect();
    let expected =
        [0, 1, 3, 7, 15, 31, 63, 95, 127, 159, 191, 223, 255, 287, 319, 351, 360, 361, 362, 363];
    assert_eq!(minutes, expected);
    assert_eq!(next(&job, deadline).1, Task::Poll);
    assert_eq!(next(&job, deadline + 351 * 60).1, Task::Deadline, "then it is given up");
}

#[test]
fn unconfirmed_submit_is_searched_past_deadline() {
    let unknown = after(&job(Tracking::WebhookFirst), &Report::SubmitUnclear);
    let mut job = after(&unknown, &Report::DeadlinePassed);
    job.outbox.clear();
    assert_eq!((job.state, next(&job, 1_800)), (State::Failed, (1_860, Task::Poll)));
}

#[test]
fn suspect_is_put_off_until_its_deadline() {
    let job = accepted(&job(Tracking::PollOnly));
    let polled = |age, wait| {
        let at = start() + TimeDelta::seconds(age);
        let suspicion = Suspicion::after(None, Some(Duration::from_secs(wait)), MIDDLE, at);
        let plan = Plan::of(&job, SCHEDULE);
        let next = plan.next(job.created_at, MIDDLE, at, Some(&suspicion));
        ((next.at - start()).num_seconds(), next.task)
    };
    assert_eq!(polled(60, 0), (65, Task::Poll), "its backoff is later than its plan");
    assert_eq!(polled(60, 600), (660, Task::Poll));
    assert_eq!(polled(1_500, 600), (1_800, Task::Deadline));
    assert_eq!(polled(1_800, 600), (1_860, Task::Deadline), "its time-out failed to be stored");
}

#[test]
fn late_job_is_polled_once_a_minute() {
    let job = accepted(&job(Tracking::PollOnly));
    assert_eq!(next(&job, 1_799), (1_800, Task::Deadline));
    assert_eq!(next(&job, 1_800), (1_860, Task::Deadline));
}

/// After a sleep the poller only knows up to when all polls were made.
#[test]
fn due_time_is_stable() {
    let polled = accepted(&job(Tracking::PollOnly));
    let safe = accepted(&job(Tracking::WebhookFirst));
    let untold = after(&safe, &Report::DeadlinePassed);
    for job in [job(Tracking::PollOnly), polled, safe, untold] {
        let mut last_polled = 0;
        for _ in 0..400 {
            let due = next(&job, last_polled);
            assert!(due.0 > last_polled);
            assert!(
                (last_polled..due.0).all(|at| next(&job, at) == due),
                "{due:?} after {last_polled}"
            );
            last_polled = due.0 + 1;
        }
    }
}
