//! Sending again what was given up in a span of time, and making the deliveries that events of a
//! span never had.

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use chrono::{DateTime, Utc};
use domain::delivery::{Delivery, DeliverySubject};
use domain::event::{EventName, EventSet};
use domain::id::EndpointId;
use domain::job::Job;
use futures_util::stream::{self, StreamExt};
use serde::Deserialize;
use serde_json::json;
use shared::api::{self, Problem};
use shared::late_delivery::LateDelivery;
use shared::store::{Committed, Consistency, JobWithoutReceiver, ListOrder, TimeSpan};

use crate::Jobs;
use crate::deliveries::span;
use crate::destination::{Destination, Receivers, no_receiver};
use crate::reading::{invalid_parameter, page_problem};

const MAX_BODY_BYTES: usize = 16 * 1024;

/// How many deliveries or jobs one call looks at by default, and at most.
const MAX_RECOVERED: u8 = 100;

/// How many are sent concurrently: enough to hide the latency of two writes each.
const MAX_CONCURRENT: usize = 10;

/// The body of a recovery.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RecoveryRequest {
    since: String,
    #[serde(default)]
    until: Option<String>,
    #[serde(default)]
    endpoint_id: Option<String>,
    /// Take the events without a delivery in place of the deliveries that were given up.
    #[serde(default)]
    missing: Option<bool>,
    #[serde(default)]
    to: Option<String>,
    #[serde(default)]
    limit: Option<u8>,
    #[serde(default)]
    cursor: Option<String>,
}

/// What a page is about.
struct Wanted<'a> {
    span: TimeSpan,
    receivers: Receivers,
    cursor: Option<&'a str>,
    limit: u8,
}

/// How many deliveries are on their way, and how many are not because their endpoint is disabled.
#[derive(Clone, Copy, Default)]
struct Counts {
    queued: usize,
    disabled: usize,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.queued += other.queued;
        self.disabled += other.disabled;
    }
}

impl Jobs {
    /// POST /v1/deliveries/recover: restarts deliveries that were given up, or makes those that
    /// are missing, a page at a time. What was sent is not found again, so a call may be
    /// repeated, also after a failure.
    pub(crate) async fn recover(
        &self,
        request: &ApiGatewayV2httpRequest,
        now: fn() -> DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let body = api::body(request, MAX_BODY_BYTES)?;
        let recovery: RecoveryRequest = serde_json::from_slice(&body).map_err(|error| {
            let detail =
                format!("The body must be {{\"since\": \"2026-05-24T12:00:00Z\"}}: {error}.");
            Problem::new(400, "malformed_json", "Malformed JSON", detail)
        })?;
        let span = span(Some(&recovery.since), recovery.until.as_deref(), now())?;
        let limit = recovery.limit.unwrap_or(MAX_RECOVERED);
        if !(1..=MAX_RECOVERED).contains(&limit) {
            return Err(invalid_parameter("limit", "must be a number from 1 to 100"));
        }
        let only = recovery.endpoint_id.as_deref().map(EndpointId::parse).transpose();
        let only = only.map_err(|error| invalid_parameter("endpointId", &error.to_string()))?;
        let receivers = self.receivers(recovery.to.as_deref(), request, now()).await?;
        let cursor = recovery.cursor.as_deref();
        let wanted = Wanted { span, receivers, cursor, limit };
        let (counts, next) = match (recovery.missing.unwrap_or_default(), only) {
            (false, only) => self.recover_given_up(&wanted, only.as_ref(), now).await?,
            (true, None) => self.recover_missing(&wanted, now).await?,
            (true, Some(_)) => {
                let problem = "cannot be given with `missing`: what is missing has no endpoint";
                return Err(invalid_parameter("endpointId", problem));
            }
        };
        let Counts { queued, disabled } = counts;
        Ok(api::json(202, &json!({"queued": queued, "disabled": disabled, "next": next})))
    }

    async fn recover_given_up(
        &self,
        wanted: &Wanted<'_>,
        only: Option<&EndpointId>,
        now: fn() -> DateTime<Utc>,
    ) -> Result<(Counts, Option<String>), Problem> {
        let store = &self.tracker.store;
        let shards = self.shards.most(store).await?;
        let Wanted { span, receivers, cursor, limit } = wanted;
        let page = store.undelivered(shards, *span, ListOrder::OldestFirst, *cursor, *limit).await;
        let page = page.map_err(|cause| page_problem(&cause))?;
        let mut selected = page.items;
        selected.retain(|delivery| only.is_none_or(|only| *only == EndpointId::of(&delivery.url)));
        let jobs = self.jobs_of(&selected, receivers).await?;
        let restarted = selected.into_iter().filter_map(|delivery| {
            let again = delivery.recover(now())?;
            match &receivers.destination {
                Destination::Same => Some(again),
                Destination::At(url) => Some(again.sent_to(url.as_str())),
                Destination::Current => {
                    let (job_id, event) = render(&again)?;
                    let job = jobs.iter().find(|job| job.id == *job_id);
                    let url = receivers.of_event(job, event)?.to_owned();
                    Some(again.sent_to(&url))
                }
            }
        });
        let mut sent = stream::iter(restarted.collect::<Vec<_>>())
            .map(|delivery| self.restart_one(delivery, now()))
            .buffer_unordered(MAX_CONCURRENT);
        let mut counts = Counts::default();
        while let Some(one) = sent.next().await {
            counts.add(one?);
        }
        Ok((counts, page.next))
    }

