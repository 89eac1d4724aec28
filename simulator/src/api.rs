//! The providers' APIs: key, route, scenario and record. The shape of the answers is up to
//! [`crate::provider`].

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::callback::ScheduledCallback;
use crate::callback_sender;
use crate::provider::{ApiAnswer, ApiCall, ApiRefusal, ProviderApi, Route, registry};
use crate::render::{Render, RenderKey};
use crate::render_id::RenderId;
use crate::scenario::SubmitAnswerTime;
use crate::simulation::{ApiRecord, SimulatedState, Simulation};

/// The interval of waiting for a callback.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The only `x-api-key` that the providers accept.
pub const API_KEY: &str = "sim-key";

/// The outcome of a call.
struct CallOutcome {
    answer: ApiAnswer,
    about: Arc<str>,
    /// When the call is answered, and an additional delay.
    when: SubmitAnswerTime,
    wait: Duration,
    /// The callbacks that the call causes, and their render.
    callbacks: Option<(RenderId, Vec<ScheduledCallback>)>,
}

impl CallOutcome {
    fn just(answer: ApiAnswer) -> Self {
        let (when, wait) = (SubmitAnswerTime::AtOnce, Duration::ZERO);
        Self { answer, about: "".into(), when, wait, callbacks: None }
    }
}

