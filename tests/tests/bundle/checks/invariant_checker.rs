//! The checks that run at every moment of a run: on each write to the table, each event on the
//! bus, each answer, each webhook and each log line.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};
use std::{fmt, io};

use aws_in_memory::InMemoryAws;
use domain::id::{EventId, JobId};
use serde_json::Value;
use tracing_subscriber::fmt::MakeWriter;

use crate::checks::invariant::Invariant;

/// Records violations, and the state that the checks need.
#[derive(Debug, Default)]
pub(crate) struct InvariantChecker {
    aws: Mutex<Option<InMemoryAws>>,
    violations: Mutex<Vec<String>>,
    /// Texts that must not appear in clear.
    secrets: Mutex<Vec<String>>,
    /// By event id: the first body on the bus.
    published: Mutex<BTreeMap<String, String>>,
    /// The keys of every delivery that was ever given up.
    given_up: Mutex<BTreeSet<[String; 2]>>,
    /// The default receiver's URL now.
    default_receiver: Mutex<Option<String>>,
    /// By the job's partition key: the default receiver's URL when the job was made.
    receivers: Mutex<BTreeMap<String, Option<String>>>,
    /// By event id: the receiver that the operator has sent the delivery to.
    redirected: Mutex<BTreeMap<EventId, String>>,
    /// The partition keys of the jobs whose payloads are stored.
    payloads: Mutex<BTreeSet<String>>,
    /// By host: the number of connections.
    connections_by_host: Mutex<BTreeMap<String, usize>>,
    log: CapturedLog,
}

impl InvariantChecker {
    pub(crate) fn new(aws: &InMemoryAws) -> Arc<Self> {
        let checker = Arc::new(Self { aws: Mutex::new(Some(aws.clone())), ..Self::default() });
        let me: Weak<Self> = Arc::downgrade(&checker);
        aws.table().watch(move |before, after| {
            if let Some(checker) = me.upgrade() {
                checker.record_write(before, after);
            }
        });
        checker
    }

    /// Records a broken contract of the API or the webhooks that no invariant covers.
    pub(crate) fn violation(&self, what: impl Into<String>) {
        self.violations.lock().unwrap().push(what.into());
    }

    /// Records that an invariant does not hold.
    pub(crate) fn violated(&self, invariant: Invariant, what: impl fmt::Display) {
        self.violation(format!("{invariant}: {what}"));
    }

