use chrono::TimeDelta;
use domain::id::RenderJobId;
use domain::job::Transition;
use domain::polling::Tracking;

use super::*;
use crate::fixtures::{SCHEDULE, job, start};

fn at(seconds: i64) -> DateTime<Utc> {
    start() + TimeDelta::seconds(seconds)
}

#[test]
fn unanswered_submit_becomes_unclear() {
    assert_eq!(repair_action(&job(Tracking::PollOnly), PollTarget::Repair, at(44)), None);
    assert_eq!(
        repair_action(&job(Tracking::PollOnly), PollTarget::Repair, at(45)),
        Some(RepairAction::Report(Report::SubmitUnclear)),
        "invariant 1: it is not submitted again"
    );
}

#[test]
fn job_times_out_after_asking() {
    let accepted = Report::Accepted(RenderJobId::parse("r").unwrap());
    let Transition::Changed(job) = job(Tracking::PollOnly).apply(&accepted, 0, start()) else {
        panic!("not accepted")
    };
    assert_eq!(
        repair_action(&job, PollTarget::Provider, at(1_800)),
        None,
        "invariant 2: the provider is asked once more"
    );
    assert!(!times_out(&job, &SCHEDULE, at(1_799)) && times_out(&job, &SCHEDULE, at(1_800)));
    let Transition::Changed(ended) = job.apply(&Report::DeadlinePassed, 0, at(1_800)) else {
        panic!("no time-out")
    };
    assert!(!times_out(&ended, &SCHEDULE, at(9_000)), "once");
}

#[test]
fn unconfirmed_job_is_asked_about_again() {
    let Transition::Changed(unclear) =
        job(Tracking::PollOnly).apply(&Report::SubmitUnclear, 0, start())
    else {
        panic!("not unclear")
    };
    let Transition::Changed(failed) = unclear.apply(&Report::DeadlinePassed, 0, start()) else {
        panic!("not failed")
    };
    assert_eq!(repair_action(&failed, PollTarget::Provider, at(2_000)), None);
    let publish = Some(RepairAction::PublishOnly);
    assert_eq!(repair_action(&failed, PollTarget::Repair, at(2_000)), publish);
}

#[test]
fn status_error_table() {
    let reason = |class, status| match status_reply(class, status, None).result {
        PollResult::NotTold(trouble) => Some(trouble.reason),
        PollResult::Told | PollResult::NotAsked => None,
    };
    for (class, status, expected) in [
        (ErrorClass::Rate, Some(429), Some(PauseReason::RateLimited)),
        (ErrorClass::Busy, Some(503), Some(PauseReason::RateLimited)),
        (ErrorClass::Auth, Some(401), Some(PauseReason::RefusedKey)),
        (ErrorClass::Quota, Some(402), Some(PauseReason::RefusedKey)),
        (ErrorClass::Transient, Some(500), Some(PauseReason::ServerError)),
        (ErrorClass::Transient, Some(200), Some(PauseReason::UnreadableAnswer)),
        (ErrorClass::Transient, None, Some(PauseReason::Unreachable)),
        (ErrorClass::Invalid, Some(400), None),
    ] {
        assert_eq!(reason(class, status), expected, "{class:?} {status:?}");
    }
    let wait = Some(Duration::from_secs(3));
    let PollResult::NotTold(trouble) = status_reply(ErrorClass::Rate, Some(429), wait).result
    else {
        panic!("told")
    };
    assert_eq!(
        trouble,
        Trouble { reason: PauseReason::RateLimited, status: Some(429), retry_after: wait }
    );
}
