//! `relay`: the command line for operators and developers.
//!
//! It uses the public HTTP API, so a program can read all that it shows. For the dead-letter
//! queue, the account's limits, a first API key, providers' keys and what they sign with it uses AWS with the operator's
//! credentials ([`dlq`], [`doctor`], [`key`], [`provider_key`], [`provider_secrets`]). It checks provider specs locally,
//! with the code that the functions run.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line prints")]

mod api;
mod dlq;
mod doctor;
mod key;
mod provider;
mod provider_key;
mod provider_secrets;
mod secret_change;
mod show;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use chrono::Utc;
use clap::{Args, Parser, Subcommand};
use domain::id::ProviderName;
use serde_json::{Map, Value, json};

use crate::api::Api;
use crate::dlq::Dlq;
use crate::key::{KeyCommand, Output};
use crate::provider_key::SetKey;
use crate::provider_secrets::SetWebhookSecrets;

/// Submit render jobs, see what became of them, send webhooks again.
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: Command,
}

/// The stack that is called.
#[derive(Args)]
struct Target {
    /// Base URL of the stack's HTTP API (its output `ApiUrl`).
    #[arg(long, env = "RELAY_URL", global = true)]
    url: Option<String>,
    /// One of the stack's API keys.
    #[arg(long, env = "RELAY_API_KEY", global = true, hide_env_values = true)]
    api_key: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Make, list and revoke API keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Submit a payload to a provider.
    Submit(Submit),
    /// Show one job.
    Show {
        /// The job's id.
        job: String,
    },
    /// Follow one job until it and its webhook are finished.
    Watch {
        /// The job's id.
        job: String,
        /// Give up after so many seconds.
        #[arg(long, default_value_t = 3600)]
        timeout: u64,
    },
    /// List jobs, newest first.
    List {
        /// Only those of this source record.
        #[arg(long, conflicts_with = "state", required_unless_present = "state")]
        source: Option<String>,
        /// Only those in this state.
        #[arg(long)]
        state: Option<String>,
    },
    /// Show a job's deliveries with every attempt, or list those of all jobs in a state.
    Deliveries {
        /// The job's id.
        #[arg(conflicts_with = "state", required_unless_present = "state")]
        job: Option<String>,
        /// `pending`, `delivered` or `exhausted`: those that were given up.
        #[arg(long)]
        state: Option<String>,
        /// Only those created since then, such as 2026-05-24T12:00:00Z.
        #[arg(long, requires = "state")]
        since: Option<String>,
        /// Only those created until then.
        #[arg(long, requires = "state")]
        until: Option<String>,
    },
    /// Send deliveries again that were given up, or those that events never had.
    Recover(Recover),
    /// Send a job's last event again, or for the first time if it had no receiver.
    Redeliver {
        /// The job's id.
        job: String,
        /// This event of it, such as video.render.completed.
        #[arg(long, value_name = "NAME")]
        event: Option<String>,
        /// To another receiver: `current`, the one configured now, or a URL.
        #[arg(long, value_name = "RECEIVER")]
        to: Option<String>,
    },
    /// Give up a job's delivery that is still being tried.
    Drop {
        /// The job's id.
        job: String,
        /// That of this event; by default of the only one that is pending.
        #[arg(long, value_name = "NAME")]
        event: Option<String>,
    },
    /// Show and repair deliveries that the stack itself repeatedly failed to make.
    #[command(subcommand)]
    Dlq(Dlq),
    /// Check whether the account's limits carry the stack, and say what to raise.
    Doctor {
        /// The stack's name. Region and credentials come from the environment, as
        /// `aws configure export-credentials --format env` writes them.
        #[arg(long)]
        stack: String,
    },
    /// Work on providers: their specs, and their keys.
    #[command(subcommand)]
    Provider(ProviderCommand),
    /// Set the default receiver, and print the signing secret the first time.
    SetReceiver(SetReceiver),
    /// Show the default receiver and what webhooks are signed with.
    Receiver,
    /// Sign with a new secret, and print it once.
    RotateSecret(RotateSecret),
    /// Send a test event to the default receiver, and show its delivery.
    TestWebhook {
        /// Give up waiting for the first attempt after so many seconds.
        #[arg(long, default_value_t = 60)]
        timeout: u64,
    },
}

#[derive(Args)]
struct Recover {
    /// Only those created since then, such as 2026-05-24T12:00:00Z.
    #[arg(long)]
    since: String,
    /// Only those created until then; by default, until now.
    #[arg(long)]
    until: Option<String>,
    /// Only those to this receiver, such as ep_1c7f….
    #[arg(long)]
    endpoint: Option<String>,
    /// Events that have no delivery, because no receiver was configured when they were made.
    #[arg(long, conflicts_with = "endpoint")]
    missing: bool,
    /// To another receiver: `current`, the one configured now, or a URL.
    #[arg(long, value_name = "RECEIVER")]
    to: Option<String>,
}

