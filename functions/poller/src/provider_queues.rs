//! Which due job may be polled now. Jobs that are due wait in one queue per provider, so that a
//! provider that is slow, down or rate limited does not delay the jobs of another. Suspects wait
//! apart from the others and have few places, so that they do not delay them either.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use domain::id::{JobId, ProviderName};
use domain::polling::{
    Asked, Errand, Evidence, Pardon, Pause, PollResult, ProviderThrottle, SUSPECTS_SHARE, Slowdown,
    ThrottleDecision,
};

use crate::plan::{PollTarget, Task};
use crate::poll_queue::{Demand, Due};

/// The most polls in flight, all providers together. Of the polls that are slow, four count as
/// one, so that renders whose answers hang leave room for others; the hard limits stay far below
/// the thousand sockets that a function may open.
const MAX_CONCURRENT: usize = 256;
const MAX_SOCKETS: usize = 512;

/// The most polls in flight to one provider, so that one that hangs leaves room for the others.
const MAX_CONCURRENT_PER_PROVIDER: usize = 128;
const MAX_SOCKETS_PER_PROVIDER: usize = 256;

/// The most suspects of a provider in flight.
const MAX_SUSPECTS: usize = 8;

/// After how long a poll is slow.
const SLOW: TimeDelta = TimeDelta::seconds(2);
const SLOW_COUNT_AS_ONE: usize = 4;

/// How late a job is told that its deadline is over when its provider is paused and too many
/// deadlines are over to ask about each.
const LATEST_DEADLINE: TimeDelta = TimeDelta::seconds(50);

/// A pause shorter than that is not told: one answer has shown that it was a mistake.
const ANNOUNCED_AFTER: TimeDelta = TimeDelta::seconds(3);

/// The share of a provider's budget that regular polls may take; the rest absorbs bursts.
const PLANNED_SHARE: f64 = 0.8;

/// What the queues know of a provider before its first poll.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProviderFacts {
    /// The shard's share of its budget, in requests a second.
    pub(crate) budget: Option<f64>,
    /// The version of its spec.
    pub(crate) spec: u64,
}

/// The due jobs of one shard.
#[derive(Debug)]
pub(crate) struct ProviderQueues {
    facts: BTreeMap<ProviderName, ProviderFacts>,
    queues: Vec<ProviderQueue>,
    /// Repairs, which ask no provider and wait for none.
    repairs: VecDeque<JobId>,
    /// What asks no provider and is in flight.
    others_in_flight: usize,
    /// The queue that is tried first, so that providers take turns.
    next_queue: usize,
}

#[derive(Debug)]
struct ProviderQueue {
    provider: ProviderName,
    throttle: ProviderThrottle,
    waiting: BTreeMap<JobId, Waiting>,
    /// Those that are no suspects or were pardoned, in their turn.
    regular: VecDeque<JobId>,
    /// By when they were asked about last.
    suspects: BTreeSet<(DateTime<Utc>, JobId)>,
    /// All that wait, by when they are asked about in any case.
    last_at: BTreeSet<(DateTime<Utc>, JobId)>,
    /// When the throttle lets the next job through, if it has refused one.
    not_before: Option<DateTime<Utc>>,
    /// By when they began.
    in_flight: BTreeSet<(DateTime<Utc>, JobId)>,
    suspects_in_flight: usize,
    slowdown: Slowdown,
    /// The pause that was told in the log, and is in the lease.
    announced: Option<Pause>,
    /// Its pause was over when the poller began.
    was_resumed: bool,
}

#[derive(Debug)]
struct Waiting {
    last_at: DateTime<Utc>,
    suspect_since: Option<DateTime<Utc>>,
    is_pardoned: bool,
    was_told: bool,
}

/// A job that is polled now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dispatch {
    pub(crate) id: JobId,
    /// The queue of the provider that is asked; none if none is asked.
    pub(crate) queue: Option<usize>,
    pub(crate) target: PollTarget,
    pub(crate) began_at: DateTime<Utc>,
    /// It is no suspect.
    pub(crate) is_fresh: bool,
    /// It has the place of a suspect.
    takes_suspects_place: bool,
}

/// A pause that begins or ends.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PauseChange {
    Begins(ProviderName, Pause),
    Ends(ProviderName, Pause),
}

