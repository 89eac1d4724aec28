//! The receiver that a delivery is sent to: its own, the one configured now, or another.

use aws_lambda_events::apigw::ApiGatewayV2httpRequest;
use chrono::{DateTime, Utc};
use domain::address::ReceiverUrl;
use domain::credential::Scope;
use domain::event::EventName;
use domain::job::Job;
use shared::api::{self, Problem};
use shared::store::{StoreError, WebhookConfig};

use crate::Jobs;

/// `to` of a request that names the receiver configured now.
const CURRENT: &str = "current";

/// Where a caller wants deliveries to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// To the receiver that they have. One that has none is sent to the current one.
    Same,
    /// To the receiver that an event of now would be sent to.
    Current,
    /// To this receiver.
    At(ReceiverUrl),
}

/// A destination, and the configuration that it may need.
#[derive(Debug)]
pub(crate) struct Receivers {
    pub(crate) destination: Destination,
    config: Option<WebhookConfig>,
}

impl Jobs {
    /// Reads `to`. A URL of the caller's needs the scope `admin`, as a receiver does that is
    /// configured.
    pub(crate) async fn receivers(
        &self,
        to: Option<&str>,
        request: &ApiGatewayV2httpRequest,
        now: DateTime<Utc>,
    ) -> Result<Receivers, Problem> {
        let destination = match to {
            None => Destination::Same,
            Some(CURRENT) => Destination::Current,
            Some(url) => {
                let url = ReceiverUrl::parse(url, &self.policy).map_err(|error| {
                    let detail = format!("`to` must be `current` or a receiver's URL: {error}.");
                    Problem::new(422, "invalid_webhook_url", "Invalid webhook URL", detail)
                        .about("to")
                })?;
                api::authorize_for(request, Scope::Admin, &self.keys, now).await?;
                Destination::At(url)
            }
        };
        let config = self.configured(&destination).await?;
        Ok(Receivers { destination, config })
    }

    async fn configured(
        &self,
        destination: &Destination,
    ) -> Result<Option<WebhookConfig>, StoreError> {
        match destination {
            Destination::Same | Destination::Current => self.tracker.store.webhook_config().await,
            Destination::At(_) => Ok(None),
        }
    }
}

impl Receivers {
    /// The receiver of an event of a job that has no delivery. None when there is none, or it did
    /// not subscribe to the event.
    pub(crate) fn of_event<'a>(
        &'a self,
        job: Option<&'a Job>,
        event: EventName,
    ) -> Option<&'a str> {
        let wants = |config: &&WebhookConfig| config.events.contains(event);
        match (&self.destination, job.and_then(|job| job.request.callback_url.as_deref())) {
            (Destination::At(url), _) => Some(url.as_str()),
            (Destination::Same | Destination::Current, Some(own)) => Some(own),
            (Destination::Same | Destination::Current, None) => self.default_for(wants),
        }
    }

    /// The receiver of an event that the caller names: its owner's choice of events does not
    /// count.
    pub(crate) fn of_named_event<'a>(&'a self, job: Option<&'a Job>) -> Option<&'a str> {
        match (&self.destination, job.and_then(|job| job.request.callback_url.as_deref())) {
            (Destination::At(url), _) => Some(url.as_str()),
            (Destination::Same | Destination::Current, Some(own)) => Some(own),
            (Destination::Same | Destination::Current, None) => self.default_for(|_| true),
        }
    }

    fn default_for(&self, wants: impl FnOnce(&&WebhookConfig) -> bool) -> Option<&str> {
        self.config.as_ref().filter(wants).and_then(|config| config.url.as_deref())
    }
}

/// The problem document where a receiver is needed and none is configured.
pub(crate) fn no_receiver() -> Problem {
    Problem::new(
        409,
        "webhook_not_configured",
        "Webhooks are not configured",
        "No receiver is configured that this could be sent to. Call PUT /v1/webhook-config first, \
         or name one with `to`.",
    )
}
