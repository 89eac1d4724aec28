use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::attempt::{AttemptError, AttemptOutcome};
use crate::fixtures::noon;

const URL: &str = "https://shop.example/hooks/s3cret";
const QUICK: Duration = Duration::from_millis(80);

fn endpoint() -> Endpoint {
    Endpoint::unknown(URL)
}

fn request(token: u64) -> AttemptRequest {
    AttemptRequest { manual: false, has_slot: false, lane: Lane::Quick, token, jitter_sample: 0.0 }
}

fn manual() -> AttemptRequest {
    AttemptRequest { manual: true, ..request(0) }
}

fn signal(status: u16) -> AttemptSignal {
    AttemptSignal::of(AttemptOutcome::Answered(status), ResponseHints::default(), QUICK)
}

fn asking(status: u16, retry_after: u64) -> AttemptSignal {
    let retry_after = Some(Duration::from_secs(retry_after));
    AttemptSignal::of(
        AttemptOutcome::Answered(status),
        ResponseHints { retry_after, instruction: None },
        QUICK,
    )
}

fn instructed(status: u16, header: &str) -> AttemptSignal {
    let instruction = Instruction::parse(header);
    AttemptSignal::of(
        AttemptOutcome::Answered(status),
        ResponseHints { retry_after: None, instruction },
        QUICK,
    )
}

fn unanswered() -> AttemptSignal {
    AttemptSignal::of(
        AttemptOutcome::Failed(AttemptError::Timeout),
        ResponseHints::default(),
        Duration::from_secs(15),
    )
}

/// The endpoint after an attempt that is admitted at once.
fn tried(
    endpoint: &Endpoint,
    request: &AttemptRequest,
    signal: &AttemptSignal,
    now: DateTime<Utc>,
) -> Endpoint {
    let (permit, claimed) = let_through(endpoint, request, now);
    claimed.record(&permit, signal, now).unwrap_or(claimed)
}

fn let_through(
    endpoint: &Endpoint,
    request: &AttemptRequest,
    now: DateTime<Utc>,
) -> (Permit, Endpoint) {
    match endpoint.admit(request, now) {
        AdmissionDecision::Go { permit, claim } => {
            (permit, claim.map_or(endpoint.clone(), |claim| *claim))
        }
        other => panic!("{other:?}"),
    }
}

fn held_until(endpoint: &Endpoint, now: DateTime<Utc>) -> (DateTime<Utc>, HoldReason) {
    match endpoint.admit(&request(0), now) {
        AdmissionDecision::Hold { until, by, .. } => (until, by),
        other => panic!("{other:?}"),
    }
}

/// The endpoint after this many failures, the last one now and the others two seconds ago.
fn failed(times: u32, now: DateTime<Utc>) -> Endpoint {
    let at = |number| if number == times { now } else { now - seconds(2) };
    let all = (1..=times).map(at);
    all.fold(endpoint(), |it, at| tried(&it, &request(0), &signal(500), at))
}

fn seconds(seconds: i64) -> TimeDelta {
    TimeDelta::seconds(seconds)
}