impl ProviderQueues {
    /// Empty queues that go on from the pauses in the lease, but for those that are over.
    pub(crate) fn new(
        facts: BTreeMap<ProviderName, ProviderFacts>,
        pauses: &BTreeMap<ProviderName, Pause>,
        is_over: impl Fn(&ProviderName, &Pause) -> bool,
        now: DateTime<Utc>,
    ) -> Self {
        let queues = pauses.iter().map(|(provider, pause)| {
            let facts = facts.get(provider).cloned().unwrap_or_default();
            let was_resumed = is_over(provider, pause);
            let throttle = match was_resumed {
                true => ProviderThrottle::new(facts.budget, facts.spec, now),
                false => ProviderThrottle::with_pause(facts.budget, *pause, now),
            };
            ProviderQueue {
                announced: Some(*pause),
                was_resumed,
                ..ProviderQueue::new(provider.clone(), throttle)
            }
        });
        let queues = queues.collect();
        Self { facts, queues, repairs: VecDeque::new(), others_in_flight: 0, next_queue: 0 }
    }

    /// Whether the provider's pause was over when the poller began.
    pub(crate) fn was_resumed(&self, provider: &ProviderName) -> bool {
        self.find(provider).is_some_and(|queue| queue.was_resumed)
    }

    /// Takes the evidence that the last holder of the lease had.
    pub(crate) fn restore(
        &mut self,
        provider: &ProviderName,
        id: &JobId,
        evidence: Evidence,
        now: DateTime<Utc>,
    ) {
        self.with_queue(provider, now, |queue| queue.throttle.restore(id, evidence));
    }

    pub(crate) fn push(&mut self, due: Due, now: DateTime<Utc>) {
        match due.task {
            Task::Repair => self.repairs.push_back(due.id),
            Task::Poll | Task::Deadline => {
                let provider = due.provider.clone();
                self.with_queue(&provider, now, |queue| queue.push(due));
            }
        }
    }

    /// The next job that may be polled. Repairs go first, then providers take turns.
    pub(crate) fn dispatch(&mut self, now: DateTime<Utc>) -> Option<Dispatch> {
        if self.is_full(now) {
            return None;
        }
        if let Some(id) = self.repairs.pop_front() {
            self.others_in_flight += 1;
            return Some(Dispatch::without_provider(id, PollTarget::Repair, now));
        }
        for offset in 0..self.queues.len() {
            let at = (self.next_queue + offset) % self.queues.len();
            let Some(queue) = self.queues.get_mut(at) else { continue };
            if let Some(dispatch) = queue.dispatch(at, now) {
                self.others_in_flight += usize::from(dispatch.queue.is_none());
                self.next_queue = at + 1;
                return Some(dispatch);
            }
        }
        None
    }

    fn is_full(&self, now: DateTime<Utc>) -> bool {
        let weights = self.queues.iter().map(|queue| queue.weight(now)).sum::<usize>();
        let sockets = self.queues.iter().map(|queue| queue.in_flight.len()).sum::<usize>();
        weights + self.others_in_flight >= MAX_CONCURRENT
            || sockets + self.others_in_flight >= MAX_SOCKETS
    }

    /// Takes the result of a poll that is no longer in flight. Answers which renders may be asked
    /// about again soon.
    pub(crate) fn finish(
        &mut self,
        dispatch: &Dispatch,
        result: PollResult,
        now: DateTime<Utc>,
    ) -> Pardon {
        let Some(queue) = dispatch.queue.and_then(|at| self.queues.get_mut(at)) else {
            self.others_in_flight = self.others_in_flight.saturating_sub(1);
            return Pardon::default();
        };
        queue.in_flight.remove(&(dispatch.began_at, dispatch.id.clone()));
        queue.suspects_in_flight -= usize::from(dispatch.takes_suspects_place);
        let (id, at, was_fresh) = (&dispatch.id, dispatch.began_at, dispatch.is_fresh);
        queue.throttle.record(Asked { id, at, was_fresh }, result, now)
    }

    /// When the next waiting job may be polled, as far as the throttles know.
    pub(crate) fn next_at(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.queues.iter().filter_map(|queue| queue.next_at(now)).min()
    }

