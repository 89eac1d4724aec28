//! The shards that active jobs and exhausted deliveries are spread over.

use tokio::sync::OnceCell;

use crate::store::{Store, StoreError};

/// How many shards a stack has, and the most that it ever had: a job and its deliveries stay in
/// their shard when the number is lowered.
#[derive(Debug)]
pub struct Shards {
    current: u32,
    most: OnceCell<u32>,
}

impl Shards {
    /// The number that the stack has now; at least one.
    #[must_use]
    pub fn new(current: u32) -> Self {
        Self { current: current.max(1), most: OnceCell::new() }
    }

    /// The number that new jobs are spread over.
    #[must_use]
    pub fn current(&self) -> u32 {
        self.current
    }

    /// The most that there ever were, this number included. It is stored before anything is put
    /// into a new shard, and read once a process: a change of the number starts new processes.
    ///
    /// # Errors
    /// When the table cannot be read or written; the next call tries again.
    pub async fn most(&self, store: &Store) -> Result<u32, StoreError> {
        let most = self.most.get_or_try_init(async || {
            let stored = store.max_shards().await?;
            if self.current > stored {
                store.put_max_shards(self.current).await?;
            }
            Ok(stored.max(self.current))
        });
        most.await.copied()
    }
}
