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
fn job_is_given_up_after_asking() {
    let accepted = Report::Accepted(RenderJobId::parse("r").unwrap());
    let Transition::Changed(job) = job(Tracking::PollOnly).apply(&accepted, 0, start()) else {
        panic!("not accepted")
    };
    assert_eq!(
        repair_action(&job, PollTarget::Provider { is_down: false }, at(1_800)),
        None,
        "invariant 2: the provider is asked once more"
    );

    let conclusive = StatusReply { is_conclusive: true, result: PollResult::Answered };
    let trouble = StatusReply { is_conclusive: false, result: PollResult::Failed(None) };
    let too_much = StatusReply { is_conclusive: false, result: PollResult::RateLimited(None) };
    for (reply, is_down, seconds) in [
        (conclusive, false, 1_800),
        (StatusReply::not_asked(), false, 1_800),
        // The provider answers for other jobs.
        (trouble, false, 1_800 + 15 * 60),
        // The provider is down.
        (trouble, true, 1_800 + 6 * 3_600),
        (too_much, false, 1_800 + 6 * 3_600),
    ] {
        assert!(!is_given_up(&job, &SCHEDULE, reply, is_down, at(seconds - 1)), "{reply:?}");
        assert!(is_given_up(&job, &SCHEDULE, reply, is_down, at(seconds)), "{reply:?}");
    }
}

#[test]
fn render_error_is_no_provider_failure() {
    assert_eq!(poll_result(ErrorClass::Invalid, None), PollResult::Answered);
    assert_eq!(poll_result(ErrorClass::Auth, None), PollResult::Failed(None));
    let wait = Some(Duration::from_secs(3));
    assert_eq!(poll_result(ErrorClass::Rate, wait), PollResult::RateLimited(wait));
}
