use chrono::TimeDelta;
use domain::event::EventSet;
use domain::id::{ProviderName, RenderJobId, SourceRecordId};
use domain::job::{Intent, Step};
use domain::polling::{PollingLaw, Slowdown};

use super::*;

const LAW: PollingLaw = PollingLaw {
    floor: Duration::from_secs(1),
    safety: Duration::from_secs(120),
    deadline: Duration::from_secs(1800),
    durations: None,
    slowdown: Slowdown::NONE,
};

fn start() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_800_000_000_000).unwrap()
}

fn job(tracking: Tracking) -> Job {
    let intent = Intent {
        id: JobId::from_bytes([7; 16]),
        provider: ProviderName::parse("zvid").unwrap(),
        source_record_id: SourceRecordId::parse("p").unwrap(),
        payload_version: None,
        metadata: serde_json::Map::new(),
        callback_url: None,
        wanted: EventSet::ends(),
        fingerprint: [0; 32],
        tracking,
        durations: None,
        shard: 0,
    };
    Job::intend(intent, start())
}

fn accepted(job: &Job) -> Job {
    let report = Report::Accepted(RenderJobId::parse("r").unwrap());
    match job.apply(&report, 0, start()) {
        Step::Changed(job) => *job,
        Step::Unchanged => panic!("not accepted"),
    }
}

fn ticked(job: &Job, seconds: i64) -> bool {
    needs_tick(job, &LAW, start() + TimeDelta::seconds(seconds))
}

#[test]
fn an_unanswered_submit_is_given_up_when_nobody_can_wait_for_it_any_more() {
    let job = job(Tracking::WebhookFirst);
    assert!(!ticked(&job, 44));
    assert!(ticked(&job, 45));
    let repair = repair(&job, Duration::from_secs(45));
    assert_eq!(repair, Some(Repair::Report(Report::SubmitUnclear)));
}

#[test]
fn a_webhook_first_job_is_left_alone_until_its_safety_poll() {
    let job = accepted(&job(Tracking::WebhookFirst));
    let looked: Vec<i64> = (0..9).map(|n| n * 60).filter(|age| ticked(&job, *age)).collect();
    assert_eq!(looked, [120, 180, 300, 420]);
}

#[test]
fn the_tick_is_the_floor_of_a_poll_only_job() {
    let job = accepted(&job(Tracking::PollOnly));
    assert!(!ticked(&job, 59), "its own wake-up calls are seconds apart");
    assert!(ticked(&job, 60));
}

#[test]
fn a_job_that_was_not_told_of_is_looked_at_when_nobody_can_be_telling() {
    let accepted = accepted(&job(Tracking::WebhookFirst));
    let Step::Changed(timed_out) = accepted.apply(&Report::DeadlinePassed, 0, start()) else {
        panic!("no time-out")
    };
    assert!(!ticked(&timed_out, 14), "whoever stored it is telling");
    assert!(ticked(&timed_out, 15));
}

#[test]
fn nobody_is_given_up_unasked() {
    let job = accepted(&job(Tracking::PollOnly));
    assert_eq!(repair(&job, LAW.deadline), None, "the provider is asked once more");
    assert!(needs_tick(&job, &LAW, start() + TimeDelta::seconds(1800)));
    let just_before = LAW.deadline - Duration::from_millis(1);
    assert!(!is_given_up(just_before, LAW.deadline, Heard::Answer));
    assert!(is_given_up(LAW.deadline, LAW.deadline, Heard::Answer));

    let minutes = |n: u64| LAW.deadline + Duration::from_secs(n * 60);
    assert!(!is_given_up(minutes(14), LAW.deadline, Heard::Silence(None)), "it may come back");
    assert!(is_given_up(minutes(15), LAW.deadline, Heard::Silence(None)));
}
