use domain::id::RenderJobId;
use domain::job::{Report, Step};

use super::*;
use crate::fixtures::{SCHEDULE, job, start};

/// The spread of a job whose poll times are not shifted.
const MIDDLE: f64 = 0.5;

fn after(job: &Job, report: &Report) -> Job {
    match job.apply(report, 0, start()) {
        Step::Changed(job) => *job,
        Step::Unchanged => panic!("unchanged"),
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
fn an_unanswered_submit_is_left_alone_until_nobody_can_wait_for_it_any_more() {
    for tracking in [Tracking::PollOnly, Tracking::WebhookFirst] {
        assert_eq!(next(&job(tracking), 0), (45, Task::Repair));
        assert_eq!(next(&job(tracking), 45), (55, Task::Repair), "and again if that failed");
    }
}

#[test]
fn a_job_that_only_we_ask_about_is_asked_about_by_its_law() {
    let job = accepted(&job(Tracking::PollOnly));
    let ages: Vec<_> = [0, 2, 4, 7, 8].map(|last_polled| next(&job, last_polled).0).into();
    assert_eq!(ages, [2, 4, 7, 7, 13]);
}

#[test]
fn a_job_with_a_callback_is_left_alone_until_its_safety_poll() {
    let job = accepted(&job(Tracking::WebhookFirst));
    assert_eq!(next(&job, 0), (120, Task::Poll));
    assert_eq!(next(&job, 120), (180, Task::Poll));
}

#[test]
fn a_render_that_may_not_exist_is_searched_for_whoever_should_call() {
    let job = after(&job(Tracking::WebhookFirst), &Report::SubmitUnclear);
    let ages: Vec<_> = [0, 2, 22].map(|last_polled| next(&job, last_polled).0).into();
    assert_eq!(ages, [2, 22, 42]);
}

#[test]
fn what_was_not_told_is_told_when_nobody_can_be_telling() {
    let job = after(&accepted(&job(Tracking::WebhookFirst)), &Report::DeadlinePassed);
    assert_eq!(job.outbox.len(), 1);
    assert_eq!(next(&job, 0), (15, Task::Repair));
    assert_eq!(next(&job, 15), (25, Task::Repair));
    assert_eq!(next(&job, 100), (105, Task::Repair));
}

#[test]
fn past_its_deadline_a_job_is_looked_at_once_a_minute() {
    let job = accepted(&job(Tracking::PollOnly));
    assert_eq!(next(&job, 1_799), (1_800, Task::Poll));
    assert_eq!(next(&job, 1_800), (1_860, Task::Poll));
}

/// After a sleep the poller only knows up to when all polls were made.
#[test]
fn a_look_that_is_due_stays_due_whenever_one_asks_for_it() {
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
fn who_has_waited_for_hours_does_not_wait_for_a_pause() {
    let plan = Plan::of(&accepted(&job(Tracking::PollOnly)), SCHEDULE);
    let hours = |hours: i64| start() + TimeDelta::hours(hours);
    assert!(!plan.is_past_deadline(start(), hours(6)));
    assert!(plan.is_past_deadline(start(), hours(7)));
}
