//! Scenarios: how long a render takes, how it ends, and its faults.
//!
//! A scenario belongs to a tag and applies to every render whose submitted body contains the tag.
//! Tests that share a simulator do not meet as long as their tags differ. The scenario is read at
//! submit; later changes do not affect existing renders.

mod values;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

pub(crate) use values::{
    AcceptedStatus, CallbackContentType, CallbackShape, HeaderText, Percent, ResultShape, Status,
    SubmitAnswerTime,
};

/// The most scenarios; the oldest is dropped first.
const MAX_SCENARIOS: usize = 2_000;

/// The options that only some providers have.
pub(crate) const PROVIDER_OPTIONS: [&str; 9] = [
    "resultShape",
    "callbackShape",
    "callbackContentType",
    "timeoutAfterMs",
    "progressCallbacks",
    "lateProgressMs",
    "acceptedStatus",
    "storedAfterPolls",
    "callbackSigned",
];

/// The options. All are optional in JSON. Unknown ones are refused, so that a misspelt option
/// fails its test.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Scenario {
    /// From the submit to the end, the queue included.
    pub(crate) duration_ms: u32,
    /// From the submit to the begin of the work.
    pub(crate) queued_ms: u32,
    /// The text of the failure. `None`: the render succeeds.
    pub(crate) fail_with: Option<String>,
    /// The progress at which the render stays until it is ended.
    pub(crate) freeze_progress: Option<Percent>,
    /// Ends a frozen render after this many status calls.
    pub(crate) ends_after_polls: Option<u32>,
    pub(crate) result_url: Option<String>,
    /// Zvid only: it is known to send both shapes.
    pub(crate) result_shape: ResultShape,
    /// JSON2Video only: the age at which the status becomes `timeout`. The render ends as it would
    /// have.
    pub(crate) timeout_after_ms: Option<u32>,
    /// RenderIO only: the number of status answers before the result has a URL.
    pub(crate) stored_after_polls: u32,

    /// RenderIO only: the status of the answer to a valid submit.
    pub(crate) accepted_status: AcceptedStatus,

    /// Answers submits with this status and makes no render.
    pub(crate) submit_status: Option<Status>,
    /// The number of submits that are refused. `None`: all.
    pub(crate) submit_status_times: Option<u32>,
    /// The body of a refusal. `None`: the provider's own.
    pub(crate) submit_body: Option<Value>,
    /// Answers submits with this status although their render is made.
    pub(crate) submit_hidden_by: Option<Status>,
    /// When a submit is answered. Its render exists meanwhile.
    pub(crate) submit_answer: SubmitAnswerTime,
    /// An additional delay of the answer.
    pub(crate) submit_delay_ms: u32,

    /// The delay of the answer to a status call.
    pub(crate) status_delay_ms: u32,
    /// Answers status calls with this status.
    pub(crate) status_code: Option<Status>,
    /// The number of status calls that fail for each render. `None`: all.
    pub(crate) status_code_times: Option<u32>,
    /// `Retry-After` in answers that `submit_status` and `status_code` cause.
    pub(crate) retry_after: Option<HeaderText>,

    pub(crate) callback: CallbackPlan,
    /// The wait before the first repeat of a callback. The provider's waits are scaled so that the
    /// first becomes this.
    pub(crate) callback_retry_ms: u32,
    /// How long the provider waits for the answer to a callback. `None`: the provider's own
    /// timeout, which a busy machine may miss.
    pub(crate) callback_answer_within_ms: Option<u32>,
    /// JSON2Video only: it documents three shapes.
    pub(crate) callback_shape: CallbackShape,
    /// JSON2Video only.
    pub(crate) callback_content_type: CallbackContentType,
    /// ViralSync only: the number of progress callbacks, spread over the work.
    pub(crate) progress_callbacks: u32,
    /// ViralSync only: one more progress callback, this long after the final one.
    pub(crate) late_progress_ms: Option<u32>,
    /// RenderIO only: `false` sends unsigned callbacks despite a secret. It is not documented
    /// whether callbacks to the URL of a command are signed.
    pub(crate) callback_signed: bool,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            duration_ms: 3_000,
            queued_ms: 500,
            fail_with: None,
            freeze_progress: None,
            ends_after_polls: None,
            result_url: None,
            result_shape: ResultShape::Url,
            timeout_after_ms: None,
            stored_after_polls: 0,
            accepted_status: AcceptedStatus::OK,
            submit_status: None,
            submit_status_times: None,
            submit_body: None,
            submit_hidden_by: None,
            submit_answer: SubmitAnswerTime::AtOnce,
            submit_delay_ms: 0,
            status_delay_ms: 0,
            status_code: None,
            status_code_times: None,
            retry_after: None,
            callback: CallbackPlan::default(),
            callback_retry_ms: 500,
            callback_answer_within_ms: None,
            callback_shape: CallbackShape::FlatStrings,
            callback_content_type: CallbackContentType::Json,
            progress_callbacks: 2,
            late_progress_ms: None,
            callback_signed: true,
        }
    }
}

