//! The lateness of webhooks: against the time that a scenario allows without faults, and against
//! that run when there is one fault.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::failure::FailureCode;

use crate::checks::invariant::Invariant;
use crate::harness::bundle::{BEGINNING, Bundle};
use crate::harness::event_sources::Source;

/// The most that one fault may cost: the sum of the two longest waits that it can cause.
///
/// - A ticket returns after the visibility timeout of the delivery queue: 3 minutes. The lease of
///   an attempt is over by then.
/// - A shard whose holder died is claimed again when the lease ends (150 seconds) and the schedule
///   ticks (a minute).
///
/// All other waits are shorter: the poller checks an unanswered submit after 45 seconds and an
/// unpublished end after 15, both when it polls the shard next; a provider or a caller tries
/// again within half a minute.
const MAX_FAULT_DELAY: Duration = Duration::from_secs(180 + 150 + 60);

/// A submit with an unknown result whose render is not found fails at the job's deadline:
/// `deadlineSeconds` of Zvid's spec.
const IN_DOUBT: Duration = Duration::from_secs(30 * 60);

/// The latest time at which the webhooks of a scenario arrive without faults.
fn due(scenario: &str) -> Duration {
    Duration::from_secs(match scenario {
        // The end of the render, and at most six seconds between two polls.
        "completion_is_polled" => 9 + 6,
        "failure_is_polled" => 5 + 6,
        "redirected_submit_found_by_id" => 15 + 6,
        // The first poll follows the submit's timeout.
        "unknown_submit_found_by_id" => 30 + 6,
        // The same, and the callback does not come. The second safety poll, with its jitter.
        "unknown_submit_found_in_list" => 240 + 24,
        "callback_before_answer" => 1 + 1,
        // The provider fails the first status call, and is asked again at once.
        "unknown_submit_called_back" => 25 + 2,
        // It takes nine seconds to say how a render stands, and the callback waits for two.
        "slow_status_is_awaited" => 20 + 2 + 9 + 2,
        // Two status calls fail; the third comes after five seconds.
        "unconfirmed_hint_is_looked_at" => 20 + 5 + 2,
        "hints_are_joined" => 20 + 2,
        "unsigned_callback" | "signed_callback" | "account_callback" | "every_step_is_reported" => {
            20 + 1
        }
        "provider_refuses" => 1,
        // The render and the first wait of the schedule with its jitter.
        "second_attempt_delivers" => 3 + 6 + 1,
        "webhook_is_redelivered"
        | "secret_is_rotated"
        | "abandoned_request_goes_on"
        | "key_is_used_again" => 3 + 1,
        // All waits of the schedule with their jitter, and the time until the operator acts.
        "webhook_is_recovered" => 3 + (5 + 60 + 1200) * 11 / 10 + 100,
        // The render, and the second in which the operator sees what has become of it.
        "webhook_is_redirected" => 3 + 2,
        // The operator waits until every process has ended.
        "missing_webhook_is_redelivered" | "missing_webhooks_are_recovered" => 60 + 2,
        "job_is_cancelled" => 5 + 1,
        // The receiver never accepts them.
        "delivery_exhausts"
        | "endpoint_is_gone"
        | "endpoint_is_disabled"
        | "webhook_is_dropped" => 0,
        other => panic!("say when the webhooks of {other} are due"),
    })
}

/// By receiver and id: when a webhook was first accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acceptances(BTreeMap<(String, String), FirstAcceptance>);

/// When a webhook was first accepted, and how long it may wait for an unknown result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FirstAcceptance {
    at: DateTime<Utc>,
    patience: Duration,
}

impl Acceptances {
    pub(crate) fn of(bundle: &Bundle) -> Self {
        let mut first = BTreeMap::new();
        for webhook in bundle.receivers.received() {
            if (200..300).contains(&webhook.answered) {
                let is_in_doubt = webhook.body.contains(FailureCode::SubmitUnknown.name());
                let patience = if is_in_doubt { IN_DOUBT } else { Duration::ZERO };
                let taken = FirstAcceptance { at: webhook.at, patience };
                first.entry((webhook.receiver, webhook.id)).or_insert(taken);
            }
        }
        Self(first)
    }

    /// Webhooks that are later than one fault explains. Other checks find those that are missing.
    pub(crate) fn later_than(&self, on_time: &Self) -> Vec<String> {
        let late = self.0.iter().filter_map(|(webhook, first)| {
            let late = (first.at - on_time.0.get(webhook)?.at).to_std().unwrap_or_default();
            (late > MAX_FAULT_DELAY + first.patience).then(|| {
                format!(
                    "{}: the webhook of {} is {late:?} late",
                    Invariant::EveryJobSettles,
                    webhook.0
                )
            })
        });
        late.collect()
    }

    /// Whether a webhook is later than the scenario allows.
    pub(crate) fn too_late(&self, scenario: &str) -> Option<String> {
        let last = self.0.values().map(|first| first.at).max().unwrap_or(BEGINNING);
        let after = (last - BEGINNING).to_std().unwrap_or_default();
        (after > due(scenario)).then(|| format!("taken {after:?} after the beginning"))
    }
}

/// The number of messages that became dead letters. One fault is too short for that.
pub(crate) fn dead_letters(bundle: &Bundle) -> Option<String> {
    let deaths: usize =
        Source::ALL.iter().map(|source| source.queue(bundle).dead_letter_total()).sum();
    (deaths > 0)
        .then(|| format!("{}: {deaths} messages are dead letters", Invariant::EveryJobSettles))
}
