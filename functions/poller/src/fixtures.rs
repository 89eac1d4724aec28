//! A job and a schedule for the tests of what is decided about them.

use std::time::Duration;

use aws_in_memory::builders;
use domain::job::Job;
use domain::polling::{PollingLaw, Slowdown, Tracking};

/// When the job was submitted.
pub(crate) use aws_in_memory::builders::noon as start;

pub(crate) const SCHEDULE: PollingLaw = PollingLaw {
    floor: Duration::from_secs(1),
    safety: Duration::from_secs(120),
    deadline: Duration::from_secs(1800),
    durations: None,
    slowdown: Slowdown::NONE,
};

/// One whose provider was not asked yet.
pub(crate) fn job(tracking: Tracking) -> Job {
    builders::job().tracking(tracking).build()
}
