//! Responses of the API as text for the terminal. Pure: JSON in, text out.

use domain::invisible::visible;
use serde_json::Value;

/// One job: its members, then its timeline.
pub(crate) fn job(job: &Value) -> String {
    let mut rows = vec![
        ("job", text(job, "jobId")),
        ("state", state(job)),
        ("provider", provider(job)),
        ("at", text(job, "submittedTo")),
        ("source", text(job, "sourceRecordId")),
        ("shape", text(job, "payloadVersion")),
        ("result", text(job, "resultUrl")),
        ("expires", text(job, "resultExpiresAt")),
        ("checked", checked(job)),
        ("delivery", delivery(job)),
    ];
    if let Some(failure) = job.get("failure").filter(|failure| !failure.is_null()) {
        rows.push(("failure", format!("{}: {}", text(failure, "code"), text(failure, "message"))));
    }
    let facts = rows.into_iter().filter(|(_, value)| !value.is_empty());
    let facts = facts.map(|(name, value)| format!("{name:<10}{value}"));
    let history = list(job, "timeline")
        .iter()
        .map(|line| format!("{:<10}{}  {}", "", text(line, "at"), text(line, "state")));
    facts.chain(history).collect::<Vec<_>>().join("\n")
}

/// One job on one line, for following it.
pub(crate) fn line(job: &Value) -> String {
    let delivery = delivery(job);
    let delivery =
        if delivery.is_empty() { String::new() } else { format!(", webhook {delivery}") };
    format!("{}{delivery}", state(job))
}

/// Whether a job and its delivery change no more without a request.
pub(crate) fn is_over(job: &Value) -> bool {
    let ended = !job.get("settledAt").is_none_or(Value::is_null);
    let delivery = job.get("delivery").filter(|delivery| !delivery.is_null());
    ended && delivery.is_none_or(|delivery| text(delivery, "state") != "pending")
}

/// A page of jobs.
pub(crate) fn jobs(page: &Value) -> String {
    let mut rows = vec![["job", "created", "provider", "source", "state"].map(str::to_owned)];
    rows.extend(list(page, "jobs").iter().map(|job| {
        ["jobId", "createdAt", "provider", "sourceRecordId", "state"].map(|name| text(job, name))
    }));
    let mut table = aligned(&rows);
    if rows.len() == 1 {
        table.push_str("\n(none)");
    }
    if !page.get("next").is_none_or(Value::is_null) {
        table.push_str("\n(more; the API pages with `cursor`)");
    }
    table
}

/// A job's deliveries, each with its attempts.
pub(crate) fn deliveries(page: &Value) -> String {
    let blocks = list(page, "deliveries").iter().map(|delivery| {
        let head = format!(
            "{}  {}  {}\n{:<10}{}",
            text(delivery, "eventId"),
            text(delivery, "event"),
            text(delivery, "state"),
            "to",
            text(delivery, "url"),
        );
        let mut rows = vec![["attempt", "at", "took", "answer"].map(str::to_owned)];
        rows.extend(list(delivery, "attempts").iter().enumerate().map(|(number, attempt)| {
            let took = format!("{} ms", text(attempt, "durationMs"));
            [(number + 1).to_string(), text(attempt, "at"), took, answer(attempt)]
        }));
        let next = text(delivery, "nextAttemptAt");
        let next = if next.is_empty() { next } else { format!("\n{:<10}{next}", "next") };
        let reason = text(delivery, "reason");
        let reason = if reason.is_empty() { reason } else { format!("\n{:<10}{reason}", "reason") };
        format!("{head}\n{}{reason}{next}", aligned(&rows))
    });
    let blocks: Vec<String> = blocks.collect();
    if blocks.is_empty() { "(no deliveries)".into() } else { blocks.join("\n\n") }
}

