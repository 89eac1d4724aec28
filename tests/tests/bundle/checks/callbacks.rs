//! What must be stored when a callback is accepted.

use aws_in_memory::clock;
use domain::id::ProviderName;
use domain::job::State;
use domain::provider::Catalogue;
use domain::provider::EchoMask;
use domain::provider::spec::webhook::WebhookKind;

use crate::checks::invariant::Invariant;
use crate::checks::invariant_checker::text;
use crate::harness::bundle::Bundle;

impl Bundle {
    /// Checks that the content of an accepted callback is stored, because the provider does not
    /// repeat it.
    pub(crate) fn check_accepted_callback(&self, path: &str, body: &[u8]) {
        let mut parts = path.split('/').skip(3);
        let provider = parts.next().and_then(|name| ProviderName::parse(name).ok());
        let catalogue = Catalogue::load(&self.parameters.adjustments).unwrap();
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
        if ours && !state.has_ended() {
            let state = state.name();
            self.checker.violated(
                Invariant::StoredBeforeAnswered,
                format!("a callback about the end is accepted, but the job is {state}"),
            );
        }
    }
}
