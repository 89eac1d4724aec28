use super::*;
use crate::fixtures::noon;

fn at(millis: u64) -> DateTime<Utc> {
    noon() + Duration::from_millis(millis)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn not_before(millis: u64) -> ThrottleDecision {
    ThrottleDecision::NotBefore(at(millis))
}

fn id(number: u8) -> JobId {
    JobId::from_bytes([number; 16])
}

fn throttle() -> ProviderThrottle {
    ProviderThrottle::new(None, 1, at(0))
}

fn trouble(reason: PauseReason, status: u16, retry_after: Option<u64>) -> PollResult {
    let retry_after = retry_after.map(seconds);
    PollResult::NotTold(Trouble { reason, status: Some(status), retry_after })
}

fn server_error() -> PollResult {
    trouble(PauseReason::ServerError, 500, None)
}

fn too_many(retry_after: Option<u64>) -> PollResult {
    trouble(PauseReason::RateLimited, 429, retry_after)
}

/// Takes the result of a poll about a render, which took no time.
fn record(
    throttle: &mut ProviderThrottle,
    number: u8,
    was_fresh: bool,
    result: PollResult,
    millis: u64,
) -> Pardon {
    throttle.record(Asked { id: &id(number), at: at(millis), was_fresh }, result, at(millis))
}

fn admit(throttle: &mut ProviderThrottle, errand: Errand, millis: u64) -> ThrottleDecision {
    throttle.admit(errand, &id(1), at(millis))
}

/// Four renders fail freshly, from second 0 to second 10.
fn down() -> ProviderThrottle {
    let mut throttle = throttle();
    for (number, millis) in [(1, 0), (2, 1_000), (3, 2_000), (4, 10_000)] {
        record(&mut throttle, number, true, server_error(), millis);
    }
    assert!(throttle.pause().is_some());
    throttle
}

#[test]
fn throttle_without_budget_admits_all() {
    let mut throttle = throttle();
    assert!((0..10_000).all(|_| admit(&mut throttle, Errand::Regular, 0) == ThrottleDecision::Now));
}

#[test]
fn throttle_keeps_its_budget() {
    for (errand, expected) in [(Errand::Regular, 200..=210), (Errand::Suspect, 20..=21)] {
        let mut throttle = ProviderThrottle::new(Some(2.0), 1, at(0));
        let mut asked = 0;
        let mut now = 0;
        while now < 100_000 {
            match admit(&mut throttle, errand, now) {
                ThrottleDecision::Now => asked += 1,
                ThrottleDecision::NotBefore(then) => {
                    assert!(then > at(now));
                    now = u64::try_from((then - at(0)).num_milliseconds()).unwrap();
                }
                ThrottleDecision::AfterProbe => panic!("nothing was paused"),
            }
        }
        assert!(expected.contains(&asked), "{errand:?}: {asked} in 100 s at 2 a second");
    }
}

#[test]
fn lone_render_never_pauses_its_provider() {
    let mut throttle = throttle();
    for (times, result) in
        [server_error(), too_many(Some(3_600)), too_many(None)].iter().enumerate()
    {
        for second in 0..1_000 {
            let fresh = times == 0 && second == 0;
            record(&mut throttle, 1, fresh, *result, second * 60_000);
        }
    }
    assert_eq!(throttle.pause(), None);
}

#[test]
fn missing_key_pauses_no_provider() {
    let trouble = Trouble { reason: PauseReason::RefusedKey, status: None, retry_after: None };
    for (status, is_paused) in [(None, false), (Some(401), true)] {
        let mut throttle = throttle();
        for render in 1..=9 {
            let result = PollResult::NotTold(Trouble { status, ..trouble });
            record(&mut throttle, render, true, result, u64::from(render) * 5_000);
        }
        assert_eq!(throttle.pause().is_some(), is_paused, "{status:?}");
    }
}

#[test]
fn known_suspects_are_no_evidence() {
    let mut throttle = throttle();
    for second in 0..1_000 {
        for number in 0..200 {
            record(&mut throttle, number, false, server_error(), second * 1_000);
        }
    }
    assert_eq!(throttle.pause(), None);
}

#[test]
fn several_renders_pause_after_ten_seconds() {
    let mut throttle = throttle();
    for (number, millis) in [(1, 0), (2, 1), (3, 2), (4, 9_999)] {
        record(&mut throttle, number, true, server_error(), millis);
        assert_eq!(throttle.pause(), None, "it may be chance");
    }
    record(&mut throttle, 1, false, server_error(), 10_000);
    let pause = throttle.pause().expect("the time is over");
    let expected = Pause {
        since: at(10_000),
        until: at(15_000),
        failures: 0,
        reason: PauseReason::ServerError,
        status: Some(500),
        renders: 4,
        spec: 1,
    };
    assert_eq!(pause, expected);

    let mut two = self::throttle();
    record(&mut two, 1, true, server_error(), 0);
    record(&mut two, 2, true, server_error(), 60_000);
    assert_eq!(two.pause(), None, "two renders are not several");
}

#[test]
fn success_forgets_what_failed_before() {
    let mut throttle = throttle();
    for number in 0..100 {
        record(&mut throttle, number, true, server_error(), u64::from(number) * 5_000);
        if number % 2 == 1 {
            let pardon =
                record(&mut throttle, 200, true, PollResult::Told, u64::from(number) * 5_000);
            assert_eq!(pardon.renders, [id(number - 1), id(number)].into());
            assert!(!pardon.from_pause);
        }
    }
    assert_eq!(throttle.pause(), None);
}

#[test]
fn rate_limit_of_several_pauses_at_once() {
    let mut throttle = throttle();
    record(&mut throttle, 1, true, too_many(Some(50)), 0);
    record(&mut throttle, 2, true, too_many(Some(30)), 10);
    assert_eq!(throttle.pause(), None);
    record(&mut throttle, 3, true, too_many(Some(40)), 20);
    let pause = throttle.pause().unwrap();
    assert_eq!((pause.until, pause.reason), (at(30_020), PauseReason::RateLimited));

    for (wait, expected) in [(Some(0), 1_000), (None, 5_000), (Some(86_400), 900_000)] {
        let mut throttle = self::throttle();
        (0..3).for_each(|it| drop(record(&mut throttle, it, true, too_many(wait), 0)));
        assert_eq!(throttle.pause().unwrap().until, at(expected), "{wait:?}");
    }
}

#[test]
fn throttle_doubles_pauses_while_down() {
    let mut throttle = down();
    let mut now = 10_000;
    let mut pauses = Vec::new();
    for probe in 0..6 {
        // Questions that were under way meet the same outage.
        (0..50).for_each(|it| drop(record(&mut throttle, it, true, server_error(), now)));
        let ThrottleDecision::NotBefore(then) = admit(&mut throttle, Errand::Suspect, now) else {
            panic!("not paused")
        };
        let next = u64::try_from((then - at(0)).num_milliseconds()).unwrap();
        pauses.push((next - now) / 1000);
        now = next;
        assert!(throttle.wants_probe(at(now)));
        assert_eq!(throttle.admit(Errand::Suspect, &id(probe), at(now)), ThrottleDecision::Now);
        assert!(throttle.was_last_probe(&id(probe)));
        assert_eq!(admit(&mut throttle, Errand::Suspect, now), ThrottleDecision::AfterProbe);
        record(&mut throttle, probe, false, server_error(), now);
    }
    assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
    assert_eq!(throttle.pause().unwrap().since, at(10_000), "nothing was told since");
    let pardon = record(&mut throttle, 1, false, PollResult::Told, now);
    assert!(pardon.from_pause && pardon.renders.len() == 50);
    assert_eq!(throttle.pause(), None);
}

#[test]
fn others_are_asked_gently_in_pause() {
    let mut throttle = down();
    assert_eq!(admit(&mut throttle, Errand::Regular, 10_000), ThrottleDecision::Now);
    assert_eq!(admit(&mut throttle, Errand::Regular, 10_000), not_before(11_000));
    assert_eq!(admit(&mut throttle, Errand::Regular, 11_000), ThrottleDecision::Now);
    record(&mut throttle, 9, true, PollResult::Told, 11_100);
    assert_eq!(throttle.pause(), None, "one that is told of ends the pause");
}

#[test]
fn answer_from_before_the_pause_ends_nothing() {
    let mut throttle = down();
    let asked = Asked { id: &id(9), at: at(9_999), was_fresh: true };
    throttle.record(asked, PollResult::Told, at(10_100));
    assert!(throttle.pause().is_some());
}

#[test]
fn deadlines_pass_the_pause_at_a_rate() {
    let mut throttle = down();
    let asked = (0..60_000)
        .filter(|millis| {
            let now = 10_000 + millis;
            admit(&mut throttle, Errand::Deadline, now) == ThrottleDecision::Now
        })
        .count();
    assert!((600..=660).contains(&asked), "{asked} in a minute");
}

#[test]
fn pause_dies_with_its_evidence() {
    let mut throttle = down();
    throttle.retain(|it| *it == id(2));
    assert!(throttle.pause().is_some(), "one is still there");
    throttle.retain(|_| false);
    assert_eq!(throttle.pause(), None);

    let pause = down().pause().unwrap();
    let mut taken_over = ProviderThrottle::with_pause(None, pause, at(11_000));
    taken_over.retain(|_| true);
    assert!(taken_over.pause().is_some(), "its evidence is not known yet");
    taken_over.restore(&id(1), Evidence { at: at(0), is_rate_limited: false });
    taken_over.retain(|_| false);
    assert_eq!(taken_over.pause(), None);
}

#[test]
fn throttle_frees_an_unused_probe() {
    let mut throttle = down();
    assert_eq!(admit(&mut throttle, Errand::Suspect, 15_000), ThrottleDecision::Now);
    record(&mut throttle, 1, false, PollResult::NotAsked, 15_000);
    assert_eq!(admit(&mut throttle, Errand::Suspect, 15_000), ThrottleDecision::Now);
}

#[test]
fn throttle_pause_survives_idle_time() {
    let left = serde_json::to_string(&down().pause()).unwrap();
    let pause: Option<Pause> = serde_json::from_str(&left).unwrap();
    let mut resumed = ProviderThrottle::with_pause(Some(2.0), pause.unwrap(), at(11_000));
    assert_eq!(admit(&mut resumed, Errand::Suspect, 11_000), not_before(15_000));
    assert_eq!(admit(&mut resumed, Errand::Suspect, 15_000), ThrottleDecision::Now);
    record(&mut resumed, 1, false, server_error(), 15_000);
    assert_eq!(admit(&mut resumed, Errand::Suspect, 15_000), not_before(25_000), "it goes on");
}
