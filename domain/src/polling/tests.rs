use super::*;

const LAW: PollSchedule = PollSchedule {
    floor: Duration::from_secs(1),
    safety: Duration::from_secs(120),
    deadline: Duration::from_secs(1800),
    duration_model: None,
    slowdown: Slowdown::NONE,
};

/// The job in the middle: its ages are not stretched.
const MIDDLE: f64 = 0.5;

fn duration_statistics(median: f64, sigma: f64) -> PollSchedule {
    PollSchedule { duration_model: Some(LognormalModel::new(median.ln(), sigma)), ..LAW }
}

fn ages(schedule: PollSchedule, tracking: Tracking, spread: f64, count: usize) -> Vec<f64> {
    let mut age = Duration::ZERO;
    let mut all = Vec::new();
    for _ in 0..count {
        age = schedule.next_after(tracking, age, spread);
        all.push((age.as_secs_f64() * 10.0).round() / 10.0);
    }
    all
}

#[test]
fn schedule_starts_at_two_seconds() {
    assert_eq!(
        ages(LAW, Tracking::PollOnly, MIDDLE, 8),
        [2.0, 4.0, 7.5, 13.5, 19.5, 25.5, 31.5, 37.5]
    );
}

#[test]
fn schedule_finds_short_renders_within_six_seconds() {
    for spread in 0..100 {
        let ages = ages(LAW, Tracking::PollOnly, f64::from(spread) / 100.0, 6);
        let longest = ages.windows(2).map(|w| w[1] - w[0]).fold(0.0, f64::max);
        assert!(longest <= 6.05, "{spread}: {ages:?}");
    }
}

#[test]
fn schedule_intervals_grow_by_cube_root() {
    let long = PollSchedule { deadline: Duration::from_secs(100_000), ..LAW };
    let age = Duration::from_secs(1000);
    let first = long.next_after(Tracking::PollOnly, age, MIDDLE);
    let second = long.next_after(Tracking::PollOnly, first, MIDDLE);
    let interval = (second - first).as_secs_f64();
    assert!((interval - 1.9 * first.as_secs_f64().cbrt()).abs() < 0.01, "{interval}");
}

#[test]
fn schedule_keeps_floor_and_cap() {
    for schedule in [
        LAW,
        duration_statistics(6.0, 0.6),
        duration_statistics(77.0, 0.1),
        duration_statistics(5000.0, 0.5),
    ] {
        let slow = PollSchedule { floor: Duration::from_secs(5), ..schedule };
        for spread in [0.0, 0.5, 0.99] {
            let ages = ages(slow, Tracking::PollOnly, spread, 20);
            let intervals: Vec<f64> = ages.windows(2).map(|w| w[1] - w[0]).collect();
            assert!(intervals.iter().all(|it| (4.9..=60.1).contains(it)), "{schedule:?} {ages:?}");
        }
    }
}

#[test]
fn schedule_spreads_jobs_of_one_moment() {
    let [early, late] =
        [0.0, 0.999].map(|spread| ages(LAW, Tracking::PollOnly, spread, 3)[2] / 7.5);
    assert!((early - 0.9).abs() < 0.01 && (late - 1.1).abs() < 0.01, "{early} {late}");
}

#[test]
fn schedule_polls_where_end_is_likely() {
    // Nearly all of these end between 65 and 92 s.
    let ages = ages(duration_statistics(77.0, 0.1), Tracking::PollOnly, MIDDLE, 12);
    assert!(ages[0] > 55.0, "{ages:?}");
    assert!(ages[3..9].iter().all(|age| (60.0..95.0).contains(age)), "{ages:?}");
}

#[test]
fn wrong_model_has_bounded_cost() {
    // The model expects minutes; the guard polls earlier all the same.
    let ages = ages(duration_statistics(600.0, 0.8), Tracking::PollOnly, MIDDLE, 4);
    assert!(ages[0] <= 600.0 * 0.16, "{ages:?}");
    assert!(ages.windows(2).all(|w| w[1] <= 2.0 * w[0] + 0.1), "{ages:?}");
}

#[test]
fn schedule_polls_webhook_first_late_and_rarely() {
    assert_eq!(ages(LAW, Tracking::WebhookFirst, MIDDLE, 4), [120.0, 180.0, 270.0, 405.0]);
}

#[test]
fn schedule_safety_starts_at_95th_percentile() {
    // 95 % are shorter than 77 × e^(1.645 × 0.55) = 190 s.
    let ages = ages(duration_statistics(77.4, 0.55), Tracking::WebhookFirst, MIDDLE, 2);
    assert!((188.0..193.0).contains(&ages[0]), "{ages:?}");
    assert!((ages[1] / ages[0] - 1.5).abs() < 0.01, "{ages:?}");
    // A callback needs its time, however quick the renders are.
    let quick = duration_statistics(1.0, 0.1);
    assert_eq!(self::ages(quick, Tracking::WebhookFirst, MIDDLE, 1), [60.0]);
    let hasty = PollSchedule { safety: Duration::from_secs(5), ..quick };
    assert_eq!(self::ages(hasty, Tracking::WebhookFirst, MIDDLE, 1), [5.0]);
}

