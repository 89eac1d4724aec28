//! `relay doctor`: whether the account's limits carry the stack, and what to raise.
//!
//! It reads Lambda's and SSM's settings with the operator's credentials, and changes nothing.

mod account;

use std::fmt::Write as _;

use anyhow::{Context, Result, bail};

use self::account::{AccountLimits, StackSettings, read};
use crate::show::aligned;

/// How many of ten concurrent executions stay for submits, callbacks, the rest of the API and
/// the ticks, however much there is to deliver and to poll.
const LEFT_OF_TEN: u32 = 2;

/// The concurrent executions of an account that was raised once. With fewer, pollers should not
/// hold any while they wait.
const FEW: u32 = 100;

/// The least that an event source can be limited to.
const LEAST_LANE: u32 = 2;

/// Reads the account and the stack, and prints what they say. An error when something has to be
/// raised or lowered.
pub(crate) fn run(stack: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let config = shared::aws::config().context("cannot find AWS credentials and a region")?;
    let (account, settings) = runtime.block_on(read(&config, stack))?;
    println!("{}", table(&account, &settings));
    let problems = problems(&account, &settings);
    for problem in problems.iter().chain(&hints(&account, &settings)) {
        println!("\n{problem}");
    }
    match problems.len() {
        0 => Ok(()),
        1 => bail!("1 setting does not fit the account"),
        many => bail!("{many} settings do not fit the account"),
    }
}

impl StackSettings {
    /// How many concurrent executions pollers hold while they wait.
    fn pollers(&self) -> u32 {
        if self.pollers_stay_awake { self.shards } else { 0 }
    }

    /// How many pollers and deliveries may hold together.
    fn held(&self) -> u32 {
        self.pollers().saturating_add(self.deliveries).saturating_add(self.slow_deliveries)
    }
}

/// What has to stay for submits, callbacks, the rest of the API and the ticks.
fn share(account: &AccountLimits) -> u32 {
    (account.unreserved.saturating_mul(LEFT_OF_TEN)).div_ceil(10)
}

fn left(account: &AccountLimits, settings: &StackSettings) -> u32 {
    account.unreserved.saturating_sub(settings.held())
}

fn table(account: &AccountLimits, settings: &StackSettings) -> String {
    let throughput = if account.ssm_high_throughput { "high" } else { "standard, 40" };
    let rows = [
        ("concurrent executions of the account", account.concurrency.to_string()),
        ("  not reserved by any function", account.unreserved.to_string()),
        ("  pollers that wait", settings.pollers().to_string()),
        ("  deliveries", settings.deliveries.to_string()),
        ("  deliveries to slow receivers", settings.slow_deliveries.to_string()),
        ("  left for submits, callbacks and the rest", left(account, settings).to_string()),
        ("SSM calls a second", throughput.to_owned()),
    ];
    aligned(&rows.map(|(what, number)| [what.to_owned(), number]))
}

/// What does not fit, each with what to do about it.
fn problems(account: &AccountLimits, settings: &StackSettings) -> Vec<String> {
    let mut problems = Vec::new();
    if left(account, settings) < share(account) {
        let mut text = format!(
            "Pollers and deliveries may hold {} of {} concurrent executions; {} should stay for \
             submits and callbacks. Lower them with",
            settings.held(),
            account.unreserved,
            share(account)
        );
        let fitting = fitting(account, settings);
        // Writing into a text cannot fail.
        let _ = write!(text, "\n  sam deploy --parameter-overrides {}", overrides(&fitting));
        if fitting.held() > account.unreserved.saturating_sub(share(account)) {
            text.push_str("\nand even so ask AWS for more:");
        } else {
            text.push_str("\nor ask AWS for more:");
        }
        text.push_str(
            "\n  aws service-quotas request-service-quota-increase --service-code lambda \
             --quota-code L-B99A9384 --desired-value 1000",
        );
        problems.push(text);
    }
    problems
}

/// What may be raised, or has another price than one might think.
fn hints(account: &AccountLimits, settings: &StackSettings) -> Vec<String> {
    let mut hints = Vec::new();
    let room = left(account, settings).saturating_sub(share(account));
    if room > settings.deliveries {
        hints.push(format!(
            "There is room for more deliveries at once: DeliveryConcurrency may be up to {}. \
             Each concurrent execution posts ten webhooks at once.",
            settings.deliveries.saturating_add(room).min(1_000)
        ));
    }
    if !settings.pollers_stay_awake && account.unreserved >= FEW {
        hints.push(
            "PollersStayAwake=true is cheaper, and the account has concurrent executions for it."
                .to_owned(),
        );
    }
    if !account.ssm_high_throughput && account.unreserved > FEW {
        hints.push(
            "SSM takes 40 calls a second of the whole account, and each cold start makes one. \
             If starts come faster than that, they wait for it; to raise it costs per call:\n  \
             aws ssm update-service-setting --setting-value true \
             --setting-id /ssm/parameter-store/high-throughput-enabled"
                .to_owned(),
        );
    }
    hints
}

/// The settings nearest to these that leave the share, or the least that there are.
fn fitting(account: &AccountLimits, settings: &StackSettings) -> StackSettings {
    let awake = settings.pollers_stay_awake && account.unreserved >= FEW;
    let mut fitting = StackSettings { pollers_stay_awake: awake, ..settings.clone() };
    let most = account.unreserved.saturating_sub(share(account));
    while fitting.held() > most {
        let lane = if fitting.deliveries > fitting.slow_deliveries {
            &mut fitting.deliveries
        } else {
            &mut fitting.slow_deliveries
        };
        if *lane <= LEAST_LANE {
            break;
        }
        *lane -= 1;
    }
    fitting
}

fn overrides(settings: &StackSettings) -> String {
    format!(
        "PollersStayAwake={} DeliveryConcurrency={} SlowDeliveryConcurrency={}",
        settings.pollers_stay_awake, settings.deliveries, settings.slow_deliveries
    )
}

#[cfg(test)]
mod tests;
