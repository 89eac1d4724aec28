//! Many jobs under random faults from one seed: five providers, receivers of every kind, forged
//! callbacks. When the faults are over, every job has to end settled.
//!
//! `cargo xtask sim --seeds N` runs more seeds, and with `--starved` in an account that has hardly
//! any quota. A seed that fails is named in the output, and `--first` with that number runs it
//! again.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write as _, stderr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_in_memory::quotas::{Quotas, Throttle};
use aws_in_memory::table::Throttle as TableThrottle;
use bytes::Bytes;
use domain::lease::AwakePolicy;
use http::{Method, Request};
use serde_json::{Value, json};

use crate::checks::invariant::Invariant;
use crate::harness::backend::{CallerRequest, ExpectedAnswer};
use crate::harness::bundle::{Bundle, RunSettings};
use crate::harness::functions::PROVIDERS;
use crate::harness::parallel::in_parallel;
use crate::harness::receivers::{self, DEFAULT, PlannedAnswer};

/// The defaults of `SIM_SEEDS` and `SIM_JOBS`; in a starved account half as many seeds.
const SEEDS: u64 = 4;
const JOBS: u64 = 25;

/// The time over which the jobs are spread; in a starved account they come in a rush.
const SPREAD: Duration = Duration::from_secs(30 * 60);
const RUSH: Duration = Duration::from_secs(1);

/// The number of receivers that several requests share.
const SHARED: usize = 4;

/// The longest time between a request and an operator's call.
const LATER: Duration = Duration::from_secs(25 * 60);

/// The longest lag of the indexes, and how long one lag stays.
const LAG: Duration = Duration::from_secs(8);
const LAG_LASTS: Duration = Duration::from_secs(60);

/// The result of one seed.
struct SeedOutcome {
    seed: u64,
    jobs: usize,
    refused: usize,
    /// By kind: what went wrong by chance, and what was throttled.
    faults: BTreeMap<&'static str, usize>,
    throttles: BTreeMap<&'static str, usize>,
    /// The most messages in a row that came to nothing.
    longest_round: usize,
    violations: Vec<String>,
}

fn number(name: &str, fallback: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")),
        Err(_) => fallback,
    }
}

fn run(seed: u64, jobs: u64, quotas: Quotas) -> Arc<Bundle> {
    let mut settings = RunSettings {
        seed,
        quotas,
        has_random_faults: true,
        horizon: Duration::from_secs(12 * 3600),
        ..RunSettings::default()
    };
    settings.parameters.shards = u32::try_from(1 + seed % 3).unwrap();
    let spread = match quotas == Quotas::default() {
        true => SPREAD,
        false => {
            settings.parameters.awake_policy = AwakePolicy::WhereNeeded;
            settings.stack = [("ApiRateLimit", 10), ("ApiBurstLimit", 10)].into();
            RUSH
        }
    };
    Bundle::run(settings, async |bundle| submit_all(bundle, jobs, spread).await)
}

fn simulate(seed: u64, jobs: u64, quotas: Quotas) -> SeedOutcome {
    let bundle = run(seed, jobs, quotas);
    let throttles = bundle.aws.throttles().into_iter();
    let answered = bundle.answered_requests.lock().unwrap();
    let refused = answered.iter().filter(|answered| answered.job.is_err()).count();
    if let (Ok(path), false) = (std::env::var("CRASH_LOG"), bundle.checker.violations().is_empty())
    {
        std::fs::write(path, bundle.checker.log().text()).unwrap();
    }
    SeedOutcome {
        seed,
        jobs: answered.len() - refused,
        refused,
        faults: bundle.random_faults.counts(),
        throttles: throttles.map(|(what, times)| (what.name(), times)).collect(),
        longest_round: bundle.check_rounds(),
        violations: bundle.checker.violations(),
    }
}

async fn submit_all(bundle: &Arc<Bundle>, jobs: u64, spread: Duration) {
    let config = json!({"url": receivers::url(DEFAULT)});
    bundle.call_until_answered(Method::PUT, "/v1/webhook-config", &config, &[200]).await;
    let mut backends = vec![tokio::spawn(Arc::clone(bundle).lag())];
    for number in 0..jobs {
        let request = random_request(bundle, number).await;
        let after = bundle.random_duration(spread);
        let bundle = Arc::clone(bundle);
        backends.push(tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let Some(job) = bundle.submit(&request).await else { return };
            if bundle.random_faults.roll("forged callback", 5) {
                let name = request.provider.name();
                bundle.forge(&format!("/v1/webhooks/{name}/{job}/{}", "0".repeat(43))).await;
                bundle.forge(&format!("/v1/webhooks/{name}")).await;
            }
            if bundle.random_faults.roll("operator calls", 10) {
                tokio::time::sleep(bundle.random_duration(LATER)).await;
                bundle.operate(&job).await;
            }
        }));
    }
    for backend in backends {
        backend.await.unwrap();
    }
}

