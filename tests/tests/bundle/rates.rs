//! The rates of jobs that the quotas let through, and which quota binds first. A quota that binds is
//! named and lifted, and the same rate is tried again.
//!
//! `cargo xtask rates` tries higher rates than a run without it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_in_memory::quotas::{Rate, Throttle};
use aws_in_memory::table::{Throttle as TableThrottle, Throughput};
use http::Method;
use serde_json::json;
use tests::SimulatedProvider;

use crate::harness::backend::CallerRequest;
use crate::harness::bundle::{Bundle, RunSettings};

const PROVIDER: SimulatedProvider = SimulatedProvider::ViralSync;

/// The default of `RATES`, the rates that are tried: jobs a second, separated by commas.
const RATES: &str = "50";

/// How long jobs come at each rate: long enough that no burst carries a rate that does not last.
const STEP: Duration = Duration::from_secs(10);

/// The highest rate that docs/scaling.md promises of a new stack with the default parameters.
const CARRIED: u32 = 200;

/// How long a render takes.
const RENDER: Duration = Duration::from_secs(1);

/// The answers to submits by status, and what was throttled.
type Outcome = (BTreeMap<u16, usize>, BTreeMap<Throttle, usize>);

/// Submits at this rate for a while on a new stack, then waits for all webhooks.
fn push(rate: u32, settings: RunSettings) -> Outcome {
    let statuses = Arc::new(Mutex::new(BTreeMap::new()));
    let seen = Arc::clone(&statuses);
    let bundle = Bundle::run(settings, async move |bundle| {
        let options = json!({"durationMs": u64::try_from(RENDER.as_millis()).unwrap()});
        let submits = rate * u32::try_from(STEP.as_secs()).unwrap();
        let mut callers = Vec::new();
        for number in 0..submits {
            let tag = format!("order-{number:05}.");
            bundle.set_render_options(PROVIDER, &tag, &options).await;
            let (bundle, seen) = (Arc::clone(bundle), Arc::clone(&seen));
            callers.push(tokio::task::spawn_local(async move {
                let request = CallerRequest::new(PROVIDER, &tag);
                let key = request.key.as_deref();
                let answer = bundle.call_api(Method::POST, "/v1/jobs", key, &request.body).await;
                *seen.lock().unwrap().entry(answer.status).or_default() += 1;
            }));
            tokio::time::sleep(STEP / submits).await;
        }
        for caller in callers {
            caller.await.unwrap();
        }
    });
    let statuses = std::mem::take(&mut *statuses.lock().unwrap());
    (statuses, bundle.aws.throttles())
}

/// The same account without a quota.
fn lift(settings: &mut RunSettings, what: Throttle) {
    let (quotas, without) = (&mut settings.quotas, Throughput::UNLIMITED);
    match what {
        Throttle::Recursion => quotas.recursion = u32::MAX,
        Throttle::Execution => quotas.executions = usize::MAX,
        Throttle::ParameterRead => quotas.parameter_reads = Rate::UNLIMITED,
        Throttle::ParameterWrite => quotas.parameter_writes = Rate::UNLIMITED,
        Throttle::BusEntry => quotas.bus_entries = Rate::UNLIMITED,
        Throttle::Route => {
            settings.stack = [("ApiRateLimit", 100_000), ("ApiBurstLimit", 100_000)].into();
        }
        Throttle::Table(TableThrottle::Key | TableThrottle::IndexKey) => {
            (quotas.table.key_writes, quotas.table.key_reads) =
                (without.key_writes, without.key_reads);
        }
        Throttle::Table(TableThrottle::Whole) => {
            (quotas.table.all_writes, quotas.table.all_reads) =
                (without.all_writes, without.all_reads);
        }
    }
}

#[test]
fn new_stack_carries_the_promised_rate() {
    let rates = std::env::var("RATES").unwrap_or_else(|_| RATES.to_owned());
    let rates = rates.split(',').map(|rate| rate.trim().parse().expect("RATES has numbers"));
    for rate in rates {
        let (mut settings, mut bound) = (RunSettings::default(), Vec::new());
        loop {
            let (statuses, throttles) = push(rate, settings.clone());
            println!("{rate} jobs a second: {statuses:?}, throttled {throttles:?}");
            let Some((most, _)) = throttles.into_iter().max_by_key(|(_, times)| *times) else {
                let taken: Vec<u16> = statuses.into_keys().collect();
                assert_eq!(taken, [202], "{rate} jobs a second, with nothing throttled");
                break;
            };
            println!("  binds and is lifted: {}", most.name());
            bound.push(most);
            lift(&mut settings, most);
        }
        match rate <= CARRIED {
            true => assert_eq!(bound, [], "quotas that bind at {rate} jobs a second"),
            // The callers' own throttle comes before any that would delay a job that was taken, and
            // the table after it, as docs/scaling.md says.
            false => {
                let order = [Throttle::Route, Throttle::Table(TableThrottle::Whole)];
                let known = &order[..bound.len().min(order.len())];
                assert_eq!(bound.first(), Some(&Throttle::Route), "at {rate} jobs a second");
                assert_eq!(bound, known, "at {rate} jobs a second");
            }
        }
    }
}
