//! Checks that secrets do not appear where they must not.

use domain::credential::CallbackSecret;
use domain::id::ProviderName;

use crate::harness::bundle::Bundle;
use crate::harness::event_sources::Source;

impl Bundle {
    /// Looks for keys, secrets and callback tokens in the table, events, messages, webhooks and
    /// logs. Only a render's own provider may see its token.
    pub(crate) fn check_secrets(&self) {
        self.keep_tokens_secret();
        for item in self.aws.table().items() {
            self.checker.find_secrets(&item.to_string(), "the table");
        }
        for event in self.aws.events() {
            self.checker.find_secrets(&event.detail, "an event");
        }
        for source in [Source::Deliveries, Source::SlowDeliveries, Source::Wakes] {
            for message in source.queue(self).sent() {
                self.checker.find_secrets(&message.body, "a message");
            }
        }
        for webhook in self.receivers.received() {
            self.checker.find_secrets(&webhook.body, "a webhook");
        }
        self.checker.read_logs();
    }

    fn keep_tokens_secret(&self) {
        let Some(secret) = self.aws.parameter("callback-secret") else { return };
        self.checker.keep_secret(&secret);
        let secret = CallbackSecret::parse(&secret).unwrap();
        for answered in self.answered_requests.lock().unwrap().iter() {
            if let Ok(job) = &answered.job {
                let provider = ProviderName::parse(answered.request.provider.name()).unwrap();
                self.checker.keep_secret(&secret.token(&provider, job));
            }
        }
    }
}
