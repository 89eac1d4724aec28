//! Who looks after a shard of the active jobs.
//!
//! One lease per shard is the permission to poll it. It is written when somebody takes it
//! over, about once a minute from then on, and when a provider wants to be left alone; never
//! for a poll. What goes on from look to look travels in the wake-up call that the holder
//! leaves for its successor, who is most often itself. Each write makes a new epoch, and a wake-up call is worth something only in
//! the epoch it was sent in. So a call that SQS delivers twice, or a holder that everybody
//! thought dead, looks after the shard beside the rightful one until the next write and no
//! longer; and a poll too many is all that two holders at once can cost, because a job's own
//! conditional write keeps its truth single.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::id::ProviderName;
use crate::polling::Pause;

/// How long a lease is good for: a chain of wake-up calls that was lost is missed after that.
pub const TERM: Duration = Duration::from_secs(150);

/// A lease with less than this left is renewed, which makes one write a minute at most.
const RENEWED_BELOW: Duration = Duration::from_secs(90);

/// The longest that a holder sleeps. Shorter than what is left of any lease that was not
/// renewed, so that nobody thinks a sleeper dead; and how late a job that came without a
/// wake-up call is noticed.
pub const LONGEST_SLEEP: Duration = Duration::from_secs(55);

/// Whoever takes a lease sees every job that was made so long before: the index of active jobs
/// follows the table within less.
const SEEN_AFTER: Duration = Duration::from_secs(1);

/// A lease that is taken over so soon is in demand: new jobs come faster than their holders
/// can go to sleep.
const IN_DEMAND: Duration = Duration::from_secs(15);

/// What a second awake costs, and what it costs to sleep and come back: three SQS requests, an
/// invocation and reading the lease, and each job of the shard. Millionths of a dollar, from
/// AWS's list for 128 MB on arm64.
const AWAKE_SECOND: f64 = 1.667;
const WAKE_UP: f64 = 1.708;
const READ_JOB: f64 = 0.0625;

/// Whether it is cheaper to stay awake for `wait` than to sleep and read so many jobs again. A
/// shard with few jobs is watched while about one poll a second is due.
#[must_use]
pub fn is_worth_waiting(jobs: usize, wait: Duration) -> bool {
    let jobs = u32::try_from(jobs).unwrap_or(u32::MAX);
    wait.as_secs_f64() * AWAKE_SECOND <= WAKE_UP + READ_JOB * f64::from(jobs)
}

/// The lease of one shard, as of its last write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The shard.
    pub shard: u32,
    /// Counts writes, from 1.
    pub epoch: u64,
    /// Until when its holder is there.
    pub until: DateTime<Utc>,
    /// Until when its holder is awake and sees new jobs by itself.
    pub awake_until: Option<DateTime<Utc>>,
    /// Up to when it has made all polls that were due.
    pub seen: DateTime<Utc>,
    /// Providers that are not to be asked yet.
    pub pauses: BTreeMap<ProviderName, Pause>,
}

/// Why somebody wants to look after a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The holder's own wake-up call, sent in this epoch.
    Successor(u64),
    /// A job that only we ask about was made then: its first polls are seconds away.
    NewJob(DateTime<Utc>),
    /// The schedule's tick: is anybody there?
    Tick,
}

/// What becomes of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The lease is the claimant's already.
    GoOn,
    /// The claimant may take the lease over.
    TakeOver,
    /// Somebody else looks after the shard.
    Leave,
}

impl Lease {
    /// Decides about a claim. Clocks that disagree let two hold a lease for a while.
    #[must_use]
    pub fn judge(lease: Option<&Self>, claim: Claim, now: DateTime<Utc>) -> Verdict {
        match (claim, lease) {
            (Claim::Successor(epoch), Some(lease)) if lease.epoch == epoch => Verdict::GoOn,
            (Claim::Successor(_), Some(_) | None) => Verdict::Leave,
            (Claim::NewJob(made_at), Some(lease)) if lease.has_seen(made_at, now) => Verdict::Leave,
            (Claim::Tick, Some(lease)) if lease.is_held(now) => Verdict::Leave,
            (Claim::NewJob(_) | Claim::Tick, Some(_) | None) => Verdict::TakeOver,
        }
    }