/// A request with a random provider, render and receiver.
async fn random_request(bundle: &Arc<Bundle>, number: u64) -> CallerRequest {
    let random_faults = &bundle.random_faults;
    let one_in =
        |many: u64| random_faults.duration_up_to(Duration::from_millis(many - 1)).is_zero();
    let ms = |most: u64| {
        u64::try_from(random_faults.duration_up_to(Duration::from_millis(most)).as_millis())
            .unwrap()
    };
    let provider = PROVIDERS[random_faults.pick(PROVIDERS.len())];
    let tag = format!("order-{number:04}.");

    let mut options = json!({
        "durationMs": 2000 + ms(600_000),
        "queuedMs": ms(20_000),
        "callbackRetryMs": 2000 + ms(30_000),
    });
    let mut expected = ExpectedAnswer::Accepted;
    let mut set = |name: &str, value: Value| options[name] = value;
    if one_in(8) {
        set("failWith", json!("no codec"));
    }
    if one_in(12) {
        let status = [422, 429, 500, 503, 303][random_faults.pick(5)];
        expected = match status {
            422 => ExpectedAnswer::Refused("provider_rejected"),
            429 => ExpectedAnswer::Refused("provider_busy"),
            // Such a status does not tell whether the render was made.
            _ => ExpectedAnswer::Accepted,
        };
        if status == 303 {
            set("submitHiddenBy", json!(status));
        } else {
            set("submitStatus", json!(status));
            set("submitStatusTimes", json!(1));
        }
    }
    if one_in(12) {
        set("submitAnswer", json!("never"));
        // A refusal is lost with the answer.
        expected = ExpectedAnswer::Accepted;
    }
    if one_in(6) {
        set("statusCode", json!([429, 500, 503][random_faults.pick(3)]));
        set("statusCodeTimes", json!(1 + random_faults.pick(4)));
    }
    let callback = match random_faults.pick(6) {
        0 => json!({"skip": true}),
        1 => json!({"times": 3}),
        2 => json!({"delayMs": ms(60_000)}),
        3 => json!({"lateMs": ms(120_000)}),
        _ => json!({}),
    };
    set("callback", callback);
    bundle.set_render_options(provider, &tag, &options).await;

    let behaviors: Vec<PlannedAnswer> = match random_faults.pick(6) {
        0 => vec![PlannedAnswer::status(500); 1 + random_faults.pick(4)],
        1 => vec![PlannedAnswer { after: Duration::from_secs(3), ..PlannedAnswer::status(200) }],
        2 => vec![PlannedAnswer { after: Duration::from_secs(40), ..PlannedAnswer::status(200) }],
        3 if one_in(4) => vec![PlannedAnswer::status(410)],
        3 => vec![PlannedAnswer { retry_after: Some("90"), ..PlannedAnswer::status(429) }],
        _ => Vec::new(),
    };
    let request = CallerRequest { expected, ..CallerRequest::new(provider, &tag) };
    match random_faults.pick(3) {
        0 => request.without("callbackUrl"),
        1 => {
            let shared = format!("shared-{}", random_faults.pick(SHARED));
            bundle.receivers.set_behaviors(&shared, behaviors);
            request.with("callbackUrl", json!(receivers::url(&shared)))
        }
        _ => {
            bundle.receivers.set_behaviors(&tag, behaviors);
            request
        }
    }
}

impl Bundle {
    /// Changes the lag of the indexes from time to time.
    async fn lag(self: Arc<Self>) {
        while !self.random_faults.is_over() {
            let lag = match self.random_faults.roll("indexes fall behind", 4) {
                true => self.random_duration(LAG),
                false => Duration::ZERO,
            };
            self.aws.table().delay_indexes(lag);
            tokio::time::sleep(LAG_LASTS).await;
        }
        self.aws.table().delay_indexes(Duration::ZERO);
    }

    /// Sends a callback that no provider sent. It must be refused.
    async fn forge(self: &Arc<Self>, path: &str) {
        let body = Bytes::from_static(br#"{"status":"done","id":"forged","url":"https://evil/"}"#);
        let request =
            Request::builder().method(Method::POST).uri(format!("http://relay.test{path}"));
        let seen = self.call(request.body(body).unwrap()).await;
        if (200..300).contains(&seen.status) {
            self.checker.violated(
                Invariant::OneTerminalTruth,
                format!("a forged callback is accepted: {path}"),
            );
        }
    }
}

/// Shows the progress of a long run: in place on a terminal, otherwise in a line now and then.
struct SeedProgress {
    begun: Instant,
    seeds: usize,
    /// Finished seeds, settled jobs and failed seeds.
    done: Mutex<[usize; 3]>,
}

/// The most lines of progress when the output is no terminal.
const LINES: usize = 50;

impl SeedProgress {
    fn new(seeds: usize) -> Self {
        Self { begun: Instant::now(), seeds, done: Mutex::default() }
    }

