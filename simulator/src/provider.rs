//! What differs between providers: paths, names and shapes.
//!
//! A provider is one file below this module and one entry in [`registry`]. Keys, scenarios, time
//! and callbacks are common to all and live in [`crate::api`] and [`crate::callback_sender`].
//!
//! Undocumented behavior is simulated in the most inconvenient way that the documentation allows.

#[cfg(test)]
mod fixtures;
mod json2video;
pub(crate) mod registry;
mod renderio;
mod shotstack;
mod viralsync;
mod wire;
mod zvid;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;

use crate::account::ProviderAccount;
use crate::callback::{
    CallbackContent, CallbackContext, CallbackEvent, CallbackPolicy, Destination, ScheduledCallback,
};
use crate::render::{Phase, Render};
use crate::render_id::RenderId;

pub(crate) use wire::{ApiAnswer, ApiCall, ApiRefusal, Route};

/// The API of one provider.
pub(crate) trait ProviderApi: Send + Sync {
    /// The first part of the path, in lower case.
    fn name(&self) -> &'static str;

    /// The options of [`PROVIDER_OPTIONS`](crate::scenario::PROVIDER_OPTIONS) that the provider
    /// has.
    fn provider_options(&self) -> &'static [&'static str] {
        &[]
    }

    fn has_account_secret(&self) -> bool {
        false
    }

    fn account_webhooks(&self) -> AccountWebhooks {
        AccountWebhooks::None
    }

    /// The operation of a call with a good key. The path is relative to the base URL and begins
    /// with a slash.
    fn route(&self, call: &ApiCall<'_>) -> Route;

    /// Reads a submit; `Err` holds the provider's error answer.
    fn read_submit(&self, body: &Value) -> Result<AcceptedSubmit, ApiAnswer>;

    fn new_id(&self, random: [u8; 16]) -> RenderId {
        RenderId::uuid(random)
    }

    /// The URLs that get the callbacks of a render with this body; `callback_urls` are those of
    /// the submit.
    fn destinations(
        &self,
        callback_urls: Vec<String>,
        _account: &ProviderAccount,
        _body: &str,
    ) -> Vec<Destination> {
        callback_urls.into_iter().map(Destination::unsigned).collect()
    }

    /// The answer to a submit, also to one that repeats an earlier one.
    fn accepted(&self, render: &Render, now: DateTime<Utc>) -> ApiAnswer;

    /// The answer to a status call.
    fn status(&self, render: &Render, call: &ApiCall<'_>, now: DateTime<Utc>) -> ApiAnswer;

    /// The answer to a list call; `renders` are all of the provider's, the newest first.
    fn list(&self, _renders: &[&Render], _call: &ApiCall<'_>, _now: DateTime<Utc>) -> ApiAnswer {
        self.refuse(ApiRefusal::NoSuchPath)
    }

    /// Cancels `render` if the provider can, and returns the answer.
    fn cancel(&self, _render: &mut Render, _now: DateTime<Utc>) -> ApiAnswer {
        self.refuse(ApiRefusal::NoSuchPath)
    }

    /// Deletes the result of `render` if the provider can, and returns the answer.
    fn delete(&self, _render: &mut Render, _now: DateTime<Utc>) -> ApiAnswer {
        self.refuse(ApiRefusal::NoSuchPath)
    }

    /// The provider's name of a phase.
    fn status_name(&self, phase: Phase) -> &'static str;

    /// The provider's name of the render's status at a time. Some providers have more names than
    /// phases.
    fn state(&self, render: &Render, at: DateTime<Utc>) -> &'static str {
        self.status_name(render.phase(at))
    }

    fn refuse(&self, refusal: ApiRefusal) -> ApiAnswer;

    /// The callbacks that a render sends by itself, counted from its submit.
    fn scheduled_callbacks(&self, render: &Render) -> Vec<ScheduledCallback> {
        render.callbacks_at_end()
    }

    /// A callback of `render`. The body depends only on the render and the event, so that repeats
    /// are equal.
    fn callback(&self, render: &Render, context: &CallbackContext<'_>) -> CallbackContent;

    fn callback_policy(&self) -> CallbackPolicy;
}

/// The parts of a valid submit that the simulator uses.
#[derive(Debug)]
pub(crate) struct AcceptedSubmit {
    /// The caller's own id, where the provider allows one.
    pub(crate) id: Option<RenderId>,
    /// The callback URLs of this render.
    pub(crate) callback_urls: Vec<String>,
}

/// Whether an account has webhooks in addition to those of renders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccountWebhooks {
    None,
    /// The secret is optional.
    SignedWithSecret,
    /// The secret is required.
    AlwaysSigned,
}

/// The status that a callback about the end reports: the scenario's override, or else the true
/// status.
fn reported_status<'a>(provider: &dyn ProviderApi, render: &'a Render) -> &'a str {
    let overridden = render.scenario.callback.status_override.as_deref();
    overridden.unwrap_or_else(|| provider.state(render, render.finished_at()))
}

/// `2026-01-01T00:01:00.000Z`
fn iso(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}
