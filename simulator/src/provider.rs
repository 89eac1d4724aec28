//! What makes a provider itself: its paths, its words, its shapes.
//!
//! A provider is one file below this module and one entry in [`registry`]. It only
//! translates; keys, scenarios, time and callbacks are the same for all of them
//! and live in [`crate::api`] and [`crate::callback_sender`].
//!
//! A provider whose behavior is not documented somewhere is simulated at its
//! most inconvenient: what is merely allowed, happens.

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

use crate::account::Account;
use crate::callback::{
    Callback, CallbackContext, CallbackEvent, CallbackPolicy, Destination, ScheduledCallback,
};
use crate::render::{Phase, Render};
use crate::render_id::RenderId;

pub(crate) use wire::{Answer, ApiCall, Refusal, Route};

/// One provider's dialect.
pub(crate) trait Provider: Send + Sync {
    /// Lower case; the first part of the path to it here.
    fn name(&self) -> &'static str;

    /// Those of [`PROVIDER_OPTIONS`](crate::scenario::PROVIDER_OPTIONS) that it has.
    fn provider_options(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether its account has a secret that callbacks are signed with.
    fn has_account_secret(&self) -> bool {
        false
    }

    /// Whether its account has webhooks of its own.
    fn account_webhooks(&self) -> AccountWebhooks {
        AccountWebhooks::None
    }

    /// What a call with a good key asks for. The path is the one below the
    /// provider's base URL and begins with a slash.
    fn route(&self, call: &ApiCall<'_>) -> Route;

    /// Reads a submit; `Err` holds the provider's complaint about it.
    fn read_submit(&self, body: &Value) -> Result<Submission, Answer>;

    /// A new id in the provider's style.
    fn new_id(&self, random: [u8; 16]) -> RenderId {
        RenderId::uuid(random)
    }

    /// Who is told about a render that was made of `body`; `callback_urls` are
    /// those that the submit named.
    fn destinations(
        &self,
        callback_urls: Vec<String>,
        _account: &Account,
        _body: &str,
    ) -> Vec<Destination> {
        callback_urls.into_iter().map(Destination::unsigned).collect()
    }

    /// The answer to a submit, also to one that repeats an earlier one.
    fn accepted(&self, render: &Render, now: DateTime<Utc>) -> Answer;

    /// The answer to a status call.
    fn status(&self, render: &Render, call: &ApiCall<'_>, now: DateTime<Utc>) -> Answer;

    /// The answer to a list call; `renders` are all of the provider's, newest
    /// first.
    fn list(&self, _renders: &[&Render], _call: &ApiCall<'_>, _now: DateTime<Utc>) -> Answer {
        self.refuse(Refusal::NoSuchPath)
    }

    /// Cancels `render`, where the provider can, and answers the call for it.
    fn cancel(&self, _render: &mut Render, _now: DateTime<Utc>) -> Answer {
        self.refuse(Refusal::NoSuchPath)
    }

    /// Deletes the result of `render`, where the provider can, and answers the
    /// call for it.
    fn delete(&self, _render: &mut Render, _now: DateTime<Utc>) -> Answer {
        self.refuse(Refusal::NoSuchPath)
    }

    /// The provider's word for a phase.
    fn status_name(&self, phase: Phase) -> &'static str;

    /// The provider's word for where `render` is at `at`. More than a phase
    /// tells, where a provider has more words.
    fn state(&self, render: &Render, at: DateTime<Utc>) -> &'static str {
        self.status_name(render.phase(at))
    }

    fn refuse(&self, refusal: Refusal) -> Answer;

    /// Which callbacks a render sends by itself, counted from its submit.
    fn scheduled_callbacks(&self, render: &Render) -> Vec<ScheduledCallback> {
        render.callbacks_at_end()
    }

    /// A callback of `render`. Its body must not depend on anything but the
    /// render and the event, so that repeats are true repeats.
    fn callback(&self, render: &Render, context: &CallbackContext<'_>) -> Callback;

    fn callback_policy(&self) -> CallbackPolicy;
}

/// The parts of a good submit that the simulator acts on.
#[derive(Debug)]
pub(crate) struct Submission {
    /// The id that the caller chose, where the provider lets it.
    pub(crate) id: Option<RenderId>,
    /// The URLs that are to be told about this render.
    pub(crate) callback_urls: Vec<String>,
}

/// Whether an account has webhooks of its own, beside those of a render.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccountWebhooks {
    None,
    /// They may have a secret.
    SignedWithSecret,
    /// They cannot be without a secret.
    AlwaysSigned,
}

/// The status that a callback about the end of `render` reports: the scenario's
/// when it has one, else the true one in the provider's words.
fn reported_status<'a>(provider: &dyn Provider, render: &'a Render) -> &'a str {
    let overridden = render.scenario.callback.status_override.as_deref();
    overridden.unwrap_or_else(|| provider.state(render, render.finished_at()))
}

/// `2026-01-01T00:01:00.000Z`
fn iso(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}
