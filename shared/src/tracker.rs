//! The only path on which a job changes and its events are published.
//!
//! Callbacks and polls both end in [`Tracker::apply_report`]: the report is applied to the job by
//! `domain`'s transition table and stored by one conditional write, together with the job's
//! outbox. [`Tracker::publish_outbox`] then publishes the outbox and clears it:
//!
//! 1. the event goes on the bus; at the same time its delivery is queued: it is stored, if there
//!    is a receiver, and the first ticket goes into the queue,
//! 2. the outbox is cleared, and a job that has ended leaves the `active` index.
//!
//! Neither way of the event waits for the other. Where only one was done, the second step stores
//! that, so that it is not done again with the other. Each step is idempotent. A crash or failure
//! leaves the job in the `active` index with its outbox filled, where the poller finds it and
//! calls `publish_outbox` again.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::delivery::{Delivery, DeliveryState};
use domain::event::{Event, EventSet};
use domain::id::RenderJobId;
use domain::job::{Job, OutboxEntry, Report, State, Transition};
use domain::polling::{LONGEST_OUTAGE, PollSchedule, Slowdown, Tracking};
use domain::provider::StatusAnswer;
use domain::provider::catalogue::Provider;
use domain::provider::spec::SubmitSafety;
use futures_util::future::join_all;
use tracing::{info, warn};

use crate::bus::{Bus, BusError};
use crate::duration_models::DurationModels;
use crate::provider_specs::ProviderSpecsError;
use crate::providers::{KeyError, Providers, RenderSearch};
use crate::queue::{DeliveryQueue, QueueError, Ticket};
use crate::store::{Committed, Inserted, Store, StoreError, Wait, WebhookConfig};
use crate::telemetry::chain;

/// How often a change is decided again after a conflict. A job and a delivery have few concurrent
/// writers; after more conflicts than this the caller fails and retries.
pub const MAX_CONFLICT_RETRIES: usize = 8;

const MINUTE: Duration = Duration::from_secs(60);

/// Changes jobs and publishes their events.
#[derive(Clone)]
pub struct Tracker {
    pub store: Store,
    pub providers: Providers,
    pub bus: Bus,
    /// Where tickets for deliveries go.
    pub deliveries: DeliveryQueue,
    pub duration_models: DurationModels,
}

/// The outcome of a report.
#[derive(Clone, Debug, PartialEq)]
pub enum ApplyOutcome {
    /// The report changed the job; the job after it.
    Changed(Job),
    /// The report changed nothing.
    Unchanged(Job),
    /// The job has expired.
    Gone,
}

/// The source of a report, which says how exactly the time of the change is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportSource {
    /// A callback of the provider: the change happened just now.
    Callback,
    /// A poll: the change happened since the previous poll.
    Poll,
    /// A poll at the deadline or later that told of the render: nothing more is waited for.
    LastPoll,
    /// Another look at the provider: the change happened at any time.
    Other,
}

/// How long a job that may still complete is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Until its deadline, because its provider told of it then.
    Deadline,
    /// Until its deadline is past by [`LONGEST_OUTAGE`].
    Outage,
}

impl ReportSource {
    fn patience(self) -> Patience {
        match self {
            Self::LastPoll => Patience::Deadline,
            Self::Callback | Self::Poll | Self::Other => Patience::Outage,
        }
    }
}

/// Why a job could not be changed or its events not be published. The call may be repeated.
#[derive(Debug, thiserror::Error)]
pub enum TrackError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Specs(#[from] ProviderSpecsError),
    #[error("an event could not be written as JSON")]
    Event(#[from] serde_json::Error),
    #[error("the job changes faster than it can be written")]
    TooManyConflicts,
}

/// What became of an event's delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeliveryQueueing {
    /// It is queued, or its receiver does not want it.
    Done,
    /// No receiver is configured any more.
    NoReceiver,
    /// It is not queued.
    Failed,
}

/// Why an event could not be put on the bus.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error("an event could not be written as JSON")]
    Event(#[from] serde_json::Error),
}

