use domain::id::RenderJobId;
use domain::job::{Report, Transition};

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

/// The next task and the job's age in seconds at it, after a poll at the age `last_polled`.
fn next(job: &Job, last_polled: i64) -> (i64, Task) {
    let last_polled = start() + TimeDelta::seconds(last_polled);
    let next = Plan::of(job, SCHEDULE).next(job.created_at, MIDDLE, last_polled);
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
    let job = after(&accepted(&job(Tracking::WebhookFirst)), &Report::DeadlinePassed);
    assert_eq!(job.outbox.len(), 1);
    assert_eq!(next(&job, 0), (15, Task::Repair));
    assert_eq!(next(&job, 15), (25, Task::Repair));
    assert_eq!(next(&job, 100), (105, Task::Repair));
}

#[test]
fn late_job_is_polled_once_a_minute() {
    let job = accepted(&job(Tracking::PollOnly));
    assert_eq!(next(&job, 1_799), (1_800, Task::Poll));
    assert_eq!(next(&job, 1_800), (1_860, Task::Poll));
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

#[test]
fn max_outage_ends_the_wait() {
    let plan = Plan::of(&accepted(&job(Tracking::PollOnly)), SCHEDULE);
    let hours = |hours: i64| start() + TimeDelta::hours(hours);
    assert!(!plan.is_past_outage_limit(start(), hours(6)));
    assert!(plan.is_past_outage_limit(start(), hours(7)));
}
