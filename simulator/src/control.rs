//! The control API below `/_control`, for tests and demos: it configures the simulator and shows
//! what it recorded.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::account::AccountWebhook;
use crate::callback::ScheduledCallback;
use crate::callback_sender;
use crate::provider::{AccountWebhooks, registry};
use crate::receiver::ReceiverBehavior;
use crate::render::{Render, RenderKey};
use crate::scenario::{PROVIDER_OPTIONS, Scenario};
use crate::signature::SigningSecret;
use crate::simulation::Simulation;

pub(crate) fn router() -> Router<Arc<Simulation>> {
    Router::new()
        .route("/scenarios/{provider}/{tag}", put(put_scenario))
        .route("/secrets/{provider}", put(put_secret))
        .route("/account-webhooks/{provider}", put(put_account_webhook))
        .route("/renders", get(renders))
        .route("/renders/{provider}/{tag}/end", post(end))
        .route("/renders/{provider}/{tag}/progress", post(progress))
        .route("/requests", get(requests))
        .route("/receivers/{name}", put(put_receiver).get(receiver))
        .route("/aws", get(aws))
}

async fn put_scenario(
    State(simulation): State<Arc<Simulation>>,
    Path((name, tag)): Path<(String, String)>,
    Json(options): Json<Map<String, Value>>,
) -> Response {
    let Some(provider) = registry::named(&name) else { return unknown_provider(&name) };
    let foreign = PROVIDER_OPTIONS.into_iter().find(|option| {
        options.contains_key(*option) && !provider.provider_options().contains(option)
    });
    if let Some(option) = foreign {
        return unprocessable(&format!("{name} has no option {option}"));
    }
    let scenario: Scenario = match serde_json::from_value(Value::Object(options)) {
        Ok(scenario) => scenario,
        Err(error) => return unprocessable(&error.to_string()),
    };
    simulation.state().scenarios.put(provider.name(), tag, scenario);
    StatusCode::NO_CONTENT.into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountSecret {
    /// `None` removes the secret.
    secret: Option<SigningSecret>,
}

/// Sets the secret of a provider's callbacks.
async fn put_secret(
    State(simulation): State<Arc<Simulation>>,
    Path(name): Path<String>,
    Json(account): Json<AccountSecret>,
) -> Response {
    let Some(provider) = registry::named(&name) else { return unknown_provider(&name) };
    if !provider.has_account_secret() {
        return refusal(&format!("accounts at {name} have no secret"));
    }
    simulation.state().accounts.at(provider.name()).secret = account.secret;
    StatusCode::NO_CONTENT.into_response()
}

/// Adds, replaces or removes an account webhook.
async fn put_account_webhook(
    State(simulation): State<Arc<Simulation>>,
    Path(name): Path<String>,
    Json(webhook): Json<AccountWebhook>,
) -> Response {
    let Some(provider) = registry::named(&name) else { return unknown_provider(&name) };
    match provider.account_webhooks() {
        AccountWebhooks::None => {
            return refusal(&format!("accounts at {name} have no webhooks"));
        }
        AccountWebhooks::AlwaysSigned if webhook.url.is_some() && webhook.secret.is_none() => {
            return refusal(&format!("{name} signs for every account webhook: it needs a secret"));
        }
        AccountWebhooks::AlwaysSigned | AccountWebhooks::SignedWithSecret => {}
    }
    simulation.state().accounts.at(provider.name()).put_webhook(webhook);
    StatusCode::NO_CONTENT.into_response()
}

/// The calls or renders to show; all when empty.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Selection {
    provider: Option<String>,
    /// A text in the submitted body.
    tag: Option<String>,
}

impl Selection {
    fn takes(&self, provider: &str, body: &str) -> bool {
        self.provider.as_deref().is_none_or(|wanted| wanted == provider)
            && self.tag.as_deref().is_none_or(|tag| body.contains(tag))
    }
}

/// All renders, the oldest first.
async fn renders(
    State(simulation): State<Arc<Simulation>>,
    Query(selection): Query<Selection>,
) -> Json<Vec<Value>> {
    let now = simulation.environment.now();
    let state = simulation.state();
    let selected = state.renders.iter().filter(|it| selection.takes(it.provider, &it.body));
    let views = selected.map(|render| {
        let state = registry::named(render.provider).map(|it| it.state(render, now));
        json!({
            "provider": render.provider,
            "id": render.id,
            "body": render.submitted(),
            "submittedAt": render.submitted_at.timestamp_millis(),
            "state": state,
            "polls": render.polls,
            "callbacks": render.callbacks,
        })
    });
    Json(views.collect())
}