#[test]
fn schedule_ends_at_deadline() {
    for schedule in [LAW, duration_statistics(77.0, 0.5)] {
        let last = schedule.next_after(Tracking::PollOnly, Duration::from_secs(1799), 0.0);
        assert_eq!(last, schedule.deadline);
        let never = PollSchedule { deadline: Duration::from_secs(1), ..schedule };
        assert_eq!(
            never.next_after(Tracking::WebhookFirst, Duration::ZERO, MIDDLE),
            never.deadline
        );
    }
}

#[test]
fn schedule_counts_due_polls() {
    let count = |seconds| LAW.count_until(Tracking::PollOnly, Duration::from_secs(seconds), MIDDLE);
    assert_eq!([count(0), count(2), count(5), count(20)], [0, 1, 2, 5]);
}

#[test]
fn schedule_estimates_end_between_polls() {
    let took = |age| LAW.duration_of_polled(Duration::from_secs_f64(age), MIDDLE);
    assert_eq!(took(7.5), Duration::from_millis(5_750));
    assert_eq!(took(2.0), Duration::from_secs(1), "since the submit");
}

#[test]
fn slowdown_stretches_every_interval() {
    assert_eq!(Slowdown::to_fit(0.9, 1.0), Slowdown::NONE);
    assert_eq!(Slowdown::to_fit(0.0, 1.0), Slowdown::NONE);
    assert_eq!(Slowdown::to_fit(f64::NAN, 0.0), Slowdown::NONE);
    assert_eq!(Slowdown::to_fit(4.0, 1.0).factor(), 4.0);
    let fits = Slowdown::to_fit(5.0, 1.0).factor();
    assert!((5.0..=5.0 * std::f64::consts::SQRT_2).contains(&fits), "{fits}");

    let slow = PollSchedule { slowdown: Slowdown::to_fit(4.0, 1.0), ..LAW };
    assert_eq!(ages(slow, Tracking::PollOnly, MIDDLE, 3), [8.0, 16.0, 30.0]);
    let count = |schedule: PollSchedule| {
        f64::from(schedule.count_until(Tracking::PollOnly, Duration::from_secs(1799), MIDDLE))
    };
    for schedule in [LAW, duration_statistics(300.0, 0.8)] {
        let slow = PollSchedule { slowdown: Slowdown::to_fit(4.0, 1.0), ..schedule };
        assert!(count(slow) <= count(schedule) / 3.0, "{} {}", count(slow), count(schedule));
    }
}

#[test]
fn schedule_rate_follows_intervals() {
    let rate = |schedule: PollSchedule, tracking, seconds| {
        schedule.poll_rate(tracking, Duration::from_secs(seconds))
    };
    assert!((rate(LAW, Tracking::PollOnly, 20) - 1.0 / 6.0).abs() < 1e-9);
    assert_eq!(rate(LAW, Tracking::WebhookFirst, 119), 0.0);
    assert!((rate(LAW, Tracking::WebhookFirst, 120) - 1.0 / 60.0).abs() < 1e-9);
    assert_eq!(rate(LAW, Tracking::PollOnly, 1800), 0.0);
    // At the median of a narrow distribution the end is likely at any second.
    let likely = duration_statistics(77.0, 0.1);
    assert!(rate(likely, Tracking::PollOnly, 77) > 3.0 * rate(likely, Tracking::PollOnly, 40));
}

/// Expected polls and mean delay over a lognormal duration, from the schedule itself: no
/// random numbers, so that it cannot flicker.
fn cost(schedule: PollSchedule, median: f64, sigma: f64) -> (f64, f64) {
    let below = |age: f64| 0.5 * libm::erfc(-(age / median).ln() / (sigma * 2.0_f64.sqrt()));
    let (mut polls, mut delay, mut from) = (0.0, 0.0, 0.0);
    let due = schedule.due_ages(Tracking::PollOnly, MIDDLE).map(|due| due.as_secs_f64());
    for (before, due) in due.enumerate() {
        polls += (before as f64 + 1.0) * (below(due) - below(from));
        let panel = (due - from) / 64.0;
        for n in 0..64 {
            let (start, end) = (from + f64::from(n) * panel, from + f64::from(n + 1) * panel);
            delay += (due - f64::midpoint(start, end)) * (below(end) - below(start));
        }
        from = due;
    }
    (polls, delay)
}

/// The documented costs of the schedule: polls per job and mean delay in seconds for
/// three laws of durations, each known and unknown.
#[test]
fn schedule_costs_are_as_documented() {
    let forever = Duration::from_secs(30_000);
    for (median, sigma, known, unknown) in [
        (7.2, 1.66, (6.6, 2.2), (5.6, 2.5)),
        (77.4, 0.55, (9.5, 4.0), (15.2, 4.1)),
        (240.0, 0.8, (18.5, 8.5), (35.0, 6.1)),
    ] {
        for (schedule, (polls, delay)) in
            [(duration_statistics(median, sigma), known), (LAW, unknown)]
        {
            let (found_polls, found_delay) =
                cost(PollSchedule { deadline: forever, ..schedule }, median, sigma);
            let near = |found: f64, promised: f64| (found / promised - 1.0).abs() < 0.05;
            assert!(
                near(found_polls, polls) && near(found_delay, delay),
                "median {median}: {found_polls:.2} polls, {found_delay:.2} s; not {polls}, {delay}"
            );
        }
    }
}