    fn report(&self, outcome: &SeedOutcome) {
        let mut done = self.done.lock().unwrap();
        let has_failed = !outcome.violations.is_empty();
        for (sum, one) in done.iter_mut().zip([1, outcome.jobs, usize::from(has_failed)]) {
            *sum += one;
        }
        let [seeds, jobs, failed] = *done;
        let minutes = self.begun.elapsed().as_secs_f64() / 60.0;
        let line = format!(
            "{seeds} of {} seeds, {jobs} jobs settled, {failed} seeds failed, {minutes:.1} minutes",
            self.seeds
        );
        let mut stream = stderr();
        if stream.is_terminal() {
            drop(write!(stream, "\r{line}"));
        } else if seeds.is_multiple_of(self.seeds.div_ceil(LINES)) || has_failed {
            drop(writeln!(stream, "{line}"));
        }
        if has_failed {
            drop(writeln!(stream, "\n{}", outcome.failure()));
        }
    }
}

impl SeedOutcome {
    fn failure(&self) -> String {
        format!("seed {}:\n  {}", self.seed, self.violations.join("\n  "))
    }
}

#[test]
fn invariants_hold_under_random_faults() {
    simulate_seeds(number("SIM_SEEDS", SEEDS), &[Quotas::default()]);
}

#[test]
fn invariants_hold_in_starved_account() {
    let accounts = [Quotas::starved(), Quotas::starved_table()];
    let throttles = simulate_seeds(number("SIM_SEEDS", SEEDS / 2), &accounts);
    // Recursion detection never binds, however small the account is.
    let met = [
        Throttle::Execution,
        Throttle::ParameterRead,
        Throttle::ParameterWrite,
        Throttle::BusEntry,
        Throttle::Route,
        Throttle::Table(TableThrottle::Key),
        Throttle::Table(TableThrottle::Whole),
    ];
    for quota in met {
        assert!(throttles.contains_key(quota.name()), "never: {}", quota.name());
    }
}

/// Runs the seeds in each account, prints what happened, and returns what was throttled.
fn simulate_seeds(seeds: u64, accounts: &[Quotas]) -> BTreeMap<&'static str, usize> {
    let first = number("SIM_FIRST", 1);
    let numbers = first..first + seeds;
    let seeds: Vec<(u64, Quotas)> =
        numbers.flat_map(|seed| accounts.iter().map(move |quotas| (seed, *quotas))).collect();
    let jobs = number("SIM_JOBS", JOBS);
    let progress = SeedProgress::new(seeds.len());
    let outcomes = in_parallel(&seeds, |(seed, quotas)| {
        let outcome = simulate(*seed, jobs, *quotas);
        progress.report(&outcome);
        outcome
    });

    let settled: usize = outcomes.iter().map(|outcome| outcome.jobs).sum();
    let refused: usize = outcomes.iter().map(|outcome| outcome.refused).sum();
    let mut faults: BTreeMap<&str, usize> = BTreeMap::new();
    for (what, times) in outcomes.iter().flat_map(|outcome| &outcome.faults) {
        *faults.entry(what).or_default() += times;
    }
    let mut throttles: BTreeMap<&'static str, usize> = BTreeMap::new();
    for (what, times) in outcomes.iter().flat_map(|outcome| &outcome.throttles) {
        *throttles.entry(what).or_default() += times;
    }
    println!("\n{} seeds from {first}, {settled} jobs settled, {refused} refused", seeds.len());
    for (what, times) in faults.iter().chain(&throttles) {
        println!("  {what:<32} {times:>9}");
    }
    let longest = outcomes.iter().map(|outcome| outcome.longest_round).max().unwrap_or_default();
    println!("  {:<32} {longest:>9}", "idle messages in a row");
    let failed: Vec<String> = outcomes
        .iter()
        .filter(|outcome| !outcome.violations.is_empty())
        .map(SeedOutcome::failure)
        .collect();
    let violations: usize = outcomes.iter().map(|outcome| outcome.violations.len()).sum();
    println!("  {:<32} {violations:>9}", "violations");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    throttles
}

/// Every call of every invocation, in order.
fn trace(seed: u64, jobs: u64) -> Vec<String> {
    let bundle = run(seed, jobs, Quotas::default());
    let calls = bundle.invocations().into_iter().flat_map(|invocation| {
        let name = format!("{:?} {}", invocation.function, invocation.number);
        invocation.calls().into_iter().map(move |call| format!("{name}: {}", call.label))
    });
    calls.collect()
}

#[test]
fn seed_determines_run() {
    let (once, again) = (trace(1, 12), trace(1, 12));
    let differs = once.iter().zip(&again).position(|(one, other)| one != other);
    if let Some(at) = differs {
        panic!("call {at}: {} and {}", once[at], again[at]);
    }
    assert_eq!(once.len(), again.len());
}
