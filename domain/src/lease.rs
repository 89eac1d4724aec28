//! The lease of a shard of the active jobs, and whether its holder stays awake.
//!
//! One lease per shard is the right to poll it. It is written when a poller takes it over,
//! then about once a minute as a heartbeat, and when a provider is paused; never for a poll.
//! The state between two invocations travels in the wake-up call that the holder sends to its
//! continuation. Each write of the lease starts a new epoch, and a wake-up call is valid only
//! in the epoch in which it was sent. So a call that SQS delivers twice, or a holder that was
//! thought dead, polls the shard beside the rightful holder until the next write and no longer.
//! Two holders at once cost a few extra polls, because each job is written conditionally.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::id::ProviderName;
use crate::polling::Pause;

/// The term of a lease. When a chain of wake-up calls is lost, the shard is taken over after
/// this time.
pub const TERM: Duration = Duration::from_secs(150);

/// A lease is renewed when less than this is left of it: at most one write a minute.
const RENEW_BELOW: Duration = Duration::from_secs(90);

/// The longest idle time of a holder. It is shorter than what is left of any lease that was
/// not renewed, so the lease never lapses meanwhile. A job that came without a wake-up call is
/// found this late.
pub const MAX_SLEEP: Duration = Duration::from_secs(55);

/// A new holder sees every job that was made this long before it took the lease: the lag of
/// the index of active jobs is less.
const MAX_INDEX_LAG: Duration = Duration::from_secs(1);

/// A lease that is taken over within this time is in demand: new jobs come faster than
/// holders can go idle.
const IN_DEMAND: Duration = Duration::from_secs(15);

/// The cost of a second awake, and the cost to go idle and wake up: three SQS requests, an
/// invocation and a read of the lease, plus a read of each job of the shard. In millionths of
/// a dollar, from the AWS price list for 128 MB on arm64.
const AWAKE_SECOND: f64 = 1.667;
const WAKE_UP: f64 = 1.708;
const READ_JOB: f64 = 0.0625;

/// A queue delays a message by whole seconds, so a shorter wait cannot be left to it.
const SHORTEST_SLEEP: Duration = Duration::from_secs(1);

/// For which waits between polls a holder stays awake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AwakePolicy {
    /// For those in which that is cheaper than to go idle.
    #[default]
    WhereCheaper,
    /// For those that are too short to go idle. An account with few concurrent executions has
    /// none to spare for a wait.
    WhereNeeded,
}

/// Why a text is not an [`AwakePolicy`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither true nor false")]
pub struct AwakePolicyError(String);

impl AwakePolicy {
    /// Reads whether pollers stay awake: `true` or `false`.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self, AwakePolicyError> {
        match text {
            "true" => Ok(Self::WhereCheaper),
            "false" => Ok(Self::WhereNeeded),
            other => Err(AwakePolicyError(other.to_owned())),
        }
    }

    /// Whether to stay awake for `wait` instead of going idle and reading `jobs` jobs again. For
    /// a shard with few jobs, that is cheaper while about one poll a second is due.
    #[must_use]
    pub fn stays_awake(self, jobs: usize, wait: Duration) -> bool {
        match self {
            Self::WhereCheaper => {
                let jobs = u32::try_from(jobs).unwrap_or(u32::MAX);
                wait.as_secs_f64() * AWAKE_SECOND <= WAKE_UP + READ_JOB * f64::from(jobs)
            }
            Self::WhereNeeded => wait < SHORTEST_SLEEP,
        }
    }
}

/// The lease of one shard, as of its last write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The number of the shard, from 0.
    pub shard: u32,
    /// The number of this write, from 1.
    pub epoch: u64,
    /// When it lapses unless its holder renews it.
    pub until: DateTime<Utc>,
    /// Until when its holder is awake and finds new jobs without a wake-up call; none while it
    /// is idle.
    pub awake_until: Option<DateTime<Utc>>,
    /// All polls that were due up to this time were made.
    pub seen: DateTime<Utc>,
    /// The paused providers.
    pub pauses: BTreeMap<ProviderName, Pause>,
}

/// Why a poller asks for a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The holder's own wake-up call, sent in this epoch.
    Continuation(u64),
    /// A poll-only job was made at this time; its first polls are due within seconds.
    NewJob(DateTime<Utc>),
    /// The schedule's tick, which finds shards without a holder.
    Tick,
}

/// The decision about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimDecision {
    /// The claimant holds the lease already and goes on.
    Continue,
    /// The claimant may take the lease over.
    TakeOver,
    /// Another poller holds the lease, or the claim is out of date.
    Decline,
}

impl Lease {
    /// Decides about a claim. Clocks that disagree may let two pollers hold a lease for a while.
    #[must_use]
    pub fn resolve_claim(lease: Option<&Self>, claim: Claim, now: DateTime<Utc>) -> ClaimDecision {
        match (claim, lease) {
            (Claim::Continuation(epoch), Some(lease)) if lease.epoch == epoch => {
                ClaimDecision::Continue
            }
            (Claim::Continuation(_), Some(_) | None) => ClaimDecision::Decline,
            (Claim::NewJob(made_at), Some(lease)) if lease.knows(made_at, now) => {
                ClaimDecision::Decline
            }
            (Claim::Tick, Some(lease)) if lease.is_held(now) => ClaimDecision::Decline,
            (Claim::NewJob(_) | Claim::Tick, Some(_) | None) => ClaimDecision::TakeOver,
        }
    }

