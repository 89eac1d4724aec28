//! Sending one event of a job again, with the same id and bytes and a new schedule; or for the
//! first time, if it had no receiver when it was published.

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use chrono::{DateTime, Utc};
use domain::delivery::{Delivery, RedeliverError};
use domain::event::EventName;
use domain::id::JobId;
use domain::job::{Job, OutboxEntry};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use shared::api::{self, Problem};
use shared::late_delivery::LateDelivery;
use shared::view;

use crate::Jobs;
use crate::destination::{Destination, Receivers, no_receiver};
use crate::reading::invalid_parameter;
use crate::recovery::is_of;

const MAX_BODY_BYTES: usize = 16 * 1024;

/// The body of a redelivery; it may be left out.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RedeliveryRequest {
    #[serde(default)]
    event: Option<String>,
    #[serde(default)]
    to: Option<String>,
}

/// What is to be sent.
enum Chosen<'a> {
    /// This delivery, again.
    Again(&'a Delivery),
    /// This change's event, which has no delivery.
    Late { job: &'a Job, change: OutboxEntry, url: &'a str },
}

impl Jobs {
    /// POST /v1/jobs/{jobId}/redeliver
    pub(crate) async fn redeliver(
        &self,
        id: &JobId,
        request: &ApiGatewayV2httpRequest,
        now: DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let wish: RedeliveryRequest = optional_body(request)?;
        let named = wish.event.as_deref().map(event_named).transpose()?;
        let receivers = self.receivers(wish.to.as_deref(), request, now).await?;
        let job = self.tracker.store.job(id).await?;
        let deliveries = self.tracker.store.deliveries(id).await?;
        if job.is_none() && deliveries.is_empty() {
            return Err(Problem::not_found("job"));
        }
        let chosen = choose(job.as_ref(), &deliveries, named, &receivers)?;
        let sent = match chosen {
            Chosen::Again(delivery) => {
                self.send_again(delivery, job.as_ref(), &receivers, now).await?
            }
            Chosen::Late { job, change, url } => {
                match self.tracker.deliver_late(job, &change, url, true, now).await? {
                    LateDelivery::Exists(_) => return Err(pending()),
                    LateDelivery::Made(delivery) => {
                        self.tracker.mark_delivered_late(job.clone(), change.event.into()).await?;
                        delivery
                    }
                }
            }
        };
        Ok(api::json(202, &view::delivery(&sent)))
    }

    async fn send_again(
        &self,
        delivery: &Delivery,
        job: Option<&Job>,
        receivers: &Receivers,
        now: DateTime<Utc>,
    ) -> Result<Delivery, Problem> {
        let to = match &receivers.destination {
            Destination::Same => None,
            Destination::At(url) => Some(url.as_str()),
            Destination::Current => Some(receivers.of_named_event(job).ok_or_else(no_receiver)?),
        };
        let send_again = |delivery: &Delivery| {
            let again = match to {
                None => delivery.redeliver(now),
                Some(url) => delivery.redirect(url, now),
            };
            again.map_err(|why| refused(why, now))
        };
        self.change_delivery(delivery.clone(), send_again, now).await
    }
}

/// The event that is named, or else the last one that has a delivery or is to get one.
fn choose<'a>(
    job: Option<&'a Job>,
    deliveries: &'a [Delivery],
    named: Option<EventName>,
    receivers: &'a Receivers,
) -> Result<Chosen<'a>, Problem> {
    let Some(job) = job else {
        // It has expired, and its deliveries have not.
        let delivery = deliveries.iter().rfind(|it| named.is_none_or(|event| is_of(it, event)));
        return delivery.map(Chosen::Again).ok_or_else(nothing_to_deliver);
    };
    let mut has_no_receiver = false;
    for change in job.changes().into_iter().rev() {
        let event = change.event;
        if named.is_some_and(|named| named != event) {
            continue;
        }
        if let Some(delivery) = deliveries.iter().find(|it| is_of(it, event)) {
            return Ok(Chosen::Again(delivery));
        }
        let is_wanted = named.is_some() || job.request.subscribed_events.contains(event);
        if !is_wanted {
            continue;
        }
        if job.is_to_queue(event) {
            return Err(Problem::new(
                409,
                "delivery_pending",
                "Delivery pending",
                "This event was made a moment ago and is about to be sent by itself.",
            )
            .retry_after(5));
        }
        let url = match named {
            Some(_) => receivers.of_named_event(Some(job)),
            None => receivers.of_event(Some(job), event),
        };
        match url {
            Some(url) => return Ok(Chosen::Late { job, change, url }),
            None => has_no_receiver |= receivers.of_named_event(Some(job)).is_none(),
        }
    }
    Err(if has_no_receiver { no_receiver() } else { nothing_to_deliver() })
}

/// The body of a request that may have none.
pub(crate) fn optional_body<T: Default + DeserializeOwned>(
    request: &ApiGatewayV2httpRequest,
) -> Result<T, Problem> {
    let body = api::body(request, MAX_BODY_BYTES)?;
    if body.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    // An object: an array would be taken for one whose members have no names.
    let members: Result<Option<Map<String, Value>>, _> = serde_json::from_slice(&body);
    let read = members.and_then(|members| T::deserialize(Value::from(members.unwrap_or_default())));
    read.map_err(|error| {
        let detail = format!("The body must be a JSON object, or be left out: {error}.");
        Problem::new(400, "malformed_json", "Malformed JSON", detail)
    })
}

/// The event with this name.
pub(crate) fn event_named(name: &str) -> Result<EventName, Problem> {
    EventName::parse(name).ok_or_else(|| {
        let all = EventName::ALL.map(EventName::as_str).join(", ");
        invalid_parameter("event", &format!("must be one of {all}"))
    })
}

/// The problem document while an attempt is in flight, whose post nothing can take back.
pub(crate) fn under_way(until: DateTime<Utc>, now: DateTime<Utc>) -> Problem {
    let left = u64::try_from((until - now).num_seconds()).unwrap_or_default().saturating_add(1);
    Problem::new(
        409,
        "attempt_under_way",
        "Attempt under way",
        "An attempt at this delivery's receiver has begun and cannot be taken back. Nothing was \
         changed; try again when it is over.",
    )
    .retry_after(left)
}

fn refused(why: RedeliverError, now: DateTime<Utc>) -> Problem {
    match why {
        RedeliverError::Pending => pending(),
        RedeliverError::UnderWay { until } => under_way(until, now),
        RedeliverError::TooOften => Problem::new(
            409,
            "too_many_attempts",
            "Too many attempts",
            "This delivery was tried a thousand times. What it says is in its body.",
        ),
    }
}

fn pending() -> Problem {
    Problem::new(
        409,
        "delivery_pending",
        "Delivery pending",
        "This delivery is still being tried by itself; see its nextAttemptAt. With `to` it can be \
         sent to another receiver.",
    )
}

fn nothing_to_deliver() -> Problem {
    Problem::new(
        409,
        "nothing_to_deliver",
        "Nothing to deliver",
        "This job has no such event yet, or its receiver did not subscribe to it; name one with \
         `event` to send it all the same.",
    )
}