impl Tracker {
    /// Applies a report and stores the changed job. `polls` is the number of polls so far.
    ///
    /// # Errors
    /// When DynamoDB does not confirm the write; the change may be stored all the same.
    pub async fn apply_report(
        &self,
        mut job: Job,
        report: &Report,
        source: ReportSource,
        polls: u32,
        now: DateTime<Utc>,
    ) -> Result<ApplyOutcome, TrackError> {
        for _ in 0..MAX_CONFLICT_RETRIES {
            let Transition::Changed(changed) = job.apply(report, polls, now) else {
                return Ok(ApplyOutcome::Unchanged(job));
            };
            // A change without an event can be the job's last one.
            let changed = self.settled(&changed, source.patience(), now).unwrap_or(*changed);
            match self.store.commit_job(&changed).await? {
                Committed::Stored => {
                    self.record_duration(&job, &changed, source, now);
                    info!(
                        job.id = %changed.id,
                        job.state = changed.state.name(),
                        job.version = changed.version,
                        "job changed"
                    );
                    return Ok(ApplyOutcome::Changed(changed));
                }
                Committed::Conflict(Some(current)) => job = current,
                Committed::Conflict(None) => return Ok(ApplyOutcome::Gone),
            }
        }
        Err(TrackError::TooManyConflicts)
    }

    /// Publishes the job's outbox, and removes a job that has ended from the `active` index.
    /// What could not be published is left in the outbox of the job that is returned. Writes
    /// nothing when nothing is done.
    ///
    /// # Errors
    /// When DynamoDB does not confirm what was done; it is done again by the next call.
    pub async fn publish_outbox(&self, job: Job, now: DateTime<Utc>) -> Result<Job, TrackError> {
        self.publish_with(job, Patience::Outage, now).await
    }

    /// The same for a caller that knows how long the job is still asked about.
    ///
    /// # Errors
    /// As [`Tracker::publish_outbox`].
    pub async fn publish_with(
        &self,
        mut job: Job,
        patience: Patience,
        now: DateTime<Utc>,
    ) -> Result<Job, TrackError> {
        let (published, without_receiver) = self.publish_entries(&job, now).await;
        for _ in 0..MAX_CONFLICT_RETRIES {
            let after = job.mark_published(&published, without_receiver);
            let after = self.settled(&after, patience, now).unwrap_or(after);
            if after == job {
                return Ok(job);
            }
            let after = after.next_version();
            match self.store.commit_job(&after).await? {
                Committed::Stored => return Ok(after),
                Committed::Conflict(Some(current)) => job = current,
                Committed::Conflict(None) => return Ok(after),
            }
        }
        Err(TrackError::TooManyConflicts)
    }

    /// The same for a caller that has stored what it was asked to store. All that fails is left to
    /// the poller.
    pub async fn publish_or_leave(&self, job: Job, now: DateTime<Utc>) -> Job {
        match self.publish_outbox(job.clone(), now).await {
            Ok(job) => job,
            Err(cause) => {
                warn!(
                    job.id = %job.id,
                    error = chain(&cause),
                    "outbox not cleared; poller will retry"
                );
                job
            }
        }
    }

    /// Fetches the render's status from where the job was submitted to, by the provider's id or
    /// by an id that we chose; `hint` is an id from an unauthenticated callback, of which the last
    /// is stored. None when no id is known.
    ///
    /// # Errors
    /// When the provider's API key cannot be read, or is not for the provider's host, or the
    /// stored hint cannot be read.
    pub async fn fetch_status(
        &self,
        job: &Job,
        hint: Option<&RenderJobId>,
        now: DateTime<Utc>,
    ) -> Result<Option<StatusAnswer>, TrackError> {
        self.providers.specs().refresh().await?;
        let Some(provider) = self.providers.of_job(job) else {
            return Ok(None);
        };
        let provider = provider.as_ref();
        let known = match (&job.render_job_id, hint) {
            (Some(id), _) => Some(id.clone()),
            // Other providers have a better source for the id than an unauthenticated body.
            (None, Some(hint)) if is_found_by_callback(provider) => Some(hint.clone()),
            // Its callback came while the provider could not be asked, and will not come again.
            (None, None) if is_found_by_callback(provider) => {
                let hint = self.store.hint(&job.id).await?;
                hint.and_then(|hint| hint.render_job_id)
            }
            (None, _) => match self.find_render_id(provider, job, now).await? {
                RenderSearch::Found(id) => Some(id),
                RenderSearch::Absent => None,
                RenderSearch::Unavailable { class, status, retry_after } => {
                    return Ok(Some(StatusAnswer::Unavailable { class, status, retry_after }));
                }
            },
        };
        let Some(id) = &known else {
            return Ok(None);
        };
        Ok(Some(self.providers.status(provider, id, now).await?))
    }

