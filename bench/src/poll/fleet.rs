//! The jobs of one shard. All are being rendered, and none ends.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use aws_in_memory::builders;
use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use domain::id::{JobId, RenderJobId};
use domain::job::{Job, Observation, RenderStatus, Report, Transition};
use domain::polling::Tracking;

use crate::tls::DOMAIN;

/// A provider that accepts our id of a render, so that the render of a job is known beforehand.
pub(super) const PROVIDER: &str = "zvid";

/// The provider's status of a render in progress.
const WORKING: &str = "active";

pub(super) fn id(number: u32) -> JobId {
    // The ids are spread over all values, like those of real jobs.
    let spread = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    JobId::from_bytes(spread.to_be_bytes())
}

/// The jobs of one shard, the youngest first.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Fleet {
    /// The number of jobs.
    #[arg(long)]
    pub(super) jobs: u32,
    /// How the end of the jobs is reported.
    #[arg(long)]
    pub(super) reported_by: EndReportedBy,
    /// The ages of the youngest and the oldest job; the others lie between them.
    #[arg(long)]
    pub(super) youngest_s: u32,
    #[arg(long)]
    pub(super) oldest_s: u32,
    /// The time of these ages, in Unix milliseconds.
    #[arg(long)]
    pub(super) at_ms: i64,
}

/// How the end of a job is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum EndReportedBy {
    Polls,
    Callbacks,
}

impl Fleet {
    /// Jobs of these ages now.
    pub(super) fn now(
        jobs: u32,
        reported_by: EndReportedBy,
        youngest_s: u32,
        oldest_s: u32,
    ) -> Self {
        Self { jobs, reported_by, youngest_s, oldest_s, at_ms: Utc::now().timestamp_millis() }
    }

    /// The arguments for another process.
    pub(super) fn arguments(&self) -> Vec<String> {
        let reported_by = match self.reported_by {
            EndReportedBy::Polls => "polls",
            EndReportedBy::Callbacks => "callbacks",
        };
        let arguments = [
            ("--jobs", self.jobs.to_string()),
            ("--reported-by", reported_by.to_owned()),
            ("--youngest-s", self.youngest_s.to_string()),
            ("--oldest-s", self.oldest_s.to_string()),
            ("--at-ms", self.at_ms.to_string()),
        ];
        arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }

    /// All jobs, as they are after a poll just now, of the provider at this port.
    pub(super) fn all(&self, port: u16) -> impl Iterator<Item = Result<Job>> {
        (0..self.jobs).map(move |number| self.job(number, &base_url(port)))
    }

    fn job(&self, number: u32, base_url: &str) -> Result<Job> {
        let (youngest, oldest) = (f64::from(self.youngest_s), f64::from(self.oldest_s));
        let age = youngest + (oldest - youngest) * f64::from(number) / f64::from(self.jobs);
        let at = DateTime::from_timestamp_millis(self.at_ms).context("no such time")?;
        job(number, base_url, self.reported_by, at - Duration::from_secs_f64(age), at)
    }
}

/// The base URL of the provider at this port.
pub(super) fn base_url(port: u16) -> String {
    format!("https://{DOMAIN}:{port}/{PROVIDER}")
}

/// The job with this number, as it is after a poll at `at`.
fn job(
    number: u32,
    base_url: &str,
    reported_by: EndReportedBy,
    created_at: DateTime<Utc>,
    at: DateTime<Utc>,
) -> Result<Job> {
    let id = id(number);
    let render_job_id = RenderJobId::parse(&id.as_uuid())?;
    let tracking = match reported_by {
        EndReportedBy::Polls => Tracking::PollOnly,
        EndReportedBy::Callbacks => Tracking::WebhookFirst,
    };
    let intended = builders::job()
        .id(id)
        .provider(PROVIDER)
        .submitted_to(base_url)
        .source_record(&format!("order-{number}"))
        .tracking(tracking)
        .created_at(created_at)
        .build();
    let observed = Observation {
        render_job_id: Some(render_job_id.clone()),
        status: RenderStatus::Processing,
        provider_status: WORKING.to_owned(),
        progress: Some(0.0),
    };
    let reports = [Report::Accepted(render_job_id), Report::Observed(observed)];
    let job = reports.iter().try_fold(intended, |job, report| {
        match job.apply(report, 0, created_at) {
            Transition::Changed(changed) => Ok(changed.mark_all_published()),
            Transition::Unchanged => bail!("{report:?} changes nothing"),
        }
    })?;
    // Its age has not doubled since, so the next polls write nothing.
    job.checkpoint(0, at).context("too young")
}
