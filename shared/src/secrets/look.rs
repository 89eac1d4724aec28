//! Looking for secrets that were changed by hand, past `relay` and the API.
//!
//! Such a change is announced nowhere. A provider's callback that no known secret verifies may
//! be the first sign of it; or it is forged, of which there may be any number. So one process
//! of the stack looks, once in ten seconds: a conditional write picks it. It announces what has
//! changed, and the others follow. A process that has looked, or knows that another has, does
//! not even ask the table, so forged callbacks cost next to nothing.

use std::time::Duration;

use tracing::warn;

use super::{SecretChange, SecretName, Secrets};
use crate::moment::Moment;
use crate::store::Consistency;
use crate::telemetry::chain;

/// How often a process looks, or asks whether another has.
const EVERY: Duration = Duration::from_secs(10);

/// How old the table's word may be when a process asks whether another has.
const RECENT: Duration = Duration::from_secs(1);

/// A call takes ten names.
const MAX_NAMES: usize = 10;

impl Secrets {
    /// Whether this secret, which has just not served, is now known to be another. `others` are
    /// looked at in the same call, so that nothing about one secret hides a change of theirs.
    pub async fn look_again(
        &self,
        name: &SecretName,
        others: impl IntoIterator<Item = SecretName>,
    ) -> bool {
        let reader = &self.0;
        let before = {
            let mut state = reader.state();
            if state.looked_by_hand.is_some_and(|at| at.age() < EVERY) {
                return false;
            }
            state.looked_by_hand = Some(Moment::now());
            state.cache.text(name)
        };
        let now = (reader.follower.clock)();
        let looked = reader.follow_within(RECENT, Consistency::Eventual).await;
        // Unless it is known that the last look is over, none is made.
        let age = looked.map(|at| at.map(|at| (now - at).abs().to_std().unwrap_or_default()));
        if age.map_or(true, |age| age.is_some_and(|age| age < EVERY)) {
            return false;
        }
        match reader.follower.store.claim_secret_look(now).await {
            Ok(true) => {}
            Ok(false) => return false,
            Err(cause) => {
                warn!(error = chain(&cause), "secrets not looked at after a refused signature");
                return false;
            }
        }
        let mut names = vec![name.clone()];
        for other in others {
            if names.len() < MAX_NAMES && !names.contains(&other) {
                names.push(other);
            }
        }
        let found = match reader.parameters.read(&names).await {
            Ok(found) => found,
            Err(cause) => {
                let error = chain(&*cause.source);
                warn!(error, "secrets not looked at after a refused signature");
                return false;
            }
        };
        for one in &names {
            let known = reader.state().cache.text(one);
            let stored = found.get(one);
            let text = stored.map(|stored| stored.text.clone());
            if known.is_none_or(|known| known == text) {
                continue;
            }
            reader.keep_read(one, text, stored.map(|stored| stored.version));
            let id = u64::from_be_bytes(reader.entropy.bytes().unwrap_or_default());
            let change = SecretChange::made(id, now);
            let change = stored.map_or(change, |stored| change.with_version(stored.version));
            if let Err(cause) = reader.follower.store.announce_secret_change(one, &change).await {
                warn!(error = chain(&cause), "secret change not announced");
            }
        }
        reader.state().cache.text(name) != before
    }
}
