use std::time::Duration;

use chrono::TimeDelta;

use super::*;
use crate::attempt::AttemptError;
use crate::endpoint::{AdmissionDecision, AttemptRequest, AttemptSignal, Lane};
use crate::fixtures::{completed_job, noon};

const URL: &str = "https://receiver.example/hooks";

fn delivery() -> Delivery {
    let job = completed_job();
    let event = Event::of(&job, &job.outbox[0]);
    Delivery::of(&job, &event, URL, noon()).unwrap()
}

fn attempt(outcome: AttemptOutcome) -> Attempt {
    Attempt { at: noon(), duration_ms: 12, outcome, excerpt: "words".into() }
}

fn record(
    delivery: &Delivery,
    outcome: AttemptOutcome,
    now: DateTime<Utc>,
) -> (Delivery, Consequence) {
    record_at(delivery, outcome, ResponseHints::default(), &Endpoint::unknown(URL), now)
}

fn record_at(
    delivery: &Delivery,
    outcome: AttemptOutcome,
    hints: ResponseHints,
    endpoint: &Endpoint,
    now: DateTime<Utc>,
) -> (Delivery, Consequence) {
    let schedule = DeliverySchedule::default();
    delivery.clone().record(attempt(outcome), hints, endpoint, &schedule, 0.0, now)
}

/// The endpoint after so many answers of this status, the others two seconds ago.
fn endpoint_after(times: u32, status: u16, now: DateTime<Utc>) -> Endpoint {
    let request = AttemptRequest {
        manual: false,
        has_slot: false,
        lane: Lane::Quick,
        token: 0,
        jitter_sample: 0.0,
    };
    let signal = AttemptSignal::of(
        AttemptOutcome::Answered(status),
        ResponseHints::default(),
        Duration::ZERO,
    );
    let at = |number| if number == times { now } else { now - TimeDelta::seconds(2) };
    (1..=times).map(at).fold(Endpoint::unknown(URL), |endpoint, at| {
        match endpoint.admit(&request, at) {
            AdmissionDecision::Go { permit, .. } => endpoint.record(&permit, &signal, at).unwrap(),
            other => panic!("{other:?}"),
        }
    })
}

fn reason(delivery: &Delivery) -> &str {
    delivery.state.reason().unwrap_or("none")
}

#[test]
fn delivery_exhausts_its_whole_schedule() {
    let mut delivery = delivery();
    let mut now = noon();
    let mut waits = Vec::new();
    loop {
        assert_eq!(delivery.decide_ticket(delivery.attempts.len(), now), {
            TicketDecision::Attempt(delivery.attempts.len())
        });
        let failed = AttemptOutcome::Failed(AttemptError::Timeout);
        let (after, consequence) = record(&delivery.clone().leased(now), failed, now);
        delivery = after;
        match consequence {
            Consequence::Retry { at } => {
                waits.push((at - now).num_seconds());
                now = at;
            }
            Consequence::GiveUp => break,
            Consequence::Delivered => panic!("there was no answer"),
        }
    }
    assert_eq!(waits, [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]);
    assert_eq!(delivery.attempts.len(), 10);
    assert_eq!((delivery.state.name(), reason(&delivery)), ("exhausted", "attempts_exhausted"));
    assert_eq!(delivery.decide_ticket(9, now), TicketDecision::Announce);
    assert_eq!(delivery.announced().decide_ticket(9, now), TicketDecision::Finished);
}

#[test]
fn delivery_needs_2xx_and_gone_ends_it() {
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
        let (after, _) = record(&delivery(), AttemptOutcome::Answered(status), noon());
        assert_eq!(after.state.name(), expected, "{status}");
    }
}

