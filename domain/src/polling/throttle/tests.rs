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

#[test]
fn throttle_without_budget_admits_all() {
    let mut throttle = ProviderThrottle::new(None, at(0));
    assert!((0..10_000).all(|_| throttle.admit(at(0)) == ThrottleDecision::Now));
}

#[test]
fn throttle_keeps_its_budget() {
    let mut throttle = ProviderThrottle::new(Some(2.0), at(0));
    let mut asked = 0;
    let mut now = 0;
    while now < 100_000 {
        match throttle.admit(at(now)) {
            ThrottleDecision::Now => asked += 1,
            ThrottleDecision::NotBefore(then) => {
                assert!(then > at(now));
                now = u64::try_from((then - at(0)).num_milliseconds()).unwrap();
            }
            ThrottleDecision::AfterProbe => panic!("nothing was paused"),
        }
    }
    assert!((200..=210).contains(&asked), "{asked} in 100 s at 2 a second and 10 saved");
}

#[test]
fn throttle_waits_a_second_at_least() {
    let mut throttle = ProviderThrottle::new(None, at(0));
    throttle.record(PollResult::RateLimited(Some(Duration::ZERO)), at(0));
    assert_eq!(throttle.admit(at(0)), not_before(1_000));
}

#[test]
fn throttle_honours_retry_after_first() {
    let mut throttle = ProviderThrottle::new(None, at(0));
    throttle.record(PollResult::RateLimited(Some(seconds(30))), at(0));
    throttle.record(PollResult::Answered, at(10));
    throttle.record(PollResult::RateLimited(Some(seconds(5))), at(20));
    assert_eq!(throttle.admit(at(29_999)), not_before(30_000));
    assert_eq!(throttle.admit(at(30_000)), ThrottleDecision::Now);
    assert_eq!(throttle.admit(at(30_000)), ThrottleDecision::AfterProbe);
    throttle.record(PollResult::Answered, at(30_100));
    assert_eq!(throttle.admit(at(30_100)), ThrottleDecision::Now);
    assert_eq!(throttle.pause(), None);
}

#[test]
fn throttle_doubles_pauses_while_down() {
    let mut throttle = ProviderThrottle::new(None, at(0));
    for _ in 0..2 {
        throttle.record(PollResult::Failed(None), at(0));
        assert_eq!(throttle.admit(at(0)), ThrottleDecision::Now, "one render's trouble, perhaps");
    }
    let mut now = 0;
    let mut pauses = Vec::new();
    for _ in 0..6 {
        // Questions that were under way meet the same outage.
        (0..50).for_each(|_| throttle.record(PollResult::Failed(None), at(now)));
        assert!(throttle.is_down());
        let ThrottleDecision::NotBefore(then) = throttle.admit(at(now)) else {
            panic!("not paused")
        };
        let next = u64::try_from((then - at(0)).num_milliseconds()).unwrap();
        pauses.push((next - now) / 1000);
        now = next;
        assert_eq!(throttle.admit(at(now)), ThrottleDecision::Now, "one probe");
        assert_eq!(throttle.admit(at(now)), ThrottleDecision::AfterProbe);
    }
    assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
    assert_eq!(throttle.pause().unwrap().since, at(0), "nothing was polled since");
    throttle.record(PollResult::Answered, at(now));
    assert!(!throttle.is_down());
    assert_eq!(throttle.admit(at(now)), ThrottleDecision::Now);
}

#[test]
fn throttle_ignores_scattered_failures() {
    let mut throttle = ProviderThrottle::new(None, at(0));
    for _ in 0..10 {
        throttle.record(PollResult::Failed(None), at(0));
        throttle.record(PollResult::Failed(None), at(0));
        throttle.record(PollResult::Answered, at(0));
    }
    assert_eq!(throttle.admit(at(0)), ThrottleDecision::Now);
}

#[test]
fn throttle_pauses_at_first_rate_limit() {
    let mut throttle = ProviderThrottle::new(None, at(0));
    throttle.record(PollResult::RateLimited(None), at(0));
    assert_eq!(throttle.admit(at(0)), not_before(5_000));
    assert!(!throttle.is_down());
}

#[test]
fn throttle_frees_an_unused_probe() {
    let mut throttle = ProviderThrottle::new(None, at(0));
    throttle.record(PollResult::RateLimited(None), at(0));
    assert_eq!(throttle.admit(at(5_000)), ThrottleDecision::Now);
    throttle.record(PollResult::NotAsked, at(5_000));
    assert_eq!(throttle.admit(at(5_000)), ThrottleDecision::Now);
}

#[test]
fn throttle_failures_survive_idle_time() {
    let mut throttle = ProviderThrottle::new(None, at(0));
    for second in 0..3 {
        assert!(!throttle.is_down());
        throttle = ProviderThrottle::with_failures(None, throttle.failures(), at(second * 1_000));
        throttle.record(PollResult::Failed(None), at(second * 1_000));
    }
    assert!(throttle.is_down());
    assert_eq!(throttle.admit(at(2_000)), not_before(7_000));
}

#[test]
fn throttle_pause_survives_idle_time() {
    let mut throttle = ProviderThrottle::new(None, at(0));
    (0..3).for_each(|_| throttle.record(PollResult::Failed(None), at(0)));
    let left = serde_json::to_string(&throttle.pause()).unwrap();
    let pause: Option<Pause> = serde_json::from_str(&left).unwrap();
    let mut resumed = ProviderThrottle::with_pause(Some(2.0), pause.unwrap(), at(1_000));
    assert_eq!(resumed.admit(at(1_000)), not_before(5_000));
    assert_eq!(resumed.admit(at(5_000)), ThrottleDecision::Now);
    resumed.record(PollResult::Failed(None), at(5_000));
    assert_eq!(resumed.admit(at(5_000)), not_before(15_000), "it goes on from there");
}