/// Handles every request below `/{provider}`.
pub(crate) async fn call(
    State(simulation): State<Arc<Simulation>>,
    Path((name, path)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(provider) = registry::named(&name) else {
        return (StatusCode::NOT_FOUND, format!("no provider is called {name}\n")).into_response();
    };
    let now = simulation.environment.now();
    let path = format!("/{path}");
    let query = query.unwrap_or_default();
    let call = ApiCall { method: &method, path: &path, query: &query };

    let outcome = match headers.get("x-api-key") {
        None => CallOutcome::just(provider.refuse(ApiRefusal::NoKey)),
        Some(key) if key != API_KEY => CallOutcome::just(provider.refuse(ApiRefusal::WrongKey)),
        Some(_) => {
            let mut state = simulation.state();
            match provider.route(&call) {
                Route::Unknown => CallOutcome::just(provider.refuse(ApiRefusal::NoSuchPath)),
                Route::Status(id) => status(&mut state, provider, &call, id, now),
                Route::Submit => {
                    submit(&mut state, provider, &body, simulation.environment.random(), now)
                }
                Route::List => list(&state, provider, &call, now),
                Route::Cancel(id) => cancel(&mut state, provider, id, now),
                Route::Delete(id) => delete(&mut state, provider, id, now),
            }
        }
    };

    let path = if query.is_empty() { path } else { format!("{path}?{query}") };
    let record = ApiRecord {
        at: now,
        provider: provider.name(),
        method,
        path,
        status: outcome.answer.status,
        about: outcome.about,
    };
    let bytes = record.about.len();
    simulation.state().api_calls.push(record, bytes);
    let about = outcome.callbacks.as_ref().map(|(id, _)| (provider.name(), id.clone()));
    if let Some((id, scheduled)) = outcome.callbacks {
        callback_sender::schedule(&simulation, provider, &id, &scheduled);
    }
    match (outcome.when, about) {
        (SubmitAnswerTime::AfterCallback, Some(render)) => {
            callback_answered(&simulation, &render).await;
        }
        (SubmitAnswerTime::AtOnce | SubmitAnswerTime::AfterCallback, _) => {}
        (SubmitAnswerTime::Never, _) => std::future::pending().await,
    }
    if !outcome.wait.is_zero() {
        tokio::time::sleep(outcome.wait).await;
    }
    outcome.answer.into_response()
}

/// Waits until a callback about the render was answered.
async fn callback_answered(simulation: &Simulation, render: &RenderKey) {
    let answered = || {
        let state = simulation.state();
        let attempts = state.renders.get(render).map(|it| it.callbacks.as_slice());
        attempts.unwrap_or_default().iter().any(|attempt| attempt.status.is_some())
    };
    while !answered() {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn submit(
    state: &mut SimulatedState,
    provider: &'static dyn ProviderApi,
    body: &[u8],
    random: Option<[u8; 16]>,
    now: DateTime<Utc>,
) -> CallOutcome {
    let about: Arc<str> = String::from_utf8_lossy(body).into();
    let plan = state.scenarios.plan(provider.name(), &about);
    let scenario = plan.scenario;
    let when = scenario.submit_answer;
    let wait = Duration::from_millis(scenario.submit_delay_ms.into());

    if let Some(status) = plan.refusal {
        let mut answer = provider.refuse(ApiRefusal::Forced(status));
        if let Some(body) = &scenario.submit_body {
            answer.body = body.clone();
        }
        if let Some(text) = &scenario.retry_after {
            answer = answer.with_header(header::RETRY_AFTER, text.get().clone());
        }
        return CallOutcome { about, when, wait, ..CallOutcome::just(answer) };
    }

    let submission = match serde_json::from_slice(body) {
        Ok(document) => provider.read_submit(&document),
        Err(_) => Err(provider.refuse(ApiRefusal::NotJson)),
    };
    let submission = match submission {
        Ok(submission) => submission,
        Err(answer) => return CallOutcome { about, when, wait, ..CallOutcome::just(answer) },
    };
    let Some(random) = random else {
        let answer = provider.refuse(ApiRefusal::Forced(StatusCode::INTERNAL_SERVER_ERROR));
        return CallOutcome { about, when, wait, ..CallOutcome::just(answer) };
    };
    let id = submission.id.unwrap_or_else(|| provider.new_id(random));
    if let Some(earlier) = state.renders.get(&(provider.name(), id.clone())) {
        let answer = provider.accepted(earlier, now);
        return CallOutcome { about, when, wait, ..CallOutcome::just(answer) };
    }
    let account = state.accounts.at(provider.name());
    let destinations = provider.destinations(submission.callback_urls, account, &about);
    let render = Render {
        provider: provider.name(),
        id: id.clone(),
        body: Arc::clone(&about),
        submitted_at: now,
        cancelled_at: None,
        end_requested_at: None,
        deleted_at: None,
        destinations,
        scenario,
        polls: 0,
        callbacks: Vec::new(),
    };
    let answer = match render.scenario.submit_hidden_by {
        None => provider.accepted(&render, now),
        Some(status) => hidden(provider, status.get()),
    };
    let scheduled = provider.scheduled_callbacks(&render);
    state.renders.add(render);
    CallOutcome { answer, about, when, wait, callbacks: Some((id, scheduled)) }
}

/// An answer that does not name the render that was made. A redirect leads nowhere.
fn hidden(provider: &'static dyn ProviderApi, status: StatusCode) -> ApiAnswer {
    let answer = provider.refuse(ApiRefusal::Forced(status));
    match status.is_redirection() {
        true => answer.with_header(header::LOCATION, HeaderValue::from_static("/elsewhere")),
        false => answer,
    }
}

fn status(
    state: &mut SimulatedState,
    provider: &'static dyn ProviderApi,
    call: &ApiCall<'_>,
    id: RenderId,
    now: DateTime<Utc>,
) -> CallOutcome {
    let Some(render) = state.renders.get_mut(&(provider.name(), id.clone())) else {
        return CallOutcome::just(provider.refuse(ApiRefusal::UnknownRender));
    };
    let about = Arc::clone(&render.body);
    let scenario = Arc::clone(&render.scenario);
    let used_up = scenario.status_code_times.is_some_and(|times| render.polls >= times);
    render.polls += 1;

    let answer = match scenario.status_code.filter(|_| !used_up) {
        None => provider.status(render, call, now),
        Some(status) => {
            let answer = provider.refuse(ApiRefusal::Forced(status.get()));
            match &scenario.retry_after {
                Some(text) => answer.with_header(header::RETRY_AFTER, text.get().clone()),
                None => answer,
            }
        }
    };
    let wait = Duration::from_millis(scenario.status_delay_ms.into());
    let is_enough = scenario.ends_after_polls.is_some_and(|enough| render.polls >= enough);
    let scheduled = is_enough.then(|| render.end(now)).flatten();
    let callbacks = scheduled.map(|scheduled| (id, scheduled));
    CallOutcome { about, wait, callbacks, ..CallOutcome::just(answer) }
}

fn list(
    state: &SimulatedState,
    provider: &'static dyn ProviderApi,
    call: &ApiCall<'_>,
    now: DateTime<Utc>,
) -> CallOutcome {
    let all = state.renders.iter().filter(|render| render.provider == provider.name());
    let mut renders: Vec<&Render> = all.collect();
    renders.reverse();
    CallOutcome::just(provider.list(&renders, call, now))
}

fn cancel(
    state: &mut SimulatedState,
    provider: &'static dyn ProviderApi,
    id: RenderId,
    now: DateTime<Utc>,
) -> CallOutcome {
    let Some(render) = state.renders.get_mut(&(provider.name(), id.clone())) else {
        return CallOutcome::just(provider.refuse(ApiRefusal::UnknownRender));
    };
    let was_cancelled = render.cancelled_at.is_some();
    let answer = provider.cancel(render, now);
    let is_news = render.cancelled_at.is_some() && !was_cancelled;
    let callbacks = is_news.then(|| (id, render.callbacks_at_cancel()));
    CallOutcome { about: Arc::clone(&render.body), callbacks, ..CallOutcome::just(answer) }
}

fn delete(
    state: &mut SimulatedState,
    provider: &'static dyn ProviderApi,
    id: RenderId,
    now: DateTime<Utc>,
) -> CallOutcome {
    let Some(render) = state.renders.get_mut(&(provider.name(), id)) else {
        return CallOutcome::just(provider.refuse(ApiRefusal::UnknownRender));
    };
    let answer = provider.delete(render, now);
    CallOutcome { about: Arc::clone(&render.body), ..CallOutcome::just(answer) }
}