    /// The lease of a shard after a take-over, to be stored over the one before. When that was
    /// itself taken over moments ago, new jobs come fast, so the holder counts as awake at once.
    #[must_use]
    pub fn taken_over(before: Option<&Self>, shard: u32, now: DateTime<Utc>) -> Self {
        let until = now + TERM;
        let is_in_demand =
            before.is_some_and(|before| before.is_held(now) && now < before.since() + IN_DEMAND);
        Self {
            shard,
            epoch: before.map_or(0, |before| before.epoch).saturating_add(1),
            until,
            awake_until: is_in_demand.then_some(until),
            // A holder with a fast clock cannot have made polls that are due in the future.
            seen: before.map_or(DateTime::UNIX_EPOCH, |before| before.seen.min(now)),
            pauses: before.map(|before| before.pauses.clone()).unwrap_or_default(),
        }
    }

    /// The lease for another term, to be stored over this one. `awake` says whether the holder
    /// finds new jobs by itself; all polls that were due up to `seen` were made.
    #[must_use]
    pub fn renewed(
        &self,
        awake: bool,
        seen: DateTime<Utc>,
        pauses: BTreeMap<ProviderName, Pause>,
        now: DateTime<Utc>,
    ) -> Self {
        let until = now + TERM;
        Self {
            shard: self.shard,
            epoch: self.epoch.saturating_add(1),
            until,
            awake_until: awake.then_some(until),
            seen,
            pauses,
        }
    }

    /// The lease given back, to be stored over this one, when the shard has no active job.
    #[must_use]
    pub fn ended(&self, pauses: BTreeMap<ProviderName, Pause>, now: DateTime<Utc>) -> Self {
        // Not `now`: with a fast clock the lease would last longer by the clock's error.
        Self { until: DateTime::UNIX_EPOCH, ..self.renewed(false, now, pauses, now) }
    }

    /// The time of its last write; meaningless after it was given back.
    fn since(&self) -> DateTime<Utc> {
        self.until - TERM
    }

    /// Whether its holder knows a job that was made at `made_at`, or finds it soon.
    fn knows(&self, made_at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        self.is_awake(now) || self.is_held(now) && made_at + MAX_INDEX_LAG <= self.since()
    }

    /// Whether `stored` is this lease as the table keeps it, with times in milliseconds.
    #[must_use]
    pub fn is_written_as(&self, stored: &Self) -> bool {
        let millis = |lease: &Self| {
            [Some(lease.until), lease.awake_until, Some(lease.seen)]
                .map(|time| time.map(|time| time.timestamp_millis()))
        };
        self.epoch == stored.epoch && self.shard == stored.shard && millis(self) == millis(stored)
    }

    /// Whether it has not lapsed.
    #[must_use]
    pub fn is_held(&self, now: DateTime<Utc>) -> bool {
        now < self.until
    }

    /// Whether its holder finds new jobs by itself.
    #[must_use]
    pub fn is_awake(&self, now: DateTime<Utc>) -> bool {
        self.awake_until.is_some_and(|until| now < until)
    }

