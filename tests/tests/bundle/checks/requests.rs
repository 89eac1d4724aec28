//! The outcome of a request, compared with what the provider and the caller saw.

use std::sync::Arc;

use aws_in_memory::clock;
use domain::failure::FailureCode;
use domain::id::JobId;
use domain::job::{Job, State};
use serde_json::Value;
use shared::store::{Inserted, StoredPayload};
use tests::SimulatedProvider;

use crate::checks::invariant::Invariant;
use crate::faults::fault::Fault;
use crate::harness::backend::{AnsweredRequest, CallerRequest, ExpectedAnswer};
use crate::harness::bundle::Bundle;
use crate::harness::functions::Function;
use crate::harness::invocation::{Invocation, ObservedFault};
use crate::harness::renders::ProviderRender;

/// The code for a provider that was certainly not asked.
const NOT_ASKED: FailureCode = FailureCode::ProviderUnreachable;

impl Bundle {
    /// Checks one request.
    pub(crate) async fn check_request(
        &self,
        answered: &AnsweredRequest,
        renders: &[ProviderRender],
    ) {
        let request = &answered.request;
        let tag = &request.tag;
        let submits = self.submitted.lock().unwrap().clone();
        let asked = submits.iter().filter(|body| body.contains(tag)).count();
        let made: Vec<&ProviderRender> =
            renders.iter().filter(|it| it.body.contains(tag)).collect();
        if request.key.is_some() && (asked > 1 || made.len() > 1) {
            self.checker.violated(
                Invariant::OneRenderPerRequest,
                format!(
                    "request {tag} was submitted {asked} times and rendered {} times",
                    made.len()
                ),
            );
        }
        self.check_answer(answered, asked);
        let Some(id) = self.job_of(answered) else { return };
        let Some(job) = self.aws.store().job(&id).await.unwrap() else {
            self.checker.violated(Invariant::EveryJobSettles, format!("the job of {tag} is gone"));
            return;
        };
        self.check_end(request, &job, asked, &made);
        self.check_payload(request, &job).await;
        self.check_events(request, &job, &made).await;
    }

    /// Checks that the caller's answer is true. A caller whose answer says that the provider was
    /// not asked requests the render again, so that must never be wrong.
    fn check_answer(&self, answered: &AnsweredRequest, asked: usize) {
        let AnsweredRequest { request, job } = answered;
        let submits = self.submits_of(request);
        let is_explained = match (job, request.expected) {
            (Ok(_), ExpectedAnswer::Accepted) => {
                asked > 0 || submits.iter().any(|it| it.may_miss_provider(request))
            }
            // The refusal was lost, or could not be stored.
            (Ok(_), ExpectedAnswer::Refused(_)) => {
                submits.iter().any(|it| !it.observed_faults().is_empty())
            }
            (Err(refusal), ExpectedAnswer::Refused(code)) if refusal.code == code => asked > 0,
            (Err(refusal), ExpectedAnswer::Accepted | ExpectedAnswer::Refused(_)) => {
                let was_away = submits.iter().any(|it| it.could_not_reach(request));
                refusal.code == NOT_ASKED.name() && asked == 0 && was_away
            }
        };
        if !is_explained {
            let (tag, expected) = (&request.tag, request.expected);
            self.checker.violated(
                Invariant::OneRenderPerRequest,
                format!(
                    "request {tag}, expected as {expected:?}, reached its provider {asked} times, \
                 and is answered {job:?}"
                ),
            );
        }
    }

