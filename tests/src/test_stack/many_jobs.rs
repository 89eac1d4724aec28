//! Many jobs at once, and the outcome of each.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use domain::delivery::{Delivery, DeliveryState};
use domain::id::JobId;
use domain::job::Job;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::queue::Ticket;
use tokio::time::{Instant, sleep};

use super::TestStack;
use crate::bus::BusEvent;
use crate::closed_port::ClosedPort;
use crate::simulator::{ReceivedWebhook, SimulatedRender};
use crate::test_job::{SimulatedProvider, TestJob};

/// The pause between two reads of the unfinished jobs.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// The longest time without a finished job. It is longer than an open circuit breaker holds a
/// delivery.
const TIMEOUT: Duration = Duration::from_secs(600);

/// The number of jobs that are read together.
const JOBS_PER_READ: usize = 100;

/// The number of concurrent reads of deliveries.
const CONCURRENT_READS: usize = 8;

/// A receiver that many jobs share.
#[derive(Clone, Debug)]
pub struct SharedReceiver {
    /// The receiver's URL.
    pub url: String,
    name: String,
}

/// A settled job and its deliveries.
#[derive(Clone, Debug)]
pub struct SettledJob {
    /// The job.
    pub job: Job,
    /// The job's deliveries.
    pub deliveries: Vec<Delivery>,
}

impl SettledJob {
    /// Whether every delivery was made or is exhausted.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.deliveries.iter().all(|delivery| match delivery.state {
            DeliveryState::Delivered | DeliveryState::Exhausted(_) => true,
            DeliveryState::Pending { .. } | DeliveryState::GivenUp(_) => false,
        })
    }
}

impl TestStack {
    /// A receiver with these answers, one for each webhook; later webhooks get 200.
    ///
    /// # Errors
    /// When an answer is malformed.
    pub async fn receiver(&self, name: &str, answers: &[Value]) -> Result<SharedReceiver> {
        let name = format!("{}-{name}", self.tag);
        let behaviour = json!({"secret": self.webhook_secret, "answers": answers});
        let path = format!("/receivers/{name}");
        self.http.put(&self.control(&path), &behaviour).await?.expect(204)?;
        Ok(SharedReceiver {
            url: format!("{}/receiver/{name}", self.description.simulator_url),
            name,
        })
    }

