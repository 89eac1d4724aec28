//! Whether the loop goes on or ends: a pure function of what it knows. The table of exits is in
//! [`super`].

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::lease::{AwakePolicy, MAX_SLEEP};

/// What the decision depends on, at a moment when nothing is in flight or the time is up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoopState {
    pub(crate) policy: AwakePolicy,
    pub(crate) is_superseded: bool,
    /// No poll may begin any more.
    pub(crate) is_draining: bool,
    /// The job that this poller was called for is not in the index yet.
    pub(crate) awaits_new_job: bool,
    /// How many active jobs the shard has.
    pub(crate) jobs: usize,
    /// When the next job is due.
    pub(crate) next_at: Option<DateTime<Utc>>,
    /// A job waits for its provider's budget.
    pub(crate) has_backlog: bool,
    /// The stored lease is held, not awake, and has the pauses as they are.
    pub(crate) lease_says_asleep: bool,
    /// This poller has announced in the lease that it sleeps or leaves, and has begun no poll
    /// since.
    pub(crate) idle_announced: bool,
    pub(crate) listed_since_lease_write: bool,
}

/// What the loop does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextStep {
    StayAwake,
    /// Renew the lease as asleep, and decide again.
    AnnounceIdle,
    /// Give the lease back, and decide again.
    GiveLeaseBack,
    /// List new jobs, and decide again.
    ListNew,
    Exit(Exit),
}

/// Why the loop ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The next job is due after so long.
    Idle(Duration),
    /// The shard has no active job.
    Over,
    /// Another poller has the lease.
    Superseded,
    /// The invocation ends soon.
    OutOfTime,
}

/// What is cheapest while the lease is ours and there is time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IdleDecision {
    StayAwake,
    Sleep(Duration),
    /// There is nothing to come back for.
    Finish,
}

pub(crate) fn next_step(state: &LoopState, at: DateTime<Utc>) -> NextStep {
    if state.is_superseded {
        return NextStep::Exit(Exit::Superseded);
    }
    if state.is_draining {
        return NextStep::Exit(Exit::OutOfTime);
    }
    match idle_decision(state, at) {
        IdleDecision::StayAwake => NextStep::StayAwake,
        IdleDecision::Sleep(_) if !state.lease_says_asleep => NextStep::AnnounceIdle,
        IdleDecision::Sleep(_) if !state.listed_since_lease_write => NextStep::ListNew,
        IdleDecision::Sleep(delay) => NextStep::Exit(Exit::Idle(delay)),
        IdleDecision::Finish if !state.idle_announced => NextStep::GiveLeaseBack,
        IdleDecision::Finish => NextStep::Exit(Exit::Over),
    }
}

fn idle_decision(state: &LoopState, at: DateTime<Utc>) -> IdleDecision {
    if state.awaits_new_job {
        return IdleDecision::StayAwake;
    }
    if state.jobs == 0 {
        return IdleDecision::Finish;
    }
    let wait = state.next_at.map(|next| (next - at).to_std().unwrap_or_default());
    let wait = wait.unwrap_or(MAX_SLEEP).min(MAX_SLEEP);
    match state.has_backlog || state.policy.stays_awake(state.jobs, wait) {
        true => IdleDecision::StayAwake,
        false => IdleDecision::Sleep(wait),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::start;

    /// One job that is due in half a minute, and a lease that says that its holder sleeps.
    fn asleep() -> LoopState {
        LoopState {
            policy: AwakePolicy::WhereCheaper,
            is_superseded: false,
            is_draining: false,
            awaits_new_job: false,
            jobs: 1,
            next_at: Some(start() + Duration::from_secs(30)),
            has_backlog: false,
            lease_says_asleep: true,
            idle_announced: true,
            listed_since_lease_write: true,
        }
    }

    fn step(state: LoopState) -> NextStep {
        next_step(&state, start())
    }

    #[test]
    fn quiet_shard_goes_idle() {
        let wait = Duration::from_secs(30);
        assert_eq!(step(asleep()), NextStep::Exit(Exit::Idle(wait)));
        let unknown = LoopState { next_at: None, ..asleep() };
        assert_eq!(step(unknown), NextStep::Exit(Exit::Idle(MAX_SLEEP)));
        let overdue = LoopState { next_at: Some(start() - wait), ..asleep() };
        assert_eq!(step(overdue), NextStep::StayAwake);
    }

    #[test]
    fn poller_goes_idle_where_slots_are_few() {
        let soon = start() + Duration::from_secs(2);
        let busy = LoopState { jobs: 1_000, next_at: Some(soon), ..asleep() };
        assert_eq!(step(busy), NextStep::StayAwake);
        let policy = AwakePolicy::WhereNeeded;
        let wait = Duration::from_secs(2);
        assert_eq!(step(LoopState { policy, ..busy }), NextStep::Exit(Exit::Idle(wait)));
    }

    #[test]
    fn idle_poller_announces_then_lists() {
        let unlisted = LoopState { listed_since_lease_write: false, ..asleep() };
        assert_eq!(step(unlisted), NextStep::ListNew);
        let stale = LoopState { lease_says_asleep: false, ..unlisted };
        assert_eq!(step(stale), NextStep::AnnounceIdle);
    }

    #[test]
    fn empty_shard_gives_its_lease_back() {
        let empty = LoopState { jobs: 0, next_at: None, idle_announced: false, ..asleep() };
        assert_eq!(step(empty), NextStep::GiveLeaseBack);
        let announced = LoopState { idle_announced: true, ..empty };
        assert_eq!(step(announced), NextStep::Exit(Exit::Over));
    }

    #[test]
    fn backlog_keeps_poller_awake() {
        assert_eq!(step(LoopState { has_backlog: true, ..asleep() }), NextStep::StayAwake);
        let awaiting = LoopState { awaits_new_job: true, jobs: 0, ..asleep() };
        assert_eq!(step(awaiting), NextStep::StayAwake);
    }

    #[test]
    fn superseded_poller_leaves_without_continuation() {
        let draining = LoopState { is_draining: true, jobs: 0, ..asleep() };
        assert_eq!(step(draining), NextStep::Exit(Exit::OutOfTime));
        let superseded = LoopState { is_superseded: true, ..draining };
        assert_eq!(step(superseded), NextStep::Exit(Exit::Superseded));
    }
}