    /// Finds the provider's id of a render whose submit was not answered.
    async fn find_render_id(
        &self,
        provider: &Provider,
        job: &Job,
        now: DateTime<Utc>,
    ) -> Result<RenderSearch, TrackError> {
        match &provider.spec.submit_safety {
            SubmitSafety::ClientId {} => Ok(RenderJobId::parse(&job.id.as_uuid())
                .map_or(RenderSearch::Absent, RenderSearch::Found)),
            // A submit that is in flight returns the id itself.
            SubmitSafety::List(list) if job.state != State::Submitting => {
                Ok(self.providers.find(provider, list, job, now).await?)
            }
            SubmitSafety::List(_) | SubmitSafety::Callback {} => Ok(RenderSearch::Absent),
        }
    }

    /// Records how long a render took that was just found to be completed, if that is known.
    fn record_duration(&self, before: &Job, job: &Job, source: ReportSource, now: DateTime<Utc>) {
        // One that timed out may have been done for hours.
        if job.state != State::Completed || before.state.has_ended() {
            return;
        }
        let age = age(job, now);
        let took = match (source, job.request.tracking) {
            (ReportSource::Callback, Tracking::PollOnly | Tracking::WebhookFirst) => age,
            (ReportSource::Poll, Tracking::PollOnly) => {
                self.poll_schedule(job).duration_of_polled(age, job.id.spread())
            }
            // The callback was lost, and the render may have ended at any time since the submit.
            // The job's age would be too long an estimate, and would delay later safety polls.
            (ReportSource::Poll, Tracking::WebhookFirst) => return,
            (
                ReportSource::Other | ReportSource::LastPoll,
                Tracking::PollOnly | Tracking::WebhookFirst,
            ) => return,
        };
        self.duration_models.record(&job.request.provider, took);
    }

    /// The poll schedule of a job. A provider without a spec (a release was rolled back, or the
    /// spec is invalid or was removed) is not polled, and its jobs wait a day for the spec to be
    /// restored. They look for it every minute, and every five where a
    /// callback is expected.
    #[must_use]
    pub fn poll_schedule(&self, job: &Job) -> PollSchedule {
        match self.providers.get(&job.request.provider) {
            Some(provider) => {
                let schedule = PollSchedule {
                    duration_model: job.request.duration_model,
                    ..provider.spec.poll_schedule()
                };
                // Only a callback can name its render. It is a hint that is looked at by itself, so
                // polls are for what is not confirmed by then.
                let is_named_by_hint = job.state == State::SubmitUnknown
                    && job.render_job_id.is_none()
                    && is_found_by_callback(&provider);
                let floor = if is_named_by_hint { schedule.safety } else { schedule.floor };
                PollSchedule { floor, ..schedule }
            }
            None => PollSchedule {
                floor: MINUTE,
                safety: MINUTE,
                deadline: MINUTE * 60 * 24,
                duration_model: None,
                slowdown: Slowdown::NONE,
            },
        }
    }

    /// Sends each event of the outbox both ways. Returns the entries with what is done, and the
    /// events that have no receiver.
    async fn publish_entries(&self, job: &Job, now: DateTime<Utc>) -> (Vec<OutboxEntry>, EventSet) {
        // All at once: what goes on the bus goes in one request.
        let on_bus = join_all(job.outbox.iter().map(|entry| self.put_on_bus(job, entry)));
        let queued = async {
            let mut done = Vec::new();
            for entry in &job.outbox {
                done.push(self.try_to_queue_delivery(job, entry, now).await);
            }
            done
        };
        let (on_bus, queued) = tokio::join!(on_bus, queued);
        let without_receiver = job.outbox.iter().zip(&queued).filter_map(|(entry, queued)| {
            (*queued == DeliveryQueueing::NoReceiver).then_some(entry.event)
        });
        let without_receiver = without_receiver.collect();
        let entries = job.outbox.iter().zip(on_bus).zip(queued);
        let entries = entries.map(|((entry, on_bus), queued)| OutboxEntry {
            on_bus,
            delivery_queued: match queued {
                DeliveryQueueing::Done | DeliveryQueueing::NoReceiver => true,
                DeliveryQueueing::Failed => false,
            },
            ..*entry
        });
        (entries.collect(), without_receiver)
    }