#[test]
fn retry_after_only_lengthens_the_wait() {
    let schedule = DeliverySchedule::default();
    let busy = attempt(AttemptOutcome::Answered(503));
    let wait = |retry_after: u64, jitter_sample| {
        let retry_after = Some(Duration::from_secs(retry_after));
        let hints = ResponseHints { retry_after, instruction: None };
        let endpoint = Endpoint::unknown(URL);
        match delivery().record(busy.clone(), hints, &endpoint, &schedule, jitter_sample, noon()).1
        {
            Consequence::Retry { at } => (at - noon()).num_milliseconds(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(wait(60, 0.0), 60_000);
    assert_eq!(wait(1, 0.0), 5_000, "sooner than the schedule is not sooner");
    assert_eq!(wait(60, 1.0), 66_000);
}

#[test]
fn ticket_repeated_makes_one_attempt() {
    let fresh = delivery();
    assert_eq!(fresh.decide_ticket(0, noon()), TicketDecision::Attempt(0));
    let leased = fresh.leased(noon());
    assert_eq!(leased.decide_ticket(0, noon()), TicketDecision::Leased(noon() + ATTEMPT_LEASE));
    assert_eq!(
        leased.decide_ticket(0, noon() + ATTEMPT_LEASE),
        TicketDecision::Attempt(0),
        "the holder crashed"
    );

    let (after, _) = record(&leased, AttemptOutcome::Answered(500), noon());
    let due = noon() + TimeDelta::seconds(5);
    assert_eq!(after.decide_ticket(0, noon()), TicketDecision::Superseded { next: 1, at: due });
    assert_eq!(after.decide_ticket(1, noon()), TicketDecision::Early(due));
    assert_eq!(after.decide_ticket(1, due), TicketDecision::Attempt(1));

    let (done, _) = record(&after, AttemptOutcome::Answered(200), due);
    assert_eq!(done.decide_ticket(1, due), TicketDecision::Finished);
}

#[test]
fn redelivery_restarts_schedule_with_same_bytes() {
    let (done, _) = record(&delivery(), AttemptOutcome::Answered(200), noon());
    let again = done.redeliver(noon()).unwrap();
    assert_eq!((&again.event_id, &again.body), (&done.event_id, &done.body));
    assert_eq!(again.decide_ticket(1, noon()), TicketDecision::Attempt(1));
    let (failed, consequence) = record(&again, AttemptOutcome::Answered(500), noon());
    assert_eq!(consequence, Consequence::Retry { at: noon() + TimeDelta::seconds(5) });
    assert_eq!(failed.redeliver(noon()), Err(RedeliverError::Pending), "it is on its way already");
    let lost = noon() + TimeDelta::minutes(21);
    assert!(failed.redeliver(lost).is_ok(), "its ticket is among the dead letters");
}

#[test]
fn redelivery_ends_after_thousand_attempts() {
    let (given_up, _) = record(&delivery(), AttemptOutcome::Answered(410), noon());
    let tried = |times| {
        let attempts = vec![given_up.attempts[0].clone(); times];
        Delivery { attempts, ..given_up.clone() }
    };
    assert!(tried(999).redeliver(noon()).is_ok() && tried(999).recover(noon()).is_some());
    assert_eq!(tried(1_000).redeliver(noon()), Err(RedeliverError::TooOften));
    assert_eq!(tried(1_000).recover(noon()), None);
}

#[test]
fn redelivery_is_manual_recovery_is_not() {
    let (given_up, _) = record(&delivery(), AttemptOutcome::Answered(410), noon());
    let redelivered = given_up.redeliver(noon()).unwrap();
    assert!(redelivered.manual);
    let (failed, _) = record(&redelivered, AttemptOutcome::Answered(500), noon());
    assert!(!failed.manual, "the attempts after it are not manual");

    let recovered = given_up.recover(noon()).unwrap();
    assert!(!recovered.manual);
    assert_eq!(recovered.recover(noon()), None, "never twice at once");
    let (done, _) = record(&recovered, AttemptOutcome::Answered(200), noon());
    assert_eq!(done.recover(noon()), None, "what was delivered is not undelivered");
}

#[test]
fn delivery_is_given_up_with_reason() {
    let asked =
        |header| ResponseHints { retry_after: None, instruction: Instruction::parse(header) };
    let well = Endpoint::unknown(URL);
    let disabled = endpoint_after(1, 410, noon());
    for (status, hints, endpoint, expected) in [
        (410, ResponseHints::default(), &disabled, "gone"),
        (400, asked("abort-message"), &well, "aborted"),
        (500, asked("disable"), &disabled, "endpoint_disabled"),
        (500, ResponseHints::default(), &disabled, "endpoint_disabled"),
    ] {
        let (after, consequence) =
            record_at(&delivery(), AttemptOutcome::Answered(status), hints, endpoint, noon());
        assert_eq!((reason(&after), consequence), (expected, Consequence::GiveUp), "{status}");
    }
    for header in ["abort-message", "disable"] {
        let (after, _) =
            record_at(&delivery(), AttemptOutcome::Answered(200), asked(header), &disabled, noon());
        assert_eq!(after.state, DeliveryState::Delivered, "{header}");
    }
    assert_eq!(reason(&delivery().refused(noon())), "endpoint_disabled");
}

#[test]
fn delivery_held_keeps_its_attempt() {
    let (failed, _) = record(&delivery(), AttemptOutcome::Answered(500), noon());
    let until = noon() + TimeDelta::minutes(10);
    let schedule = DeliverySchedule::default();
    let (held, consequence) = failed.hold(until, HoldReason::Failing, &schedule, noon());
    assert_eq!(
        (reason(&held), consequence),
        ("endpoint_failing", Consequence::Retry { at: until })
    );
    assert_eq!(held.decide_ticket(1, noon()), TicketDecision::Early(until));
    assert_eq!(held.decide_ticket(1, until), TicketDecision::Attempt(1));
    assert_eq!((held.attempts.len(), held.has_slot()), (1, false));
    let (throttled, _) = failed.hold(until, HoldReason::Throttled, &schedule, noon());
    assert_eq!(
        throttled.redeliver(noon()),
        Err(RedeliverError::Pending),
        "it would only be held again"
    );
    assert!(held.redeliver(noon()).is_ok_and(|now| now.manual), "it can be sent at once");
    assert!(held.hold(until, HoldReason::Rate, &schedule, noon()).0.has_slot());
}

#[test]
fn delivery_held_too_long_is_given_up() {
    let schedule = DeliverySchedule::default();
    let longest = later(noon(), schedule.longest());
    let (held, _) = delivery().hold(longest, HoldReason::Throttled, &schedule, noon());
    assert_eq!(held.state.name(), "pending");
    let late = longest + TimeDelta::seconds(1);
    let (given_up, consequence) = held.hold(late, HoldReason::Throttled, &schedule, longest);
    assert_eq!((reason(&given_up), consequence), ("held_too_long", Consequence::GiveUp));
    // However long its receiver asks it to wait before each attempt, its schedule fits.
    let asked = Duration::from_secs(24 * 3600) * 10;
    assert!(longest >= later(noon(), asked));
    let again = given_up.redeliver(late).unwrap();
    assert_eq!(again.hold(late, HoldReason::Throttled, &schedule, late).0.state.name(), "pending");
}

#[test]
fn delivery_waits_for_open_breaker() {
    let open = endpoint_after(5, 500, noon());
    let hints = ResponseHints::default();
    let (after, _) = record_at(&delivery(), AttemptOutcome::Answered(500), hints, &open, noon());
    let held = DeliveryState::Pending {
        next_at: noon() + TimeDelta::seconds(60),
        held: Some(HoldReason::Failing),
    };
    assert_eq!(after.state, held);
    let (third, _) = record_at(&after, AttemptOutcome::Answered(500), hints, &open, noon());
    let own = DeliveryState::Pending { next_at: noon() + TimeDelta::minutes(5), held: None };
    assert_eq!(third.state, own, "its own schedule is longer");
}

#[test]
fn delivery_keeps_ten_excerpts() {
    let mut delivery = delivery();
    for _ in 0..12 {
        delivery = record(&delivery, AttemptOutcome::Answered(500), noon()).0;
    }
    let kept = delivery.attempts.iter().filter(|a| !a.excerpt.is_empty()).count();
    assert_eq!((delivery.attempts.len(), kept), (12, EXCERPTS_KEPT));
}

#[test]
fn contended_attempt_asks_ever_more_rarely() {
    let (delivery, schedule) = (delivery(), DeliverySchedule::default());
    let asked = |jitter_sample| {
        let (mut at, mut times) = (noon(), 0);
        while at < noon() + TimeDelta::hours(1) {
            let Contention::AskAgain(wait) = delivery.contended(jitter_sample, &schedule, at)
            else {
                panic!("it is given up after {}", at - noon());
            };
            assert!(wait >= Duration::from_secs(1));
            at = later(at, wait);
            times += 1;
        }
        times
    };
    assert_eq!([asked(0.0), asked(1.0)], [129, 34]);
}

#[test]
fn contention_ends_with_the_schedule() {
    let schedule = DeliverySchedule::default();
    let longest = later(noon(), schedule.longest());
    let early = longest - TimeDelta::minutes(1);
    assert!(matches!(delivery().contended(0.0, &schedule, early), Contention::AskAgain(_)));
    let Contention::GiveUp(given_up) = delivery().contended(0.0, &schedule, longest) else {
        panic!("it asks for ever");
    };
    assert_eq!(reason(&given_up), "held_too_long");
}

const ELSEWHERE: &str = "https://other.example/hooks";

#[test]
fn redirected_delivery_makes_no_attempt_before() {
    let pending = record(&delivery(), AttemptOutcome::Answered(500), noon()).0;
    let moved = pending.redirect(ELSEWHERE, noon()).unwrap();
    assert_eq!((moved.url.as_str(), moved.manual), (ELSEWHERE, true));
    assert_eq!((&moved.event_id, &moved.body), (&pending.event_id, &pending.body));
    assert_eq!(moved.state, DeliveryState::Pending { next_at: noon(), held: None });
    assert_eq!((moved.round_start, &moved.attempts), (1, &pending.attempts));
    assert!(moved.version > pending.version, "what an old ticket wants to write is refused");
    assert_eq!(moved.redirect(ELSEWHERE, noon()), Err(RedeliverError::Pending), "it is there");

    let begun = pending.leased(noon());
    let until = begun.leased_until.unwrap();
    assert_eq!(begun.redirect(ELSEWHERE, noon()), Err(RedeliverError::UnderWay { until }));
    assert!(begun.redirect(ELSEWHERE, until).is_ok(), "the lease of a crashed attempt lapses");
    let done = record(&delivery(), AttemptOutcome::Answered(200), noon()).0;
    assert!(done.redirect(ELSEWHERE, noon()).is_ok_and(|again| again.url == ELSEWHERE));
}

#[test]
fn redirect_ends_after_thousand_attempts() {
    let attempts = vec![attempt(AttemptOutcome::Answered(500)); MAX_ATTEMPTS];
    let tried = Delivery { attempts, ..delivery() };
    assert_eq!(tried.redirect(ELSEWHERE, noon()), Err(RedeliverError::TooOften));
}

#[test]
fn dropped_delivery_is_not_recovered() {
    let dropped = delivery().dropped(noon()).unwrap();
    let given_up = GivenUp { at: noon(), reason: GiveUpReason::Dropped };
    assert_eq!(dropped.state, DeliveryState::GivenUp(given_up));
    assert_eq!(dropped.decide_ticket(0, noon()), TicketDecision::Announce);
    assert_eq!(dropped.recover(noon()), None);
    assert_eq!(dropped.announced().recover(noon()), None);
    assert!(dropped.announced().redeliver(noon()).is_ok(), "by its name it is sent again");
    assert_eq!(dropped.dropped(noon()), Err(DropError::Over));

    let begun = delivery().leased(noon());
    let until = begun.leased_until.unwrap();
    assert_eq!(begun.dropped(noon()), Err(DropError::UnderWay { until }));
    assert!(begun.dropped(until).is_ok());
    let done = record(&delivery(), AttemptOutcome::Answered(200), noon()).0;
    assert_eq!(done.dropped(noon()), Err(DropError::Over));
}
