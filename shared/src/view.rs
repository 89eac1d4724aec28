//! Jobs, deliveries, the webhook configuration, providers and API keys as the HTTP API shows them.

use chrono::{DateTime, Utc};
use domain::attempt::{Attempt, AttemptOutcome};
use domain::credential::{KeyRecord, Scope};
use domain::delivery::{Delivery, DeliveryState};
use domain::endpoint::Endpoint;
use domain::event::EventName;
use domain::headers::ReceiverHeaders;
use domain::id::{EndpointId, ProviderName};
use domain::job::Job;
use domain::polling::Pause;
use domain::provider::Catalogue;
use domain::provider::key::KeyHost;
use domain::signature::SigningSecrets;
use domain::time;
use serde_json::{Value, json};

use crate::provider_specs::SpecsInForce;
use crate::store::WebhookConfig;

/// A job, with its newest delivery if that was read too.
#[must_use]
pub fn job(job: &Job, delivery: Option<&Delivery>) -> Value {
    let timeline: Vec<Value> = job
        .timeline
        .iter()
        .map(|line| json!({"state": line.state.name(), "at": time::text(line.at)}))
        .collect();
    json!({
        "jobId": job.id,
        "state": job.state.name(),
        "final": job.is_final(),
        "provider": job.request.provider,
        "submittedTo": KeyHost::of(&job.request.submitted_to).map(|host| host.to_string()),
        "renderJobId": job.render_job_id,
        "providerStatus": job.provider_status,
        "sourceRecordId": job.request.source_record_id,
        "payloadVersion": job.request.payload_version,
        "metadata": job.request.metadata,
        "progress": job.progress,
        "resultUrl": job.result.url,
        "resultExpiresAt": job.result.expires_at.map(time::text),
        "failure": job.failure,
        "createdAt": time::text(job.created_at),
        "endedAt": job.ended_at().map(time::text),
        "settledAt": job.settled_at.map(time::text),
        "lastCheckedAt": job.last_checked_at.map(time::text),
        "attemptCount": job.attempt_count,
        "timeline": timeline,
        "callbackUrl": job.request.callback_url,
        "delivery": delivery.map(|delivery| json!({
            "eventId": delivery.event_id,
            "state": delivery.state.name(),
            "reason": delivery.state.reason(),
            "attempts": delivery.attempts.len(),
            "nextAttemptAt": next_attempt(delivery),
        })),
    })
}

/// A delivery in a list, with its last attempt.
#[must_use]
pub fn delivery_line(delivery: &Delivery) -> Value {
    json!({
        "jobId": delivery.subject.job_id(),
        "eventId": delivery.event_id,
        "event": delivery.subject.event_name(),
        "url": delivery.url,
        "endpointId": EndpointId::of(&delivery.url),
        "state": delivery.state.name(),
        "reason": delivery.state.reason(),
        "createdAt": time::text(delivery.created_at),
        "nextAttemptAt": next_attempt(delivery),
        "attempts": delivery.attempts.len(),
        "lastAttempt": delivery.attempts.last().map(attempt),
    })
}

/// A delivery with its exact body and every attempt.
#[must_use]
pub fn delivery(delivery: &Delivery) -> Value {
    json!({
        "eventId": delivery.event_id,
        "event": delivery.subject.event_name(),
        "url": delivery.url,
        "endpointId": EndpointId::of(&delivery.url),
        "state": delivery.state.name(),
        "reason": delivery.state.reason(),
        "createdAt": time::text(delivery.created_at),
        "nextAttemptAt": next_attempt(delivery),
        "body": delivery.body,
        "attempts": delivery.attempts.iter().map(attempt).collect::<Vec<_>>(),
    })
}

/// The webhook configuration, with the secrets that have not ended at `now`. Shows no secret and no
/// header's value.
#[must_use]
pub fn webhook_config(
    config: &WebhookConfig,
    receiver: &Endpoint,
    headers: Option<&ReceiverHeaders>,
    secrets: Option<&SigningSecrets>,
    now: DateTime<Utc>,
) -> Value {
    let url = config.url.as_deref();
    let headers = url.and_then(|url| headers?.for_receiver(url));
    let events = EventName::ALL.into_iter().filter(|event| config.events.contains(*event));
    json!({
        "url": url,
        "events": events.collect::<Vec<_>>(),
        "headerNames": headers.map(|headers| headers.names().collect::<Vec<_>>()).unwrap_or_default(),
        "secrets": secrets.map(|secrets| unended(secrets, now)).unwrap_or_default(),
        "maxInFlight": config.limits.max_in_flight,
        "ratePerSecond": config.limits.per_second,
        "endpoint": endpoint(receiver, now),
        "updatedAt": time::text(config.updated_at),
    })
}