    /// A receiver that refuses connections until its port is opened and then answers 200.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn refusing_receiver(&self, name: &str) -> Result<(SharedReceiver, ClosedPort)> {
        let SharedReceiver { name, url } = self.receiver(name, &[]).await?;
        let simulator = self.description.simulator_url.strip_prefix("http://");
        let simulator = simulator.context("the simulator speaks http")?;
        let port = ClosedPort::reserve(simulator)?;
        let url = url.replacen(simulator, &port.address()?.to_string(), 1);
        Ok((SharedReceiver { url, name }, port))
    }

    /// The webhooks that a receiver got, oldest first.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn received(&self, receiver: &SharedReceiver) -> Result<Vec<ReceivedWebhook>> {
        #[derive(Deserialize)]
        struct Received {
            received: Vec<ReceivedWebhook>,
        }
        let path = format!("/receivers/{}", receiver.name);
        Ok(self.control_get::<Received>(&path).await?.received)
    }

    /// A job that is not submitted yet, whose webhooks go to this receiver.
    #[must_use]
    pub fn new_job_to(&self, provider: SimulatedProvider, receiver: &SharedReceiver) -> TestJob {
        TestJob::new(provider, self.next_tag(), &receiver.url)
    }

    /// Stores a delivery of each job, `at_once` at a time, and then sends the tickets.
    ///
    /// # Errors
    /// When the table or the queue does not answer.
    pub async fn deliver_all(&self, test_jobs: &[TestJob], at_once: usize) -> Result<()> {
        let left = stream::iter(test_jobs).map(|test_job| self.insert_undelivered(test_job));
        let tickets: Vec<Ticket> = left.buffered(at_once).try_collect().await?;
        self.send_tickets(&tickets).await
    }

    /// Waits until all jobs are settled and their deliveries finished. `on_progress` is called
    /// with the number of finished jobs after each read.
    ///
    /// # Errors
    /// When no job finishes for ten minutes; the error describes the unfinished jobs.
    pub async fn until_all_finished(
        &self,
        test_jobs: &[TestJob],
        on_progress: impl Fn(usize),
    ) -> Result<HashMap<JobId, SettledJob>> {
        let mut left: Vec<JobId> =
            test_jobs.iter().map(|test_job| test_job.job_id().clone()).collect();
        let mut finished = HashMap::new();
        let mut deadline = Instant::now() + TIMEOUT;
        loop {
            let before = finished.len();
            // A read is not free, so only the first unfinished jobs are read.
            let first = left.get(..JOBS_PER_READ).unwrap_or(&left);
            for outcome in
                self.settled_jobs(first).await?.into_iter().filter(SettledJob::is_finished)
            {
                finished.insert(outcome.job.id.clone(), outcome);
            }
            left.retain(|id| !finished.contains_key(id));
            on_progress(finished.len());
            if left.is_empty() {
                return Ok(finished);
            }
            if finished.len() - before == JOBS_PER_READ {
                continue;
            }
            if finished.len() > before {
                deadline = Instant::now() + TIMEOUT;
            } else if Instant::now() > deadline {
                let descriptions = self.describe_jobs(&left).await?;
                bail!(
                    "{} of {} jobs are not finished:\n{descriptions}",
                    left.len(),
                    test_jobs.len()
                );
            }
            sleep(CHECK_INTERVAL).await;
        }
    }

    /// The settled ones of the jobs, with their deliveries in any state.
    ///
    /// # Errors
    /// When the table does not answer.
    pub async fn settled_jobs(&self, ids: &[JobId]) -> Result<Vec<SettledJob>> {
        let store = self.store();
        let settled = store.jobs(ids).await?.into_iter().filter(|job| job.settled_at.is_some());
        let reads = stream::iter(settled).map(async |job| {
            let deliveries = store.deliveries(&job.id).await?;
            anyhow::Ok(SettledJob { job, deliveries })
        });
        reads.buffer_unordered(CONCURRENT_READS).try_collect().await
    }

    /// The ids of the jobs that are still in the `active` index.
    ///
    /// # Errors
    /// When the table does not answer.
    pub async fn active_jobs(&self, test_jobs: &[TestJob]) -> Result<Vec<String>> {
        let mut active = self.table.active().await?;
        let ours: BTreeSet<&str> =
            test_jobs.iter().map(|test_job| test_job.job_id().as_str()).collect();
        active.retain(|id| ours.contains(id.as_str()));
        Ok(active)
    }

    /// The number of renders of each of this test's jobs, by the job's tag.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn render_counts(&self) -> Result<HashMap<String, usize>> {
        let renders: Vec<SimulatedRender> =
            self.control_get(&format!("/renders?tag={}", self.tag)).await?;
        let mut count = HashMap::new();
        for render in renders {
            let body = render.body.to_string();
            let place = body.find(&self.tag).context("a render without our tag")?;
            // All tags have the same length.
            let tag = body.get(place..place + self.next_tag().len()).unwrap_or_default();
            *count.entry(tag.to_owned()).or_default() += 1;
        }
        Ok(count)
    }

    /// All events that a subscriber of the bus got so far: those of this test's renders, and
    /// those of the deliveries of all tests.
    ///
    /// # Errors
    /// When the subscription does not answer.
    pub async fn all_events(&self) -> Result<Vec<BusEvent>> {
        self.subscription.events().await
    }

    /// The states of the first ten jobs, for an error message.
    async fn describe_jobs(&self, ids: &[JobId]) -> Result<String> {
        let store = self.store();
        let mut lines = Vec::new();
        for id in ids.iter().take(10) {
            let (job, deliveries) = (store.job(id).await?, store.deliveries(id).await?);
            let Some(job) = job else {
                lines.push(format!("{id} does not exist"));
                continue;
            };
            let states = deliveries.iter().map(|it| (it.state, it.attempts.len()));
            lines.push(format!(
                "{id} of {} ({}) is {}, settled {:?}, deliveries {:?}",
                job.request.provider,
                job.request.source_record_id,
                job.state.name(),
                job.settled_at,
                states.collect::<Vec<_>>()
            ));
        }
        Ok(lines.join("\n"))
    }
}