/// Replaces the whole configuration. An option that is left out has its default value afterwards.
#[derive(Args)]
struct SetReceiver {
    /// Its URL.
    receiver: String,
    /// An event that it subscribes to; all events when left out.
    #[arg(long, value_name = "NAME")]
    event: Vec<String>,
    /// A header for every attempt.
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// The most attempts that are in flight at once.
    #[arg(long, value_name = "NUMBER")]
    max_in_flight: Option<u64>,
    /// The most attempts that begin a second.
    #[arg(long, value_name = "NUMBER")]
    rate_per_second: Option<u64>,
}

#[derive(Args)]
struct RotateSecret {
    /// `v1` (a secret that receivers share) or `v1a` (ed25519; receivers have the public key).
    /// The same type as before when left out.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// How long the previous secrets still sign, in seconds; a day when left out.
    #[arg(long, value_name = "SECONDS")]
    grace: Option<u64>,
    /// A file with a secret of your own, `whsec_…` or `whsk_…`.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

#[derive(Subcommand)]
enum ProviderCommand {
    /// Check a spec, print its meaning, and replay a recorded conversation. Sends no request.
    Check {
        /// The spec.
        file: PathBuf,
        /// A recorded conversation with the provider, and the expected meaning of each answer.
        #[arg(long)]
        conversation: Option<PathBuf>,
    },
    /// Put a spec in force, within a minute, in place of one of the same name.
    Put {
        /// The spec. Its `name` is the provider's.
        file: PathBuf,
        /// Only if the stored spec has this version.
        #[arg(long, value_name = "VERSION")]
        if_version: Option<u64>,
    },
    /// List all providers: shipped, and put.
    List,
    /// Show a provider, and its spec as JSON.
    Show {
        /// The provider.
        #[arg(value_parser = ProviderName::parse)]
        name: ProviderName,
    },
    /// Remove a spec that was put. A shipped one of the same name is in force again.
    Remove {
        /// The provider.
        #[arg(value_parser = ProviderName::parse)]
        name: ProviderName,
    },
    /// End a provider's pauses, after what caused them is mended.
    Resume {
        /// The provider.
        #[arg(value_parser = ProviderName::parse)]
        name: ProviderName,
    },
    /// Store a provider's key with the hosts that it may be sent to, with AWS credentials.
    SetKey(SetKey),
    /// Store what a provider signs its callbacks with, with AWS credentials.
    SetWebhookSecrets(SetWebhookSecrets),
}

#[derive(Args)]
struct Submit {
    /// A file with the provider's own payload, as JSON.
    payload: PathBuf,
    /// The provider, such as `zvid`.
    #[arg(long)]
    provider: String,
    /// Your id of the record that is rendered.
    #[arg(long)]
    source: String,
    /// Your name for the payload's version.
    #[arg(long)]
    payload_version: Option<String>,
    /// Where this job's webhooks go instead of the default receiver.
    #[arg(long)]
    callback_url: Option<String>,
    /// A key with which repeats of this command make one job.
    #[arg(long)]
    idempotency_key: Option<String>,
    /// Your own data, echoed in events.
    #[arg(long, value_name = "NAME=VALUE")]
    metadata: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let api = || {
        let url = cli.target.url.as_deref().context("give --url or set RELAY_URL")?;
        let key = cli.target.api_key.as_deref().context("give --api-key or set RELAY_API_KEY")?;
        Ok::<_, anyhow::Error>(Api::new(url, key))
    };
    match &cli.command {
        Command::Key(command) => {
            let output =
                Output { result: &|line| println!("{line}"), note: &|line| eprintln!("{line}") };
            key::run(command, api, &output)
        }
        Command::Submit(submit) => {
            let job = api()?.submit(&body(submit)?, submit.idempotency_key.as_deref())?;
            println!("{}", show::job(&job));
            Ok(())
        }
        Command::Show { job } => {
            println!("{}", show::job(&api()?.get(&["v1", "jobs", job], &[])?));
            Ok(())
        }
        Command::Watch { job, timeout } => watch(&api()?, job, Duration::from_secs(*timeout)),
        Command::List { source, state } => {
            let filters = [("sourceRecordId", source), ("state", state)];
            let filters: Vec<_> = filters
                .iter()
                .filter_map(|(name, value)| Some((*name, value.as_deref()?)))
                .collect();
            println!("{}", show::jobs(&api()?.get(&["v1", "jobs"], &filters)?));
            Ok(())
        }
        Command::Deliveries { job: Some(job), .. } => {
            let deliveries = api()?.get(&["v1", "jobs", job, "deliveries"], &[])?;
            println!("{}", show::deliveries(&deliveries));
            Ok(())
        }
        Command::Deliveries { job: None, state, since, until } => {
            let filters = [("state", state), ("since", since), ("until", until)];
            let filters: Vec<_> = filters
                .iter()
                .filter_map(|(name, value)| Some((*name, value.as_deref()?)))
                .collect();
            println!("{}", show::delivery_list(&all_pages(&api()?, &filters)?));
            Ok(())
        }
        Command::Recover(command) => recover(&api()?, command),
        Command::Redeliver { job, event, to } => {
            let body = json!({"event": event, "to": to});
            let delivery = api()?.post_json(&["v1", "jobs", job, "redeliver"], &body)?;
            println!("{}", show::deliveries(&json!({"deliveries": [delivery]})));
            Ok(())
        }
        Command::Drop { job, event } => {
            let body = json!({"event": event});
            let delivery = api()?.post_json(&["v1", "jobs", job, "drop-delivery"], &body)?;
            println!("{}", show::deliveries(&json!({"deliveries": [delivery]})));
            Ok(())
        }
        Command::Dlq(dlq) => dlq::run(dlq, |line| println!("{line}")),
        Command::Doctor { stack } => doctor::run(stack),
        Command::Provider(ProviderCommand::Check { file, conversation }) => {
            check(file, conversation.as_deref())
        }
        Command::Provider(ProviderCommand::Put { file, if_version }) => {
            let json = read(file)?;
            let spec = provider::Checked::parse(&file.display().to_string(), &json)?;
            let put = api()?.put_text(&["v1", "providers", spec.name()], &json, *if_version)?;
            println!("{}", show::provider_of_stack(&put));
            Ok(())
        }
        Command::Provider(ProviderCommand::List) => {
            println!("{}", show::providers(&api()?.get(&["v1", "providers"], &[])?));
            Ok(())
        }
        Command::Provider(ProviderCommand::Show { name }) => {
            let provider = api()?.get(&["v1", "providers", name.as_str()], &[])?;
            println!("{}", show::provider_of_stack(&provider));
            Ok(())
        }
        Command::Provider(ProviderCommand::Resume { name }) => {
            let resumed = api()?.post(&["v1", "providers", name.as_str(), "resume"])?;
            println!("{}", show::resumed_provider(&resumed));
            Ok(())
        }
        Command::Provider(ProviderCommand::Remove { name }) => {
            let removed = api()?.delete(&["v1", "providers", name.as_str()])?;
            println!("{}", show::removed_provider(&removed));
            Ok(())
        }
        Command::Provider(ProviderCommand::SetKey(command)) => {
            let api = cli.target.url.as_ref().map(|_| api()).transpose()?;
            provider_key::run(command, api.as_ref(), |line| println!("{line}"))
        }
        Command::Provider(ProviderCommand::SetWebhookSecrets(command)) => {
            let api = cli.target.url.as_ref().map(|_| api()).transpose()?;
            provider_secrets::run(command, api.as_ref(), |line| println!("{line}"))
        }
        Command::SetReceiver(settings) => {
            let config = api()?.put(&["v1", "webhook-config"], &receiver(settings)?)?;
            println!("{}", show::receiver(&config));
            Ok(())
        }
        Command::Receiver => {
            println!("{}", show::receiver(&api()?.get(&["v1", "webhook-config"], &[])?));
            Ok(())
        }
        Command::RotateSecret(rotation) => {
            let path = ["v1", "webhook-config", "rotate-secret"];
            let rotated = api()?.post_json(&path, &secret(rotation)?)?;
            println!("{}", show::rotated(&rotated));
            Ok(())
        }
        Command::TestWebhook { timeout } => test(&api()?, Duration::from_secs(*timeout)),
    }
}

/// The deliveries on all pages of a listing.
fn all_pages(api: &Api, filters: &[(&str, &str)]) -> Result<Vec<Value>> {
    let mut deliveries = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut query = filters.to_vec();
        query.push(("limit", "100"));
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page = api.get(&["v1", "deliveries"], &query)?;
        deliveries.extend(show::list(&page, "deliveries").iter().cloned());
        cursor = page.get("next").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() {
            return Ok(deliveries);
        }
    }
}

