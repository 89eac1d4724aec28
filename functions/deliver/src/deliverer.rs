//! One attempt of one delivery: check its endpoint, take the lease, post, store the outcome, and
//! do what follows from it.
//!
//! The post is made between two writes. After a crash after the post it is repeated with the
//! same id and bytes when the lease has ended. This is at-least-once delivery, and why receivers
//! deduplicate by `webhook-id`.

use std::error::Error;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use domain::address::{ReceiverUrl, TargetPolicy};
use domain::attempt::{Attempt, AttemptError, AttemptOutcome};
use domain::delivery::{
    Consequence, Contention, Delivery, DeliveryState, DeliverySubject, TicketDecision,
};
use domain::endpoint::{
    AttemptRequest, AttemptSignal, Endpoint, HoldReason, Instruction, Lane, Permit, ResponseHints,
    SLOW,
};
use domain::event::{DeliveryExhausted, EndpointDisabled};
use domain::headers::{CustomHeaders, HeadersId, ReceiverHeaders};
use domain::id::{EndpointId, JobId};
use domain::retry::{DeliverySchedule, retry_after};
use domain::signature::{KnownSecrets, NotKnown, SigningSecrets};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, InvalidHeaderName, InvalidHeaderValue};
use shared::bus::{Bus, BusError};
use shared::egress::{Outgoing, PostOutcome, Receivers};
use shared::endpoint_cache::{Admission, EndpointCache};
use shared::entropy::Entropy;
use shared::queue::{DeliveryQueue, MAX_DELAY, QueueError, Ticket};
use shared::secrets::{SecretError, SecretName, Secrets};
use shared::store::{Committed, Consistency, Store, StoreError, Wait};
use shared::telemetry::chain;
use tokio::time::timeout;
use tracing::{info, warn};

/// The first wait for a bus that did not take the event about a delivery's end.
const FIRST_ANNOUNCEMENT_RETRY: Duration = Duration::from_secs(10);

/// The use case and what it needs.
pub struct Deliverer {
    pub store: Store,
    /// The endpoints' state.
    pub endpoints: EndpointCache,
    pub secrets: Secrets,
    pub bus: Bus,
    /// The queue of the next tickets.
    pub queue: DeliveryQueue,
    pub receivers: Receivers,
    /// Which receivers may be posted to.
    pub policy: TargetPolicy,
    /// When to retry.
    pub schedule: DeliverySchedule,
    /// Where jitter and the tokens of attempts come from.
    pub entropy: Entropy,
}

/// What an attempt is signed and sent with.
struct AttemptSecrets {
    signing: KnownSecrets,
    headers: Option<ReceiverHeaders>,
}

/// How long before it is signed an attempt is admitted: for two writes.
const UNTIL_SIGNED: TimeDelta = TimeDelta::seconds(3);

