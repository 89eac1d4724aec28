//! The largest rate of jobs that the quotas let through, and the first of them that binds. It takes
//! minutes and is run by hand:
//! `cargo test --workspace --test bundle -- --ignored --nocapture largest_rate`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_in_memory::quotas::Quotas;
use http::Method;
use serde_json::json;
use tests::SimulatedProvider;

use crate::harness::backend::CallerRequest;
use crate::harness::bundle::{Bundle, RunSettings};
use crate::harness::template::Parameters;

const PROVIDER: SimulatedProvider = SimulatedProvider::ViralSync;

/// The rates that are tried, in jobs a second, and for how long each.
const RATES: [u32; 9] = [25, 50, 100, 150, 200, 250, 300, 400, 500];
const STEP: Duration = Duration::from_secs(5);

/// How long a render takes.
const RENDER: Duration = Duration::from_secs(3);

/// What became of the jobs of one rate.
#[derive(Debug, Default)]
struct Step {
    /// The answers to submits, by status.
    statuses: BTreeMap<u16, usize>,
    throttles: BTreeMap<&'static str, usize>,
}

/// Submits at this rate for a while, then waits for all webhooks.
fn push(rate: u32, stack: &Parameters, shards: u32) -> Step {
    let mut settings =
        RunSettings { quotas: Quotas::default(), stack: stack.clone(), ..RunSettings::default() };
    settings.parameters.shards = shards;
    let statuses = Arc::new(Mutex::new(BTreeMap::new()));
    let seen = Arc::clone(&statuses);
    let bundle = Bundle::run(settings, async move |bundle| {
        let options = json!({"durationMs": u64::try_from(RENDER.as_millis()).unwrap()});
        let submits = u64::from(rate) * STEP.as_secs();
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
            tokio::time::sleep(STEP / u32::try_from(submits).unwrap()).await;
        }
        for caller in callers {
            caller.await.unwrap();
        }
    });
    let throttles = bundle.aws.throttles().into_iter();
    let throttles = throttles.map(|(what, times)| (what.name(), times)).collect();
    let statuses = std::mem::take(&mut *statuses.lock().unwrap());
    Step { statuses, throttles }
}

#[test]
#[ignore = "a measurement that takes minutes"]
fn largest_rate_names_first_quota() {
    let raised: Parameters = [("ApiRateLimit", 10_000), ("ApiBurstLimit", 5000)].into();
    for (name, stack, shards) in [
        ("as deployed", Parameters::new(), 1),
        ("without the API's throttle", raised.clone(), 1),
        ("and with four shards", raised, 4),
    ] {
        println!("\n{name}");
        for rate in RATES {
            let step = push(rate, &stack, shards);
            println!(
                "  {rate:>4} jobs a second: {:?}, throttled: {:?}",
                step.statuses, step.throttles
            );
            let is_whole = step.statuses.keys().eq([202].iter());
            if !is_whole {
                break;
            }
        }
    }
}
