//! Who may be looked at now: jobs that are due, in a lane per provider, so that one that is
//! slow, down or stingy keeps nobody else waiting.

use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, Utc};
use domain::id::{JobId, ProviderName};
use domain::polling::{Admission, Heard, Pace, Pause, Slowdown};

use crate::agenda::Due;
use crate::plan::{Asks, Task};

/// Jobs looked at at once, all lanes together: far below the thousand sockets of a function.
const AT_ONCE: usize = 256;

/// The most of these that one provider may have: one that hangs leaves room for the others.
const LANE_AT_ONCE: usize = 128;

/// How much of a provider's budget is planned with: what is left absorbs bursts.
const PLANNED: f64 = 0.8;

/// The lanes of one shard.
#[derive(Debug)]
pub(crate) struct Lanes {
    /// The shard's share of each provider's budget, in questions a second.
    budgets: BTreeMap<ProviderName, f64>,
    lanes: Vec<Lane>,
    /// What waits for no provider.
    mending: VecDeque<JobId>,
    at_once: usize,
    /// The lane whose turn it is.
    turn: usize,
}

#[derive(Debug)]
struct Lane {
    provider: ProviderName,
    pace: Pace,
    waiting: VecDeque<JobId>,
    /// Those that are given up whatever the provider says.
    overripe: VecDeque<JobId>,
    /// When the first in line may go, as far as is known.
    not_before: Option<DateTime<Utc>>,
    at_once: usize,
    slowdown: Slowdown,
}

/// A job whose turn it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) id: JobId,
    /// The lane of the provider that is asked.
    pub(crate) lane: Option<usize>,
    pub(crate) asks: Asks,
}

impl Lanes {
    /// Lanes with these budgets, these providers to be left alone, and these that have failed
    /// so often.
    pub(crate) fn new(
        budgets: BTreeMap<ProviderName, f64>,
        pauses: &BTreeMap<ProviderName, Pause>,
        failures: &BTreeMap<ProviderName, u32>,
        now: DateTime<Utc>,
    ) -> Self {
        let budget = |provider| budgets.get(provider).copied();
        let paused = pauses.iter().map(|(provider, pause)| {
            Lane::new(provider.clone(), Pace::resumed(budget(provider), *pause, now))
        });
        let failed = failures.iter().filter(|(provider, _)| !pauses.contains_key(*provider));
        let failed = failed.map(|(provider, failures)| {
            Lane::new(provider.clone(), Pace::failed(budget(provider), *failures, now))
        });
        let lanes = paused.chain(failed).collect();
        Self { budgets, lanes, mending: VecDeque::new(), at_once: 0, turn: 0 }
    }

    /// Takes a job that is due.
    pub(crate) fn queue(&mut self, due: Due, now: DateTime<Utc>) {
        match due.task {
            Task::Mend => self.mending.push_back(due.id),
            Task::Ask => self.with_lane(&due.provider, now, |lane| lane.waiting.push_back(due.id)),
            Task::GiveUp => {
                self.with_lane(&due.provider, now, |lane| lane.overripe.push_back(due.id));
            }
        }
    }

    /// The next job whose turn it is. Providers take turns.
    pub(crate) fn next(&mut self, now: DateTime<Utc>) -> Option<Turn> {
        if self.at_once >= AT_ONCE {
            return None;
        }
        if let Some(id) = self.mending.pop_front() {
            self.at_once += 1;
            return Some(Turn { id, lane: None, asks: Asks::Nobody });
        }
        for step in 0..self.lanes.len() {
            let at = (self.turn + step) % self.lanes.len();
            let Some(lane) = self.lanes.get_mut(at) else { continue };
            if let Some((id, asks)) = lane.admit(now) {
                self.at_once += 1;
                self.turn = at + 1;
                let lane = match asks {
                    Asks::Provider { .. } => Some(at),
                    Asks::Nobody => None,
                };
                return Some(Turn { id, lane, asks });
            }
        }
        None
    }

    /// A turn is over.
    pub(crate) fn over(&mut self, lane: Option<usize>, heard: Heard, now: DateTime<Utc>) {
        self.at_once = self.at_once.saturating_sub(1);
        if let Some(lane) = lane.and_then(|at| self.lanes.get_mut(at)) {
            lane.at_once = lane.at_once.saturating_sub(1);
            lane.pace.hear(heard, now);
        }
    }

    /// When the next of those that wait may go; none when nobody waits for a time.
    pub(crate) fn next_at(&self) -> Option<DateTime<Utc>> {
        let waiting = self.lanes.iter().filter(|lane| !lane.is_empty());
        waiting.filter_map(|lane| lane.not_before).min()
    }

    /// Who waits for a share of a budget, and not for a pause to end. Who was asked about
    /// already and who was not is only known here, so nobody sleeps over it.
    pub(crate) fn backlog(&self) -> impl Iterator<Item = &JobId> {
        let lanes = self.lanes.iter().filter(|lane| lane.pace.pause().is_none());
        lanes.flat_map(|lane| lane.overripe.iter().chain(&lane.waiting))
    }

