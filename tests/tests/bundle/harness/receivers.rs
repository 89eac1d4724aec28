//! The customers' webhook receivers: one host with one path for each. They verify with the
//! reference library, answer as configured, and keep every webhook.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_in_memory::clock;
use aws_in_memory::network::Network;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use http::{HeaderMap, Request, Response};
use standardwebhooks::Webhook;

use crate::checks::invariant_checker::InvariantChecker;

/// How a receiver answers one webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlannedAnswer {
    pub(crate) status: u16,
    /// The time until it answers.
    pub(crate) after: Duration,
    pub(crate) retry_after: Option<&'static str>,
}

impl PlannedAnswer {
    /// Answers with this status without delay.
    pub(crate) fn status(status: u16) -> Self {
        Self { status, after: Duration::ZERO, retry_after: None }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct ReceivedPost {
    pub(crate) receiver: String,
    pub(crate) id: String,
    pub(crate) body: String,
    pub(crate) answered: u16,
    pub(crate) at: DateTime<Utc>,
}

#[derive(Debug)]
pub(crate) struct CustomerReceivers {
    behaviors: Mutex<BTreeMap<String, VecDeque<PlannedAnswer>>>,
    /// By receiver: the status of every answer that `behaviors` does not name.
    refusals: Mutex<BTreeMap<String, u16>>,
    received: Mutex<Vec<ReceivedPost>>,
    /// The secrets that the owner has seen, and when; the newest is last.
    secrets: Mutex<Vec<(String, DateTime<Utc>)>>,
    checker: Arc<InvariantChecker>,
}

const HOST: &str = "shop.test";

/// The time after which every function uses a new secret: a minute, a lock that was not released,
/// a clock that is wrong, a stall. And the time before which the owner can have no newer one that
/// was not shown.
const ROTATION_DELAY: TimeDelta = TimeDelta::minutes(5);
const ROTATION_LIMIT: TimeDelta = TimeDelta::minutes(50);

/// The receiver of requests that name none.
pub(crate) const DEFAULT: &str = "default";

pub(crate) fn url(receiver: &str) -> String {
    format!("http://{HOST}/hooks/{receiver}")
}

impl CustomerReceivers {
    pub(crate) fn open(
        network: &Network,
        secret: &str,
        checker: &Arc<InvariantChecker>,
    ) -> Arc<Self> {
        let receivers = Arc::new(Self {
            behaviors: Mutex::default(),
            refusals: Mutex::default(),
            received: Mutex::default(),
            secrets: Mutex::new(vec![(secret.to_owned(), clock::true_now())]),
            checker: Arc::clone(checker),
        });
        let me = Arc::downgrade(&receivers);
        network.add(
            HOST,
            Arc::new(move |request| {
                let me = me.upgrade();
                async move {
                    match me {
                        Some(me) => me.receive(request).await,
                        None => Response::default(),
                    }
                }
                .boxed()
            }),
        );
        receivers
    }

    /// Appends the behaviors for the next webhooks of a receiver. Afterwards it answers 200, or as
    /// [`Self::always_answer`] says.
    pub(crate) fn set_behaviors(
        &self,
        receiver: &str,
        behaviors: impl IntoIterator<Item = PlannedAnswer>,
    ) {
        self.behaviors.lock().unwrap().entry(receiver.to_owned()).or_default().extend(behaviors);
    }

    /// Makes a receiver answer with this status until [`Self::accept_again`].
    pub(crate) fn always_answer(&self, receiver: &str, status: u16) {
        self.refusals.lock().unwrap().insert(receiver.to_owned(), status);
    }

    /// Makes a receiver answer 200 again.
    pub(crate) fn accept_again(&self, receiver: &str) {
        self.refusals.lock().unwrap().remove(receiver);
    }

    /// All webhooks, the oldest first.
    pub(crate) fn received(&self) -> Vec<ReceivedPost> {
        self.received.lock().unwrap().clone()
    }

    /// Adds a secret that the API has shown.
    pub(crate) fn add_secret(&self, secret: &str) {
        self.secrets.lock().unwrap().push((secret.to_owned(), clock::true_now()));
    }

    async fn receive(&self, request: Request<Bytes>) -> Response<Bytes> {
        let receiver = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let body = String::from_utf8_lossy(request.body()).into_owned();
        self.verify(request.headers(), &body);
        self.checker.find_secrets(&format!("{:?} {body}", request.headers()), "a webhook");
        let behavior =
            self.behaviors.lock().unwrap().get_mut(&receiver).and_then(VecDeque::pop_front);
        let refusal = self.refusals.lock().unwrap().get(&receiver).copied();
        let behavior = behavior.unwrap_or_else(|| PlannedAnswer::status(refusal.unwrap_or(200)));
        let id = header(request.headers(), "webhook-id");
        let answered = behavior.status;
        let at = clock::true_now();
        self.received.lock().unwrap().push(ReceivedPost { receiver, id, body, answered, at });
        tokio::time::sleep(behavior.after).await;
        let mut response = Response::new(Bytes::from_static(b"seen"));
        *response.status_mut() = behavior.status.try_into().unwrap();
        if let Some(text) = behavior.retry_after {
            let value = http::HeaderValue::from_static(text);
            response.headers_mut().insert(http::header::RETRY_AFTER, value);
        }
        response
    }

    /// Accepts any secret that the owner has seen, also one that is being rotated out, until every
    /// function must use the newest.
    fn verify(&self, headers: &HeaderMap, body: &str) {
        let id = header(headers, "webhook-id");
        let at = header(headers, "webhook-timestamp").parse().unwrap_or_default();
        let signed = header(headers, "webhook-signature");
        let holds = |secret: &str| {
            let signature = Webhook::new(secret).map(|it| it.sign(&id, at, body.as_bytes()));
            matches!(signature, Ok(Ok(it)) if signed.split(' ').any(|one| one == it))
        };
        let secrets = self.secrets.lock().unwrap().clone();
        if !secrets.iter().any(|(secret, _)| holds(secret)) {
            self.checker.violation("contract: a webhook's signature does not hold");
        }
        if let Some((newest, since)) = secrets.last()
            && (ROTATION_DELAY..=ROTATION_LIMIT).contains(&(clock::true_now() - since))
            && !holds(newest)
        {
            self.checker.violation("contract: a webhook is not signed with the newest secret");
        }
        let at = DateTime::<Utc>::from_timestamp(at, 0);
        let off = at.map(|at| (at - clock::true_now()).abs());
        // The tolerance of the specification's libraries.
        if off.is_none_or(|off| off > TimeDelta::minutes(5)) {
            self.checker.violation(format!("contract: a webhook's timestamp is off by {off:?}"));
        }
    }
}

fn header(headers: &HeaderMap, name: &str) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}