    /// Whether its holder should renew it now.
    #[must_use]
    pub fn is_to_be_renewed(&self, now: DateTime<Utc>) -> bool {
        now + RENEW_BELOW > self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::noon;
    use crate::polling::PauseReason;

    fn seconds(seconds: u64) -> DateTime<Utc> {
        noon() + Duration::from_secs(seconds)
    }

    fn renewed(lease: &Lease, awake: bool, at: DateTime<Utc>) -> Lease {
        lease.renewed(awake, at, BTreeMap::new(), at)
    }

    #[test]
    fn lease_claim_table() {
        let asleep = Lease::taken_over(None, 0, noon());
        let awake = renewed(&asleep, true, noon());
        let at = seconds(10);
        let late = seconds(TERM.as_secs());
        for (lease, now, successor, new_job, tick) in [
            (None, at, ClaimDecision::Decline, ClaimDecision::TakeOver, ClaimDecision::TakeOver),
            (
                Some(&asleep),
                at,
                ClaimDecision::Continue,
                ClaimDecision::TakeOver,
                ClaimDecision::Decline,
            ),
            (
                Some(&awake),
                at,
                ClaimDecision::Continue,
                ClaimDecision::Decline,
                ClaimDecision::Decline,
            ),
            // The lease has lapsed: its holder is late or dead. A late holder may go on.
            (
                Some(&asleep),
                late,
                ClaimDecision::Continue,
                ClaimDecision::TakeOver,
                ClaimDecision::TakeOver,
            ),
            (
                Some(&awake),
                late,
                ClaimDecision::Continue,
                ClaimDecision::TakeOver,
                ClaimDecision::TakeOver,
            ),
        ] {
            let decision = |claim| Lease::resolve_claim(lease, claim, now);
            let epoch = lease.map_or(1, |lease| lease.epoch);
            assert_eq!(decision(Claim::Continuation(epoch)), successor, "{lease:?}");
            assert_eq!(decision(Claim::Continuation(epoch + 1)), ClaimDecision::Decline);
            assert_eq!(decision(Claim::Continuation(epoch - 1)), ClaimDecision::Decline);
            assert_eq!(decision(Claim::NewJob(seconds(8))), new_job, "{lease:?}");
            assert_eq!(decision(Claim::Tick), tick, "{lease:?}");
        }
    }

    #[test]
    fn lease_known_job_takes_nothing_over() {
        let lease = Lease::taken_over(None, 0, seconds(10));
        let decision =
            |made_at, now| Lease::resolve_claim(Some(&lease), Claim::NewJob(made_at), now);
        assert_eq!(decision(seconds(9), seconds(11)), ClaimDecision::Decline);
        assert_eq!(
            decision(seconds(10), seconds(12)),
            ClaimDecision::TakeOver,
            "the index may lag"
        );
        assert_eq!(
            decision(seconds(9), seconds(10) + TERM),
            ClaimDecision::TakeOver,
            "the lease lapsed"
        );
        let given_back = lease.ended(BTreeMap::new(), seconds(20));
        let decision =
            Lease::resolve_claim(Some(&given_back), Claim::NewJob(seconds(9)), seconds(21));
        assert_eq!(decision, ClaimDecision::TakeOver);
        let by_a_fast_clock = lease.ended(BTreeMap::new(), seconds(320));
        for claim in [Claim::NewJob(seconds(9)), Claim::Tick] {
            assert_eq!(
                Lease::resolve_claim(Some(&by_a_fast_clock), claim, seconds(21)),
                ClaimDecision::TakeOver
            );
        }
        assert_eq!(Lease::taken_over(Some(&by_a_fast_clock), 0, seconds(21)).seen, seconds(21));
    }

    #[test]
    fn lease_in_demand_keeps_holder_awake() {
        let first = Lease::taken_over(None, 0, noon());
        assert!(!first.is_awake(noon()));
        let second = Lease::taken_over(Some(&first), 0, seconds(2));
        assert!(second.is_awake(seconds(2)));
        assert!(!Lease::taken_over(Some(&first), 0, seconds(30)).is_awake(seconds(30)));
        let given_back = first.ended(BTreeMap::new(), seconds(1));
        assert!(!Lease::taken_over(Some(&given_back), 0, seconds(2)).is_awake(seconds(2)));
    }

    #[test]
    fn lease_write_is_a_new_epoch() {
        let pause = Pause {
            since: seconds(50),
            until: seconds(90),
            failures: 1,
            reason: PauseReason::ServerError,
            status: Some(503),
            renders: 3,
            spec: 0,
        };
        let pauses = BTreeMap::from([(ProviderName::parse("zvid").unwrap(), pause)]);
        let first = Lease::taken_over(None, 3, noon());
        let renewed = first.renewed(false, seconds(60), pauses.clone(), seconds(61));
        let taken = Lease::taken_over(Some(&renewed), 3, seconds(70));
        assert_eq!([first.epoch, renewed.epoch, taken.epoch], [1, 2, 3]);
        assert_eq!(taken.seen, seconds(60), "what was polled stays polled");
        assert_eq!(taken.pauses, pauses, "and pauses stay");
    }

    #[test]
    fn lease_holder_idles_when_cheaper() {
        let policy = AwakePolicy::WhereCheaper;
        let awake = |jobs, millis| policy.stays_awake(jobs, Duration::from_millis(millis));
        assert!(awake(1, 1_000) && !awake(1, 1_100));
        assert!(awake(100, 4_700) && !awake(100, 4_900));
        assert!(awake(2_000, 60_000));
    }

    #[test]
    fn lease_holder_idles_where_slots_are_few() {
        let policy = AwakePolicy::parse("false").unwrap();
        for jobs in [1, 100, 100_000] {
            let awake = |millis| policy.stays_awake(jobs, Duration::from_millis(millis));
            assert!(awake(0) && awake(999) && !awake(1_000) && !awake(60_000), "{jobs}");
        }
        assert_eq!(AwakePolicy::parse("true"), Ok(AwakePolicy::default()));
        assert!(AwakePolicy::parse("yes").is_err());
    }

    #[test]
    fn lease_outlives_every_idle_time() {
        let lease = Lease::taken_over(None, 0, noon());
        assert!(!lease.is_to_be_renewed(seconds(60)));
        assert!(lease.is_to_be_renewed(seconds(61)));
        // An idle time that begins just before.
        assert!(lease.is_held(seconds(60) + MAX_SLEEP));
        assert!(!lease.ended(BTreeMap::new(), seconds(9)).is_held(seconds(9)));
    }
}
