//! Many jobs in bad weather, from a seed: five providers, receivers of every kind, forged
//! callbacks. When the weather is over everything has to come to its end, as always.
//!
//! `cargo xtask sim --seeds N` runs as many as are wanted. A seed that fails is named, and
//! `--first` with it runs it again.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write as _, stderr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request};
use serde_json::{Value, json};

use crate::harness::backend::{Fate, Order};
use crate::harness::bundle::{Bundle, Settings};
use crate::harness::functions::PROVIDERS;
use crate::harness::parallel::in_parallel;
use crate::harness::receivers::{self, DEFAULT, Manner};

/// Seeds and jobs of each when nothing else is said.
const SEEDS: u64 = 4;
const JOBS: u64 = 25;

/// Over how long the jobs are spread.
const SPREAD: Duration = Duration::from_secs(30 * 60);

/// How many receivers there are that several orders share.
const SHARED: usize = 4;

/// How long after an order an operator calls at most.
const LATER: Duration = Duration::from_secs(25 * 60);

/// How far the indexes are behind their table at most, and how long it stays so.
const LAG: Duration = Duration::from_secs(8);
const LAG_LASTS: Duration = Duration::from_secs(60);

/// What a seed came to.
struct Outcome {
    seed: u64,
    jobs: usize,
    refused: usize,
    faults: BTreeMap<&'static str, usize>,
    violations: Vec<String>,
}

fn number(name: &str, fallback: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")),
        Err(_) => fallback,
    }
}

fn run(seed: u64, jobs: u64) -> Arc<Bundle> {
    let mut settings = Settings {
        seed,
        is_stormy: true,
        horizon: Duration::from_secs(12 * 3600),
        ..Settings::default()
    };
    settings.parameters.shards = u32::try_from(1 + seed % 3).unwrap();
    Bundle::run(settings, async |bundle| tell(bundle, jobs).await)
}

fn simulate(seed: u64, jobs: u64) -> Outcome {
    let bundle = run(seed, jobs);
    let placed = bundle.placed.lock().unwrap();
    let refused = placed.iter().filter(|placed| placed.job.is_err()).count();
    if let (Ok(path), false) = (std::env::var("CRASH_LOG"), bundle.watch.violations().is_empty()) {
        std::fs::write(path, bundle.watch.log().text()).unwrap();
    }
    Outcome {
        seed,
        jobs: placed.len() - refused,
        refused,
        faults: bundle.weather.counts(),
        violations: bundle.watch.violations(),
    }
}

async fn tell(bundle: &Arc<Bundle>, jobs: u64) {
    let config = json!({"url": receivers::url(DEFAULT)});
    bundle.insist(Method::PUT, "/v1/webhook-config", &config, &[200]).await;
    let mut backends = vec![tokio::spawn(Arc::clone(bundle).lag())];
    for number in 0..jobs {
        let order = order(bundle, number).await;
        let after = bundle.chance(SPREAD);
        let bundle = Arc::clone(bundle);
        backends.push(tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let Some(job) = bundle.place(&order).await else { return };
            if bundle.weather.strikes("forged callback", 5) {
                let name = order.provider.name();
                bundle.forge(&format!("/v1/webhooks/{name}/{job}/{}", "0".repeat(43))).await;
                bundle.forge(&format!("/v1/webhooks/{name}")).await;
            }
            if bundle.weather.strikes("operator calls", 10) {
                tokio::time::sleep(bundle.chance(LATER)).await;
                bundle.operate(&job).await;
            }
        }));
    }
    for backend in backends {
        backend.await.unwrap();
    }
}

/// An order, with a provider and a receiver that behave somehow.
async fn order(bundle: &Arc<Bundle>, number: u64) -> Order {
    let weather = &bundle.weather;
    let one_in = |many: u64| weather.up_to(Duration::from_millis(many - 1)).is_zero();
    let ms =
        |most: u64| u64::try_from(weather.up_to(Duration::from_millis(most)).as_millis()).unwrap();
    let provider = PROVIDERS[weather.pick(PROVIDERS.len())];
    let mark = format!("order-{number:04}.");

    let mut knobs = json!({
        "durationMs": 2000 + ms(600_000),
        "queuedMs": ms(20_000),
        "callbackRetryMs": 2000 + ms(30_000),
    });
    let mut fate = Fate::Taken;
    let mut set = |name: &str, value: Value| knobs[name] = value;
    if one_in(8) {
        set("failWith", json!("no codec"));
    }
    if one_in(12) {
        let status = [422, 429, 500, 503][weather.pick(4)];
        fate = match status {
            422 => Fate::Refused("provider_rejected"),
            429 => Fate::Refused("provider_busy"),
            // Then nobody knows.
            _ => Fate::Taken,
        };
        set("submitStatus", json!(status));
        set("submitStatusTimes", json!(1));
    }
    if one_in(12) {
        set("submitAnswer", json!("never"));
        // Nobody hears a refusal either.
        fate = Fate::Taken;
    }
    if one_in(6) {
        set("statusCode", json!([429, 500, 503][weather.pick(3)]));
        set("statusCodeTimes", json!(1 + weather.pick(4)));
    }
    let callback = match weather.pick(6) {
        0 => json!({"skip": true}),
        1 => json!({"times": 3}),
        2 => json!({"delayMs": ms(60_000)}),
        3 => json!({"lateMs": ms(120_000)}),
        _ => json!({}),
    };
    set("callback", callback);
    bundle.scenario(provider, &mark, &knobs).await;

    let manners: Vec<Manner> = match weather.pick(6) {
        0 => vec![Manner::status(500); 1 + weather.pick(4)],
        1 => vec![Manner { after: Duration::from_secs(3), ..Manner::status(200) }],
        2 => vec![Manner { after: Duration::from_secs(40), ..Manner::status(200) }],
        3 if one_in(4) => vec![Manner::status(410)],
        3 => vec![Manner { retry_after: Some("90"), ..Manner::status(429) }],
        _ => Vec::new(),
    };
    let order = Order { fate, ..Order::new(provider, &mark) };
    match weather.pick(3) {
        0 => order.without("callbackUrl"),
        1 => {
            let shared = format!("shared-{}", weather.pick(SHARED));
            bundle.receivers.treat(&shared, manners);
            order.with("callbackUrl", json!(receivers::url(&shared)))
        }
        _ => {
            bundle.receivers.treat(&mark, manners);
            order
        }
    }
}