    /// The jobs that wait for a provider's budget, and not for a pause to end. Only this process
    /// knows which jobs still wait, so the poller stays awake while there are any.
    pub(crate) fn backlog(&self) -> impl Iterator<Item = &JobId> {
        let queues = self.queues.iter().filter(|queue| queue.throttle.pause().is_none());
        queues.flat_map(|queue| {
            let waiting = queue.waiting.iter();
            waiting.filter(|(_, it)| !it.waits_as_suspect()).map(|(id, _)| id)
        })
    }

    /// The paused providers, for the lease.
    pub(crate) fn pauses(&self) -> BTreeMap<ProviderName, Pause> {
        let queues = self.queues.iter();
        queues.filter_map(|queue| Some((queue.provider.clone(), queue.throttle.pause()?))).collect()
    }

    /// Those whose pause was announced, as they are now.
    pub(crate) fn announced_pauses(&self) -> BTreeMap<ProviderName, Pause> {
        let queues = self.queues.iter().filter(|queue| queue.announced.is_some());
        queues.filter_map(|queue| Some((queue.provider.clone(), queue.throttle.pause()?))).collect()
    }

    /// The pauses that began or ended since the last call. One that is young is told when it is
    /// `final`ly known, because the poller sleeps, or has lasted.
    pub(crate) fn pause_changes(&mut self, is_final: bool, now: DateTime<Utc>) -> Vec<PauseChange> {
        let mut changes = Vec::new();
        for queue in &mut self.queues {
            let provider = &queue.provider;
            match (queue.announced, queue.throttle.pause()) {
                (None, Some(pause)) if is_final || pause.since + ANNOUNCED_AFTER <= now => {
                    queue.announced = Some(pause);
                    changes.push(PauseChange::Begins(provider.clone(), pause));
                }
                (Some(before), None) => {
                    queue.announced = None;
                    changes.push(PauseChange::Ends(provider.clone(), before));
                }
                (None | Some(_), Some(_)) | (None, None) => {}
            }
        }
        changes
    }

    /// Forgets the evidence of jobs that are not in the shard any more, and the pauses of providers
    /// that have none there.
    pub(crate) fn retain(
        &mut self,
        is_there: impl Fn(&JobId) -> bool,
        has_jobs: impl Fn(&ProviderName) -> bool,
    ) {
        for queue in &mut self.queues {
            match queue.throttle.pause().is_some() && !has_jobs(&queue.provider) {
                true => drop(queue.throttle.resume()),
                false => queue.throttle.retain(&is_there),
            }
        }
    }

    /// The evidence that a job's render gave.
    pub(crate) fn evidence(&self, provider: &ProviderName, id: &JobId) -> Option<Evidence> {
        self.find(provider)?.throttle.evidence(id)
    }

    pub(crate) fn was_last_probe(&self, provider: &ProviderName, id: &JobId) -> bool {
        self.find(provider).is_some_and(|queue| queue.throttle.was_last_probe(id))
    }

    /// The providers whose pause is over and for which no good probe waits.
    pub(crate) fn wanting_probe(&self, now: DateTime<Utc>) -> Vec<ProviderName> {
        let queues = self.queues.iter().filter(|queue| queue.wants_probe(now));
        queues.map(|queue| queue.provider.clone()).collect()
    }

    pub(crate) fn slowdown(&self, provider: &ProviderName) -> Slowdown {
        self.find(provider).map_or(Slowdown::NONE, |queue| queue.slowdown)
    }

    /// Slows each provider's polls down as far as its budget needs, and answers the slowdowns
    /// that have changed. `demand` is the requests a second that a provider's jobs would make.
    pub(crate) fn fit(
        &mut self,
        demand: impl Fn(&ProviderName) -> Demand,
        now: DateTime<Utc>,
    ) -> Vec<(ProviderName, Slowdown)> {
        let budgets = self.facts.iter().filter_map(|(name, it)| Some((name.clone(), it.budget?)));
        let mut changed = Vec::new();
        for (name, budget) in budgets.collect::<Vec<_>>() {
            let Demand { regular, suspects } = demand(&name);
            let demand = regular + suspects.min(SUSPECTS_SHARE * budget);
            let slowdown = Slowdown::to_fit(demand, PLANNED_SHARE * budget);
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
        let facts = self.facts.get(provider).cloned().unwrap_or_default();
        let throttle = ProviderThrottle::new(facts.budget, facts.spec, now);
        let mut queue = ProviderQueue::new(provider.clone(), throttle);
        act(&mut queue);
        self.queues.push(queue);
    }
}

impl Waiting {
    /// It has one of the few places of suspects.
    fn waits_as_suspect(&self) -> bool {
        self.suspect_since.is_some() && !self.is_pardoned
    }
}

impl Dispatch {
    fn without_provider(id: JobId, target: PollTarget, began_at: DateTime<Utc>) -> Self {
        Self { id, queue: None, target, began_at, is_fresh: false, takes_suspects_place: false }
    }
}

impl ProviderQueue {
    fn new(provider: ProviderName, throttle: ProviderThrottle) -> Self {
        Self {
            provider,
            throttle,
            waiting: BTreeMap::new(),
            regular: VecDeque::new(),
            suspects: BTreeSet::new(),
            last_at: BTreeSet::new(),
            not_before: None,
            in_flight: BTreeSet::new(),
            suspects_in_flight: 0,
            slowdown: Slowdown::NONE,
            announced: None,
            was_resumed: false,
        }
    }

