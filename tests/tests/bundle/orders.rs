//! What became of an order, by what its provider and its caller were told.

use std::sync::Arc;

use domain::failure::FailureCode;
use domain::job::{Job, State};
use serde_json::Value;
use shared::fake::clock;
use shared::store::{Inserted, StoredPayload};
use tests::Provider;

use crate::backend::{Fate, Order, Placed};
use crate::bundle::Bundle;
use crate::functions::Function;
use crate::invocation::{Fault, Harm, Invocation};
use crate::renders::Render;

/// What a caller is told when the provider was certainly not asked.
const NOT_ASKED: FailureCode = FailureCode::ProviderUnreachable;

impl Bundle {
    /// Judges what became of one order.
    pub(crate) async fn judge_order(&self, placed: &Placed, renders: &[Render]) {
        let order = &placed.order;
        let mark = &order.mark;
        let submits = self.submitted.lock().unwrap().clone();
        let asked = submits.iter().filter(|body| body.contains(mark)).count();
        let made: Vec<&Render> = renders.iter().filter(|it| it.body.contains(mark)).collect();
        if order.key.is_some() && (asked > 1 || made.len() > 1) {
            self.watch.violation(format!(
                "invariant 1: order {mark} was submitted {asked} times and rendered {} times",
                made.len()
            ));
        }
        self.judge_answer(placed, asked);
        let Some(id) = placed.job() else { return };
        let Some(job) = self.aws.store().job(&id).await.unwrap() else {
            self.watch.violation(format!("invariant 2: the job of {mark} is gone"));
            return;
        };
        self.judge_end(order, &job, asked, &made);
        self.judge_payload(order, &job).await;
        self.judge_told(order, &job, &made).await;
    }

    /// Whether the caller was told what is so. Nobody may be told that a provider was not
    /// asked when it was: whoever believes that orders once more.
    fn judge_answer(&self, placed: &Placed, asked: usize) {
        let Placed { order, job } = placed;
        let submits = self.submits_of(order);
        let is_explained = match (job, order.fate) {
            (Ok(_), Fate::Taken) => asked > 0 || submits.iter().any(|it| it.may_ask_nobody(order)),
            // The refusal was not heard, or not stored.
            (Ok(_), Fate::Refused(_)) => submits.iter().any(|it| !it.harms().is_empty()),
            (Err(refusal), Fate::Refused(code)) if refusal.code == code => asked > 0,
            (Err(refusal), Fate::Taken | Fate::Refused(_)) => {
                let was_away = submits.iter().any(|it| it.could_not_reach(order));
                refusal.code == NOT_ASKED.name() && asked == 0 && was_away
            }
        };
        if !is_explained {
            let (mark, fate) = (&order.mark, order.fate);
            self.watch.violation(format!(
                "invariant 1: order {mark} is to be {fate:?}, reached its provider {asked} times, \
                 and is answered {job:?}"
            ));
        }
    }

    /// Whether a job ended as its render did.
    fn judge_end(&self, order: &Order, job: &Job, asked: usize, made: &[&Render]) {
        let code = job.failure.as_ref().map(|failure| failure.code);
        let is_right = match made.last() {
            Some(render) => {
                let failed = (job.state == State::Failed).then_some(FailureCode::RenderFailed);
                render.end() == Some(job.state) && code == failed
                    || code == Some(FailureCode::SubmitUnknown) && self.nobody_could_know(render)
            }
            None => job.state == State::Failed && may_fail_with(order, asked, code),
        };
        if !is_right {
            let states: Vec<&str> = made.iter().map(|render| render.state.as_str()).collect();
            self.watch.violation(format!(
                "invariant 2: {} reached {} {asked} times, is {} ({:?}) and its render {states:?}",
                order.mark,
                job.request.provider,
                job.state.name(),
                job.failure
            ));
        }
    }

    /// Whether nobody but a provider's callbacks can tell of a render, and none was heard. When
    /// all goes well they are.
    fn nobody_could_know(&self, render: &Render) -> bool {
        let mut receiving =
            self.invocations().into_iter().filter(|it| it.function == Function::Webhook);
        let is_hard = self.is_stormy() || receiving.any(|it| !it.harms().is_empty());
        is_hard && render.provider == Provider::Shotstack.name() && !render.was_heard()
    }

    /// What a job was made from is kept.
    async fn judge_payload(&self, order: &Order, job: &Job) {
        // It is never stored over what is there, and that is answered.
        let other = StoredPayload::compress(b"", [0; 32]).unwrap();
        let stored = self.aws.store().insert_payload(&job.id, &other, clock::true_now()).await;
        let kept = match stored.unwrap() {
            Inserted::Exists(payload) => payload.body().unwrap(),
            Inserted::New => Vec::new(),
        };
        if serde_json::from_slice::<Value>(&kept).ok().as_ref() != Some(&order.body) {
            let kept = String::from_utf8_lossy(&kept);
            self.watch.violation(format!("invariant 2: {} is kept as {kept:?}", order.mark));
        }
    }

    /// The invocations that were asked to place an order.
    fn submits_of(&self, order: &Order) -> Vec<Arc<Invocation>> {
        let body = order.body.to_string();
        let invocations = self.invocations().into_iter();
        invocations.filter(|it| it.function == Function::Submit && it.request == body).collect()
    }
}

impl Invocation {
    /// Whether an order that it took may not have reached its provider: it died, its request
    /// was lost, or it was never told that the job is stored, and so asked nobody.
    fn may_ask_nobody(&self, order: &Order) -> bool {
        let host = host(order);
        self.harms().iter().any(|(to, harm)| match harm {
            Harm::Died => true,
            Harm::Unreachable | Harm::Befallen(Fault::Lost) => *to == host,
            Harm::Befallen(fault) => to == "dynamodb" && *fault == Fault::Unanswered,
        })
    }

    fn could_not_reach(&self, order: &Order) -> bool {
        self.harms().contains(&(host(order), Harm::Unreachable))
    }
}

/// Where an order's provider is.
fn host(order: &Order) -> String {
    format!("{}.test", order.provider.name())
}

/// Whether a job without a render may have failed with a code.
fn may_fail_with(order: &Order, asked: usize, code: Option<FailureCode>) -> bool {
    let Some(code) = code else { return false };
    match order.fate {
        // Its answer may have been lost.
        _ if code == FailureCode::SubmitUnknown => true,
        _ if asked == 0 => code == NOT_ASKED,
        Fate::Refused(refusal) => code.name() == refusal,
        Fate::Taken => false,
    }
}
