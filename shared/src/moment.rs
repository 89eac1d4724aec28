//! How old something is that a process keeps.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// A moment on two clocks, because the monotonic one may stand still while a function is frozen,
/// and the other may be set back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    monotonic: Instant,
    wall: SystemTime,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// The larger one of what the clocks say.
    pub(crate) fn age(&self) -> Duration {
        self.monotonic.elapsed().max(self.wall.elapsed().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn moment_ages_by_either_clock() {
        let moment = Moment::now();
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(moment.age() >= Duration::from_secs(60));
        // The process was frozen: its monotonic clock stood still.
        let wall = SystemTime::now() - Duration::from_secs(3600);
        assert!(Moment { wall, ..Moment::now() }.age() >= Duration::from_secs(3600));
        // The wall clock was set back.
        let wall = SystemTime::now() + Duration::from_secs(3600);
        assert!(Moment { wall, ..moment }.age() >= Duration::from_secs(60));
    }
}
