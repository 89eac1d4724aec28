//! A token bucket on tokio's clock: how AWS meters most of its quotas.

use tokio::time::Instant;

/// A bucket that holds a burst and is refilled at a rate. It is full at first.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    per_second: f64,
    burst: f64,
    left: f64,
    /// When `left` was right; none before the first use.
    at: Option<Instant>,
}

impl TokenBucket {
    /// A full bucket. An infinite rate is never used up.
    #[must_use]
    pub fn new(per_second: f64, burst: f64) -> Self {
        Self { per_second, burst, left: burst, at: None }
    }

    /// Whether so much is there now.
    pub fn has(&mut self, units: f64) -> bool {
        self.refill();
        self.left >= units
    }

    /// Takes so much, if it is there.
    pub fn take(&mut self, units: f64) -> bool {
        let has = self.has(units);
        if has && self.burst.is_finite() {
            self.left -= units;
        }
        has
    }

    /// Whether it is as if it had never been used.
    pub fn is_full(&mut self) -> bool {
        self.has(self.burst)
    }

    fn refill(&mut self) {
        let now = Instant::now();
        if let Some(at) = self.at.filter(|_| self.burst.is_finite()) {
            let came = now.saturating_duration_since(at).as_secs_f64() * self.per_second;
            self.left = (self.left + came).min(self.burst);
        }
        self.at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bucket_holds_burst_and_refills() {
        let mut bucket = TokenBucket::new(4.0, 8.0);
        assert!((0..8).all(|_| bucket.take(1.0)));
        assert!(!bucket.take(1.0));
        tokio::time::advance(Duration::from_millis(250)).await;
        assert!(bucket.take(1.0));
        assert!(!bucket.take(1.0));
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(bucket.is_full() && bucket.take(8.0) && !bucket.take(1.0));
    }

    #[tokio::test(start_paused = true)]
    async fn bucket_may_be_without_end() {
        let mut bucket = TokenBucket::new(f64::INFINITY, f64::INFINITY);
        assert!((0..100).all(|_| bucket.take(1e9)));
    }
}
