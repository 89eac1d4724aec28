//! What is kept of one request, by its idempotency key: which job the key names, and for how long.
//!
//! A record is written before its job, by a conditional put, so that of several equal requests one
//! chooses the job's id. It may outlive its job, and a function may die between the two writes. So
//! a record that is found says what to do by its age:
//!
//! | the record is | its job is stored | it is not |
//! |---|---|---|
//! | younger than ten minutes | its job is the answer | the job may be about to be stored: go on with its id, and let the conditional put of the job decide who submits |
//! | younger than an hour | the same | nothing will store the job: keep the id, in a record made anew |
//! | older | the same | a job that was deleted, or never submitted: choose another id, in a record made anew |
//! | expired | the same, while the job has not settled; afterwards choose another id | choose another id |
//!
//! A record is made anew by a put on the condition that it is still as it was found, so of several
//! requests one does so and the others find it young. A request stores a job only within the half
//! minute that its function may run after it found the record younger than ten minutes, or made
//! it. So when a record of an hour is replaced, nothing can store its job any more.

use chrono::{DateTime, TimeDelta, Utc};

use crate::id::JobId;
use crate::job::Job;

/// The age up to which the job of a record may be about to be stored. It is far longer than a
/// function runs, by which clocks may differ.
const BEING_STORED: TimeDelta = TimeDelta::minutes(10);

/// The age from which a record without a job belongs to no request that is still made.
const ABANDONED: TimeDelta = TimeDelta::hours(1);

/// The least time for which a record is kept. It is longer than any job is active: seven days,
/// which is the longest deadline of a spec, and the outage of a provider after it.
const MIN_RETENTION: TimeDelta = TimeDelta::days(8);

/// What is kept of a request beside its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRecord {
    /// The job that the request makes.
    pub job_id: JobId,
    /// SHA-256 of the request's canonical body, which is the same for a repeat only.
    pub fingerprint: [u8; 32],
    /// When the record was made.
    pub made_at: DateTime<Utc>,
    /// When it counts as absent, whether or not it was deleted.
    pub expires_at: DateTime<Utc>,
}

/// What a request may do that finds a record of its key.
#[derive(Clone, Debug, PartialEq)]
pub enum Claim {
    /// Answer with this job.
    Repeat(Box<Job>),
    /// Refuse: the key was used for another request.
    Mismatch,
    /// Make the record anew, with the same id of the job.
    Renew,
    /// Make the record anew, with another id.
    Replace,
}

impl RequestRecord {
    /// The record of a request that is made now.
    #[must_use]
    pub fn new(
        job_id: JobId,
        fingerprint: [u8; 32],
        retention: TimeDelta,
        now: DateTime<Utc>,
    ) -> Self {
        let expires_at = now + retention.max(MIN_RETENTION);
        Self { job_id, fingerprint, made_at: now, expires_at }
    }

    /// Whether its job may be about to be stored. Then the next step is to store it.
    #[must_use]
    pub fn is_being_stored(&self, now: DateTime<Utc>) -> bool {
        now - self.made_at < BEING_STORED
    }

    /// What a request with this fingerprint may do, when the record is not
    /// [being stored](Self::is_being_stored) and `job` is its job, as the table has it.
    #[must_use]
    pub fn claim(&self, job: Option<Job>, fingerprint: &[u8; 32], now: DateTime<Utc>) -> Claim {
        let has_expired = now >= self.expires_at;
        match job {
            Some(job) if has_expired && job.settled_at.is_some() => Claim::Replace,
            Some(job) if self.fingerprint == *fingerprint => Claim::Repeat(Box::new(job)),
            Some(_) => Claim::Mismatch,
            None if has_expired || now - self.made_at >= ABANDONED => Claim::Replace,
            None if self.fingerprint == *fingerprint => Claim::Renew,
            None => Claim::Mismatch,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{new_job, noon};

    const OURS: [u8; 32] = [1; 32];

    fn record() -> RequestRecord {
        RequestRecord::new(new_job().id, OURS, TimeDelta::days(90), noon())
    }

    fn settled() -> Job {
        Job { settled_at: Some(noon()), ..new_job() }
    }

    #[test]
    fn record_is_judged_by_age_and_job() {
        let repeat = |job: &Job| Claim::Repeat(Box::new(job.clone()));
        let (active, settled) = (new_job(), settled());
        for (minutes, absent, of_active, of_settled) in [
            (10, Claim::Renew, repeat(&active), repeat(&settled)),
            (59, Claim::Renew, repeat(&active), repeat(&settled)),
            (60, Claim::Replace, repeat(&active), repeat(&settled)),
            (90 * 24 * 60 - 1, Claim::Replace, repeat(&active), repeat(&settled)),
            (90 * 24 * 60, Claim::Replace, repeat(&active), Claim::Replace),
        ] {
            let now = noon() + TimeDelta::minutes(minutes);
            assert!(!record().is_being_stored(now), "{minutes}");
            let claim = |job: Option<&Job>| record().claim(job.cloned(), &OURS, now);
            assert_eq!(claim(None), absent, "{minutes}");
            assert_eq!(claim(Some(&active)), of_active, "{minutes}");
            assert_eq!(claim(Some(&settled)), of_settled, "{minutes}");
        }
        assert!(record().is_being_stored(noon() + TimeDelta::seconds(599)));
        assert!(record().is_being_stored(noon() - TimeDelta::minutes(2)), "clocks differ");
    }

    #[test]
    fn record_of_another_body_is_refused() {
        let claim =
            |job, minutes| record().claim(job, &[2; 32], noon() + TimeDelta::minutes(minutes));
        assert_eq!(claim(None, 30), Claim::Mismatch);
        assert_eq!(claim(Some(settled()), 600), Claim::Mismatch);
        assert_eq!(claim(None, 60), Claim::Replace, "nothing was submitted for it");
        let expired = 90 * 24 * 60;
        assert_eq!(claim(Some(settled()), expired), Claim::Replace);
        assert_eq!(claim(Some(new_job()), expired), Claim::Mismatch, "it is still rendered");
    }

    /// Otherwise the key of a job that is under way could make a second one.
    #[test]
    fn record_outlives_active_job() {
        let (longest, outage) = (TimeDelta::seconds(604_800), TimeDelta::hours(6));
        for days in [1, 8, 90] {
            let record = RequestRecord::new(new_job().id, OURS, TimeDelta::days(days), noon());
            assert!(record.expires_at > noon() + longest + outage, "{days}");
            assert!(record.expires_at >= noon() + TimeDelta::days(days), "{days}");
        }
    }
}
