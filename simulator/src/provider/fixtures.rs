//! Fixtures for the tests of all providers.

use std::sync::Arc;

use http::Method;

use super::*;
use crate::signature::SigningSecret;

/// 2026-05-24T06:00:00Z plus some milliseconds.
pub(super) fn time_at_ms(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_779_602_400_000 + ms).unwrap()
}

/// Submitted at [`time_at_ms`] zero.
pub(super) fn render(provider: &dyn ProviderApi, body: &str, scenario: &str) -> Render {
    Render {
        provider: provider.name(),
        id: RenderId::uuid([0x11; 16]),
        body: body.into(),
        submitted_at: time_at_ms(0),
        cancelled_at: None,
        end_requested_at: None,
        deleted_at: None,
        destinations: Vec::new(),
        scenario: Arc::new(serde_json::from_str(scenario).unwrap()),
        polls: 0,
        callbacks: Vec::new(),
    }
}

/// The first attempt, unsigned, 600 ms after the end of a render with the default duration.
pub(super) fn context(event: CallbackEvent) -> CallbackContext<'static> {
    CallbackContext {
        event,
        secret: None,
        delivery_id: RenderId::uuid([0x22; 16]),
        attempt: 1,
        at: time_at_ms(3_600),
    }
}

pub(super) fn first_context() -> CallbackContext<'static> {
    context(CallbackEvent::Ended)
}

pub(super) fn secret(text: &str) -> SigningSecret {
    SigningSecret::try_from(text.to_owned()).unwrap()
}

/// The status answer at each time in `at_ms`.
pub(super) fn statuses(
    provider: &dyn ProviderApi,
    render: &Render,
    query: &str,
    at_ms: &[i64],
) -> String {
    let call = ApiCall { method: &Method::GET, path: "/any", query };
    let line = |ms: &i64| shown(&provider.status(render, &call, time_at_ms(*ms)));
    at_ms.iter().map(line).collect::<Vec<_>>().join("\n")
}

pub(super) fn shown(answer: &ApiAnswer) -> String {
    format!("{} {}", answer.status.as_u16(), answer.body)
}

/// The result of each submit in `bodies`.
pub(super) fn submit_results(provider: &dyn ProviderApi, bodies: &[&str]) -> String {
    let result = |body: &&str| match provider.read_submit(&serde_json::from_str(body).unwrap()) {
        Ok(submission) => format!("{body} -> {:?}", submission.callback_urls),
        Err(answer) => format!("{body} -> {}", shown(&answer)),
    };
    bodies.iter().map(result).collect::<Vec<_>>().join("\n")
}
