use super::*;
use crate::fixtures::noon;

fn at(millis: u64) -> DateTime<Utc> {
    noon() + Duration::from_millis(millis)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn not_before(millis: u64) -> Admission {
    Admission::NotBefore(at(millis))
}

#[test]
fn throttle_without_budget_admits_all() {
    let mut pace = Pace::new(None, at(0));
    assert!((0..10_000).all(|_| pace.admit(at(0)) == Admission::Now));
}

#[test]
fn throttle_keeps_its_budget() {
    let mut pace = Pace::new(Some(2.0), at(0));
    let mut asked = 0;
    let mut now = 0;
    while now < 100_000 {
        match pace.admit(at(now)) {
            Admission::Now => asked += 1,
            Admission::NotBefore(then) => {
                assert!(then > at(now));
                now = u64::try_from((then - at(0)).num_milliseconds()).unwrap();
            }
            Admission::AfterProbe => panic!("nothing was paused"),
        }
    }
    assert!((200..=210).contains(&asked), "{asked} in 100 s at 2 a second and 10 saved");
}

#[test]
fn throttle_waits_a_second_at_least() {
    let mut pace = Pace::new(None, at(0));
    pace.hear(Heard::TooMuch(Some(Duration::ZERO)), at(0));
    assert_eq!(pace.admit(at(0)), not_before(1_000));
}

#[test]
fn throttle_honours_retry_after_first() {
    let mut pace = Pace::new(None, at(0));
    pace.hear(Heard::TooMuch(Some(seconds(30))), at(0));
    pace.hear(Heard::Answer, at(10));
    pace.hear(Heard::TooMuch(Some(seconds(5))), at(20));
    assert_eq!(pace.admit(at(29_999)), not_before(30_000));
    assert_eq!(pace.admit(at(30_000)), Admission::Now);
    assert_eq!(pace.admit(at(30_000)), Admission::AfterProbe);
    pace.hear(Heard::Answer, at(30_100));
    assert_eq!(pace.admit(at(30_100)), Admission::Now);
    assert_eq!(pace.pause(), None);
}

#[test]
fn throttle_doubles_pauses_while_down() {
    let mut pace = Pace::new(None, at(0));
    for _ in 0..2 {
        pace.hear(Heard::Trouble(None), at(0));
        assert_eq!(pace.admit(at(0)), Admission::Now, "one render's trouble, perhaps");
    }
    let mut now = 0;
    let mut pauses = Vec::new();
    for _ in 0..6 {
        // Questions that were under way meet the same outage.
        (0..50).for_each(|_| pace.hear(Heard::Trouble(None), at(now)));
        assert!(pace.is_down());
        let Admission::NotBefore(then) = pace.admit(at(now)) else { panic!("not paused") };
        let next = u64::try_from((then - at(0)).num_milliseconds()).unwrap();
        pauses.push((next - now) / 1000);
        now = next;
        assert_eq!(pace.admit(at(now)), Admission::Now, "one probe");
        assert_eq!(pace.admit(at(now)), Admission::AfterProbe);
    }
    assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
    assert_eq!(pace.pause().unwrap().since, at(0), "nothing was polled since");
    pace.hear(Heard::Answer, at(now));
    assert!(!pace.is_down());
    assert_eq!(pace.admit(at(now)), Admission::Now);
}

#[test]
fn throttle_ignores_scattered_failures() {
    let mut pace = Pace::new(None, at(0));
    for _ in 0..10 {
        pace.hear(Heard::Trouble(None), at(0));
        pace.hear(Heard::Trouble(None), at(0));
        pace.hear(Heard::Answer, at(0));
    }
    assert_eq!(pace.admit(at(0)), Admission::Now);
}

#[test]
fn throttle_pauses_at_first_rate_limit() {
    let mut pace = Pace::new(None, at(0));
    pace.hear(Heard::TooMuch(None), at(0));
    assert_eq!(pace.admit(at(0)), not_before(5_000));
    assert!(!pace.is_down());
}

#[test]
fn throttle_frees_an_unused_probe() {
    let mut pace = Pace::new(None, at(0));
    pace.hear(Heard::TooMuch(None), at(0));
    assert_eq!(pace.admit(at(5_000)), Admission::Now);
    pace.hear(Heard::Nothing, at(5_000));
    assert_eq!(pace.admit(at(5_000)), Admission::Now);
}

#[test]
fn throttle_failures_survive_idle_time() {
    let mut pace = Pace::new(None, at(0));
    for second in 0..3 {
        assert!(!pace.is_down());
        pace = Pace::failed(None, pace.failures(), at(second * 1_000));
        pace.hear(Heard::Trouble(None), at(second * 1_000));
    }
    assert!(pace.is_down());
    assert_eq!(pace.admit(at(2_000)), not_before(7_000));
}

#[test]
fn throttle_pause_survives_idle_time() {
    let mut pace = Pace::new(None, at(0));
    (0..3).for_each(|_| pace.hear(Heard::Trouble(None), at(0)));
    let left = serde_json::to_string(&pace.pause()).unwrap();
    let pause: Option<Pause> = serde_json::from_str(&left).unwrap();
    let mut resumed = Pace::resumed(Some(2.0), pause.unwrap(), at(1_000));
    assert_eq!(resumed.admit(at(1_000)), not_before(5_000));
    assert_eq!(resumed.admit(at(5_000)), Admission::Now);
    resumed.hear(Heard::Trouble(None), at(5_000));
    assert_eq!(resumed.admit(at(5_000)), not_before(15_000), "it goes on from there");
}