/// Deliveries of many jobs, one a line.
pub(crate) fn delivery_list(deliveries: &[Value]) -> String {
    let head = ["job", "created", "event", "endpoint", "attempts", "last", "reason", "next"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(deliveries.iter().map(|delivery| {
        let last = delivery.get("lastAttempt").map(answer).unwrap_or_default();
        [
            text(delivery, "jobId"),
            text(delivery, "createdAt"),
            text(delivery, "event"),
            text(delivery, "endpointId"),
            text(delivery, "attempts"),
            last,
            text(delivery, "reason"),
            text(delivery, "nextAttemptAt"),
        ]
    }));
    let mut table = aligned(&rows);
    if rows.len() == 1 {
        table.push_str("\n(none)");
    }
    table
}

/// All providers, one a line.
pub(crate) fn providers(page: &Value) -> String {
    let mut rows =
        vec![["provider", "spec", "version", "at", "problem", "paused"].map(str::to_owned)];
    rows.extend(list(page, "providers").iter().map(|provider| {
        let [name, origin, version, at, problem] =
            ["name", "origin", "version", "baseUrl", "problem"].map(|name| text(provider, name));
        let paused = list(provider, "pauses").first().map(pause_reason).unwrap_or_default();
        [name, origin, version, at, problem, paused]
    }));
    aligned(&rows)
}

/// Why a provider is paused, such as `server_error (503)`.
fn pause_reason(pause: &Value) -> String {
    match text(pause, "status") {
        status if status.is_empty() => text(pause, "reason"),
        status => format!("{} ({status})", text(pause, "reason")),
    }
}

/// How many of a provider's pauses were ended.
pub(crate) fn resumed_provider(resumed: &Value) -> String {
    let name = text(resumed, "name");
    match resumed.get("pauses").and_then(Value::as_u64) {
        Some(pauses @ 1..) => {
            format!("{name} was paused in {pauses} shards; they ask again within a minute or two")
        }
        Some(0) | None => format!("{name} is not paused"),
    }
}

/// One provider, and its spec if it was read.
pub(crate) fn provider_of_stack(provider: &Value) -> String {
    let is = |name: &str| provider.get(name).and_then(Value::as_bool) == Some(true);
    let origin = match (text(provider, "origin"), is("replacesShipped")) {
        (origin, true) => format!("{origin}, in place of the shipped one"),
        (origin, false) => origin,
    };
    let force = if is("inForce") { "yes" } else { "no" };
    let rows = [
        ("provider", text(provider, "name")),
        ("title", text(provider, "title")),
        ("spec", origin),
        ("in force", force.to_owned()),
        ("problem", text(provider, "problem")),
        ("at", text(provider, "baseUrl")),
        ("key for", text(provider, "keyHost")),
        ("version", text(provider, "version")),
        ("put by", text(provider, "putBy")),
        ("put at", text(provider, "putAt")),
    ];
    let facts = rows.into_iter().filter(|(_, value)| !value.is_empty());
    let facts = facts.map(|(name, value)| format!("{name:<10}{value}"));
    let pauses = list(provider, "pauses").iter().map(|pause| {
        let [shard, since, until, renders] =
            ["shard", "since", "until", "renders"].map(|name| text(pause, name));
        let reason = pause_reason(pause);
        format!("paused    shard {shard} since {since}, {reason}, {renders} renders; tried {until}")
    });
    let spec = provider.get("spec").filter(|spec| !spec.is_null());
    let spec = spec.map(|spec| format!("\n{spec:#}"));
    facts.chain(pauses).chain(spec).collect::<Vec<_>>().join("\n")
}

/// What the removal of a spec leaves behind.
pub(crate) fn removed_provider(removed: &Value) -> String {
    let name = text(removed, "name");
    let is_shipped = removed.get("shippedInForce").and_then(Value::as_bool) == Some(true);
    match is_shipped {
        true => format!("removed; the shipped spec of {name} is in force again within a minute"),
        false => format!("removed. {}", text(removed, "warning")),
    }
}

/// The totals of a recovery over all pages.
#[derive(Default)]
pub(crate) struct Recovered {
    queued: u64,
    disabled: u64,
}

impl Recovered {
    pub(crate) fn add(&mut self, page: &Value) {
        let count = |name: &str| page.get(name).and_then(Value::as_u64).unwrap_or(0);
        self.queued += count("queued");
        self.disabled += count("disabled");
    }

    /// `missing` says that they are sent for the first time.
    pub(crate) fn text(&self, missing: bool) -> String {
        let again = if missing { "" } else { " again" };
        let queued = format!("{} on their way{again}", self.queued);
        match self.disabled {
            0 => queued,
            some => format!("{queued}; {some} left, because their receivers are disabled"),
        }
    }
}

/// Whether a delivery has an attempt.
pub(crate) fn was_tried(delivery: &Value) -> bool {
    !list(delivery, "attempts").is_empty()
}

/// Whether a delivery was accepted by its receiver.
pub(crate) fn has_arrived(delivery: &Value) -> bool {
    text(delivery, "state") == "delivered"
}

/// The default receiver, and the secrets in force.
pub(crate) fn receiver(config: &Value) -> String {
    let names = |member: &str| {
        let names = list(config, member).iter().filter_map(Value::as_str);
        names.collect::<Vec<_>>().join(", ")
    };
    let rows = [
        ("receiver", text(config, "url")),
        ("events", names("events")),
        ("headers", names("headerNames")),
        ("limits", limits(config)),
        ("state", config.get("endpoint").map(health).unwrap_or_default()),
        ("secret", made(config)),
    ];
    let rows = rows.into_iter().filter(|(_, value)| !value.is_empty());
    let rows: Vec<String> = rows.map(|(name, value)| format!("{name:<10}{value}")).collect();
    format!("{}\n{}", rows.join("\n"), in_force(config))
}

fn limits(config: &Value) -> String {
    let limits = [("maxInFlight", "at once"), ("ratePerSecond", "a second")];
    let limits = limits.map(|(name, what)| (text(config, name), what));
    let set = limits.into_iter().filter(|(limit, _)| !limit.is_empty());
    set.map(|(limit, what)| format!("{limit} {what}")).collect::<Vec<_>>().join(", ")
}

/// An endpoint's state, since when, and its id.
fn health(endpoint: &Value) -> String {
    let since = match (text(endpoint, "disabledAt"), text(endpoint, "failingSince")) {
        (at, _) if !at.is_empty() => format!(" since {at}: {}", text(endpoint, "disabledReason")),
        (_, at) if !at.is_empty() => {
            format!(" since {at}, {} in a row", text(endpoint, "consecutiveFailures"))
        }
        _ => String::new(),
    };
    let slow = endpoint.get("slow").and_then(Value::as_bool).unwrap_or_default();
    let slow = if slow { ", slow" } else { "" };
    format!("{}{since}{slow} ({})", text(endpoint, "state"), text(endpoint, "endpointId"))
}

/// The result of a rotation.
pub(crate) fn rotated(answer: &Value) -> String {
    let secret = match (made(answer), text(answer, "publicKey")) {
        (made, _) if !made.is_empty() => format!("{:<10}{made}\n", "secret"),
        (_, key) if !key.is_empty() => {
            format!("{:<10}{key}\n{:<10}give it to receivers\n", "key", "")
        }
        _ => String::new(),
    };
    format!("{secret}{}", in_force(answer))
}

/// A secret that is shown only once; empty when there is none.
fn made(answer: &Value) -> String {
    match text(answer, "secret") {
        secret if secret.is_empty() => secret,
        secret => format!("{secret}\n{:<10}keep it: it is not shown again", ""),
    }
}

fn in_force(answer: &Value) -> String {
    let mut rows = vec![["signs", "since", "until", "public key"].map(str::to_owned)];
    rows.extend(list(answer, "secrets").iter().map(|secret| {
        ["type", "createdAt", "expiresAt", "publicKey"].map(|name| text(secret, name))
    }));
    aligned(&rows)
}

/// API keys, one a line.
pub(crate) fn keys(keys: &[Value]) -> String {
    let mut rows = vec![["key", "name", "owner", "scopes", "created", "by"].map(str::to_owned)];
    rows.extend(keys.iter().map(|key| {
        let [id, name, owner] = ["keyId", "name", "owner"].map(|member| text(key, member));
        [id, name, owner, scopes(key), text(key, "createdAt"), text(key, "createdBy")]
    }));
    let mut table = aligned(&rows);
    if rows.len() == 1 {
        table.push_str("\n(none)");
    }
    table
}

/// What is said about a key that was made, without the key.
pub(crate) fn made_key(key: &Value) -> String {
    let [id, name, owner] = ["keyId", "name", "owner"].map(|member| text(key, member));
    format!("{id}, `{name}` of {owner}, may: {}. The key is not shown again; keep it.", scopes(key))
}

/// What is said about a key that was revoked.
pub(crate) fn revoked_key(key: &Value) -> String {
    let [id, name, owner] = ["keyId", "name", "owner"].map(|member| text(key, member));
    format!(
        "{id}, `{name}` of {owner}, is revoked. What needs `admin` refuses it from now on, and \
         everything within a minute."
    )
}

fn scopes(key: &Value) -> String {
    let scopes = list(key, "scopes").iter().filter_map(Value::as_str);
    scopes.collect::<Vec<_>>().join(", ")
}

fn state(job: &Value) -> String {
    let state = text(job, "state");
    let has_ended = !job.get("endedAt").is_none_or(Value::is_null);
    let is_final = job.get("final").and_then(Value::as_bool);
    match job.get("progress").and_then(Value::as_f64) {
        Some(progress) if state == "processing" => format!("{state} {:.0} %", progress * 100.0),
        Some(_) | None if has_ended && is_final == Some(false) => {
            format!("{state}, not final: it may still complete")
        }
        Some(_) | None => state,
    }
}

fn provider(job: &Value) -> String {
    let render = text(job, "renderJobId");
    let render = if render.is_empty() { render } else { format!(", render {render}") };
    format!("{}{render}", text(job, "provider"))
}

fn checked(job: &Value) -> String {
    match text(job, "lastCheckedAt") {
        at if at.is_empty() => at,
        at => format!("{at}, {} times", text(job, "attemptCount")),
    }
}

fn delivery(job: &Value) -> String {
    let Some(delivery) = job.get("delivery").filter(|delivery| !delivery.is_null()) else {
        return String::new();
    };
    let attempts = text(delivery, "attempts");
    format!("{} after {attempts} attempt(s)", text(delivery, "state"))
}

/// The status of an attempt, or why there is none.
fn answer(attempt: &Value) -> String {
    match text(attempt, "status") {
        status if status.is_empty() => text(attempt, "error"),
        status => status,
    }
}

/// Rows as columns, each as wide as its widest cell.
pub(crate) fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

pub(crate) fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A member as text; empty when it is absent or null.
fn text(value: &Value, name: &str) -> String {
    match value.get(name) {
        Some(Value::String(text)) => visible(text),
        Some(Value::Null) | None => String::new(),
        Some(other) => visible(&other.to_string()),
    }
}

#[cfg(test)]
mod tests;