    fn push(&mut self, due: Due) {
        let Due { id, last_at, suspect_since, is_pardoned, was_told, .. } = due;
        let waiting = Waiting { last_at, suspect_since, is_pardoned, was_told };
        match suspect_since.filter(|_| waiting.waits_as_suspect()) {
            Some(asked_at) => drop(self.suspects.insert((asked_at, id.clone()))),
            None => self.regular.push_back(id.clone()),
        }
        self.last_at.insert((last_at, id.clone()));
        self.waiting.insert(id, waiting);
    }

    /// How many places its polls in flight take.
    fn weight(&self, now: DateTime<Utc>) -> usize {
        let slow = self.in_flight.iter().take_while(|(began_at, _)| *began_at + SLOW <= now);
        let slow = slow.count();
        self.in_flight.len() - slow + slow / SLOW_COUNT_AS_ONE
    }

    fn next_at(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let waits = self.not_before.filter(|_| !self.waiting.is_empty());
        let last = self.last_at.first().map(|(last_at, _)| *last_at);
        // Then it counts less, and may make room.
        let is_full = self.in_flight.len() >= MAX_CONCURRENT_PER_PROVIDER;
        let slow = self.in_flight.iter().filter(|_| is_full).map(|(began_at, _)| *began_at + SLOW);
        let times = [waits, last, self.throttle.probe_at()].into_iter().flatten();
        times.chain(slow).filter(|then| *then > now).min()
    }

    fn wants_probe(&self, now: DateTime<Utc>) -> bool {
        let is_good = |(_, id): &(DateTime<Utc>, JobId)| {
            self.throttle.evidence(id).is_some() && !self.throttle.was_last_probe(id)
        };
        self.throttle.wants_probe(now) && !self.suspects.iter().any(is_good)
    }

    fn dispatch(&mut self, at: usize, now: DateTime<Utc>) -> Option<Dispatch> {
        if self.waiting.is_empty()
            || self.in_flight.len() >= MAX_SOCKETS_PER_PROVIDER
            || self.weight(now) >= MAX_CONCURRENT_PER_PROVIDER
        {
            return None;
        }
        self.not_before = None;
        self.dispatch_deadline(at, now)
            .or_else(|| self.dispatch_suspect(at, now))
            .or_else(|| self.dispatch_regular(at, now))
    }

    fn dispatch_deadline(&mut self, at: usize, now: DateTime<Utc>) -> Option<Dispatch> {
        let (last_at, id) = self.last_at.first().filter(|(last_at, _)| *last_at <= now).cloned()?;
        if self.admits(Errand::Deadline, &id, now) {
            return self.begin(at, &id, false, now);
        }
        // So many deadlines are over that its turn does not come in time.
        if self.throttle.pause().is_some() && last_at + LATEST_DEADLINE <= now {
            self.take(&id);
            return Some(Dispatch::without_provider(id, PollTarget::NoProvider, now));
        }
        None
    }

    fn dispatch_suspect(&mut self, at: usize, now: DateTime<Utc>) -> Option<Dispatch> {
        if self.suspects_in_flight >= MAX_SUSPECTS {
            return None;
        }
        let id = match self.throttle.pause() {
            // A probe is to be evidence, and another one than the last.
            Some(_) => {
                let rank = |(asked_at, id): &&(DateTime<Utc>, JobId)| {
                    let is_evidence = self.throttle.evidence(id).is_some();
                    (self.throttle.was_last_probe(id), !is_evidence, *asked_at)
                };
                self.suspects.iter().min_by_key(rank)
            }
            None => self.suspects.first(),
        };
        let id = id?.1.clone();
        self.admits(Errand::Suspect, &id, now).then(|| self.begin(at, &id, true, now)).flatten()
    }

