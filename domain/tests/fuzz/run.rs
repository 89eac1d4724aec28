//! Seeds, counting, what a failure prints.

use std::fmt::Display;
use std::str::FromStr;
use std::thread;
use std::time::Instant;

use super::random::Random;

/// Names the seed when an execution panics.
struct Execution<'a> {
    target: &'a str,
    seed: u64,
}

impl Drop for Execution<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let Self { target, seed } = self;
            eprintln!(
                "target {target} failed at seed {seed}; alone again:\n  \
                 cargo xtask fuzz --target {target} --seed {seed} --executions 1"
            );
        }
    }
}

/// Runs `execute` once per seed, `ordinary` times unless `FUZZ_EXECUTIONS` says how often;
/// `FUZZ_SEED` is the first seed. `FUZZ_TARGET` leaves out every target but that one, or those
/// of that group: `callbacks` is all of `callbacks::zvid` and its like. An execution answers whether its input was taken: a target
/// that refuses everything at the door tests the door.
pub(crate) fn run(target: &str, ordinary: u64, mut execute: impl FnMut(&mut Random) -> bool) {
    if setting::<String>("FUZZ_TARGET").is_some_and(|wanted| !is_or_is_of(target, &wanted)) {
        return;
    }
    let first: u64 = setting("FUZZ_SEED").unwrap_or(0);
    let executions = setting("FUZZ_EXECUTIONS").unwrap_or(ordinary);
    let started = now();
    let mut taken: u64 = 0;
    for seed in first..first.saturating_add(executions) {
        let _named = Execution { target, seed };
        // Spread, because the generator walks from seed to seed.
        taken += u64::from(execute(&mut Random::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d))));
    }
    let seconds = started.elapsed().as_secs_f64();
    let rate = executions as f64 / seconds.max(f64::EPSILON);
    println!(
        "\n{target:<22} {executions:>11} executions, {taken:>10} taken {seconds:>8.1} s \
         {rate:>9.0} per second"
    );
    assert!(executions < 1_000 || taken > executions / 100, "{target} takes next to nothing");
}

fn is_or_is_of(target: &str, wanted: &str) -> bool {
    target.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[expect(clippy::disallowed_methods, reason = "a test is timed; the domain is not")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "how `cargo xtask fuzz` configures a test")]
fn setting<T: FromStr<Err: Display>>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}