/// The secrets that have not ended at `now`, newest first, without their secret parts. The first
/// may begin later.
#[must_use]
pub fn unended(secrets: &SigningSecrets, now: DateTime<Utc>) -> Vec<Value> {
    let shown = secrets.unended(now).map(|stored| {
        json!({
            "type": stored.secret.kind().name(),
            "publicKey": stored.secret.public_key(),
            "createdAt": stored.created_at.map(time::text),
            "expiresAt": stored.expires_at.map(time::text),
        })
    });
    shown.collect()
}

/// A provider, without its spec.
#[must_use]
pub fn provider(
    name: &ProviderName,
    specs: &SpecsInForce,
    pauses: &[(u32, ProviderName, Pause)],
) -> Value {
    let pauses = pauses.iter().filter(|(_, paused, _)| paused == name);
    let stored = specs.stored.get(name.as_str());
    let entry = stored.and_then(|stored| stored.entry.as_ref());
    let provider = specs.get(name);
    let provider = provider.as_deref();
    let problem = specs.problem(name);
    json!({
        "name": name,
        "title": provider.map(|provider| provider.spec.title.as_str()),
        "origin": if stored.is_some() { "stored" } else { "shipped" },
        "replacesShipped": stored.is_some() && problem.is_none() && Catalogue::shipped(name).is_some(),
        "inForce": problem.is_none(),
        "problem": problem,
        "baseUrl": provider.map(|provider| provider.base_url.as_str()),
        "keyHost": provider.and_then(|it| KeyHost::of(&it.base_url)).map(|host| host.to_string()),
        "version": entry.map(|entry| entry.version),
        "putBy": entry.map(|entry| entry.put_by.as_str()),
        "putAt": entry.map(|entry| time::text(entry.put_at)),
        "pauses": pauses.map(|(shard, _, pause)| provider_pause(*shard, pause)).collect::<Vec<_>>(),
    })
}

fn provider_pause(shard: u32, pause: &Pause) -> Value {
    json!({
        "shard": shard,
        "since": time::text(pause.since),
        "until": time::text(pause.until),
        "reason": pause.reason.name(),
        "status": pause.status,
        "renders": pause.renders,
    })
}

/// The state of an endpoint.
#[must_use]
pub fn endpoint(endpoint: &Endpoint, now: DateTime<Utc>) -> Value {
    json!({
        "endpointId": endpoint.id,
        "state": endpoint.health(now).name(),
        "failingSince": endpoint.failing.map(|failing| time::text(failing.since)),
        "consecutiveFailures": endpoint.failing.map_or(0, |failing| failing.failures),
        "blockedUntil": endpoint.blocked_until(0.0, now).map(|(until, _)| time::text(until)),
        "slow": endpoint.is_slow(now),
        "disabledAt": endpoint.disabled.map(|disabled| time::text(disabled.at)),
        "disabledReason": endpoint.disabled.map(|disabled| disabled.reason.name()),
    })
}

/// An API key. Shows neither the key nor its hash.
#[must_use]
pub fn api_key(record: &KeyRecord) -> Value {
    json!({
        "keyId": record.id,
        "name": record.name,
        "owner": record.owner,
        "scopes": record.scopes.scopes().map(Scope::name).collect::<Vec<_>>(),
        "createdAt": time::text(record.created_at),
        "createdBy": record.created_by.as_str(),
    })
}

fn attempt(attempt: &Attempt) -> Value {
    let (status, error) = match attempt.outcome {
        AttemptOutcome::Answered(status @ 200..=299) => (Some(status), None),
        AttemptOutcome::Answered(status) => (Some(status), Some("status")),
        AttemptOutcome::Failed(error) => (None, Some(error.name())),
    };
    json!({
        "at": time::text(attempt.at),
        "durationMs": attempt.duration_ms,
        "status": status,
        "error": error,
        "excerpt": attempt.excerpt,
    })
}

fn next_attempt(delivery: &Delivery) -> Option<String> {
    match delivery.state {
        DeliveryState::Pending { next_at, .. } => Some(time::text(next_at)),
        DeliveryState::Delivered | DeliveryState::GivenUp(_) | DeliveryState::Exhausted(_) => None,
    }
}