    fn dispatch_regular(&mut self, at: usize, now: DateTime<Utc>) -> Option<Dispatch> {
        let was_told = |id: &JobId| self.waiting.get(id).is_some_and(|it| it.was_told);
        let id = match self.throttle.pause() {
            // One that its provider has told of says most about the provider.
            Some(_) => self.regular.iter().find(|id| was_told(id)).or_else(|| self.regular.front()),
            None => self.regular.front(),
        };
        let id = id?.clone();
        self.admits(Errand::Regular, &id, now).then(|| self.begin(at, &id, false, now)).flatten()
    }

    fn admits(&mut self, errand: Errand, id: &JobId, now: DateTime<Utc>) -> bool {
        match self.throttle.admit(errand, id, now) {
            ThrottleDecision::Now => true,
            ThrottleDecision::NotBefore(then) => {
                self.not_before = Some(self.not_before.map_or(then, |before| before.min(then)));
                false
            }
            ThrottleDecision::AfterProbe => false,
        }
    }

    fn begin(
        &mut self,
        at: usize,
        id: &JobId,
        takes_suspects_place: bool,
        now: DateTime<Utc>,
    ) -> Option<Dispatch> {
        let waiting = self.take(id)?;
        self.in_flight.insert((now, id.clone()));
        self.suspects_in_flight += usize::from(takes_suspects_place);
        Some(Dispatch {
            id: id.clone(),
            queue: Some(at),
            target: PollTarget::Provider,
            began_at: now,
            is_fresh: waiting.suspect_since.is_none(),
            takes_suspects_place,
        })
    }