    /// The jobs of these deliveries, if the destination depends on them.
    async fn jobs_of(
        &self,
        deliveries: &[Delivery],
        receivers: &Receivers,
    ) -> Result<Vec<Job>, Problem> {
        match receivers.destination {
            Destination::Same | Destination::At(_) => Ok(Vec::new()),
            Destination::Current => {
                let mut ids: Vec<_> =
                    deliveries.iter().filter_map(|it| it.subject.job_id().cloned()).collect();
                // A batch has each key once.
                ids.sort();
                ids.dedup();
                Ok(self.tracker.store.jobs(&ids).await?)
            }
        }
    }

    async fn restart_one(&self, again: Delivery, now: DateTime<Utc>) -> Result<Counts, Problem> {
        let endpoint = self.tracker.store.endpoint(&again.url, Consistency::Strong).await?;
        if endpoint.disabled.is_some() {
            return Ok(Counts { disabled: 1, ..Counts::default() });
        }
        Ok(match self.store_and_send(&again, now).await? {
            Committed::Stored => Counts { queued: 1, ..Counts::default() },
            // Another call restarted it.
            Committed::Conflict(_) => Counts::default(),
        })
    }

    async fn recover_missing(
        &self,
        wanted: &Wanted<'_>,
        now: fn() -> DateTime<Utc>,
    ) -> Result<(Counts, Option<String>), Problem> {
        let store = &self.tracker.store;
        let Wanted { span, receivers, cursor, limit } = wanted;
        // Jobs with a receiver of their own miss nothing, so all have the same.
        let url = receivers.of_named_event(None).ok_or_else(no_receiver)?;
        let shards = self.shards.most(store).await?;
        let page = store.jobs_without_receiver(shards, *span, *cursor, *limit).await;
        let page = page.map_err(|cause| page_problem(&cause))?;
        if page.items.is_empty() {
            return Ok((Counts::default(), page.next));
        }
        let endpoint = store.endpoint(url, Consistency::Strong).await?;
        let is_disabled = endpoint.disabled.is_some();
        let mut made = stream::iter(page.items)
            .map(|found| self.make_missing(found, wanted, is_disabled, now()))
            .buffer_unordered(MAX_CONCURRENT);
        let mut counts = Counts::default();
        while let Some(one) = made.next().await {
            counts.add(one?);
        }
        Ok((counts, page.next))
    }

    /// Makes those deliveries of one job that are missing and wanted.
    async fn make_missing(
        &self,
        found: JobWithoutReceiver,
        wanted: &Wanted<'_>,
        is_disabled: bool,
        now: DateTime<Utc>,
    ) -> Result<Counts, Problem> {
        let JobWithoutReceiver { job, events } = found;
        let mut counts = Counts::default();
        let changes: Vec<_> = job
            .changes()
            .into_iter()
            .filter(|change| events.contains(change.event) && wanted.span.contains(change.at))
            .collect();
        if changes.is_empty() {
            return Ok(counts);
        }
        let deliveries = self.tracker.store.deliveries(&job.id).await?;
        let mut have_one = EventSet::none();
        for change in &changes {
            let has_one = deliveries.iter().any(|it| is_of(it, change.event));
            match wanted.receivers.of_event(None, change.event) {
                _ if has_one => have_one = have_one.union(change.event.into()),
                None => {}
                Some(_) if is_disabled => counts.disabled += 1,
                Some(url) => {
                    match self.tracker.deliver_late(&job, change, url, false, now).await? {
                        LateDelivery::Made(_) => counts.queued += 1,
                        LateDelivery::Exists(_) => {}
                    }
                    have_one = have_one.union(change.event.into());
                }
            }
        }
        self.tracker.mark_delivered_late(job, have_one).await?;
        Ok(counts)
    }
}

/// Whether a delivery is of this event of its job.
pub(crate) fn is_of(delivery: &Delivery, event: EventName) -> bool {
    render(delivery).is_some_and(|(_, of)| of == event)
}

fn render(delivery: &Delivery) -> Option<(&domain::id::JobId, EventName)> {
    match &delivery.subject {
        DeliverySubject::Render { job_id, event } => Some((job_id, *event)),
        DeliverySubject::Test => None,
    }
}