    /// A shard's lease taken over from whoever had it, to be stored over that. Where new jobs
    /// come so fast that it was taken over just before, it says at once that somebody is awake.
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
            // Nobody has seen what is still to come, whatever his clock said.
            seen: before.map_or(DateTime::UNIX_EPOCH, |before| before.seen.min(now)),
            pauses: before.map(|before| before.pauses.clone()).unwrap_or_default(),
        }
    }

    /// The lease for another term, to be stored over this one. `awake` says whether the
    /// holder will see new jobs by itself, `seen` up to when it has made all polls.
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

    /// The lease given back, to be stored over this one: nothing is active.
    #[must_use]
    pub fn ended(&self, pauses: BTreeMap<ProviderName, Pause>, now: DateTime<Utc>) -> Self {
        // Not `now`: whose clock is fast would hold it for so much longer.
        Self { until: DateTime::UNIX_EPOCH, ..self.renewed(false, now, pauses, now) }
    }

    /// When it was written, unless it was given back.
    fn since(&self) -> DateTime<Utc> {
        self.until - TERM
    }

    /// Whether its holder knows, or will soon, of a job that was made at `made_at`.
    fn has_seen(&self, made_at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        self.is_awake(now) || self.is_held(now) && made_at + SEEN_AFTER <= self.since()
    }

    /// Whether `stored` is what became of this one: times are kept in milliseconds.
    #[must_use]
    pub fn is_written_as(&self, stored: &Self) -> bool {
        let millis = |lease: &Self| {
            [Some(lease.until), lease.awake_until, Some(lease.seen)]
                .map(|time| time.map(|time| time.timestamp_millis()))
        };
        self.epoch == stored.epoch && self.shard == stored.shard && millis(self) == millis(stored)
    }

    /// Whether somebody is there.
    #[must_use]
    pub fn is_held(&self, now: DateTime<Utc>) -> bool {
        now < self.until
    }

    /// Whether somebody is there and awake.
    #[must_use]
    pub fn is_awake(&self, now: DateTime<Utc>) -> bool {
        self.awake_until.is_some_and(|until| now < until)
    }

    /// Whether it is time for another term.
    #[must_use]
    pub fn is_to_be_renewed(&self, now: DateTime<Utc>) -> bool {
        now + RENEWED_BELOW > self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::noon;

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
            (None, at, Verdict::Leave, Verdict::TakeOver, Verdict::TakeOver),
            (Some(&asleep), at, Verdict::GoOn, Verdict::TakeOver, Verdict::Leave),
            (Some(&awake), at, Verdict::GoOn, Verdict::Leave, Verdict::Leave),
            // Whoever had it is late, or dead. Late is no reason to stop.
            (Some(&asleep), late, Verdict::GoOn, Verdict::TakeOver, Verdict::TakeOver),
            (Some(&awake), late, Verdict::GoOn, Verdict::TakeOver, Verdict::TakeOver),
        ] {
            let judge = |claim| Lease::judge(lease, claim, now);
            let epoch = lease.map_or(1, |lease| lease.epoch);
            assert_eq!(judge(Claim::Successor(epoch)), successor, "{lease:?}");
            assert_eq!(judge(Claim::Successor(epoch + 1)), Verdict::Leave);
            assert_eq!(judge(Claim::Successor(epoch - 1)), Verdict::Leave);
            assert_eq!(judge(Claim::NewJob(seconds(8))), new_job, "{lease:?}");
            assert_eq!(judge(Claim::Tick), tick, "{lease:?}");
        }
    }

    #[test]
    fn lease_known_job_takes_nothing_over() {
        let lease = Lease::taken_over(None, 0, seconds(10));
        let judge = |made_at, now| Lease::judge(Some(&lease), Claim::NewJob(made_at), now);
        assert_eq!(judge(seconds(9), seconds(11)), Verdict::Leave);
        assert_eq!(judge(seconds(10), seconds(12)), Verdict::TakeOver, "its index may have lagged");
        assert_eq!(judge(seconds(9), seconds(10) + TERM), Verdict::TakeOver, "nobody is there");
        let given_back = lease.ended(BTreeMap::new(), seconds(20));
        let judged = Lease::judge(Some(&given_back), Claim::NewJob(seconds(9)), seconds(21));
        assert_eq!(judged, Verdict::TakeOver);
        let by_a_fast_clock = lease.ended(BTreeMap::new(), seconds(320));
        for claim in [Claim::NewJob(seconds(9)), Claim::Tick] {
            assert_eq!(Lease::judge(Some(&by_a_fast_clock), claim, seconds(21)), Verdict::TakeOver);
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
        let pause = Pause { since: seconds(50), until: seconds(90), failures: 1 };
        let pauses = BTreeMap::from([(ProviderName::parse("zvid").unwrap(), pause)]);
        let first = Lease::taken_over(None, 3, noon());
        let renewed = first.renewed(false, seconds(60), pauses.clone(), seconds(61));
        let taken = Lease::taken_over(Some(&renewed), 3, seconds(70));
        assert_eq!([first.epoch, renewed.epoch, taken.epoch], [1, 2, 3]);
        assert_eq!(taken.seen, seconds(60), "what was polled stays polled");
        assert_eq!(taken.pauses, pauses, "and nobody is disturbed");
    }

    #[test]
    fn lease_holder_idles_when_cheaper() {
        let worth = |jobs, millis| is_worth_waiting(jobs, Duration::from_millis(millis));
        assert!(worth(1, 1_000) && !worth(1, 1_100));
        assert!(worth(100, 4_700) && !worth(100, 4_900));
        assert!(worth(2_000, 60_000));
    }

    #[test]
    fn lease_outlives_every_idle_time() {
        let lease = Lease::taken_over(None, 0, noon());
        assert!(!lease.is_to_be_renewed(seconds(60)));
        assert!(lease.is_to_be_renewed(seconds(61)));
        // A sleep that begins just before.
        assert!(lease.is_held(seconds(60) + LONGEST_SLEEP));
        assert!(!lease.ended(BTreeMap::new(), seconds(9)).is_held(seconds(9)));
    }
}
