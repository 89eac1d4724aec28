//! What became of an order, by what its provider and its caller were told.

use std::sync::Arc;

use domain::failure::FailureCode;
use domain::job::{Job, State};
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
        self.judge_end(&job, asked, &made);
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
    fn judge_end(&self, job: &Job, asked: usize, made: &[&Render]) {
        let mark = &job.source_record_id;
        let code = job.failure.as_ref().map(|failure| failure.code);
        if code == Some(NOT_ASKED) && asked > 0 {
            self.watch.violation(format!("invariant 1: {mark} was asked for, and is said not to"));
        }
        let complete = made.iter().any(|render| render.is_complete());
        if complete != (job.state == State::Completed) && !nobody_could_know(job) {
            let states: Vec<&str> = made.iter().map(|render| render.state.as_str()).collect();
            self.watch.violation(format!(
                "invariant 2: {mark} of {} is {} ({:?}) and its render {states:?}",
                job.provider,
                job.state.name(),
                job.failure
            ));
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
    /// Whether an order that it took may not have reached its provider: it died, or its
    /// request was lost.
    fn may_ask_nobody(&self, order: &Order) -> bool {
        let lost = [Harm::Befallen(Fault::Lost), Harm::Unreachable];
        let host = host(order);
        self.harms()
            .iter()
            .any(|(to, harm)| *harm == Harm::Died || (*to == host && lost.contains(harm)))
    }

    fn could_not_reach(&self, order: &Order) -> bool {
        self.harms().contains(&(host(order), Harm::Unreachable))
    }
}

/// Where an order's provider is.
fn host(order: &Order) -> String {
    format!("{}.test", order.provider.name())
}

/// Whether the answer to the submit was lost, and so were all callbacks of a provider of whose
/// renders only they tell.
fn nobody_could_know(job: &Job) -> bool {
    let unknown =
        job.failure.as_ref().is_some_and(|failure| failure.code == FailureCode::SubmitUnknown);
    unknown && job.provider.as_str() == Provider::Shotstack.name()
}
