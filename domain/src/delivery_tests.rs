use super::*;
use crate::fixtures::{completed_job, noon};

fn delivery() -> Delivery {
    let job = completed_job();
    let event = Event::of(&job, &job.outbox[0]);
    Delivery::of(&job, &event, "https://receiver.example/hooks", noon()).unwrap()
}

fn attempt(outcome: Outcome) -> Attempt {
    Attempt { at: noon(), duration_ms: 12, outcome, excerpt: "words".into() }
}

fn record(delivery: &Delivery, outcome: Outcome, now: DateTime<Utc>) -> (Delivery, Consequence) {
    delivery.record(attempt(outcome), None, &DeliverySchedule::default(), 0.0, now)
}

#[test]
fn the_whole_schedule_of_a_receiver_that_never_answers() {
    let mut delivery = delivery();
    let mut now = noon();
    let mut waits = Vec::new();
    loop {
        assert_eq!(delivery.admit(delivery.attempts.len(), now), {
            Admission::Attempt(delivery.attempts.len())
        });
        let failed = Outcome::Failed(AttemptError::Timeout);
        let (after, consequence) = record(&delivery.leased(now), failed, now);
        delivery = after;
        match consequence {
            Consequence::Retry { at } => {
                waits.push((at - now).num_seconds());
                now = at;
            }
            Consequence::GiveUp => break,
            Consequence::Delivered => panic!("nobody answered"),
        }
    }
    assert_eq!(waits, [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]);
    assert_eq!(delivery.attempts.len(), 10);
    assert_eq!(delivery.state, DeliveryState::GivenUp);
    assert_eq!(delivery.admit(9, now), Admission::Announce);
    assert_eq!(delivery.announced().admit(9, now), Admission::Finished);
}

#[test]
fn only_2xx_delivers_and_gone_is_final() {
    for (status, expected) in [
        (200, "delivered"),
        (204, "delivered"),
        (299, "delivered"),
        (301, "pending"),
        (304, "pending"),
        (400, "pending"),
        (410, "exhausted"),
        (429, "pending"),
        (500, "pending"),
        (100, "pending"),
    ] {
        let (after, _) = record(&delivery(), Outcome::Answered(status), noon());
        assert_eq!(after.state.name(), expected, "{status}");
    }
}

#[test]
fn retry_after_is_never_undercut_and_never_hurries() {
    let schedule = DeliverySchedule::default();
    let busy = attempt(Outcome::Answered(503));
    let wait = |retry_after: u64, luck| {
        let retry_after = Some(Duration::from_secs(retry_after));
        match delivery().record(busy.clone(), retry_after, &schedule, luck, noon()).1 {
            Consequence::Retry { at } => (at - noon()).num_milliseconds(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(wait(60, 0.0), 60_000);
    assert_eq!(wait(1, 0.0), 5_000, "sooner than the schedule is not sooner");
    assert_eq!(wait(60, 1.0), 66_000);
}

#[test]
fn a_ticket_that_comes_twice_makes_one_attempt() {
    let fresh = delivery();
    assert_eq!(fresh.admit(0, noon()), Admission::Attempt(0));
    let leased = fresh.leased(noon());
    assert_eq!(leased.admit(0, noon()), Admission::Leased(noon() + LEASE));
    assert_eq!(leased.admit(0, noon() + LEASE), Admission::Attempt(0), "the holder crashed");

    let (after, _) = record(&leased, Outcome::Answered(500), noon());
    let due = noon() + TimeDelta::seconds(5);
    assert_eq!(after.admit(0, noon()), Admission::Superseded { next: 1, at: due });
    assert_eq!(after.admit(1, noon()), Admission::Early(due));
    assert_eq!(after.admit(1, due), Admission::Attempt(1));

    let (done, _) = record(&after, Outcome::Answered(200), due);
    assert_eq!(done.admit(1, due), Admission::Finished);
}

#[test]
fn a_redelivery_starts_the_schedule_again_with_the_same_bytes() {
    let (done, _) = record(&delivery(), Outcome::Answered(200), noon());
    let again = done.redeliver(noon()).unwrap();
    assert_eq!((&again.event_id, &again.body), (&done.event_id, &done.body));
    assert_eq!(again.admit(1, noon()), Admission::Attempt(1));
    let (failed, consequence) = record(&again, Outcome::Answered(500), noon());
    assert_eq!(consequence, Consequence::Retry { at: noon() + TimeDelta::seconds(5) });
    assert_eq!(failed.redeliver(noon()), None, "it is on its way already");
    let lost = noon() + TimeDelta::minutes(21);
    assert!(failed.redeliver(lost).is_some(), "its ticket is among the dead letters");
}

#[test]
fn old_attempts_keep_their_facts_but_not_their_words() {
    let mut delivery = delivery();
    for _ in 0..12 {
        delivery = record(&delivery, Outcome::Answered(500), noon()).0;
    }
    let kept = delivery.attempts.iter().filter(|a| !a.excerpt.is_empty()).count();
    assert_eq!((delivery.attempts.len(), kept), (12, EXCERPTS_KEPT));
}