    /// The providers that are not to be asked yet.
    pub(crate) fn pauses(&self) -> BTreeMap<ProviderName, Pause> {
        let lanes = self.lanes.iter();
        lanes.filter_map(|lane| Some((lane.provider.clone(), lane.pace.pause()?))).collect()
    }

    /// How often providers have failed that may be asked all the same.
    pub(crate) fn failures(&self) -> BTreeMap<ProviderName, u32> {
        let failed =
            self.lanes.iter().filter(|it| it.pace.failures() > 0 && it.pace.pause().is_none());
        failed.map(|lane| (lane.provider.clone(), lane.pace.failures())).collect()
    }

    /// How much a provider's polls are thinned out.
    pub(crate) fn slowdown(&self, provider: &ProviderName) -> Slowdown {
        self.find(provider).map_or(Slowdown::NONE, |lane| lane.slowdown)
    }

    /// Fits the polls of each provider with a budget into it; answers whose slowdown has
    /// changed. `wanted` tells how many questions a second a provider's jobs ask for.
    pub(crate) fn fit(
        &mut self,
        wanted: impl Fn(&ProviderName) -> f64,
        now: DateTime<Utc>,
    ) -> Vec<(ProviderName, Slowdown)> {
        let mut changed = Vec::new();
        for (name, budget) in self.budgets.clone() {
            let slowdown = Slowdown::to_fit(wanted(&name), PLANNED * budget);
            if slowdown != self.slowdown(&name) {
                self.with_lane(&name, now, |lane| lane.slowdown = slowdown);
                changed.push((name, slowdown));
            }
        }
        changed
    }

    fn find(&self, provider: &ProviderName) -> Option<&Lane> {
        self.lanes.iter().find(|lane| lane.provider == *provider)
    }

    fn with_lane(
        &mut self,
        provider: &ProviderName,
        now: DateTime<Utc>,
        act: impl FnOnce(&mut Lane),
    ) {
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.provider == *provider) {
            return act(lane);
        }
        let budget = self.budgets.get(provider).copied();
        let mut lane = Lane::new(provider.clone(), Pace::new(budget, now));
        act(&mut lane);
        self.lanes.push(lane);
    }
}

impl Lane {
    fn new(provider: ProviderName, pace: Pace) -> Self {
        Self {
            provider,
            pace,
            waiting: VecDeque::new(),
            overripe: VecDeque::new(),
            not_before: None,
            at_once: 0,
            slowdown: Slowdown::NONE,
        }
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.overripe.is_empty()
    }

    fn admit(&mut self, now: DateTime<Utc>) -> Option<(JobId, Asks)> {
        if self.is_empty() || self.at_once >= LANE_AT_ONCE {
            return None;
        }
        self.not_before = None;
        match self.pace.admit(now) {
            Admission::Now => {
                let id = self.overripe.pop_front().or_else(|| self.waiting.pop_front())?;
                self.at_once += 1;
                Some((id, Asks::Provider { is_down: self.pace.is_down() }))
            }
            Admission::NotBefore(then) => {
                self.not_before = Some(then);
                self.give_up()
            }
            Admission::AfterProbe => self.give_up(),
        }
    }

    /// A job that has waited long enough for a provider that is not to be asked.
    fn give_up(&mut self) -> Option<(JobId, Asks)> {
        self.pace.pause()?;
        Some((self.overripe.pop_front()?, Asks::Nobody))
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

    fn lanes(pauses: &BTreeMap<ProviderName, Pause>) -> Lanes {
        Lanes::new(BTreeMap::new(), pauses, &BTreeMap::new(), start())
    }

    #[test]
    fn who_has_waited_long_enough_is_given_up_though_the_provider_is_paused() {
        let until = start() + Duration::from_secs(40);
        let pause = Pause { since: start(), until, failures: 5 };
        let mut lanes = lanes(&BTreeMap::from([(zvid(), pause)]));
        lanes.queue(due(1, Task::Ask), start());
        lanes.queue(due(2, Task::GiveUp), start());
        let id = JobId::from_bytes([2; 16]);
        assert_eq!(lanes.next(start()), Some(Turn { id, lane: None, asks: Asks::Nobody }));
        assert_eq!(lanes.next(start()), None, "the other one waits");
    }

    #[test]
    fn who_is_to_be_given_up_is_asked_about_once_more_and_leaves_room_for_others() {
        let mut lanes = lanes(&BTreeMap::new());
        for number in 0..200 {
            lanes.queue(due(number, Task::GiveUp), start());
        }
        let turns: Vec<Turn> = std::iter::from_fn(|| lanes.next(start())).collect();
        assert_eq!(turns.len(), LANE_AT_ONCE);
        let asks = Asks::Provider { is_down: false };
        assert!(turns.iter().all(|turn| turn.lane == Some(0) && turn.asks == asks));
    }
}