    /// Takes a job out of everything in which it waits.
    fn take(&mut self, id: &JobId) -> Option<Waiting> {
        let waiting = self.waiting.remove(id)?;
        self.last_at.remove(&(waiting.last_at, id.clone()));
        match waiting.suspect_since.filter(|_| waiting.waits_as_suspect()) {
            Some(asked_at) => drop(self.suspects.remove(&(asked_at, id.clone()))),
            None if self.regular.front() == Some(id) => drop(self.regular.pop_front()),
            None => self.regular.retain(|it| it != id),
        }
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use domain::polling::{PauseReason, Trouble};

    use super::*;
    use crate::fixtures::{pause, start};

    fn zvid() -> ProviderName {
        ProviderName::parse("zvid").unwrap()
    }

    fn due(number: u8, task: Task) -> Due {
        Due {
            id: JobId::from_bytes([number; 16]),
            provider: zvid(),
            task,
            last_at: if task == Task::Deadline { start() } else { after(1_800) },
            suspect_since: None,
            is_pardoned: false,
            was_told: false,
        }
    }

    fn suspect(number: u8) -> Due {
        Due { suspect_since: Some(start()), ..due(number, Task::Poll) }
    }

    fn after(seconds: u64) -> DateTime<Utc> {
        start() + Duration::from_secs(seconds)
    }

    fn queues(pauses: &BTreeMap<ProviderName, Pause>) -> ProviderQueues {
        ProviderQueues::new(BTreeMap::new(), pauses, |_, _| false, start())
    }

    fn paused() -> ProviderQueues {
        queues(&BTreeMap::from([(zvid(), pause(start(), after(40)))]))
    }

    fn all(queues: &mut ProviderQueues, now: DateTime<Utc>) -> Vec<Dispatch> {
        std::iter::from_fn(|| queues.dispatch(now)).collect()
    }

    fn numbers(dispatches: &[Dispatch]) -> Vec<JobId> {
        dispatches.iter().map(|it| it.id.clone()).collect()
    }

    fn ids(numbers: impl IntoIterator<Item = u8>) -> Vec<JobId> {
        numbers.into_iter().map(|number| JobId::from_bytes([number; 16])).collect()
    }

    #[test]
    fn pause_lets_deadlines_and_one_other_through() {
        let mut queues = paused();
        queues.push(due(1, Task::Poll), start());
        queues.push(due(2, Task::Poll), start());
        queues.push(due(3, Task::Deadline), start());
        queues.push(suspect(4), start());
        assert_eq!(numbers(&all(&mut queues, start())), ids([3, 1]));
        assert_eq!(queues.next_at(start()), Some(after(1)));
        assert_eq!(numbers(&all(&mut queues, after(1))), ids([2]));
        assert_eq!(all(&mut queues, after(39)), [], "the suspect waits for the pause to end");
        assert_eq!(numbers(&all(&mut queues, after(40))), ids([4]));
    }

    #[test]
    fn waiting_suspect_is_asked_at_its_deadline() {
        let mut queues = paused();
        queues.push(Due { last_at: after(7), ..suspect(1) }, start());
        assert_eq!(all(&mut queues, after(6)), []);
        assert_eq!(queues.next_at(after(6)), Some(after(7)));
        assert_eq!(numbers(&all(&mut queues, after(7))), ids([1]));
    }

    #[test]
    fn probes_take_turns() {
        let mut queues = paused();
        let trouble =
            Trouble { reason: PauseReason::ServerError, status: Some(500), retry_after: None };
        let mut probed = Vec::new();
        let mut now = after(40);
        let mut asked_at = [start(); 3];
        for _ in 0..6 {
            for number in 0..3 {
                let asked = Some(asked_at[usize::from(number)]);
                queues.push(Due { suspect_since: asked, ..suspect(number) }, now);
            }
            let dispatches = all(&mut queues, now);
            assert_eq!(dispatches.len(), 1);
            let number = (0..3).find(|it| ids([*it]) == [dispatches[0].id.clone()]).unwrap();
            asked_at[usize::from(number)] = now;
            probed.push(number);
            queues.finish(&dispatches[0], PollResult::NotTold(trouble), now);
            // All are handed out anew.
            for queue in &mut queues.queues {
                for id in ids(0..3) {
                    queue.take(&id);
                }
            }
            now = queues.pauses()[&zvid()].until;
        }
        assert_eq!(probed, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn suspects_have_few_places() {
        let mut queues = queues(&BTreeMap::new());
        for number in 0..100 {
            queues.push(suspect(number), start());
        }
        for number in 100..200 {
            queues.push(due(number, Task::Poll), start());
        }
        let dispatches = all(&mut queues, start());
        let suspects = dispatches.iter().filter(|it| it.takes_suspects_place).count();
        assert_eq!((suspects, dispatches.len()), (MAX_SUSPECTS, 108));
    }

    #[test]
    fn slow_polls_make_room() {
        let mut queues = queues(&BTreeMap::new());
        for number in 0..=255 {
            queues.push(due(number, Task::Poll), start());
        }
        assert_eq!(all(&mut queues, start()).len(), MAX_CONCURRENT_PER_PROVIDER);
        assert_eq!(queues.next_at(start()), Some(after(2)));
        assert_eq!(all(&mut queues, after(2)).len(), 96, "128 slow ones count as 32");
    }

    #[test]
    fn late_deadline_is_told_without_asking() {
        let mut queues = paused();
        for number in 0..=255 {
            queues.push(due(number, Task::Deadline), start());
        }
        let asked = all(&mut queues, start());
        assert!(asked.iter().all(|it| it.target == PollTarget::Provider) && asked.len() == 51);
        let late = all(&mut queues, start() + LATEST_DEADLINE);
        let told = late.iter().filter(|it| it.target == PollTarget::NoProvider).count();
        assert!(told > 100, "{told}");
    }

    #[test]
    fn pause_is_told_once_it_lasts() {
        let mut queues = queues(&BTreeMap::new());
        let trouble =
            Trouble { reason: PauseReason::RateLimited, status: Some(429), retry_after: None };
        for number in 0..3 {
            queues.push(due(number, Task::Poll), start());
        }
        for dispatch in all(&mut queues, start()) {
            queues.finish(&dispatch, PollResult::NotTold(trouble), start());
        }
        assert_eq!(queues.pause_changes(false, after(2)), []);
        assert!(queues.announced_pauses().is_empty());
        let changes = queues.pause_changes(false, after(3));
        assert!(matches!(&changes[..], [PauseChange::Begins(_, pause)] if pause.renders == 3));
        assert_eq!(queues.announced_pauses(), queues.pauses());
        queues.retain(|_| false, |_| true);
        let changes = queues.pause_changes(false, after(4));
        assert!(matches!(&changes[..], [PauseChange::Ends(..)]));
    }
}
