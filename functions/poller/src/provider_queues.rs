//! Which due job may be polled now. Jobs that are due wait in one queue per provider, so that a
//! provider that is slow, down or rate limited does not delay the jobs of another.

use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, Utc};
use domain::id::{JobId, ProviderName};
use domain::polling::{Pause, PollResult, ProviderThrottle, Slowdown, ThrottleDecision};

use crate::plan::{PollTarget, Task};
use crate::poll_queue::Due;

/// The most polls in flight, all providers together: far below the thousand sockets that a
/// function may open.
const MAX_CONCURRENT: usize = 256;

/// The most polls in flight to one provider, so that one that hangs leaves room for the others.
const MAX_CONCURRENT_PER_PROVIDER: usize = 128;

/// The share of a provider's budget that regular polls may take; the rest absorbs bursts.
const PLANNED_SHARE: f64 = 0.8;

/// The due jobs of one shard.
#[derive(Debug)]
pub(crate) struct ProviderQueues {
    /// The shard's share of each provider's budget, in requests a second.
    budgets: BTreeMap<ProviderName, f64>,
    queues: Vec<ProviderQueue>,
    /// Repairs, which ask no provider and wait for none.
    repairs: VecDeque<JobId>,
    in_flight: usize,
    /// The queue that is tried first, so that providers take turns.
    next_queue: usize,
}

#[derive(Debug)]
struct ProviderQueue {
    provider: ProviderName,
    throttle: ProviderThrottle,
    waiting: VecDeque<JobId>,
    /// Jobs so far past their deadline that they are given up even if the provider is paused.
    past_outage_limit: VecDeque<JobId>,
    /// When the throttle lets the next job through, if it has refused one.
    not_before: Option<DateTime<Utc>>,
    in_flight: usize,
    slowdown: Slowdown,
}

/// A job that is polled now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dispatch {
    pub(crate) id: JobId,
    /// The queue of the provider that is asked; none if none is asked.
    pub(crate) queue: Option<usize>,
    pub(crate) target: PollTarget,
}

impl ProviderQueues {
    /// Empty queues that go on from what the lease and the continuation call have kept: pauses
    /// of providers, and consecutive failures of providers that are not paused.
    pub(crate) fn new(
        budgets: BTreeMap<ProviderName, f64>,
        pauses: &BTreeMap<ProviderName, Pause>,
        failures: &BTreeMap<ProviderName, u32>,
        now: DateTime<Utc>,
    ) -> Self {
        let budget = |provider| budgets.get(provider).copied();
        let paused = pauses.iter().map(|(provider, pause)| {
            ProviderQueue::new(
                provider.clone(),
                ProviderThrottle::with_pause(budget(provider), *pause, now),
            )
        });
        let failed = failures.iter().filter(|(provider, _)| !pauses.contains_key(*provider));
        let failed = failed.map(|(provider, failures)| {
            ProviderQueue::new(
                provider.clone(),
                ProviderThrottle::with_failures(budget(provider), *failures, now),
            )
        });
        let queues = paused.chain(failed).collect();
        Self { budgets, queues, repairs: VecDeque::new(), in_flight: 0, next_queue: 0 }
    }

    pub(crate) fn push(&mut self, due: Due, now: DateTime<Utc>) {
        match due.task {
            Task::Repair => self.repairs.push_back(due.id),
            Task::Poll => {
                self.with_queue(&due.provider, now, |queue| queue.waiting.push_back(due.id));
            }
            Task::GiveUp => {
                self.with_queue(&due.provider, now, |queue| {
                    queue.past_outage_limit.push_back(due.id);
                });
            }
        }
    }

    /// The next job that may be polled. Repairs go first, then providers take turns.
    pub(crate) fn dispatch(&mut self, now: DateTime<Utc>) -> Option<Dispatch> {
        if self.in_flight >= MAX_CONCURRENT {
            return None;
        }
        if let Some(id) = self.repairs.pop_front() {
            self.in_flight += 1;
            return Some(Dispatch { id, queue: None, target: PollTarget::Repair });
        }
        for offset in 0..self.queues.len() {
            let at = (self.next_queue + offset) % self.queues.len();
            let Some(queue) = self.queues.get_mut(at) else { continue };
            if let Some((id, target)) = queue.dispatch(now) {
                self.in_flight += 1;
                self.next_queue = at + 1;
                let queue = match target {
                    PollTarget::Provider { .. } => Some(at),
                    PollTarget::NoProvider | PollTarget::Repair => None,
                };
                return Some(Dispatch { id, queue, target });
            }
        }
        None
    }

    /// Takes the result of a poll that is no longer in flight.
    pub(crate) fn finish(&mut self, queue: Option<usize>, result: PollResult, now: DateTime<Utc>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(queue) = queue.and_then(|at| self.queues.get_mut(at)) {
            queue.in_flight = queue.in_flight.saturating_sub(1);
            queue.throttle.record(result, now);
        }
    }

    /// When the next waiting job may be polled, as far as the throttles know.
    pub(crate) fn next_at(&self) -> Option<DateTime<Utc>> {
        let waiting = self.queues.iter().filter(|queue| !queue.is_empty());
        waiting.filter_map(|queue| queue.not_before).min()
    }

    /// The jobs that wait for a provider's budget, and not for a pause to end. Only this process
    /// knows which jobs still wait, so the poller stays awake while there are any.
    pub(crate) fn backlog(&self) -> impl Iterator<Item = &JobId> {
        let queues = self.queues.iter().filter(|queue| queue.throttle.pause().is_none());
        queues.flat_map(|queue| queue.past_outage_limit.iter().chain(&queue.waiting))
    }

