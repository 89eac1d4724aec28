//! One attempt of one delivery: take the lease, post, write down what came of it, see to
//! what follows.
//!
//! The receiver is posted to between two writes. A crash after the post repeats it with the
//! same id and the same bytes once the lease is over; that is what "at least once" means,
//! and why receivers know an event by its `webhook-id`.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use domain::address::{ReceiverUrl, TargetPolicy};
use domain::delivery::{
    Admission, Attempt, AttemptError, Consequence, Delivery, DeliveryState, Outcome, Subject,
};
use domain::event::DeliveryExhausted;
use domain::headers::{CustomHeaders, ReceiverHeaders};
use domain::id::JobId;
use domain::retry::{DeliverySchedule, retry_after};
use domain::signature::SigningSecrets;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, InvalidHeaderName, InvalidHeaderValue};
use shared::bus::{Bus, BusError};
use shared::egress::{self, FailureClass, Outgoing, Receivers};
use shared::queue::{DeliveryQueue, LONGEST_DELAY, QueueError, Ticket};
use shared::secrets::{SecretError, SecretName, Secrets};
use shared::store::{Committed, Store, StoreError, Wait};
use tracing::{info, warn};

/// The use case and what it needs.
pub struct Deliverer {
    /// The table.
    pub store: Store,
    /// The stack's secrets.
    pub secrets: Secrets,
    /// The event bus.
    pub bus: Bus,
    /// Where the next tickets go.
    pub queue: DeliveryQueue,
    /// The way to receivers.
    pub receivers: Receivers,
    /// Which receivers may be posted to.
    pub policy: TargetPolicy,
    /// When to try again.
    pub schedule: DeliverySchedule,
}

