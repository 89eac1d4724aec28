//! What receivers have taught us, shared by all who deliver.
//!
//! What is known of an endpoint is an item in the table. A process remembers what it read for
//! a moment: one that posts a hundred times a second to one receiver must not read its item
//! a hundred times. Whatever changes is written under the condition that nobody else changed
//! it meanwhile; who is overtaken decides anew, from what the other wrote, a few times.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use domain::endpoint::{Arrival, Arrived, Endpoint, Hold, Lesson, Pass};
use domain::id::EndpointId;
use tokio::sync::Mutex as Turn;
use tracing::debug;

use crate::store::{AsOf, Committed, Store, StoreError};

/// How long what was read is good for. So long may an attempt of another process undercut
/// what a receiver has just asked for: it counts as under way. And so long may a success not
/// know that it ends a row of failures: the breaker waits for longer than that.
const FRESH: TimeDelta = TimeDelta::seconds(1);

/// How often a change is decided anew. Failures of a sick endpoint are no news after the
/// first few, so a crowd that tells of them thins out by itself; only limits that are asked
/// for more often than they can be counted use this up.
const MOST_RACES: usize = 8;

/// How many endpoints are remembered at most.
const MOST_REMEMBERED: usize = 1_000;

/// The endpoints, as one process sees them.
pub struct Endpoints {
    store: Store,
    remembered: Mutex<HashMap<EndpointId, Arc<Turn<Option<Remembered>>>>>,
}

struct Remembered {
    endpoint: Endpoint,
    read_at: DateTime<Utc>,
}

/// What becomes of an attempt that is due. Whatever had to be written is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Passage {
    /// It may be made.
    Go(Pass),
    /// It may not be made before `until`.
    Hold {
        /// When it arrives again.
        until: DateTime<Utc>,
        /// Why.
        by: Hold,
    },
    /// It is to be made in the slow lane.
    ChangeLane,
    /// It may not be made at all.
    Refuse,
    /// Too many arrive at once: it comes back in a moment.
    Crowded,
}

impl Endpoints {
    /// The endpoints in this table.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, remembered: Mutex::default() }
    }

    /// What is known of the endpoint at `url`.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn known(
        &self,
        url: &str,
        as_of: AsOf,
        now: DateTime<Utc>,
    ) -> Result<Endpoint, StoreError> {
        let entry = self.entry(url);
        let mut turn = entry.lock().await;
        self.current(url, as_of, &mut turn, now).await
    }

    /// Asks the endpoint at `url` whether an attempt that is due may be made.
    ///
    /// # Errors
    /// When the table cannot be read or written.
    pub async fn arrive(
        &self,
        url: &str,
        arrival: &Arrival,
        now: DateTime<Utc>,
    ) -> Result<Passage, StoreError> {
        let decide = |endpoint: &Endpoint| match endpoint.arrive(arrival, now) {
            Arrived::Go { pass, claim } => (claim, Passage::Go(pass)),
            Arrived::Hold { until, by, claim } => (claim, Passage::Hold { until, by }),
            Arrived::ChangeLane => (None, Passage::ChangeLane),
            Arrived::Refuse { remember } => (remember, Passage::Refuse),
        };
        let decided = match self.change(url, AsOf::Recently, now, decide).await? {
            // To refuse is final, and its owner may have enabled it a moment ago.
            Changed::Stored(_, Passage::Refuse) => self.change(url, AsOf::Now, now, decide).await?,
            decided => decided,
        };
        Ok(match decided {
            Changed::Stored(_, passage) => passage,
            // That it was disabled is remembered by another.
            Changed::Raced(_, Passage::Refuse) => Passage::Refuse,
            Changed::Raced(_, _) => Passage::Crowded,
        })
    }

    /// Tells the endpoint at `url` what an attempt taught; answers it as it is then.
    ///
    /// # Errors
    /// When the table cannot be read or written.
    pub async fn learn(
        &self,
        url: &str,
        pass: &Pass,
        lesson: &Lesson,
        now: DateTime<Utc>,
    ) -> Result<Endpoint, StoreError> {
        self.tell(url, AsOf::Recently, now, |endpoint| endpoint.learn(pass, lesson, now)).await
    }

    /// Changes the endpoint at `url` as `change` says, if it says anything; answers it as it
    /// is then. When others change it all the time, it is as they say.
    ///
    /// # Errors
    /// When the table cannot be read or written.
    pub async fn tell(
        &self,
        url: &str,
        as_of: AsOf,
        now: DateTime<Utc>,
        change: impl Fn(&Endpoint) -> Option<Endpoint>,
    ) -> Result<Endpoint, StoreError> {
        let decide = |endpoint: &Endpoint| (change(endpoint).map(Box::new), ());
        match self.change(url, as_of, now, decide).await? {
            Changed::Stored(endpoint, ()) => Ok(endpoint),
            Changed::Raced(endpoint, ()) => {
                debug!(endpoint.id = %endpoint.id, "endpoint change dropped after repeated conflicts");
                Ok(endpoint)
            }
        }
    }

    async fn change<T>(
        &self,
        url: &str,
        as_of: AsOf,
        now: DateTime<Utc>,
        decide: impl Fn(&Endpoint) -> (Option<Box<Endpoint>>, T),
    ) -> Result<Changed<T>, StoreError> {
        let entry = self.entry(url);
        // Those of one process take turns rather than race.
        let mut turn = entry.lock().await;
        let mut endpoint = self.current(url, as_of, &mut turn, now).await?;
        for _ in 0..MOST_RACES {
            let (after, answer) = decide(&endpoint);
            let Some(after) = after else { return Ok(Changed::Stored(endpoint, answer)) };
            *turn = None;
            match self.store.commit_endpoint(&endpoint, &after).await? {
                Committed::Stored => {
                    *turn = Some(Remembered { endpoint: (*after).clone(), read_at: now });
                    return Ok(Changed::Stored(*after, answer));
                }
                Committed::Overtaken(current) => {
                    endpoint = current.unwrap_or_else(|| Endpoint::unknown(url));
                }
            }
        }
        let (after, answer) = decide(&endpoint);
        Ok(match after {
            None => Changed::Stored(endpoint, answer),
            Some(after) => Changed::Raced(*after, answer),
        })
    }

    async fn current(
        &self,
        url: &str,
        as_of: AsOf,
        remembered: &mut Option<Remembered>,
        now: DateTime<Utc>,
    ) -> Result<Endpoint, StoreError> {
        if let (AsOf::Recently, Some(known)) = (as_of, &remembered)
            && (now - known.read_at).abs() < FRESH
        {
            return Ok(known.endpoint.clone());
        }
        let endpoint = self.store.endpoint(url, as_of).await?;
        *remembered = Some(Remembered { endpoint: endpoint.clone(), read_at: now });
        Ok(endpoint)
    }

    fn entry(&self, url: &str) -> Arc<Turn<Option<Remembered>>> {
        let mut all = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST_REMEMBERED {
            all.retain(|_, entry| Arc::strong_count(entry) > 1);
        }
        all.entry(EndpointId::of(url)).or_default().clone()
    }
}

enum Changed<T> {
    /// The endpoint is this now.
    Stored(Endpoint, T),
    /// It would be this, if others had not been faster again and again.
    Raced(Endpoint, T),
}

#[cfg(test)]
#[path = "endpoints_tests.rs"]
mod tests;