/// The callbacks that a finished render sends.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct CallbackPlan {
    /// The copies that are sent together.
    pub(crate) times: u32,
    /// The delay after the end of the render.
    pub(crate) delay_ms: u32,
    /// Whether the callback is lost.
    pub(crate) skip: bool,
    /// The delay of one more copy.
    pub(crate) late_ms: Option<u32>,
    /// The status that the callback reports instead of the true one.
    pub(crate) status_override: Option<String>,
}

impl Default for CallbackPlan {
    fn default() -> Self {
        Self { times: 1, delay_ms: 0, skip: false, late_ms: None, status_override: None }
    }
}

impl CallbackPlan {
    /// The delay of each copy after its cause. Empty when the callback is lost.
    pub(crate) fn copies(&self) -> Vec<Duration> {
        /// A limit above the needs of any test.
        const MAX_COPIES: u32 = 100;

        if self.skip {
            return Vec::new();
        }
        let first = Duration::from_millis(self.delay_ms.into());
        let late = self.late_ms.map(|ms| first + Duration::from_millis(ms.into()));
        (0..self.times.min(MAX_COPIES)).map(|_| first).chain(late).collect()
    }
}

/// The scenario of a submit, and how it is answered.
pub(crate) struct SubmitPlan {
    pub(crate) scenario: Arc<Scenario>,
    /// The status of a refusal.
    pub(crate) refusal: Option<StatusCode>,
}

#[derive(Debug)]
struct ScenarioEntry {
    provider: &'static str,
    tag: String,
    scenario: Arc<Scenario>,
    refusals: u32,
}

/// All scenarios, the newest last.
#[derive(Debug, Default)]
pub(crate) struct Scenarios {
    entries: VecDeque<ScenarioEntry>,
}

impl Scenarios {
    /// Sets or replaces the scenario of a tag, and resets its counts.
    pub(crate) fn put(&mut self, provider: &'static str, tag: String, scenario: Scenario) {
        self.entries.retain(|entry| entry.provider != provider || entry.tag != tag);
        if self.entries.len() >= MAX_SCENARIOS {
            self.entries.pop_front();
        }
        let scenario = Arc::new(scenario);
        self.entries.push_back(ScenarioEntry { provider, tag, scenario, refusals: 0 });
    }

    /// The plan for a submit: that of the newest scenario whose tag is in the body, or the
    /// defaults. Counts a planned refusal.
    pub(crate) fn plan(&mut self, provider: &str, body: &str) -> SubmitPlan {
        let found = self
            .entries
            .iter_mut()
            .rev()
            .find(|entry| entry.provider == provider && body.contains(&entry.tag));
        let Some(entry) = found else {
            return SubmitPlan { scenario: Arc::default(), refusal: None };
        };
        let scenario = Arc::clone(&entry.scenario);
        let used_up = scenario.submit_status_times.is_some_and(|times| entry.refusals >= times);
        let refusal = scenario.submit_status.filter(|_| !used_up).map(Status::get);
        if refusal.is_some() {
            entry.refusals += 1;
        }
        SubmitPlan { scenario, refusal }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(json: &str) -> Scenario {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn unknown_option_is_refused() {
        for wrong in [
            r#"{"durationMS":1}"#,
            r#"{"callback":{"time":1}}"#,
            r#"{"freezeProgress":1.1}"#,
            r#"{"statusCode":100}"#,
            r#"{"retryAfter":"1\n"}"#,
        ] {
            assert!(serde_json::from_str::<Scenario>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn newest_tag_in_body_decides() {
        let mut scenarios = Scenarios::default();
        scenarios.put("zvid", "product".to_owned(), scenario(r#"{"durationMs":1}"#));
        scenarios.put("zvid", "product-7".to_owned(), scenario(r#"{"durationMs":2}"#));
        scenarios.put("shotstack", "product-7".to_owned(), scenario(r#"{"durationMs":3}"#));

        let mut duration = |provider, body| scenarios.plan(provider, body).scenario.duration_ms;
        assert_eq!(duration("zvid", r#"{"name":"product-7"}"#), 2);
        assert_eq!(duration("zvid", r#"{"name":"product-8"}"#), 1);
        assert_eq!(duration("shotstack", r#"{"name":"product-7"}"#), 3);
        assert_eq!(duration("shotstack", r#"{"name":"product-8"}"#), 3_000);
    }

    #[test]
    fn refusals_run_out() {
        let mut scenarios = Scenarios::default();
        let twice = scenario(r#"{"submitStatus":503,"submitStatusTimes":2}"#);
        scenarios.put("zvid", "m".to_owned(), twice);
        let refusals: Vec<_> =
            (0..3).map(|_| scenarios.plan("zvid", "m").refusal.map(|s| s.as_u16())).collect();
        assert_eq!(refusals, [Some(503), Some(503), None]);
    }

    #[test]
    fn callbacks_follow_their_plan() {
        let leave = |json| -> Vec<u128> {
            scenario(json).callback.copies().iter().map(Duration::as_millis).collect()
        };
        assert_eq!(leave(r#"{}"#), [0]);
        assert_eq!(leave(r#"{"callback":{"times":2,"delayMs":5}}"#), [5, 5]);
        assert_eq!(leave(r#"{"callback":{"delayMs":3,"lateMs":7}}"#), [3, 10]);
        assert_eq!(leave(r#"{"callback":{"skip":true,"lateMs":7}}"#), [0u128; 0]);
    }
}
