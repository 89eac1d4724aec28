//! How many batches of one queue are in work at a time: "Scaling and processing" of the event
//! source mapping for SQS. It begins with few, and adds more while messages wait. When none waits
//! it begins anew; AWS takes its time for that, so this is the pessimistic reading.

use std::time::Duration;

use tokio::time::Instant;

use super::Quotas;

/// The most concurrent batches of an event source that sets no maximum.
const MOST: u32 = 1250;

/// The concurrent batches of one event source.
#[derive(Clone, Copy, Debug)]
pub struct BatchScaling {
    first: u32,
    a_minute: u32,
    most: u32,
    busy: u32,
    /// Since when messages wait for a free place.
    waiting_since: Option<Instant>,
}

impl BatchScaling {
    /// Of an event source with this `MaximumConcurrency`, if it has one.
    #[must_use]
    pub fn new(quotas: &Quotas, maximum: Option<u32>) -> Self {
        Self {
            first: quotas.first_batches,
            a_minute: quotas.batches_a_minute,
            most: maximum.unwrap_or(MOST.max(quotas.first_batches)),
            busy: 0,
            waiting_since: None,
        }
    }

    /// Begins a batch, unless there are too many.
    pub fn begin(&mut self) -> bool {
        let begins = self.busy < self.allowed();
        if begins {
            self.busy += 1;
        } else {
            self.waiting_since.get_or_insert_with(Instant::now);
        }
        begins
    }

    /// Ends a batch.
    pub fn end(&mut self) {
        self.busy = self.busy.saturating_sub(1);
    }

    /// No message waits.
    pub fn rest(&mut self) {
        self.waiting_since = None;
    }

    /// When one more batch may begin although none ends; none when its maximum is reached.
    #[must_use]
    pub fn grows_at(&self) -> Option<Instant> {
        let allowed = self.allowed();
        let since = self.waiting_since.filter(|_| allowed < self.most && self.a_minute > 0)?;
        let more = allowed.saturating_sub(self.first).saturating_add(1);
        Some(since + Duration::from_secs(60) * more / self.a_minute + Duration::from_millis(1))
    }

    fn allowed(&self) -> u32 {
        let waited = self.waiting_since.map_or(Duration::ZERO, |since| since.elapsed());
        let more = waited.as_millis() * u128::from(self.a_minute) / 60_000;
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        self.first.saturating_add(more).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(scaling: &mut BatchScaling) -> usize {
        std::iter::repeat_with(|| scaling.begin()).take_while(|begins| *begins).count()
    }

    #[tokio::test(start_paused = true)]
    async fn batches_grow_while_messages_wait() {
        let mut scaling = BatchScaling::new(&Quotas::default(), None);
        assert_eq!(begun(&mut scaling), 5);
        assert_eq!(
            scaling.grows_at().map(|at| at - Instant::now() < Duration::from_secs(1)),
            Some(true)
        );
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(begun(&mut scaling), 300);
        tokio::time::advance(Duration::from_secs(600)).await;
        assert_eq!(begun(&mut scaling), 945, "1250 in all");
        assert_eq!(scaling.grows_at(), None);
        scaling.end();
        assert_eq!(begun(&mut scaling), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn empty_queue_begins_anew() {
        let mut scaling = BatchScaling::new(&Quotas::default(), None);
        begun(&mut scaling);
        tokio::time::advance(Duration::from_secs(60)).await;
        scaling.rest();
        assert_eq!(begun(&mut scaling), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn batches_keep_to_their_maximum() {
        let mut scaling = BatchScaling::new(&Quotas::default(), Some(2));
        assert_eq!(begun(&mut scaling), 2);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!((begun(&mut scaling), scaling.grows_at()), (0, None));
    }
}
