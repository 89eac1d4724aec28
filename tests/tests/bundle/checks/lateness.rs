//! How late webhooks are: against what a scenario's scenario allows when nothing goes wrong, and
//! against that run when one thing does.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::failure::FailureCode;

use crate::checks::invariant::Invariant;
use crate::harness::bundle::{BEGINNING, Bundle};
use crate::harness::event_sources::Source;

/// What one fault_case may cost at most: the sum of the two longest waits that it can lead to.
///
/// - A ticket, or whatever else a function died with, comes back after the visibility timeout
///   of the delivery queue: 3 minutes. The lease of an attempt is over by then.
/// - A shard whose holder died is looked after again when the lease's term is over, 150
///   seconds, and the schedule ticks, a minute.
///
/// All that is shorter: a submit that nobody waits for any more is looked into after 45
/// seconds and an end that nobody tells of after 15, both at the next look at the shard; a
/// provider or a caller tries again within half a minute.
const MAX_FAULT_DELAY: Duration = Duration::from_secs(180 + 150 + 60);

/// A submit that may have been made or not, and that no render at the provider comes to light
/// of, is given up at the job's deadline: `deadlineSeconds` of Zvid's spec.
const IN_DOUBT: Duration = Duration::from_secs(30 * 60);

/// How long after its beginning every webhook of a scenario was taken, when nothing goes wrong.
fn due(scenario: &str) -> Duration {
    Duration::from_secs(match scenario {
        // The end of the render, and at most the six seconds between two questions.
        "completion_is_polled" => 9 + 6,
        "failure_is_polled" => 5 + 6,
        // Nobody asks before the submit has run into its time limit.
        "unknown_submit_found_by_id" => 30 + 6,
        // The same, and then its callback is waited for in vain.
        "unknown_submit_found_in_list" => 240,
        "callback_before_answer" => 1 + 1,
        // The first callback is refused, and comes again.
        "unknown_submit_called_back" => 25 + 8 + 1,
        "unsigned_callback" | "signed_callback" | "account_callback" | "every_step_is_reported" => {
            20 + 1
        }
        "provider_refuses" => 1,
        // The render, and the first wait of the schedule with its jitter.
        "second_attempt_delivers" => 3 + 6 + 1,
        "webhook_is_redelivered" | "secret_is_rotated" => 3 + 1,
        // All waits of the schedule with their jitter, and until the operator has seen it.
        "webhook_is_recovered" => 3 + (5 + 60 + 1200) * 11 / 10 + 100,
        "job_is_cancelled" => 5 + 1,
        // Nobody ever takes them.
        "delivery_exhausts" | "endpoint_is_gone" | "endpoint_is_disabled" => 0,
        other => panic!("say when the webhooks of {other} are due"),
    })
}

/// When which webhook, by receiver and id, was first taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acceptances(BTreeMap<(String, String), FirstAcceptance>);

/// When a webhook was first taken, and how long it may wait for the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FirstAcceptance {
    at: DateTime<Utc>,
    patience: Duration,
}

impl Acceptances {
    /// In a run that is over.
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

    /// What came later than one fault_case explains. That everything was taken which had to be is
    /// judged elsewhere.
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

    /// What came later than it should when nothing goes wrong.
    pub(crate) fn too_late(&self, scenario: &str) -> Option<String> {
        let last = self.0.values().map(|first| first.at).max().unwrap_or(BEGINNING);
        let after = (last - BEGINNING).to_std().unwrap_or_default();
        (after > due(scenario)).then(|| format!("taken {after:?} after the beginning"))
    }
}

/// Messages that were brought back until they were dead letters: that takes trouble of longer
/// than one fault_case.
pub(crate) fn dead_letters(bundle: &Bundle) -> Option<String> {
    let sources = [Source::Deliveries, Source::SlowDeliveries, Source::Wakes];
    let deaths: usize = sources.iter().map(|source| source.queue(bundle).deaths()).sum();
    (deaths > 0)
        .then(|| format!("{}: {deaths} messages are dead letters", Invariant::EveryJobSettles))
}
