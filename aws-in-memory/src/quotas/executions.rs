//! Lambda's concurrent executions: all functions of an account share one number.

use std::sync::{Arc, Mutex, PoisonError};

/// The executions of an account. Clones are the same account's.
#[derive(Clone, Debug)]
pub struct Executions {
    most: usize,
    running: Arc<Mutex<usize>>,
}

impl Executions {
    /// At most so many at a time.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, running: Arc::default() }
    }

    /// Begins one, unless there are too many; it ends when it is dropped.
    #[must_use]
    pub fn begin(&self) -> Option<Execution> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = *running < self.most;
        begins.then(|| {
            *running += 1;
            Execution(Arc::clone(&self.running))
        })
    }
}

/// An execution that runs.
#[derive(Debug)]
pub struct Execution(Arc<Mutex<usize>>);

impl Drop for Execution {
    fn drop(&mut self) {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *running = running.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executions_end_at_their_quota() {
        let account = Executions::new(10);
        let mut running: Vec<_> = (0..10).map(|_| account.begin().unwrap()).collect();
        assert!(account.begin().is_none());
        running.pop();
        assert!(account.begin().is_some());
    }
}