    /// Puts the event on the bus, unless it is there. Returns whether it is.
    async fn put_on_bus(&self, job: &Job, entry: &OutboxEntry) -> bool {
        if entry.on_bus {
            return true;
        }
        let event = Event::of(job, entry);
        let published = async {
            let body = event.to_body()?;
            Ok::<_, PublishError>(self.bus.publish(entry.event.as_str(), &body).await?)
        };
        match published.await {
            Ok(()) => true,
            Err(cause) => {
                warn!(
                    job.id = %job.id,
                    event.id = event.event_id.as_str(),
                    error = chain(&cause),
                    "event not on the bus; poller will retry"
                );
                false
            }
        }
    }

    /// Queues the event's delivery, unless that is done.
    async fn try_to_queue_delivery(
        &self,
        job: &Job,
        entry: &OutboxEntry,
        now: DateTime<Utc>,
    ) -> DeliveryQueueing {
        if entry.delivery_queued {
            return DeliveryQueueing::Done;
        }
        let event = Event::of(job, entry);
        match self.queue_delivery(job, &event, now).await {
            Ok(queueing) => queueing,
            Err(cause) => {
                warn!(
                    job.id = %job.id,
                    event.id = event.event_id.as_str(),
                    error = chain(&cause),
                    "delivery not queued; poller will retry"
                );
                DeliveryQueueing::Failed
            }
        }
    }

    async fn queue_delivery(
        &self,
        job: &Job,
        event: &Event,
        now: DateTime<Utc>,
    ) -> Result<DeliveryQueueing, TrackError> {
        let url = match &job.request.callback_url {
            Some(url) => url.clone(),
            // A job's own receiver gets the job's events; the default receiver may want fewer.
            None => match self.store.recent_webhook_config(now).await? {
                // A stack that never had a receiver only uses the bus.
                None => return Ok(DeliveryQueueing::Done),
                Some(config) if !config.events.contains(event.event) => {
                    return Ok(DeliveryQueueing::Done);
                }
                Some(WebhookConfig { url: None, .. }) => return Ok(DeliveryQueueing::NoReceiver),
                Some(WebhookConfig { url: Some(url), .. }) => url,
            },
        };
        let delivery = Delivery::of(job, event, &url, now)?;
        let stored = match self.store.insert_delivery(&delivery, Wait::InQueue).await? {
            Inserted::New => delivery,
            Inserted::Exists(delivery) => delivery,
        };
        // After a crash the ticket is sent again, unless an attempt shows that it arrived.
        let waiting = matches!(stored.state, DeliveryState::Pending { .. });
        if waiting && stored.attempts.is_empty() {
            self.deliveries.send(&Ticket::next(&stored), Duration::ZERO).await?;
        }
        Ok(DeliveryQueueing::Done)
    }

    fn settled(&self, job: &Job, patience: Patience, now: DateTime<Utc>) -> Option<Job> {
        // The longest deadline that a spec may have is a week.
        let deadline =
            TimeDelta::from_std(self.poll_schedule(job).deadline).unwrap_or(TimeDelta::days(365));
        let given_up = match patience {
            Patience::Deadline => deadline,
            Patience::Outage => deadline + LONGEST_OUTAGE,
        };
        job.settle(given_up, now)
    }
}

/// How many polls of a job of this age were due.
#[must_use]
pub fn polls_due(schedule: &PollSchedule, job: &Job, now: DateTime<Utc>) -> u32 {
    match job.request.tracking {
        Tracking::PollOnly => {
            schedule.count_until(job.request.tracking, age(job, now), job.id.spread())
        }
        // Safety polls are few, and cannot be distinguished from the polls after callbacks.
        Tracking::WebhookFirst => job.attempt_count.saturating_add(1),
    }
}

/// The job's age; zero when clocks disagree.
#[must_use]
pub fn age(job: &Job, now: DateTime<Utc>) -> Duration {
    (now - job.created_at).to_std().unwrap_or_default()
}

fn is_found_by_callback(provider: &Provider) -> bool {
    match provider.spec.submit_safety {
        SubmitSafety::Callback {} => true,
        SubmitSafety::List(_) | SubmitSafety::ClientId {} => false,
    }
}
