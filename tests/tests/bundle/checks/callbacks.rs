//! What must be stored when a callback is accepted.

use aws_in_memory::clock;
use chrono::TimeDelta;
use domain::id::ProviderName;
use domain::job::State;
use domain::provider::Catalogue;
use domain::provider::EchoMask;
use domain::provider::spec::webhook::WebhookKind;
use domain::time;

use crate::checks::invariant::Invariant;
use crate::checks::invariant_checker::text;
use crate::harness::bundle::Bundle;

/// How long a hint stands for those that follow it, with the time until they are answered.
const HINTS_JOIN: TimeDelta = TimeDelta::seconds(15);

/// How wrong a process's clock may be by a random fault.
const MAX_SKEW: TimeDelta = TimeDelta::seconds(150);

impl Bundle {
    /// Checks that the content of an accepted callback is stored, because the provider does not
    /// repeat it.
    pub(crate) fn check_accepted_callback(&self, path: &str, body: &[u8]) {
        let mut parts = path.split('/').skip(3);
        let provider = parts.next().and_then(|name| ProviderName::parse(name).ok());
        let catalogue = Catalogue::load(&self.parameters().adjustments).unwrap();
        let provider = provider.and_then(|name| catalogue.get(&name)).unwrap();
        let callback =
            provider.spec.read_callback(body, &EchoMask::default(), clock::true_now()).unwrap();
        if callback.kind != WebhookKind::Ended {
            return;
        }
        let job = parts.next().map(str::to_owned).or(callback.job_id.map(|id| id.to_string()));
        let Some(job) = job else { return };
        let Some(job) = self.aws.table().item(&format!("job#{job}"), "job") else { return };
        // A job's own URL or a signed body identifies the job before its render is known.
        let ours = match (callback.render_job_id, text(&job, "render")) {
            (None, _) | (Some(_), "") => true,
            (Some(id), render) => id.as_str() == render,
        };
        let state = State::from_name(text(&job, "state")).unwrap();
        if ours && !state.has_ended() && !self.is_hint_stored(text(&job, "pk")) {
            let state = state.name();
            self.checker.violated(
                Invariant::StoredBeforeAnswered,
                format!("a callback about the end is accepted, but the job is {state}"),
            );
        }
    }

    /// Whether a hint about the job is stored that is so young that it is looked at.
    fn is_hint_stored(&self, job: &str) -> bool {
        let Some(hint) = self.aws.table().item(job, "hint") else { return false };
        let at = hint.pointer("/at/N").and_then(|at| at.as_str()?.parse().ok());
        let at = at.and_then(time::from_millis).unwrap();
        let skew = if self.has_random_faults() { MAX_SKEW } else { TimeDelta::zero() };
        (clock::true_now() - at).abs() < HINTS_JOIN + skew
    }
}
