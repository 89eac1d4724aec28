//! The jobs of one shard: all are being rendered, and none ends.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use domain::event::EventSet;
use domain::id::{JobId, ProviderName, RenderJobId, SourceRecordId};
use domain::job::{Job, Observation, RenderStatus, Report, Step, StoredRequest};
use domain::polling::Tracking;
use serde_json::Map;

/// Takes our id of a render for its own, so that a job's render is known beforehand.
pub(super) const PROVIDER: &str = "zvid";

/// The provider's word for a render that goes on.
const WORKING: &str = "active";

/// The id of the job with this number.
pub(super) fn id(number: u32) -> JobId {
    // In every place of the order of ids, as those of real jobs are.
    let spread = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    JobId::from_bytes(spread.to_be_bytes())
}

/// Jobs of one shard, the youngest first.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Fleet {
    /// How many.
    #[arg(long)]
    pub(super) jobs: u32,
    /// Who brings the news of them.
    #[arg(long)]
    pub(super) told_by: ToldBy,
    /// The youngest job's age, and the oldest one's; the others lie between them.
    #[arg(long)]
    pub(super) youngest_s: u32,
    #[arg(long)]
    pub(super) oldest_s: u32,
    /// When they are so old, in Unix milliseconds.
    #[arg(long)]
    pub(super) at_ms: i64,
}

/// Who brings the news of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ToldBy {
    Polls,
    Callbacks,
}

impl Fleet {
    /// Jobs that are so old now.
    pub(super) fn now(jobs: u32, told_by: ToldBy, youngest_s: u32, oldest_s: u32) -> Self {
        Self { jobs, told_by, youngest_s, oldest_s, at_ms: Utc::now().timestamp_millis() }
    }

    /// As arguments for another process.
    pub(super) fn arguments(&self) -> Vec<String> {
        let told_by = match self.told_by {
            ToldBy::Polls => "polls",
            ToldBy::Callbacks => "callbacks",
        };
        let arguments = [
            ("--jobs", self.jobs.to_string()),
            ("--told-by", told_by.to_owned()),
            ("--youngest-s", self.youngest_s.to_string()),
            ("--oldest-s", self.oldest_s.to_string()),
            ("--at-ms", self.at_ms.to_string()),
        ];
        arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }

    /// All of them, as they are after a poll just now.
    pub(super) fn all(&self) -> impl Iterator<Item = Result<Job>> {
        (0..self.jobs).map(|number| self.job(number))
    }

    fn job(&self, number: u32) -> Result<Job> {
        let (youngest, oldest) = (f64::from(self.youngest_s), f64::from(self.oldest_s));
        let age = youngest + (oldest - youngest) * f64::from(number) / f64::from(self.jobs);
        let at = DateTime::from_timestamp_millis(self.at_ms).context("no such time")?;
        job(number, self.told_by, at - Duration::from_secs_f64(age), at)
    }
}

/// The job with this number, as it is after a poll at `at`.
fn job(number: u32, told_by: ToldBy, created_at: DateTime<Utc>, at: DateTime<Utc>) -> Result<Job> {
    let id = id(number);
    let render_job_id = RenderJobId::parse(&id.as_uuid())?;
    let request = StoredRequest {
        provider: ProviderName::parse(PROVIDER)?,
        source_record_id: SourceRecordId::parse(&format!("order-{number}"))?,
        payload_version: None,
        metadata: Map::new(),
        callback_url: None,
        wanted: EventSet::ends(),
        fingerprint: [0; 32],
        tracking: match told_by {
            ToldBy::Polls => Tracking::PollOnly,
            ToldBy::Callbacks => Tracking::WebhookFirst,
        },
        durations: None,
        shard: 0,
    };
    let observed = Observation {
        render_job_id: Some(render_job_id.clone()),
        status: RenderStatus::Processing,
        provider_status: WORKING.to_owned(),
        progress: Some(0.0),
    };
    let reports = [Report::Accepted(render_job_id), Report::Observed(observed)];
    let job =
        reports.iter().try_fold(Job::new(id, request, created_at), |job, report| {
            match job.apply(report, 0, created_at) {
                Step::Changed(changed) => Ok(changed.told(&changed.outbox)),
                Step::Unchanged => bail!("{report:?} changes nothing"),
            }
        })?;
    // Its age has not doubled since, so the next polls have nothing to write.
    job.checkpoint(0, at).context("too young")
}
