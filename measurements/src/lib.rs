//! The figures that docs/cost.md states, as what measures them saves them: one JSON file per
//! measurement in `target/figures/`. `cargo xtask figures` reads the files.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use chrono::{NaiveDate, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The figures of one measurement.
pub trait Measurement: Serialize + DeserializeOwned {
    /// The name of the file and of the block in docs/cost.md.
    const NAME: &'static str;

    /// The command that measures.
    const COMMAND: &'static str;
}

/// The content of a file.
#[derive(Debug, Serialize, Deserialize)]
pub struct Saved<M> {
    pub date: NaiveDate,
    /// The commit that was measured, with `-dirty` when it was changed.
    pub commit: String,
    pub figures: M,
}

/// `cargo xtask package`: the sizes of the functions.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct PackageSizes {
    pub architecture: String,
    pub functions: Vec<FunctionSize>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct FunctionSize {
    pub function: String,
    pub binary_bytes: u64,
    pub zip_bytes: u64,
}

impl Measurement for PackageSizes {
    const NAME: &'static str = "package";
    const COMMAND: &'static str = "cargo xtask package";
}

/// The end-to-end test `capacity`: the AWS usage of one job.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct JobCost {
    /// The day of the list prices.
    pub prices_of: String,
    pub write_units: Billed,
    pub read_units: Billed,
    pub api_requests: Billed,
    pub events: Billed,
    pub queue_requests: Billed,
    pub invocations: Billed,
}

/// A billed quantity and its price in dollars per million.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Billed {
    pub count: f64,
    pub price: f64,
}

impl Measurement for JobCost {
    const NAME: &'static str = "capacity";
    const COMMAND: &'static str = "cargo xtask test";
}

/// `cargo xtask bench poll`: the cost of polling. Ratios are those of processor times to a bare
/// client's.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct PollCost {
    /// The ratio of a poll alone, without what a poller does for its shard.
    pub poll_ratio: f64,
    pub busy_shard: BusyShard,
    pub large_shard: LargeShard,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct BusyShard {
    pub polls_per_second: f64,
    pub ratio: f64,
    pub peak_bytes: u64,
}

/// A shard from its wake-up call to the first poll.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct LargeShard {
    pub jobs: u32,
    pub read_units_per_job: f64,
    pub peak_bytes: u64,
}

impl Measurement for PollCost {
    const NAME: &'static str = "poll";
    const COMMAND: &'static str = "cargo xtask bench poll";
}

/// `cargo xtask bench deliver`: the processor time of a delivery.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct DeliveryCost {
    pub cases: Vec<DeliveryCase>,
}

/// Deliveries of one size over one kind of connections. Ratios are those of processor times to
/// a bare client's.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct DeliveryCase {
    pub case: String,
    /// The ratio without reads, writes and the log.
    pub core_ratio: f64,
    /// The ratio of a whole invocation.
    pub handler_ratio: f64,
}

impl Measurement for DeliveryCost {
    const NAME: &'static str = "deliver";
    const COMMAND: &'static str = "cargo xtask bench deliver";
}

/// Replaces the file of this measurement.
pub fn save<M: Measurement>(figures: M) -> Result<()> {
    let path = path(M::NAME)?;
    let folder = path.parent().context("a file has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let saved = Saved { date: Utc::now().date_naive(), commit: commit()?, figures };
    fs::write(&path, serde_json::to_string_pretty(&saved)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Reads the file of this measurement, if there is one.
pub fn load<M: Measurement>() -> Result<Option<Saved<M>>> {
    let path = path(M::NAME)?;
    match fs::read_to_string(&path) {
        Ok(json) => {
            let saved = serde_json::from_str(&json);
            saved.map(Some).with_context(|| format!("cannot understand {}", path.display()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn path(name: &str) -> Result<PathBuf> {
    Ok(root()?.join("target/figures").join(name).with_extension("json"))
}

fn root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the package has no parent")
}

fn commit() -> Result<String> {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty", "--exclude=*"]).current_dir(root()?);
    let commit = git.output().map(|output| output.stdout).unwrap_or_default();
    match String::from_utf8_lossy(&commit).trim() {
        // Without git, or in a copy of the sources without their history.
        "" => Ok("unknown".to_owned()),
        commit => Ok(commit.to_owned()),
    }
}