/// Why the queue has to deliver a ticket again: a failure of our own. The failure of a receiver is
/// not an error; it is stored like any other outcome.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeliverError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("an event could not be written as JSON")]
    Event(#[from] serde_json::Error),
    #[error("a header could not be written")]
    Header(#[from] InvalidHeaderValue),
    #[error("a header's name could not be written")]
    HeaderName(#[from] InvalidHeaderName),
    #[error(transparent)]
    Unknown(#[from] NotKnown),
    #[error("another process holds the lease of this attempt until {0}")]
    Leased(DateTime<Utc>),
    #[error("this process stood still, and its lease would end before the attempt")]
    StoodStill,
    #[error("another process wrote this delivery first")]
    Conflict,
}

impl Deliverer {
    /// Handles a ticket: makes at most one attempt.
    ///
    /// # Errors
    /// When the queue has to deliver the ticket again.
    pub(crate) async fn handle_ticket(
        &self,
        ticket: &Ticket,
        now: fn() -> DateTime<Utc>,
    ) -> Result<(), DeliverError> {
        let delivery = self.store.delivery(ticket.job_id.as_ref(), &ticket.event_id).await?;
        let Some(delivery) = delivery else {
            warn!(
                job.id = ticket.job_id.as_ref().map(JobId::as_str),
                event.id = ticket.event_id.as_str(),
                "delivery not found; ticket dropped"
            );
            return Ok(());
        };
        match delivery.decide_ticket(ticket.attempt, now()) {
            TicketDecision::Attempt(_) => self.admit(delivery, ticket, now).await,
            TicketDecision::Early(at) | TicketDecision::Superseded { at, .. } => {
                self.send_ticket(&delivery, ticket.lane, at, now()).await
            }
            TicketDecision::Leased(until) => Err(DeliverError::Leased(until)),
            TicketDecision::Announce => self.announce(&delivery, now()).await,
            // The last attempt may have disabled the endpoint and crashed before it was published.
            TicketDecision::Finished => self.announce(&delivery, now()).await,
        }
    }

    /// Checks whether the endpoint admits the attempt that is due.
    async fn admit(
        &self,
        delivery: Delivery,
        ticket: &Ticket,
        now: fn() -> DateTime<Utc>,
    ) -> Result<(), DeliverError> {
        // A test must use the secrets and headers that were changed a moment ago.
        let consistency = match delivery.subject {
            DeliverySubject::Test => Consistency::Strong,
            DeliverySubject::Render { .. } => Consistency::Eventual,
        };
        // The secrets are read before the endpoint is changed: without them no attempt is made.
        let endpoint = self.endpoints.get(&delivery.url, consistency, now()).await?;
        let Some(mut secrets) = self.secrets_of(&delivery, endpoint.headers, now).await? else {
            return self.put_off(&delivery, ticket.lane, now()).await;
        };
        let request = AttemptRequest {
            manual: delivery.manual,
            has_slot: delivery.has_slot(),
            lane: ticket.lane,
            token: u64::from_be_bytes(self.entropy.bytes().unwrap_or_default()),
            jitter_sample: self.entropy.jitter_sample(),
        };
        match self.endpoints.admit(&delivery.url, &request, now()).await? {
            Admission::Go(permit) => {
                // The owner has changed them just now.
                if permit.headers != endpoint.headers {
                    let Some(changed) = self.secrets_of(&delivery, permit.headers, now).await?
                    else {
                        return self.put_off(&delivery, ticket.lane, now()).await;
                    };
                    secrets = changed;
                }
                self.attempt(delivery, permit, &secrets, now).await
            }
            Admission::Hold { until, by } => {
                self.hold(&delivery, ticket.lane, until, by, now()).await
            }
            Admission::ChangeLane => {
                let ticket = ticket.clone().in_lane(Lane::Slow);
                Ok(self.queue.send(&ticket, Duration::ZERO).await?)
            }
            Admission::Refuse => self.give_up(&delivery.refused(now()), now()).await,
            Admission::Contended => {
                let jitter_sample = self.entropy.jitter_sample();
                match delivery.contended(jitter_sample, &self.schedule, now()) {
                    Contention::AskAgain(wait) => Ok(self.queue.send(ticket, wait).await?),
                    Contention::GiveUp(given_up) => self.give_up(&given_up, now()).await,
                }
            }
        }
    }

    /// What the attempt is signed with, and its receiver's headers; none when it is not known
    /// which secrets are in force, or the headers cannot be read.
    async fn secrets_of(
        &self,
        delivery: &Delivery,
        headers: Option<HeadersId>,
        now: fn() -> DateTime<Utc>,
    ) -> Result<Option<AttemptSecrets>, DeliverError> {
        let headers = headers.map(SecretName::WebhookHeaders);
        if let Some(name) = &headers {
            self.secrets.expect_in_turn(name);
        }
        let read = async {
            if delivery.subject == DeliverySubject::Test {
                let parse = SigningSecrets::parse;
                self.secrets.current(&SecretName::WebhookSecrets, parse).await?;
            }
            let signing = self.secrets.signing().await?;
            let headers = match &headers {
                Some(name) => Some(self.secrets.get(name, ReceiverHeaders::parse).await?),
                None => None,
            };
            Ok(AttemptSecrets { signing, headers })
        };
        let cause: Box<dyn Error + Send + Sync> = match read.await {
            Ok(secrets) if secrets.signing.covers(now() + UNTIL_SIGNED) => {
                return Ok(Some(secrets));
            }
            Ok(_) => NotKnown.into(),
            Err(cause @ SecretError::Unavailable { .. }) => cause.into(),
            // SSM may not show yet what was stored a moment ago.
            Err(cause @ SecretError::Missing(_)) if headers.is_some() => cause.into(),
            Err(cause) => return Err(cause.into()),
        };
        warn!(
            job.id = delivery.subject.job_id().map(JobId::as_str),
            event.id = delivery.event_id.as_str(),
            error = chain(&*cause),
            "secrets not known; attempt put off"
        );
        Ok(None)
    }

    /// Puts an attempt off whose secrets are not known. That counts against no one.
    async fn put_off(
        &self,
        delivery: &Delivery,
        lane: Lane,
        now: DateTime<Utc>,
    ) -> Result<(), DeliverError> {
        let until = delivery.put_off_until(self.entropy.jitter_sample(), now);
        self.hold(delivery, lane, until, HoldReason::Secrets, now).await
    }

    /// Stores and publishes that a delivery is given up without another attempt.
    async fn give_up(&self, given_up: &Delivery, now: DateTime<Utc>) -> Result<(), DeliverError> {
        match self.store.commit_delivery(given_up, Wait::InQueue).await? {
            Committed::Stored => self.announce(given_up, now).await,
            Committed::Conflict(_) => Ok(()),
        }
    }

    async fn attempt(
        &self,
        delivery: Delivery,
        permit: Permit,
        secrets: &AttemptSecrets,
        now: fn() -> DateTime<Utc>,
    ) -> Result<(), DeliverError> {
        let delivery = delivery.leased(now());
        match self.store.commit_delivery(&delivery, Wait::InQueue).await? {
            Committed::Stored => {}
            Committed::Conflict(_) => return Err(DeliverError::Conflict),
        }
        // A process that stood still begins no attempt: the delivery may be redirected by then.
        if !delivery.may_post(now()) {
            return Err(DeliverError::StoodStill);
        }
        let (attempt, hints) = self.post_and_mark_slow(&delivery, secrets, now).await?;
        let (outcome, took) = (attempt.outcome, Duration::from_millis(attempt.duration_ms));
        // The endpoint is stored first: a pause that it asked for applies to all its deliveries,
        // and a crash before the delivery is stored only repeats the attempt.
        let signal = AttemptSignal::of(outcome, hints, took);
        let recorded = self.endpoints.record(&delivery.url, &permit, &signal, now()).await;
        let endpoint = recorded.unwrap_or_else(|cause| {
            // The attempt was made, and it matters more that the delivery is stored.
            warn!(
                event.id = delivery.event_id.as_str(),
                endpoint.id = %EndpointId::of(&delivery.url),
                error = chain(&cause),
                "endpoint state not updated after an attempt"
            );
            Endpoint::unknown(&delivery.url)
        });
        let (delivery, consequence) = delivery.record(
            attempt,
            hints,
            &endpoint,
            &self.schedule,
            self.entropy.jitter_sample(),
            now(),
        );
        if let Committed::Conflict(_) = self.commit(&delivery, consequence, now()).await? {
            // The lease ended meanwhile, and another holder's attempt is stored.
            return Err(DeliverError::Conflict);
        }
        info!(
            job.id = delivery.subject.job_id().map(JobId::as_str),
            event.id = delivery.event_id.as_str(),
            endpoint.id = %endpoint.id,
            delivery.state = delivery.state.name(),
            attempt.number = delivery.attempts.len(),
            attempt.outcome = ?outcome,
            "delivery attempt recorded"
        );
        match consequence {
            Consequence::Delivered if endpoint.disabled.is_some() => {
                self.announce(&delivery, now()).await
            }
            Consequence::Delivered => Ok(()),
            Consequence::Retry { at } => {
                self.send_ticket(&delivery, endpoint.lane(now()), at, now()).await
            }
            Consequence::GiveUp => self.announce(&delivery, now()).await,
        }
    }

    /// Stores that the delivery waits for its endpoint, and sends the ticket for later.
    async fn hold(
        &self,
        delivery: &Delivery,
        lane: Lane,
        until: DateTime<Utc>,
        by: HoldReason,
        now: DateTime<Utc>,
    ) -> Result<(), DeliverError> {
        let (held, consequence) = delivery.hold(until, by, &self.schedule, now);
        match (self.commit(&held, consequence, now).await?, consequence) {
            (Committed::Stored, Consequence::Retry { at }) => {
                self.send_ticket(&held, lane, at, now).await
            }
            (Committed::Stored, Consequence::GiveUp) => self.announce(&held, now).await,
            (Committed::Stored, Consequence::Delivered) => Ok(()),
            // The writer that was first does what follows.
            (Committed::Conflict(_), _) => Ok(()),
        }
    }

    /// Stores a delivery, in the `due` index if its next attempt is too late for the queue.
    async fn commit(
        &self,
        delivery: &Delivery,
        consequence: Consequence,
        now: DateTime<Utc>,
    ) -> Result<Committed<Delivery>, StoreError> {
        let place = match consequence {
            Consequence::Retry { at } if !fits_into_queue(at, now) => Wait::InIndex { until: at },
            Consequence::Retry { .. } | Consequence::Delivered | Consequence::GiveUp => {
                Wait::InQueue
            }
        };
        self.store.commit_delivery(delivery, place).await
    }

    /// Posts, and marks the endpoint as slow while the attempt is still in flight, so that other
    /// deliveries do not wait behind it.
    async fn post_and_mark_slow(
        &self,
        delivery: &Delivery,
        secrets: &AttemptSecrets,
        now: fn() -> DateTime<Utc>,
    ) -> Result<(Attempt, ResponseHints), DeliverError> {
        let mut post = pin!(self.post(delivery, secrets, now));
        if let Ok(posted) = timeout(SLOW, &mut post).await {
            return posted;
        }
        let mark_slow = self
            .endpoints
            .update(&delivery.url, Consistency::Eventual, now(), |it| it.marked_slow(now()));
        let (posted, marked) = tokio::join!(post, mark_slow);
        if let Err(cause) = marked {
            warn!(
                event.id = delivery.event_id.as_str(),
                endpoint.id = %EndpointId::of(&delivery.url),
                error = chain(&cause),
                "slow endpoint not marked as slow"
            );
        }
        posted
    }

    /// Posts the delivery's bytes once. A failure of the receiver is data.
    async fn post(
        &self,
        delivery: &Delivery,
        secrets: &AttemptSecrets,
        now: fn() -> DateTime<Utc>,
    ) -> Result<(Attempt, ResponseHints), DeliverError> {
        let at = now();
        let id = delivery.event_id.as_str();
        let timestamp = at.timestamp();
        let signature = secrets.signing.sign(id, at, delivery.body.as_bytes())?;
        // Checked again: the policy may have changed since the URL was stored.
        let Ok(url) = ReceiverUrl::parse(&delivery.url, &self.policy) else {
            let outcome = AttemptOutcome::Failed(AttemptError::Blocked);
            let excerpt = String::new();
            return Ok((
                Attempt { at, duration_ms: 0, outcome, excerpt },
                ResponseHints::default(),
            ));
        };
        let mut headers = vec![
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (HeaderName::from_static("webhook-id"), HeaderValue::from_str(id)?),
            (HeaderName::from_static("webhook-timestamp"), HeaderValue::from(timestamp)),
            (HeaderName::from_static("webhook-signature"), HeaderValue::from_str(&signature)?),
        ];
        let custom = secrets.headers.as_ref();
        let custom = custom.and_then(|custom| custom.for_receiver(&delivery.url));
        for (name, value) in custom.into_iter().flat_map(CustomHeaders::iter) {
            let mut value = HeaderValue::from_str(value)?;
            value.set_sensitive(true);
            headers.push((HeaderName::from_bytes(name.as_bytes())?, value));
        }
        let body = Bytes::from(delivery.body.clone());
        let answered = self.receivers.post(Outgoing { url: &url, headers, body }).await;
        let duration_ms = u64::try_from(answered.duration.as_millis()).unwrap_or(u64::MAX);
        Ok(match answered.outcome {
            PostOutcome::Answer(answer) => {
                let outcome = AttemptOutcome::Answered(answer.status.as_u16());
                let hints = ResponseHints {
                    retry_after: answer.retry_after.and_then(|text| retry_after(&text, now())),
                    instruction: answer.webhook_delivery.as_deref().and_then(Instruction::parse),
                };
                (Attempt { at, duration_ms, outcome, excerpt: answer.excerpt }, hints)
            }
            PostOutcome::Failure(error) => {
                let outcome = AttemptOutcome::Failed(error);
                (
                    Attempt { at, duration_ms, outcome, excerpt: String::new() },
                    ResponseHints::default(),
                )
            }
        })
    }

    /// Sends the ticket of the next attempt. If that is too late for the queue, the delivery is in
    /// the `due` index, where the poller finds it.
    async fn send_ticket(
        &self,
        delivery: &Delivery,
        lane: Lane,
        at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<(), DeliverError> {
        if !fits_into_queue(at, now) {
            return Ok(());
        }
        let delay = (at - now).to_std().unwrap_or_default();
        Ok(self.queue.send(&Ticket::next(delivery).in_lane(lane), delay).await?)
    }

    /// Publishes that the delivery was given up and that its endpoint was disabled, as far as
    /// both are so and were not published. While the bus takes neither, a ticket comes back for
    /// it: the delivery itself is over, and no trouble of the bus makes it a dead letter.
    async fn announce(&self, delivery: &Delivery, now: DateTime<Utc>) -> Result<(), DeliverError> {
        let given_up = self.publish_given_up(delivery).await?;
        let disabled = self.publish_disabled(delivery, now).await?;
        let unpublished = [given_up, disabled].into_iter().filter_map(|it| match it {
            Announcement::Done => None,
            Announcement::Unpublished { of } => Some(of),
        });
        let Some(since) = unpublished.min() else { return Ok(()) };
        let delay = later_try((now - since).to_std().unwrap_or_default());
        Ok(self.queue.send(&Ticket::next(delivery), delay).await?)
    }

    /// Publishes that the delivery was given up, then stores that this was published. A crash in
    /// between publishes the event twice, with the same id.
    async fn publish_given_up(&self, delivery: &Delivery) -> Result<Announcement, DeliverError> {
        let DeliveryState::GivenUp(given_up) = delivery.state else {
            return Ok(Announcement::Done);
        };
        if let Some(event) = DeliveryExhausted::of(delivery, given_up) {
            let published = self.bus.publish(DeliveryExhausted::NAME, &event.to_body()?).await;
            if let Err(cause) = published {
                return Ok(unpublished(delivery, given_up.at, &cause));
            }
        }
        match self.store.commit_delivery(&delivery.announced(), Wait::InQueue).await? {
            // After a conflict, another process published it or restarted the delivery.
            Committed::Stored | Committed::Conflict(_) => Ok(Announcement::Done),
        }
    }

    /// Publishes that the delivery's endpoint was disabled, if it was.
    async fn publish_disabled(
        &self,
        delivery: &Delivery,
        now: DateTime<Utc>,
    ) -> Result<Announcement, DeliverError> {
        // A consistent read: the change of this attempt must not be missed.
        let endpoint = self.endpoints.get(&delivery.url, Consistency::Strong, now).await?;
        if let Some(disabled) = endpoint.disabled.filter(|disabled| !disabled.announced) {
            let event = EndpointDisabled::of(&endpoint, disabled).to_body()?;
            if let Err(cause) = self.bus.publish(EndpointDisabled::NAME, &event).await {
                return Ok(unpublished(delivery, disabled.at, &cause));
            }
            let mark_announced = |endpoint: &Endpoint| endpoint.announced(disabled, now);
            self.endpoints
                .update(&delivery.url, Consistency::Eventual, now, mark_announced)
                .await?;
            warn!(
                endpoint.id = %endpoint.id,
                endpoint.host = endpoint.host,
                endpoint.disabled_reason = disabled.reason.name(),
                "endpoint disabled"
            );
        }
        Ok(Announcement::Done)
    }
}

/// What became of an event about a delivery or its endpoint.
enum Announcement {
    /// It is published, or there was nothing to publish.
    Done,
    /// The bus did not take it.
    Unpublished {
        /// When that happened what it is about.
        of: DateTime<Utc>,
    },
}

fn unpublished(delivery: &Delivery, of: DateTime<Utc>, cause: &BusError) -> Announcement {
    warn!(
        job.id = delivery.subject.job_id().map(JobId::as_str),
        event.id = delivery.event_id.as_str(),
        error = chain(cause),
        "delivery end not on the bus; ticket comes back"
    );
    Announcement::Unpublished { of }
}

/// When a ticket comes back for an event that the bus has not taken for this long: the waits
/// double until they are as long as the queue can make them.
fn later_try(unpublished_for: Duration) -> Duration {
    unpublished_for.clamp(FIRST_ANNOUNCEMENT_RETRY, MAX_DELAY)
}

fn fits_into_queue(at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    (at - now).to_std().unwrap_or_default() <= MAX_DELAY
}