/// Recovers page by page. It may be interrupted and started again: what was sent is not found
/// again.
fn recover(api: &Api, command: &Recover) -> Result<()> {
    let Recover { since, until, endpoint, missing, to } = command;
    let mut total = show::Recovered::default();
    let mut cursor = Value::Null;
    loop {
        let body = json!({
            "since": since, "until": until, "endpointId": endpoint, "missing": missing, "to": to,
            "cursor": cursor,
        });
        let page = api.post_json(&["v1", "deliveries", "recover"], &body)?;
        total.add(&page);
        cursor = page.get("next").cloned().unwrap_or_default();
        if cursor.is_null() {
            println!("{}", total.text(*missing));
            return Ok(());
        }
    }
}

/// Prints the whole result before it fails for mismatches.
fn check(file: &Path, conversation: Option<&Path>) -> Result<()> {
    let spec = provider::Checked::parse(&file.display().to_string(), &read(file)?)?;
    println!("{}", spec.meaning());
    let Some(conversation) = conversation else { return Ok(()) };
    let name = conversation.display().to_string();
    let replay = spec.replay(&name, &read(conversation)?, Utc::now())?;
    println!("\n{}", replay.text);
    match replay.mismatches {
        0 => Ok(()),
        1 => bail!("{name}: 1 expectation is not met"),
        many => bail!("{name}: {many} expectations are not met"),
    }
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

fn body(submit: &Submit) -> Result<Value> {
    let file = submit.payload.display();
    let text = read(&submit.payload)?;
    let payload: Value =
        serde_json::from_str(&text).with_context(|| format!("{file} is not JSON"))?;
    let mut metadata = Map::new();
    for pair in &submit.metadata {
        let (name, value) =
            pair.split_once('=').with_context(|| format!("`{pair}` is not NAME=VALUE"))?;
        metadata.insert(name.to_owned(), value.into());
    }
    Ok(json!({
        "provider": submit.provider,
        "payload": payload,
        "sourceRecordId": submit.source,
        "payloadVersion": submit.payload_version,
        "callbackUrl": submit.callback_url,
        "metadata": metadata,
    }))
}

fn receiver(settings: &SetReceiver) -> Result<Value> {
    let mut headers = Map::new();
    for line in &settings.header {
        // The line is not repeated: it may hold a credential.
        let (name, value) = line.split_once(':').context("a header is `Name: value`")?;
        headers.insert(name.trim().to_owned(), value.trim().into());
    }
    let mut body = Map::from_iter([
        ("url".to_owned(), json!(settings.receiver)),
        ("headers".to_owned(), Value::Object(headers)),
    ]);
    if !settings.event.is_empty() {
        body.insert("events".into(), json!(settings.event));
    }
    let limits =
        [("maxInFlight", settings.max_in_flight), ("ratePerSecond", settings.rate_per_second)];
    for (name, limit) in limits {
        body.extend(limit.map(|limit| (name.to_owned(), json!(limit))));
    }
    Ok(Value::Object(body))
}

fn secret(rotation: &RotateSecret) -> Result<Value> {
    let secret = rotation.secret_file.as_deref().map(read).transpose()?;
    Ok(json!({
        "type": rotation.kind,
        "gracePeriodSeconds": rotation.grace,
        "secret": secret.as_deref().map(str::trim),
    }))
}

/// Sends a test event, and fails if its first attempt does.
fn test(api: &Api, timeout: Duration) -> Result<()> {
    let started = std::time::Instant::now();
    let mut delivery = api.post(&["v1", "webhook-config", "test"])?;
    let id = delivery.get("eventId").and_then(Value::as_str).unwrap_or_default().to_owned();
    while !show::was_tried(&delivery) {
        if started.elapsed() > timeout {
            bail!("test {id} was not tried after {} s", timeout.as_secs());
        }
        wait_a_second();
        delivery = api.get(&["v1", "webhook-config", "test", &id], &[])?;
    }
    println!("{}", show::deliveries(&json!({"deliveries": [delivery]})));
    match show::has_arrived(&delivery) {
        true => Ok(()),
        false => bail!("the receiver did not take test {id}"),
    }
}

/// Prints a line after each change, until the job is over.
fn watch(api: &Api, id: &str, timeout: Duration) -> Result<()> {
    let started = std::time::Instant::now();
    let mut last = String::new();
    loop {
        let job = api.get(&["v1", "jobs", id], &[])?;
        let line = show::line(&job);
        if line != last {
            println!("{:>6.1} s  {line}", started.elapsed().as_secs_f64());
            last = line;
        }
        if show::is_over(&job) {
            println!("\n{}", show::job(&job));
            return Ok(());
        }
        if started.elapsed() > timeout {
            bail!("job {id} is still {last} after {} s", timeout.as_secs());
        }
        wait_a_second();
    }
}

#[expect(clippy::disallowed_methods, reason = "a command line that follows a job has to wait")]
fn wait_a_second() {
    std::thread::sleep(Duration::from_secs(1));
}