    /// All violations so far.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap().clone()
    }

    pub(crate) fn log(&self) -> CapturedLog {
        self.log.clone()
    }

    /// Adds a text that must not appear in clear.
    pub(crate) fn keep_secret(&self, text: &str) {
        self.secrets.lock().unwrap().push(text.to_owned());
    }

    /// Records a violation if a text contains a secret.
    pub(crate) fn find_secrets(&self, text: &str, place: &str) {
        for secret in self.secrets.lock().unwrap().iter() {
            if text.contains(secret.as_str()) {
                self.violated(Invariant::SecretsStaySecret, format!("a secret is in {place}"));
            }
        }
    }

    pub(crate) fn record_connection(&self, host: &str) {
        *self.connections_by_host.lock().unwrap().entry(host.to_owned()).or_default() += 1;
    }

    /// The number of connections to a host.
    pub(crate) fn connections(&self, host: &str) -> usize {
        self.connections_by_host.lock().unwrap().get(host).copied().unwrap_or_default()
    }

    /// Looks for secrets in the logs.
    pub(crate) fn read_logs(&self) {
        let log = self.log.0.lock().unwrap();
        self.find_secrets(&String::from_utf8_lossy(&log), "the logs");
    }

    /// Checks a write to the table.
    fn record_write(&self, before: Option<&Value>, after: Option<&Value>) {
        let Some(after) = after else { return };
        self.find_secrets(&after.to_string(), "the table");
        if text(after, "sk").starts_with("delivery#") && text(after, "state") == "given_up" {
            let keys = ["pk", "sk"].map(|key| text(after, key).to_owned());
            self.given_up.lock().unwrap().insert(keys);
        }
        match (before, text(after, "sk")) {
            (_, "webhook") => {
                let url = Some(text(after, "url")).filter(|url| !url.is_empty());
                *self.default_receiver.lock().unwrap() = url.map(str::to_owned);
            }
            (_, "payload") => {
                self.payloads.lock().unwrap().insert(format!("job#{}", text(after, "job")));
            }
            (None, "job") => self.record_new_job(text(after, "pk")),
            _ => {}
        }
        let Some(before) = before.filter(|_| text(after, "sk") == "job") else { return };
        let (was, is) = (text(before, "state"), text(after, "state"));
        let unsure = before.pointer("/failure/M/code/S").and_then(Value::as_str);
        let may_complete = was == "timed_out" || unsure == Some("submit_unknown");
        let over = matches!(was, "completed" | "failed" | "cancelled" | "timed_out");
        if over && was != is && !(may_complete && is == "completed") {
            self.violated(Invariant::OneTerminalTruth, format!("a job that was {was} became {is}"));
        }
        if was == "completed" && text(before, "url") != text(after, "url") {
            self.violated(Invariant::OneTerminalTruth, "the result of a completed job changed");
        }
        let settled = after.get("settled_at").is_some();
        if settled && (after.get("shard").is_some() || after.get("outbox").is_some()) {
            self.violated(Invariant::EveryJobSettles, "a settled job is active or has an outbox");
        }
    }

    /// Checks a new job.
    fn record_new_job(&self, pk: &str) {
        let receiver = self.default_receiver.lock().unwrap().clone();
        self.receivers.lock().unwrap().insert(pk.to_owned(), receiver);
        if !self.payloads.lock().unwrap().contains(pk) {
            self.violated(
                Invariant::StoredBeforeAnswered,
                format!("{pk} is stored before its payload"),
            );
        }
    }

    /// The default receiver's URL when a job was made.
    pub(crate) fn default_receiver(&self, job: &JobId) -> Option<String> {
        self.receivers.lock().unwrap().get(&format!("job#{job}")).cloned().flatten()
    }

    /// Records that a delivery goes to another receiver from now on.
    pub(crate) fn expect_at(&self, event: &EventId, url: &str) {
        self.redirected.lock().unwrap().insert(event.clone(), url.to_owned());
    }

    /// The receiver that a delivery was redirected to.
    pub(crate) fn redirected(&self, event: &EventId) -> Option<String> {
        self.redirected.lock().unwrap().get(event).cloned()
    }

    /// Checks the events of a request to the bus.
    pub(crate) fn record_bus_request(&self, request: &Value) {
        let entries = request.pointer("/Entries").and_then(Value::as_array);
        for entry in entries.into_iter().flatten() {
            let body = entry.pointer("/Detail").and_then(Value::as_str).unwrap_or_default();
            self.find_secrets(body, "an event");
            let event: Value = serde_json::from_str(body).unwrap_or_default();
            let id = event["eventId"].as_str().unwrap_or_default().to_owned();
            let first =
                self.published.lock().unwrap().entry(id).or_insert_with(|| body.into()).clone();
            if first != body {
                self.violated(
                    Invariant::OneTerminalTruth,
                    format!("two bodies of one event: {first} and {body}"),
                );
            }
            let known = match event["event"].as_str().unwrap_or_default() {
                "webhook.delivery.exhausted" => self.knows_given_up(&event),
                "webhook.endpoint.disabled" => self.knows_disabled(&event),
                _ => self.knows_change(&event),
            };
            if !known {
                self.violated(
                    Invariant::StoredBeforeAnswered,
                    format!("the bus has an event that the table does not have: {body}"),
                );
            }
        }
    }

    fn item(&self, pk: &str, sk: &str) -> Option<Value> {
        let aws = self.aws.lock().unwrap();
        aws.as_ref().and_then(|aws| aws.table().item(pk, sk))
    }

    /// Whether the table has the state that an event reports, and its result.
    fn knows_change(&self, event: &Value) -> bool {
        let word = |name: &str| event[name].as_str().unwrap_or_default();
        let Some(job) = self.item(&format!("job#{}", word("jobId")), "job") else { return false };
        let timeline = job.pointer("/timeline/L").and_then(Value::as_array).into_iter().flatten();
        let mut entered =
            timeline.filter_map(|line| line.pointer("/L/0/S").and_then(Value::as_str));
        let has_result = word("status") != "completed" || word("resultUrl") == text(&job, "url");
        entered.any(|state| state == word("status")) && has_result
    }

    /// Whether the table ever had the delivery as given up. It may have been sent again since.
    fn knows_given_up(&self, event: &Value) -> bool {
        let word = |name: &str| event[name].as_str().unwrap_or_default();
        let sk = format!("delivery#{}", word("deliveryEventId"));
        self.given_up.lock().unwrap().contains(&[format!("job#{}", word("jobId")), sk])
    }

    fn knows_disabled(&self, event: &Value) -> bool {
        let id = event["endpointId"].as_str().unwrap_or_default();
        let endpoint = self.item(&format!("endpoint#{id}"), "endpoint");
        endpoint.is_some_and(|endpoint| endpoint.get("disabled").is_some())
    }
}

pub(crate) fn text<'a>(item: &'a Value, name: &str) -> &'a str {
    item.pointer(&format!("/{name}/S")).and_then(Value::as_str).unwrap_or_default()
}

#[derive(Clone, Debug, Default)]
pub(crate) struct CapturedLog(Arc<Mutex<Vec<u8>>>);

impl io::Write for CapturedLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for CapturedLog {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl CapturedLog {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}