impl Bundle {
    /// Lets the indexes fall behind their table now and then.
    async fn lag(self: Arc<Self>) {
        while !self.weather.is_over() {
            let lag = match self.weather.strikes("indexes fall behind", 4) {
                true => self.chance(LAG),
                false => Duration::ZERO,
            };
            self.aws.table().delay_indexes(lag);
            tokio::time::sleep(LAG_LASTS).await;
        }
        self.aws.table().delay_indexes(Duration::ZERO);
    }

    /// Somebody calls back who has nothing to say.
    async fn forge(self: &Arc<Self>, path: &str) {
        let body = Bytes::from_static(br#"{"status":"done","id":"forged","url":"https://evil/"}"#);
        let request =
            Request::builder().method(Method::POST).uri(format!("http://relay.test{path}"));
        let seen = self.call(request.body(body).unwrap()).await;
        if (200..300).contains(&seen.status) {
            self.watch.violation(format!("a forged callback is taken: {path}"));
        }
    }
}

/// Shows how far a long run is: in place on a terminal, else in a line now and then.
struct Progress {
    begun: Instant,
    seeds: usize,
    /// Seeds and jobs that are done, and seeds that failed.
    done: Mutex<[usize; 3]>,
}

/// Lines that somebody reads later, at most.
const LINES: usize = 50;

impl Progress {
    fn new(seeds: usize) -> Self {
        Self { begun: Instant::now(), seeds, done: Mutex::default() }
    }

    fn tell(&self, outcome: &Outcome) {
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
            drop(writeln!(stream, "\n{}", outcome.complaint()));
        }
    }
}

impl Outcome {
    fn complaint(&self) -> String {
        format!("seed {}:\n  {}", self.seed, self.violations.join("\n  "))
    }
}

#[test]
fn everything_comes_to_its_end_whatever_the_weather() {
    let first = number("SIM_FIRST", 1);
    let seeds: Vec<u64> = (first..first + number("SIM_SEEDS", SEEDS)).collect();
    let jobs = number("SIM_JOBS", JOBS);
    let progress = Progress::new(seeds.len());
    let outcomes = in_parallel(&seeds, |seed| {
        let outcome = simulate(*seed, jobs);
        progress.tell(&outcome);
        outcome
    });

    let settled: usize = outcomes.iter().map(|outcome| outcome.jobs).sum();
    let refused: usize = outcomes.iter().map(|outcome| outcome.refused).sum();
    let mut faults: BTreeMap<&str, usize> = BTreeMap::new();
    for (what, times) in outcomes.iter().flat_map(|outcome| &outcome.faults) {
        *faults.entry(what).or_default() += times;
    }
    println!("\n{} seeds from {first}, {settled} jobs settled, {refused} refused", seeds.len());
    for (what, times) in &faults {
        println!("  {what:<32} {times:>9}");
    }
    let failed: Vec<String> = outcomes
        .iter()
        .filter(|outcome| !outcome.violations.is_empty())
        .map(Outcome::complaint)
        .collect();
    let violations: usize = outcomes.iter().map(|outcome| outcome.violations.len()).sum();
    println!("  {:<32} {violations:>9}", "violations");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// What everybody called, in the order in which it happened.
fn trace(seed: u64, jobs: u64) -> Vec<String> {
    let bundle = run(seed, jobs);
    let calls = bundle.invocations().into_iter().flat_map(|invocation| {
        let name = format!("{:?} {}", invocation.function, invocation.number);
        invocation.calls().into_iter().map(move |call| format!("{name}: {}", call.label))
    });
    calls.collect()
}

#[test]
fn a_seed_runs_the_same_again() {
    let (once, again) = (trace(1, 12), trace(1, 12));
    let differs = once.iter().zip(&again).position(|(one, other)| one != other);
    if let Some(at) = differs {
        panic!("call {at}: {} and {}", once[at], again[at]);
    }
    assert_eq!(once.len(), again.len());
}
