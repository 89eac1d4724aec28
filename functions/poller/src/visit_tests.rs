use domain::event::EventSet;
use domain::id::{JobId, ProviderName, RenderJobId, SourceRecordId};
use domain::job::{Intent, Step};
use domain::polling::{Slowdown, Tracking};

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

fn job() -> Job {
    let intent = Intent {
        id: JobId::from_bytes([7; 16]),
        provider: ProviderName::parse("zvid").unwrap(),
        source_record_id: SourceRecordId::parse("p").unwrap(),
        payload_version: None,
        metadata: serde_json::Map::new(),
        callback_url: None,
        wanted: EventSet::ends(),
        fingerprint: [0; 32],
        tracking: Tracking::PollOnly,
        durations: None,
        shard: 0,
    };
    Job::intend(intent, start())
}

fn at(seconds: i64) -> DateTime<Utc> {
    start() + TimeDelta::seconds(seconds)
}

#[test]
fn an_unanswered_submit_is_given_up_when_nobody_can_wait_for_it_any_more() {
    assert_eq!(repair(&job(), at(44)), None);
    assert_eq!(repair(&job(), at(45)), Some(Repair::Report(Report::SubmitUnclear)));
}

#[test]
fn nobody_is_given_up_unasked() {
    let accepted = Report::Accepted(RenderJobId::parse("r").unwrap());
    let Step::Changed(job) = job().apply(&accepted, 0, start()) else { panic!("not accepted") };
    assert_eq!(repair(&job, at(1_800)), None, "the provider is asked once more");

    let told = Said { told: true, heard: Heard::Answer };
    let trouble = Said { told: false, heard: Heard::Trouble(None) };
    let too_much = Said { told: false, heard: Heard::TooMuch(None) };
    for (said, is_down, seconds) in [
        (told, false, 1_800),
        (Said::nothing(), false, 1_800),
        // The provider tells of others.
        (trouble, false, 1_800 + 15 * 60),
        // It tells nobody.
        (trouble, true, 1_800 + 6 * 3_600),
        (too_much, false, 1_800 + 6 * 3_600),
    ] {
        assert!(!is_given_up(&job, &LAW, said, is_down, at(seconds - 1)), "{said:?}");
        assert!(is_given_up(&job, &LAW, said, is_down, at(seconds)), "{said:?}");
    }
}

#[test]
fn what_is_wrong_with_a_render_is_no_trouble_of_its_provider() {
    assert_eq!(heard(ErrorClass::Invalid, None), Heard::Answer);
    assert_eq!(heard(ErrorClass::Auth, None), Heard::Trouble(None));
    let wait = Some(Duration::from_secs(3));
    assert_eq!(heard(ErrorClass::Rate, wait), Heard::TooMuch(wait));
}
