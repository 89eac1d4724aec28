//! Who makes the callback secret. It is an SSM parameter, and SSM takes three writes a second:
//! so one of many submits is chosen, by a conditional write, and the others look here.

use chrono::{DateTime, TimeDelta, Utc};
use domain::time;
use serde::{Deserialize, Serialize};

use super::job_item::instant;
use super::{Item, Put, Store, StoreError, corrupt};
use crate::secrets::SecretChange;

/// Not the webhook configuration's: a role that may write this may not write that.
const PK: &str = "callback-secret";
const SK: &str = "claim";

/// When another submit takes over from one that has not stored the secret. The first one may
/// still store it: SSM stores it only once.
const CLAIM_TTL: TimeDelta = TimeDelta::seconds(5);

/// Whether the callback secret was made, or who is making it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackClaim {
    version: u64,
    progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// A submit makes it, until then.
    Claimed { until: DateTime<Utc> },
    /// The secret is stored, since then at the latest.
    Made { at: DateTime<Utc> },
}

impl CallbackClaim {
    /// When the secret was made.
    #[must_use]
    pub fn made(&self) -> Option<SecretChange> {
        match self.progress {
            Progress::Made { at } => Some(SecretChange::made(self.version, at)),
            Progress::Claimed { .. } => None,
        }
    }

    /// Whether a process is making the secret at `now`.
    #[must_use]
    pub fn is_held(&self, now: DateTime<Utc>) -> bool {
        match self.progress {
            Progress::Claimed { until } => now < until,
            Progress::Made { .. } => false,
        }
    }

    fn next(version: u64, progress: Progress) -> Self {
        Self { version: version.saturating_add(1), progress }
    }
}

impl Store {
    /// The claim on the callback secret, if there was ever one.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn callback_claim(&self) -> Result<Option<CallbackClaim>, StoreError> {
        self.get(PK, SK, "read the claim on the callback secret").await?.map(decode).transpose()
    }

    /// Claims to make the callback secret; none when another was first. `before` is what was
    /// read.
    ///
    /// # Errors
    /// When DynamoDB does not confirm it; the claim may be stored all the same.
    pub async fn claim_callback_secret(
        &self,
        before: Option<&CallbackClaim>,
        now: DateTime<Utc>,
    ) -> Result<Option<CallbackClaim>, StoreError> {
        let version = before.map_or(0, |before| before.version);
        let claim = CallbackClaim::next(version, Progress::Claimed { until: now + CLAIM_TTL });
        let doing = "claim the callback secret";
        match self.put_version(encode(&claim)?, claim.version, doing).await? {
            Put::Stored => Ok(Some(claim)),
            Put::Refused(_) => Ok(None),
        }
    }

    /// Records that the callback secret is stored.
    ///
    /// # Errors
    /// When DynamoDB does not confirm it.
    pub async fn callback_secret_made(
        &self,
        claim: &CallbackClaim,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let made = CallbackClaim::next(claim.version, Progress::Made { at: now });
        let doing = "record that the callback secret was made";
        match self.put_version(encode(&made)?, made.version, doing).await? {
            // A conflict: another submit has taken over, and records it.
            Put::Stored | Put::Refused(_) => Ok(()),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct ClaimItem {
    pk: String,
    sk: String,
    v: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made_at: Option<i64>,
}

fn encode(claim: &CallbackClaim) -> Result<Item, StoreError> {
    let (until, made_at) = match claim.progress {
        Progress::Claimed { until } => (Some(time::millis(until)), None),
        Progress::Made { at } => (None, Some(time::millis(at))),
    };
    let item = ClaimItem { pk: PK.into(), sk: SK.into(), v: claim.version, until, made_at };
    serde_dynamo::to_item(item).map_err(|error| corrupt("claim on the callback secret", error))
}

fn decode(item: Item) -> Result<CallbackClaim, StoreError> {
    let kind = "claim on the callback secret";
    let item: ClaimItem = serde_dynamo::from_item(item).map_err(|error| corrupt(kind, error))?;
    let progress = match (item.until, item.made_at) {
        (_, Some(at)) => Progress::Made { at: instant(at)? },
        (Some(until), None) => Progress::Claimed { until: instant(until)? },
        (None, None) => return Err(corrupt(kind, "it has no time")),
    };
    Ok(CallbackClaim { version: item.v, progress })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callback_claim_round_trips() {
        let at = time::from_millis(1_800_000_000_123).unwrap();
        for progress in [Progress::Claimed { until: at }, Progress::Made { at }] {
            let claim = CallbackClaim::next(4, progress);
            assert_eq!(decode(encode(&claim).unwrap()).unwrap(), claim);
        }
    }

    #[test]
    fn callback_claim_expires() {
        let now = time::from_millis(1_800_000_000_123).unwrap();
        let claim = CallbackClaim::next(0, Progress::Claimed { until: now + CLAIM_TTL });
        assert!(claim.is_held(now) && !claim.is_held(now + CLAIM_TTL));
        assert_eq!(claim.made(), None);
    }
}