/// Ends the frozen renders with a tag and sends their callbacks.
async fn end(
    State(simulation): State<Arc<Simulation>>,
    Path((name, tag)): Path<(String, String)>,
) -> Response {
    schedule_callbacks(&simulation, &name, &tag, Render::end)
}

/// Sends progress callbacks of the renders with a tag. A render that has ended reports its last
/// progress.
async fn progress(
    State(simulation): State<Arc<Simulation>>,
    Path((name, tag)): Path<(String, String)>,
) -> Response {
    let reports_progress = registry::named(&name)
        .is_some_and(|provider| provider.provider_options().contains(&"progressCallbacks"));
    if !reports_progress {
        return refusal(&format!("{name} does not report progress"));
    }
    schedule_callbacks(&simulation, &name, &tag, |render, now| {
        Some(render.callbacks_about_progress(now))
    })
}

/// Schedules the callbacks that `cause` returns for each render with the tag. Answers 409 when
/// there are none.
fn schedule_callbacks(
    simulation: &Arc<Simulation>,
    name: &str,
    tag: &str,
    cause: impl Fn(&mut Render, DateTime<Utc>) -> Option<Vec<ScheduledCallback>>,
) -> Response {
    let Some(provider) = registry::named(name) else { return unknown_provider(name) };
    let now = simulation.environment.now();
    let mut state = simulation.state();
    let tagged = state
        .renders
        .iter()
        .filter(|render| render.provider == provider.name() && render.body.contains(tag));
    let keys: Vec<RenderKey> = tagged.map(|it| (it.provider, it.id.clone())).collect();
    let mut leaving = Vec::new();
    for key in keys {
        let scheduled = state.renders.get_mut(&key).and_then(|render| cause(render, now));
        leaving.extend(scheduled.map(|scheduled| (key.1, scheduled)));
    }
    drop(state);
    if leaving.is_empty() {
        let error = json!({"error": format!("no render of {tag} is at that point")});
        return (StatusCode::CONFLICT, Json(error)).into_response();
    }
    for (id, scheduled) in leaving {
        callback_sender::schedule(simulation, provider, &id, &scheduled);
    }
    StatusCode::NO_CONTENT.into_response()
}

/// All calls of the providers' APIs, refused ones included, the oldest first.
async fn requests(
    State(simulation): State<Arc<Simulation>>,
    Query(selection): Query<Selection>,
) -> Json<Vec<Value>> {
    let state = simulation.state();
    let selected = state.api_calls.iter().filter(|it| selection.takes(it.provider, &it.about));
    let views = selected.map(|call| {
        json!({
            "at": call.at.timestamp_millis(),
            "provider": call.provider,
            "method": call.method.as_str(),
            "path": call.path,
            "status": call.status.as_u16(),
        })
    });
    Json(views.collect())
}

async fn put_receiver(
    State(simulation): State<Arc<Simulation>>,
    Path(name): Path<String>,
    Json(behavior): Json<ReceiverBehavior>,
) -> Response {
    match simulation.state().receivers.put(&name, behavior) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => refusal(&error.to_string()),
    }
}

async fn receiver(
    State(simulation): State<Arc<Simulation>>,
    Path(name): Path<String>,
) -> Json<Value> {
    Json(json!({"received": simulation.state().receivers.received(&name)}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LedgerPage {
    /// Only answers after this `seq`.
    #[serde(default)]
    since: u64,
    /// Only requests with this text in their body.
    contains: Option<String>,
}

async fn aws(
    State(simulation): State<Arc<Simulation>>,
    Query(page): Query<LedgerPage>,
) -> Json<Value> {
    let state = simulation.state();
    let requests: Vec<_> = state
        .ledger
        .records
        .iter()
        .filter(|record| record.seq > page.since)
        .filter(|record| page.contains.as_deref().is_none_or(|text| record.mentions(text)))
        .collect();
    Json(json!({"seq": state.ledger.seq, "requests": requests}))
}

fn refusal(message: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({"error": message}))).into_response()
}

fn unknown_provider(name: &str) -> Response {
    refusal(&format!("no provider is called {name}"))
}

fn unprocessable(message: &str) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({"error": message}))).into_response()
}