    /// Checks that a job ended as its render did.
    fn check_end(
        &self,
        request: &CallerRequest,
        job: &Job,
        asked: usize,
        made: &[&ProviderRender],
    ) {
        let code = job.failure.as_ref().map(|failure| failure.code);
        let is_right = match made.last() {
            Some(render) => {
                let failed = (job.state == State::Failed).then_some(FailureCode::RenderFailed);
                render.end() == Some(job.state) && code == failed
                    || code == Some(FailureCode::SubmitUnknown) && self.end_was_unknowable(render)
            }
            None => job.state == State::Failed && may_fail_with(request, asked, code),
        };
        if !is_right {
            let states: Vec<&str> = made.iter().map(|render| render.state.as_str()).collect();
            self.checker.violated(
                Invariant::OneTerminalTruth,
                format!(
                    "{} reached {} {asked} times, is {} ({:?}) and its render {states:?}",
                    request.tag,
                    job.request.provider,
                    job.state.name(),
                    job.failure
                ),
            );
        }
    }

    /// Whether only callbacks can report the end of a render, and all of them were lost. Without
    /// faults they arrive.
    fn end_was_unknowable(&self, render: &ProviderRender) -> bool {
        let mut receiving =
            self.invocations().into_iter().filter(|it| it.function == Function::Webhook);
        let is_hard =
            self.has_random_faults() || receiving.any(|it| !it.observed_faults().is_empty());
        is_hard
            && render.provider == SimulatedProvider::Shotstack.name()
            && !render.callback_was_answered()
    }

    /// Checks that the job's payload is stored.
    async fn check_payload(&self, request: &CallerRequest, job: &Job) {
        // An insert never overwrites, and returns what is stored.
        let store = self.aws.store();
        let other = store.new_record(JobId::from_bytes([0; 16]), [0; 32], clock::true_now());
        let empty = StoredPayload::compress(b"").unwrap();
        let found = store.insert_record(&job.request.record, &other, &empty).await.unwrap();
        let (owner, kept) = match found {
            Inserted::Exists(found) => (Some(found.record.job_id), found.payload.body().unwrap()),
            Inserted::New => (None, Vec::new()),
        };
        if owner.as_ref() != Some(&job.id) {
            self.checker.violated(
                Invariant::OneRenderPerRequest,
                format!("the record of {} names {owner:?}", request.tag),
            );
        }
        if serde_json::from_slice::<Value>(&kept).ok().as_ref() != Some(&request.body) {
            let kept = String::from_utf8_lossy(&kept);
            self.checker.violated(
                Invariant::StoredBeforeAnswered,
                format!("the request of {} is stored as {kept:?}", request.tag),
            );
        }
    }

    /// The invocations that received a request.
    fn submits_of(&self, request: &CallerRequest) -> Vec<Arc<Invocation>> {
        let body = request.body.to_string();
        let invocations = self.invocations().into_iter();
        invocations.filter(|it| it.function == Function::Submit && it.request == body).collect()
    }
}

impl Invocation {
    /// Whether an accepted request may not have reached its provider: the invocation died, its
    /// request was lost, or it did not see that the job was stored.
    fn may_miss_provider(&self, request: &CallerRequest) -> bool {
        let host = host(request);
        self.observed_faults().iter().any(|(to, observed)| match observed {
            ObservedFault::Died => true,
            ObservedFault::Unreachable | ObservedFault::AtCall(Fault::Lost) => *to == host,
            ObservedFault::AtCall(fault) => to == "dynamodb" && *fault == Fault::Unanswered,
        })
    }

    fn could_not_reach(&self, request: &CallerRequest) -> bool {
        self.observed_faults().contains(&(host(request), ObservedFault::Unreachable))
    }
}

fn host(request: &CallerRequest) -> String {
    format!("{}.test", request.provider.name())
}

/// Whether a job without a render may have failed with a code.
fn may_fail_with(request: &CallerRequest, asked: usize, code: Option<FailureCode>) -> bool {
    let Some(code) = code else { return false };
    match request.expected {
        // The provider's answer may have been lost.
        _ if code == FailureCode::SubmitUnknown => true,
        _ if asked == 0 => code == NOT_ASKED,
        ExpectedAnswer::Refused(refusal) => code.name() == refusal,
        ExpectedAnswer::Accepted => false,
    }
}