/// Why a ticket has to come back: *we* failed. A receiver that fails is no error; it is
/// written down like any other outcome.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeliverError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("an event could not be written as JSON")]
    Event(#[from] serde_json::Error),
    #[error("a header could not be written")]
    Header(#[from] InvalidHeaderValue),
    #[error("a header's name could not be written")]
    HeaderName(#[from] InvalidHeaderName),
    #[error("another holder is at this attempt until {0}")]
    Leased(DateTime<Utc>),
    #[error("another holder took this attempt")]
    Overtaken,
}

impl Deliverer {
    /// Follows a ticket: makes at most one attempt.
    ///
    /// # Errors
    /// When the ticket has to come back.
    pub(crate) async fn follow(
        &self,
        ticket: &Ticket,
        now: fn() -> DateTime<Utc>,
    ) -> Result<(), DeliverError> {
        let delivery = self.store.delivery(ticket.job_id.as_ref(), &ticket.event_id).await?;
        let Some(delivery) = delivery else {
            warn!(
                event.id = ticket.event_id.as_str(),
                "there is no delivery of event {} any more", ticket.event_id
            );
            return Ok(());
        };
        match delivery.admit(ticket.attempt, now()) {
            Admission::Attempt(_) => self.attempt(delivery, now).await,
            Admission::Early(at) => self.queue_up(&delivery, at, now()).await,
            Admission::Superseded { at, .. } => self.queue_up(&delivery, at, now()).await,
            Admission::Leased(until) => Err(DeliverError::Leased(until)),
            Admission::Announce => self.announce(&delivery).await,
            Admission::Finished => Ok(()),
        }
    }

    async fn attempt(
        &self,
        delivery: Delivery,
        now: fn() -> DateTime<Utc>,
    ) -> Result<(), DeliverError> {
        // Before the lease: without a secret nothing can be sent, and nobody is kept out.
        if delivery.subject == Subject::Test {
            // Whoever asks for a test wants to see what was changed a moment ago.
            self.secrets.forget(&SecretName::WebhookSecrets);
            self.secrets.forget(&SecretName::WebhookHeaders);
        }
        let secrets = self.secrets.get(&SecretName::WebhookSecrets, SigningSecrets::parse).await?;
        let headers =
            self.secrets.find(&SecretName::WebhookHeaders, ReceiverHeaders::parse).await?;
        let delivery = delivery.leased(now());
        match self.store.commit_delivery(&delivery, Wait::InQueue).await? {
            Committed::Stored => {}
            Committed::Overtaken(_) => return Err(DeliverError::Overtaken),
        }
        let (attempt, wait) = self.post(&delivery, &secrets, headers.as_ref(), now).await?;
        let outcome = attempt.outcome;
        let (delivery, consequence) =
            delivery.record(attempt, wait, &self.schedule, shared::luck(), now());
        let place = match consequence {
            Consequence::Retry { at } if !fits_queue(at, now()) => Wait::InIndex { until: at },
            Consequence::Retry { .. } | Consequence::Delivered | Consequence::GiveUp => {
                Wait::InQueue
            }
        };
        if let Committed::Overtaken(_) = self.store.commit_delivery(&delivery, place).await? {
            // The lease ran out meanwhile, and another holder's attempt counts.
            return Err(DeliverError::Overtaken);
        }
        info!(
            job.id = delivery.subject.job_id().map(JobId::as_str),
            event.id = delivery.event_id.as_str(),
            delivery.state = delivery.state.name(), attempt = delivery.attempts.len(),
            outcome = ?outcome, "attempt {} for {}: {}",
            delivery.attempts.len(), delivery.subject, delivery.state.name()
        );
        match consequence {
            Consequence::Delivered => Ok(()),
            Consequence::Retry { at } => self.queue_up(&delivery, at, now()).await,
            Consequence::GiveUp => self.announce(&delivery).await,
        }
    }

    /// Posts the delivery's bytes once; what comes of it is data.
    async fn post(
        &self,
        delivery: &Delivery,
        secrets: &SigningSecrets,
        custom: Option<&ReceiverHeaders>,
        now: fn() -> DateTime<Utc>,
    ) -> Result<(Attempt, Option<Duration>), DeliverError> {
        let at = now();
        let id = delivery.event_id.as_str();
        let timestamp = at.timestamp();
        let signature = secrets.sign(id, at, delivery.body.as_bytes());
        // Judged again: the policy may have changed since the URL was stored.
        let Ok(url) = ReceiverUrl::parse(&delivery.url, &self.policy) else {
            let outcome = Outcome::Failed(AttemptError::Blocked);
            let excerpt = String::new();
            return Ok((Attempt { at, duration_ms: 0, outcome, excerpt }, None));
        };
        let mut headers = vec![
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (HeaderName::from_static("webhook-id"), HeaderValue::from_str(id)?),
            (HeaderName::from_static("webhook-timestamp"), HeaderValue::from(timestamp)),
            (HeaderName::from_static("webhook-signature"), HeaderValue::from_str(&signature)?),
        ];
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
            egress::Outcome::Answer(answer) => {
                let outcome = Outcome::Answered(answer.status.as_u16());
                let wait = answer.retry_after.and_then(|text| retry_after(&text, now()));
                (Attempt { at, duration_ms, outcome, excerpt: answer.excerpt }, wait)
            }
            egress::Outcome::Failure(class) => {
                let outcome = Outcome::Failed(attempt_error(class));
                (Attempt { at, duration_ms, outcome, excerpt: String::new() }, None)
            }
        })
    }

    /// Sends the ticket of the next attempt. One that is too far away for the queue is in
    /// the `due` index already, where the poller finds it.
    async fn queue_up(
        &self,
        delivery: &Delivery,
        at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<(), DeliverError> {
        if !fits_queue(at, now) {
            return Ok(());
        }
        let delay = (at - now).to_std().unwrap_or_default();
        Ok(self.queue.send(&Ticket::next(delivery), delay).await?)
    }

    /// Says on the bus that the delivery was given up, then writes down that it was said. A
    /// crash in between says it twice, under the same id.
    async fn announce(&self, delivery: &Delivery) -> Result<(), DeliverError> {
        debug_assert_eq!(delivery.state, DeliveryState::GivenUp);
        if let Some(event) = DeliveryExhausted::of(delivery) {
            self.bus.publish(DeliveryExhausted::NAME, &event.to_body()?).await?;
        }
        match self.store.commit_delivery(&delivery.announced(), Wait::InQueue).await? {
            // Overtaken: somebody else said it, or sends it again.
            Committed::Stored | Committed::Overtaken(_) => Ok(()),
        }
    }
}

fn fits_queue(at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    (at - now).to_std().unwrap_or_default() <= LONGEST_DELAY
}

fn attempt_error(class: FailureClass) -> AttemptError {
    match class {
        FailureClass::Dns => AttemptError::Dns,
        FailureClass::Connect => AttemptError::Connect,
        FailureClass::Tls => AttemptError::Tls,
        FailureClass::Timeout => AttemptError::Timeout,
        FailureClass::Reset => AttemptError::Reset,
        FailureClass::Blocked => AttemptError::Blocked,
        FailureClass::TooLarge => AttemptError::TooLarge,
    }
}