    /// The paused providers, for the lease.
    pub(crate) fn pauses(&self) -> BTreeMap<ProviderName, Pause> {
        let queues = self.queues.iter();
        queues.filter_map(|queue| Some((queue.provider.clone(), queue.throttle.pause()?))).collect()
    }

    /// Consecutive failures of providers that are not paused, for the continuation call.
    pub(crate) fn failures(&self) -> BTreeMap<ProviderName, u32> {
        let failed = self
            .queues
            .iter()
            .filter(|it| it.throttle.failures() > 0 && it.throttle.pause().is_none());
        failed.map(|queue| (queue.provider.clone(), queue.throttle.failures())).collect()
    }

    pub(crate) fn slowdown(&self, provider: &ProviderName) -> Slowdown {
        self.find(provider).map_or(Slowdown::NONE, |queue| queue.slowdown)
    }

    /// Slows each provider's polls down as far as its budget needs, and answers the slowdowns
    /// that have changed. `demand` is the requests a second that a provider's jobs would make.
    pub(crate) fn fit(
        &mut self,
        demand: impl Fn(&ProviderName) -> f64,
        now: DateTime<Utc>,
    ) -> Vec<(ProviderName, Slowdown)> {
        let mut changed = Vec::new();
        for (name, budget) in self.budgets.clone() {
            let slowdown = Slowdown::to_fit(demand(&name), PLANNED_SHARE * budget);
            if slowdown != self.slowdown(&name) {
                self.with_queue(&name, now, |queue| queue.slowdown = slowdown);
                changed.push((name, slowdown));
            }
        }
        changed
    }

    fn find(&self, provider: &ProviderName) -> Option<&ProviderQueue> {
        self.queues.iter().find(|queue| queue.provider == *provider)
    }

    fn with_queue(
        &mut self,
        provider: &ProviderName,
        now: DateTime<Utc>,
        act: impl FnOnce(&mut ProviderQueue),
    ) {
        if let Some(queue) = self.queues.iter_mut().find(|queue| queue.provider == *provider) {
            return act(queue);
        }
        let budget = self.budgets.get(provider).copied();
        let mut queue = ProviderQueue::new(provider.clone(), ProviderThrottle::new(budget, now));
        act(&mut queue);
        self.queues.push(queue);
    }
}

impl ProviderQueue {
    fn new(provider: ProviderName, throttle: ProviderThrottle) -> Self {
        Self {
            provider,
            throttle,
            waiting: VecDeque::new(),
            past_outage_limit: VecDeque::new(),
            not_before: None,
            in_flight: 0,
            slowdown: Slowdown::NONE,
        }
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.past_outage_limit.is_empty()
    }

    fn dispatch(&mut self, now: DateTime<Utc>) -> Option<(JobId, PollTarget)> {
        if self.is_empty() || self.in_flight >= MAX_CONCURRENT_PER_PROVIDER {
            return None;
        }
        self.not_before = None;
        match self.throttle.admit(now) {
            ThrottleDecision::Now => {
                let id = self.past_outage_limit.pop_front().or_else(|| self.waiting.pop_front())?;
                self.in_flight += 1;
                Some((id, PollTarget::Provider { is_down: self.throttle.is_down() }))
            }
            ThrottleDecision::NotBefore(then) => {
                self.not_before = Some(then);
                self.dispatch_past_deadline()
            }
            ThrottleDecision::AfterProbe => self.dispatch_past_deadline(),
        }
    }

    /// While the provider is paused, only jobs that are given up without it go through.
    fn dispatch_past_deadline(&mut self) -> Option<(JobId, PollTarget)> {
        self.throttle.pause()?;
        Some((self.past_outage_limit.pop_front()?, PollTarget::NoProvider))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fixtures::start;

    fn zvid() -> ProviderName {
        ProviderName::parse("zvid").unwrap()
    }

    fn due(number: u8, task: Task) -> Due {
        Due { id: JobId::from_bytes([number; 16]), provider: zvid(), task }
    }

    fn queues(pauses: &BTreeMap<ProviderName, Pause>) -> ProviderQueues {
        ProviderQueues::new(BTreeMap::new(), pauses, &BTreeMap::new(), start())
    }

    #[test]
    fn pause_does_not_delay_giving_up() {
        let until = start() + Duration::from_secs(40);
        let pause = Pause { since: start(), until, failures: 5 };
        let mut queues = queues(&BTreeMap::from([(zvid(), pause)]));
        queues.push(due(1, Task::Poll), start());
        queues.push(due(2, Task::GiveUp), start());
        let id = JobId::from_bytes([2; 16]);
        assert_eq!(
            queues.dispatch(start()),
            Some(Dispatch { id, queue: None, target: PollTarget::NoProvider })
        );
        assert_eq!(queues.dispatch(start()), None, "the other one waits");
    }

    #[test]
    fn late_jobs_leave_room_for_others() {
        let mut queues = queues(&BTreeMap::new());
        for number in 0..200 {
            queues.push(due(number, Task::GiveUp), start());
        }
        let dispatches: Vec<Dispatch> = std::iter::from_fn(|| queues.dispatch(start())).collect();
        assert_eq!(dispatches.len(), MAX_CONCURRENT_PER_PROVIDER);
        let target = PollTarget::Provider { is_down: false };
        assert!(dispatches.iter().all(|it| it.queue == Some(0) && it.target == target));
    }
}