/// The effect of an answer by its status and headers.
#[test]
fn endpoint_answer_table() {
    let mut rows = vec![format!("{:<8} {:<14} {:<6} state", "answer", "header", "quiet")];
    for (status, header) in [
        (200, ""),
        (204, "disable"),
        (204, "abort-message"),
        (304, ""),
        (400, ""),
        (400, "abort-message"),
        (410, ""),
        (429, ""),
        (500, ""),
        (500, "disable"),
        (502, ""),
        (503, ""),
        (504, ""),
    ] {
        let after = tried(&endpoint(), &request(0), &instructed(status, header), noon());
        let quiet = after.throttled_until.map_or(0, |until| (until - noon()).num_seconds());
        let state = match after.disabled {
            Some(disabled) => format!("disabled: {}", disabled.reason.name()),
            None => after.health(noon() + TimeDelta::hours(1)).name().to_owned(),
        };
        rows.push(format!("{status:<8} {header:<14} {quiet:<6} {state}"));
    }
    insta::assert_snapshot!(rows.join("\n"), @r"
    answer   header         quiet  state
    200                     0      healthy
    204      disable        0      disabled: asked
    204      abort-message  0      healthy
    304                     0      failing
    400                     0      failing
    400      abort-message  0      healthy
    410                     0      disabled: gone
    429                     61     failing
    500                     0      failing
    500      disable        0      disabled: asked
    502                     61     failing
    503                     0      failing
    504                     61     failing
    ");
}

#[test]
fn endpoint_healthy_needs_no_write() {
    let (permit, claimed) = let_through(&endpoint(), &request(7), noon());
    assert_eq!(claimed, endpoint(), "nothing is claimed");
    assert_eq!(endpoint().record(&permit, &signal(200), noon()), None, "nothing changes");
    assert!(endpoint().is_blank());
    assert_eq!(endpoint().host, "shop.example", "and no path, which may be a secret");
}

#[test]
fn breaker_opens_after_five_failures() {
    let four = failed(4, noon());
    assert_eq!(four.breaker, Breaker::Closed);
    let open = tried(&four, &request(0), &unanswered(), noon());
    assert_eq!(open.health(noon()), Health::CircuitOpen);
    let opens = noon() + seconds(60);
    assert_eq!(held_until(&open, noon()), (opens, HoldReason::Failing));

    let slow_lane = AttemptRequest { lane: Lane::Slow, ..request(0) };
    let (probe, half_open) = let_through(&open, &slow_lane, opens);
    assert_eq!(
        held_until(&half_open, opens),
        (opens + ATTEMPT_LEASE, HoldReason::Failing),
        "one at a time"
    );

    let again = half_open.record(&probe, &unanswered(), opens + seconds(15)).unwrap();
    let (until, _) = held_until(&again, opens + seconds(15));
    assert_eq!(until, opens + seconds(15 + 120), "twice as long");

    let (probe, half_open) = let_through(&again, &slow_lane, until);
    let well = half_open.record(&probe, &signal(200), until).unwrap();
    assert_eq!(well.health(until), Health::Healthy);
    assert!(well.is_blank());
}

/// Attempts that began at the same time, each with the milliseconds until its answer and the
/// status: the endpoint afterwards, and the number of writes.
fn story(answers: &[(i64, u16)]) -> (Endpoint, usize) {
    let (permit, _) = let_through(&endpoint(), &request(0), noon());
    let mut writes = 0;
    let after = answers.iter().fold(endpoint(), |it, (after, status)| {
        let at = noon() + TimeDelta::milliseconds(*after);
        let changed = it.record(&permit, &signal(*status), at);
        writes += usize::from(changed.is_some());
        changed.unwrap_or(it)
    });
    (after, writes)
}

fn all_fail(at: impl IntoIterator<Item = i64>) -> Vec<(i64, u16)> {
    at.into_iter().map(|at| (at, 500)).collect()
}

/// When failures open the breaker, and how often the endpoint is written until then.
#[test]
fn breaker_needs_two_seconds_of_failures() {
    const HOUR: i64 = 3_600_000;
    const MINUTES_WRONG: i64 = 180_000;
    let saved = [all_fail([0, 10, 20, 30]), vec![(1_100, 200)], all_fail([2_100])].concat();
    let mut rows =
        vec![format!("{:<42} {:<8} {:>6} {:>7}", "failures", "state", "writes", "counted")];
    for (what, answers) in [
        ("five at once", all_fail([0; 5])),
        ("four, and one just before two seconds", all_fail([0, 0, 0, 0, 1_999])),
        ("four, and one after two seconds", all_fail([0, 0, 0, 0, 2_000])),
        ("four over six seconds", all_fail([0, 2_000, 4_000, 6_000])),
        ("a hundred within two seconds", all_fail((0..100).map(|it| it * 19))),
        ("a hundred, and one after two seconds", all_fail((0..101).map(|it| it * 20))),
        ("a hundred after two seconds too", all_fail((0..200).map(|it| it * 20))),
        ("one an hour", all_fail((0..5).map(|it| it * HOUR))),
        ("four, a success after a second, one", saved),
        ("four, by a clock that is ahead", all_fail([MINUTES_WRONG, 0, 0, 0])),
        ("five, by a clock that is ahead", all_fail([MINUTES_WRONG, 0, 0, 0, 0])),
        ("five, by one that is behind", all_fail([-MINUTES_WRONG, 0, 0, 0, 0])),
        ("five, the last by one that is ahead", all_fail([0, 0, 0, 0, MINUTES_WRONG])),
        ("a hundred, by one that is a little ahead", all_fail((0..100).map(|it| 1_999 - it * 10))),
    ] {
        let (after, writes) = story(&answers);
        let state = if after.breaker == Breaker::Closed { "closed" } else { "open" };
        let counted = after.failing.map_or(0, |failing| failing.failures);
        rows.push(format!("{what:<42} {state:<8} {writes:>6} {counted:>7}"));
    }
    insta::assert_snapshot!(rows.join("\n"), @r"
    failures                                   state    writes counted
    five at once                               closed        4       4
    four, and one just before two seconds      closed        4       4
    four, and one after two seconds            open          5       5
    four over six seconds                      closed        4       4
    a hundred within two seconds               closed        4       4
    a hundred, and one after two seconds       open          5       5
    a hundred after two seconds too            open          5       5
    one an hour                                open          5       5
    four, a success after a second, one        closed        6       1
    four, by a clock that is ahead             closed        4       4
    five, by a clock that is ahead             open          5       5
    five, by one that is behind                open          5       5
    five, the last by one that is ahead        open          5       5
    a hundred, by one that is a little ahead   closed        4       4
    ");
}

#[test]
fn breaker_replaces_a_crashed_probe() {
    let open = failed(5, noon());
    let (crashed, half_open) = let_through(&open, &request(0), noon() + seconds(60));
    let over = noon() + seconds(60) + ATTEMPT_LEASE;
    let (probe, second) = let_through(&half_open, &request(1), over);
    assert_ne!(probe, crashed);
    // The attempt that counted as crashed fails after all, which is no news.
    assert_eq!(second.record(&crashed, &signal(500), over), None);
    assert!(second.record(&probe, &signal(500), over).is_some());
}

#[test]
fn breaker_ignores_earlier_attempts_failures() {
    let (straggler, _) = let_through(&endpoint(), &request(0), noon());
    let open = failed(5, noon());
    assert_eq!(open.record(&straggler, &signal(500), noon() + seconds(14)), None);
    let well = open.record(&straggler, &signal(200), noon() + seconds(14)).unwrap();
    assert_eq!(well.breaker, Breaker::Closed, "but its success does");
}

#[test]
fn endpoint_throttle_holds_every_attempt() {
    for (signal, wait) in [
        (asking(429, 120), 120),
        (asking(503, 90), 90),
        (asking(500, 7), 7),
        (signal(429), 60),
        (signal(502), 60),
        (signal(504), 60),
    ] {
        let now = noon() + TimeDelta::milliseconds(1);
        let quiet = tried(&endpoint(), &request(0), &signal, now);
        let (until, by) = held_until(&quiet, now);
        assert_eq!((until, by), (noon() + seconds(wait + 1), HoldReason::Throttled), "{signal:?}");
        assert!(until >= now + seconds(wait));
        let manual = quiet.admit(&manual(), now);
        assert!(matches!(manual, AdmissionDecision::Hold { .. }), "not even on purpose");
        let well =
            AttemptSignal::of(AttemptOutcome::Answered(200), ResponseHints::default(), QUICK);
        // An attempt in flight may succeed; the others still wait.
        let (permit, _) = let_through(&endpoint(), &request(1), now);
        let after = quiet.record(&permit, &well, now).unwrap();
        assert_eq!(held_until(&after, now).0, until);
        assert!(matches!(after.admit(&request(0), until), AdmissionDecision::Go { .. }));
    }
    let quiet = tried(&endpoint(), &request(0), &asking(429, 0), noon());
    assert_eq!(quiet.throttled_until, None, "it asked for none");
    let quiet = tried(&endpoint(), &request(0), &asking(200, 120), noon());
    assert_eq!(quiet.throttled_until, None, "a success asks for nothing");
}

#[test]
fn endpoint_throttle_is_written_once() {
    let quiet = tried(&endpoint(), &request(0), &asking(429, 60), noon());
    let (permit, _) = let_through(&failed(5, noon()), &manual(), noon());
    let open = Endpoint { throttled_until: quiet.throttled_until, ..failed(5, noon()) };
    for later in [0, 10, 999] {
        let now = noon() + TimeDelta::milliseconds(later);
        assert_eq!(open.record(&permit, &asking(429, 60), now), None, "{later} ms later");
    }
}

#[test]
fn endpoint_gone_stays_disabled() {
    let gone = tried(&endpoint(), &request(0), &signal(410), noon());
    let refused = AdmissionDecision::Refuse { remember: None };
    assert_eq!(gone.admit(&request(0), noon() + seconds(1)), refused);
    let (straggler, _) = let_through(&endpoint(), &request(0), noon());
    assert_eq!(gone.record(&straggler, &signal(200), noon()), None, "it began before");

    let (probe, _) = let_through(&gone, &manual(), noon());
    let well = gone.record(&probe, &signal(200), noon()).unwrap();
    assert_eq!(well.disabled, None, "a manual attempt arrived");
    let failed = gone.record(&probe, &signal(500), noon()).unwrap();
    assert_eq!(failed.admit(&request(0), noon()), refused, "or it did not");

    let enabled = gone.configured(EndpointLimits::default(), None, noon()).unwrap();
    assert_eq!(enabled.health(noon()), Health::Healthy, "its owner configured it anew");
    assert_eq!(enabled.configured(EndpointLimits::default(), None, noon()), None, "once is enough");
}

#[test]
fn instruction_is_read_as_documented() {
    for (header, expected) in [
        ("disable", Some(Instruction::Disable)),
        (" Disable ", Some(Instruction::Disable)),
        ("abort-message", Some(Instruction::AbortMessage)),
        ("abort-message, disable", Some(Instruction::Disable)),
        ("", None),
        ("disabled", None),
        ("abort message", None),
    ] {
        assert_eq!(Instruction::parse(header), expected, "{header}");
    }
    let endpoint = failed(4, noon());
    let after = tried(&endpoint, &request(0), &instructed(400, "abort-message"), noon());
    assert_eq!(after.failing, None, "who knows what it does not want is alive");
}

/// The hour at which an endpoint that fails at these hours after noon is disabled.
fn disabled_after(hours: &[i64]) -> Option<i64> {
    let mut endpoint = endpoint();
    for hour in hours {
        let now = noon() + TimeDelta::hours(*hour);
        let failed = signal(503);
        endpoint = match endpoint.admit(&request(0), now) {
            AdmissionDecision::Go { permit, claim } => {
                let claimed = claim.map_or(endpoint.clone(), |claim| *claim);
                claimed.record(&permit, &failed, now).unwrap_or(claimed)
            }
            other => panic!("{other:?} at hour {hour}"),
        };
        if let Some(disabled) = endpoint.disabled {
            assert_eq!(disabled.reason, DisabledReason::Failing);
            return Some(*hour);
        }
    }
    None
}

#[test]
fn endpoint_failing_five_days_is_disabled() {
    let daily: Vec<i64> = (0..10).map(|day| day * 24).collect();
    assert_eq!(disabled_after(&daily), Some(120));
    let hourly: Vec<i64> = (0..200).collect();
    assert_eq!(disabled_after(&hourly), Some(120));
    assert_eq!(disabled_after(&[0, 1, 2, 24 * 7]), None, "a burst, and one a week later");
    assert_eq!(disabled_after(&[0, 1, 2, 24 * 7, 24 * 14]), Some(24 * 14));
    let one_delivery = [0, 1, 3, 8, 18, 32, 52, 76];
    assert_eq!(disabled_after(&one_delivery), None, "its schedule is over by then");
}

#[test]
fn endpoint_success_resets_failing_time() {
    let mut endpoint = endpoint();
    for day in 0..30 {
        let now = noon() + TimeDelta::days(day);
        let status = if day % 5 == 4 { 200 } else { 503 };
        endpoint = tried(&endpoint, &request(0), &signal(status), now);
        assert_eq!(endpoint.disabled, None, "day {day}");
    }
}

#[test]
fn endpoint_disabling_is_announced_once() {
    let gone = tried(&endpoint(), &request(0), &signal(410), noon());
    let what = gone.disabled.unwrap();
    let hints = gone.announced(what, noon()).unwrap();
    assert_eq!(hints.announced(what, noon()), None);
    assert_eq!(endpoint().announced(what, noon()), None, "it was enabled meanwhile");
    let again = Disabled { at: noon() + seconds(1), ..what };
    assert_eq!(gone.announced(again, noon()), None, "that was another time");
    let again = hints.record(&let_through(&hints, &manual(), noon()).0, &signal(410), noon());
    assert_eq!(again, None, "and gone again is no news");
}

#[test]
fn endpoint_disabled_is_kept_while_used() {
    let gone = tried(&endpoint(), &request(0), &signal(410), noon());
    let AdmissionDecision::Refuse { remember: Some(again) } =
        gone.admit(&request(0), noon() + TimeDelta::days(1))
    else {
        panic!("it would be forgotten")
    };
    let tomorrow = noon() + TimeDelta::days(1);
    assert_eq!((again.disabled, again.updated_at), (gone.disabled, tomorrow));
}

#[test]
fn endpoint_slow_moves_to_slow_lane() {
    let slow = endpoint().marked_slow(noon()).unwrap();
    assert_eq!(slow.admit(&request(0), noon()), AdmissionDecision::ChangeLane);
    let in_slow_lane = AttemptRequest { lane: Lane::Slow, ..request(0) };
    assert!(matches!(slow.admit(&in_slow_lane, noon()), AdmissionDecision::Go { claim: None, .. }));
    assert_eq!(slow.marked_slow(noon() + seconds(2)), None, "it is known");

    let answered = AttemptSignal::of(AttemptOutcome::Answered(200), ResponseHints::default(), SLOW);
    let (permit, _) = let_through(&slow, &in_slow_lane, noon());
    let later = noon() + TimeDelta::minutes(6);
    let still = slow.record(&permit, &answered, later).unwrap();
    assert!(still.is_slow(later + TimeDelta::minutes(9)), "slow, and well");
    assert!(!still.is_slow(later + SLOW_FOR));
    assert_eq!(still.failing, None);
}

fn limited(max_in_flight: Option<u64>, per_second: Option<u64>) -> Endpoint {
    let limits = EndpointLimits::new(max_in_flight, per_second).unwrap();
    endpoint().configured(limits, None, noon()).unwrap_or(endpoint())
}

#[test]
fn limits_out_of_range_are_refused() {
    assert_eq!(EndpointLimits::new(Some(0), None), Err(LimitError { most: 50 }));
    assert_eq!(EndpointLimits::new(Some(51), None), Err(LimitError { most: 50 }));
    assert_eq!(EndpointLimits::new(None, Some(101)), Err(LimitError { most: 100 }));
    assert_eq!(EndpointLimits::new(None, Some(u64::MAX)), Err(LimitError { most: 100 }));
    assert_eq!(EndpointLimits::new(None, None), Ok(EndpointLimits::default()));
}

#[test]
fn limits_bound_attempts_in_flight() {
    let (first, one) = let_through(&limited(Some(2), None), &request(1), noon());
    let (_, two) = let_through(&one, &request(2), noon());
    assert_eq!(held_until(&two, noon()), (noon() + seconds(1), HoldReason::InFlight));
    let after = two.record(&first, &signal(200), noon()).unwrap();
    let (_, full) = let_through(&after, &request(3), noon());
    assert_eq!(full.in_flight.len(), 2);
    // The places of crashed attempts are free again.
    let (_, after) = let_through(&full, &request(4), noon() + ATTEMPT_LEASE);
    assert_eq!(after.in_flight.len(), 1);
}

#[test]
fn limits_reserve_one_slot_per_attempt() {
    let mut endpoint = limited(Some(1), Some(2));
    let mut turns = Vec::new();
    for token in 0..6 {
        let in_flight = std::mem::take(&mut endpoint.in_flight);
        assert!(in_flight.len() <= 1);
        endpoint = match endpoint.admit(&request(token), noon()) {
            AdmissionDecision::Go { claim: Some(claim), .. } => {
                turns.push(0);
                *claim
            }
            AdmissionDecision::Hold { until, by: HoldReason::Rate, claim: Some(claim) } => {
                turns.push((until - noon()).num_milliseconds());
                *claim
            }
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(turns, [0, 0, 500, 1_000, 1_500, 2_000]);

    let turn = AttemptRequest { has_slot: true, ..request(9) };
    let at = noon() + seconds(2);
    let (_, busy) = let_through(&endpoint, &turn, at);
    assert_eq!(busy.next_slot, endpoint.next_slot, "it had its turn");
    let AdmissionDecision::Hold { by, .. } = busy.admit(&turn, at) else { panic!("two at once") };
    assert_eq!(by, HoldReason::Rate, "and still has it when there is no place");
}

#[test]
fn limits_change_resets_their_state() {
    let (_, busy) = let_through(&limited(Some(1), Some(1)), &request(1), noon());
    let wider =
        busy.configured(EndpointLimits::new(Some(9), Some(9)).unwrap(), None, noon()).unwrap();
    assert_eq!((wider.next_slot, wider.in_flight.len()), (None, 0));
    let none = wider.unconfigured(noon()).unwrap();
    assert!(none.is_blank());
    assert_eq!(none.unconfigured(noon()), None);
}

/// A step of the property test.
#[derive(Clone, Debug)]
enum EndpointMove {
    Arrive { manual: bool, slow_lane: bool },
    Answer { which: usize, status: u16, retry_after: Option<u16> },
    Wait { seconds: u32 },
}

fn moves() -> impl Strategy<Value = Vec<EndpointMove>> {
    let status = prop::sample::select(vec![200, 204, 304, 400, 410, 429, 500, 502, 503]);
    let one = prop_oneof![
        4 => (prop::bool::weighted(0.1), any::<bool>())
            .prop_map(|(manual, slow_lane)| EndpointMove::Arrive { manual, slow_lane }),
        4 => (0usize..8, status, prop::option::weighted(0.2, any::<u16>()))
            .prop_map(|(which, status, retry_after)| EndpointMove::Answer { which, status, retry_after }),
        1 => (0u32..3).prop_map(|seconds| EndpointMove::Wait { seconds }),
        2 => (0u32..20_000).prop_map(|seconds| EndpointMove::Wait { seconds }),
    ];
    prop::collection::vec(one, 1..80)
}

proptest! {
    /// No attempt begins during a throttle. While the breaker is not closed, at most one attempt
    /// that is not manual begins per lease. The breaker opens after five failures in a row, and
    /// not within two seconds of the first. Attempts in flight are within the limit. An attempt
    /// is held for a bounded time. Versions grow.
    #[test]
    fn endpoint_admits_only_what_it_may(
        moves in moves(),
        limit in prop::option::of(1u64..4),
        jitter_sample in 0.0f64..1.0,
    ) {
        let mut now = noon();
        let mut endpoint = limited(limit, limit.map(|_| 100));
        let mut silent_until = noon();
        let mut under_way: Vec<(Permit, DateTime<Utc>)> = Vec::new();
        let mut token = 0;
        let mut in_a_row = 0;
        for one in moves {
            let (before, was_closed) = (endpoint.version, endpoint.breaker == Breaker::Closed);
            match one {
                EndpointMove::Wait { seconds } => now += TimeDelta::seconds(seconds.into()),
                EndpointMove::Arrive { manual, slow_lane } => {
                    token += 1;
                    let lane = if slow_lane { Lane::Slow } else { Lane::Quick };
                    let request = AttemptRequest { manual, has_slot: false, lane, token, jitter_sample };
                    match endpoint.admit(&request, now) {
                        AdmissionDecision::Go { permit, claim } => {
                            prop_assert!(now >= silent_until, "in a silence");
                            if endpoint.breaker != Breaker::Closed && !manual {
                                let others = under_way.iter().filter(|(other, since)| {
                                    other.probe.is_some() && *since + ATTEMPT_LEASE > now
                                });
                                prop_assert_eq!(others.count(), 0, "two probes");
                            }
                            under_way.push((permit, now));
                            endpoint = claim.map_or(endpoint, |claim| *claim);
                            let places = endpoint.in_flight.len() as u64;
                            prop_assert!(limit.is_none_or(|limit| places <= limit));
                        }
                        AdmissionDecision::Hold { until, by, claim } => {
                            let longest = match by {
                                HoldReason::Failing => TimeDelta::minutes(15),
                                HoldReason::Throttled => TimeDelta::hours(25),
                                HoldReason::InFlight | HoldReason::Rate | HoldReason::Secrets => {
                                    TimeDelta::minutes(2)
                                }
                            };
                            prop_assert!(until > now && until - now <= longest, "{by:?} {until}");
                            endpoint = claim.map_or(endpoint, |claim| *claim);
                        }
                        AdmissionDecision::ChangeLane => prop_assert!(endpoint.is_slow(now)),
                        AdmissionDecision::Refuse { .. } => {
                            prop_assert!(endpoint.disabled.is_some() && !manual);
                        }
                    }
                }
                EndpointMove::Answer { which, status, retry_after } => {
                    if under_way.is_empty() {
                        continue;
                    }
                    let (permit, _) = under_way.remove(which % under_way.len());
                    let retry_after = retry_after.map(|it| Duration::from_secs(it.into()));
                    let hints = ResponseHints { retry_after, instruction: None };
                    let signal = AttemptSignal::of(AttemptOutcome::Answered(status), hints, QUICK);
                    if let (Some(wait), 300..) = (retry_after, status) {
                        silent_until = silent_until.max(later(now, wait));
                    }
                    endpoint = endpoint.record(&permit, &signal, now).unwrap_or(endpoint);
                    in_a_row = if endpoint.failing.is_some() { in_a_row + 1 } else { 0 };
                }
            }
            if was_closed && endpoint.breaker != Breaker::Closed {
                let since = endpoint.failing.map(|failing| failing.since);
                prop_assert!(since.is_some_and(|since| now - since >= seconds(2)));
                prop_assert!(in_a_row >= 5, "{}", in_a_row);
            }
            prop_assert!(endpoint.version >= before);
        }
    }

    /// In any interval at most as many attempts begin as the rate allows, plus a burst of one
    /// second.
    #[test]
    fn limits_rate_holds_over_any_interval(
        rate in 1u64..20,
        gaps in prop::collection::vec(0i64..400, 1..120),
    ) {
        let mut endpoint = limited(None, Some(rate));
        let mut now = noon();
        let mut starts = Vec::new();
        for gap in gaps {
            now += TimeDelta::milliseconds(gap);
            match endpoint.admit(&request(0), now) {
                AdmissionDecision::Go { claim, .. } => {
                    starts.push(now);
                    endpoint = claim.map_or(endpoint, |claim| *claim);
                }
                AdmissionDecision::Hold { until, claim, .. } => {
                    starts.push(until);
                    endpoint = claim.map_or(endpoint, |claim| *claim);
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }
        starts.sort();
        for (first, start) in starts.iter().enumerate() {
            for (last, end) in starts.iter().enumerate().skip(first) {
                let allowed = rate as f64 * ((*end - *start).as_seconds_f64() + 1.0) + 0.001;
                prop_assert!((last - first + 1) as f64 <= allowed.ceil());
            }
        }
    }
}

#[test]
fn headers_are_those_that_are_configured() {
    let ids = [1, 2].map(|n| HeadersId::from_random([n; 8]));
    let limits = EndpointLimits::new(Some(2), None).unwrap();
    let none = EndpointLimits::default();
    let first = endpoint().configured(none, Some(ids[0]), noon()).unwrap();
    assert!(!first.is_blank(), "its item stays");
    assert_eq!(first.configured(none, Some(ids[0]), noon()), None);
    let second = first.configured(limits, Some(ids[1]), noon()).unwrap();
    assert_eq!((second.limits, second.headers), (limits, Some(ids[1])));
    for (endpoint, headers) in [(&first, Some(ids[0])), (&second, Some(ids[1]))] {
        let AdmissionDecision::Go { permit, .. } = endpoint.admit(&request(1), noon()) else {
            panic!()
        };
        assert_eq!(permit.headers, headers);
    }
    let former = second.unconfigured(noon()).unwrap();
    assert_eq!((former.limits, former.headers), (none, None));
}
