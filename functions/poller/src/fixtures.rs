//! A job and a polling schedule for unit tests.

use std::time::Duration;

use aws_in_memory::builders;
use chrono::{DateTime, Utc};
use domain::job::Job;
use domain::polling::{Pause, PauseReason, PollSchedule, Slowdown, Tracking};

/// When the job was created.
pub(crate) use aws_in_memory::builders::noon as start;

pub(crate) const SCHEDULE: PollSchedule = PollSchedule {
    floor: Duration::from_secs(1),
    safety: Duration::from_secs(120),
    deadline: Duration::from_secs(1800),
    duration_model: None,
    slowdown: Slowdown::NONE,
};

/// A job whose submit has no answer yet.
pub(crate) fn job(tracking: Tracking) -> Job {
    builders::job().tracking(tracking).build()
}

/// A pause of a provider that is down.
pub(crate) fn pause(since: DateTime<Utc>, until: DateTime<Utc>) -> Pause {
    Pause {
        since,
        until,
        failures: 1,
        reason: PauseReason::ServerError,
        status: Some(503),
        renders: 3,
        spec: 0,
    }
}
