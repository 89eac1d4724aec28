//! A job's latest hint, in an item of its own: it is stored before the job changes, and most jobs
//! have none.

use chrono::TimeDelta;
use domain::hint::{FollowUp, Hint};
use domain::id::{JobId, RenderJobId};
use domain::time;
use serde::{Deserialize, Serialize};

use super::job_item::{instant, pk};
use super::put::committed;
use super::{Committed, Item, Store, StoreError, corrupt};

const SK: &str = "hint";
const KIND: &str = "hint";

/// When the item expires. It may name the render of a job until that is given up.
const TTL: TimeDelta = TimeDelta::days(2);

#[derive(Serialize, Deserialize)]
struct HintItem {
    pk: String,
    sk: String,
    v: u64,
    at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    render: Option<RenderJobId>,
    follow_up: StoredFollowUp,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    repeated: bool,
    expires_at: i64,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredFollowUp {
    Asking,
    Guarded,
    Queued,
}

impl Store {
    /// Stores a job's hint over the version before it; version 1 has none.
    ///
    /// # Errors
    /// When DynamoDB does not confirm the write; the hint may be stored all the same.
    pub async fn commit_hint(
        &self,
        job: &JobId,
        hint: &Hint,
    ) -> Result<Committed<Hint>, StoreError> {
        let put = self.put_version(encode(job, hint)?, hint.version, "store a hint").await?;
        committed(put, decode)
    }

    /// The job's latest hint, by a consistent read.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn hint(&self, job: &JobId) -> Result<Option<Hint>, StoreError> {
        self.get(&pk(job), SK, "read a hint").await?.map(decode).transpose()
    }
}

fn encode(job: &JobId, hint: &Hint) -> Result<Item, StoreError> {
    let Hint { version, at, render_job_id, follow_up, is_repeated } = hint;
    let item = HintItem {
        pk: pk(job),
        sk: SK.into(),
        v: *version,
        at: time::millis(*at),
        render: render_job_id.clone(),
        follow_up: match follow_up {
            FollowUp::Asking => StoredFollowUp::Asking,
            FollowUp::Guarded => StoredFollowUp::Guarded,
            FollowUp::Queued => StoredFollowUp::Queued,
        },
        repeated: *is_repeated,
        expires_at: (*at + TTL).timestamp(),
    };
    serde_dynamo::to_item(item).map_err(|error| corrupt(KIND, error))
}

fn decode(item: Item) -> Result<Hint, StoreError> {
    let item: HintItem = serde_dynamo::from_item(item).map_err(|error| corrupt(KIND, error))?;
    Ok(Hint {
        version: item.v,
        at: instant(item.at)?,
        render_job_id: item.render,
        follow_up: match item.follow_up {
            StoredFollowUp::Asking => FollowUp::Asking,
            StoredFollowUp::Guarded => FollowUp::Guarded,
            StoredFollowUp::Queued => FollowUp::Queued,
        },
        is_repeated: item.repeated,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hint_round_trips_and_expires() {
        let job = JobId::from_bytes([7; 16]);
        let at = time::from_millis(1_800_000_000_123).unwrap();
        for (follow_up, render) in [
            (FollowUp::Asking, Some("r-1")),
            (FollowUp::Guarded, None),
            (FollowUp::Queued, Some("r-2")),
        ] {
            let hint = Hint {
                version: 3,
                at,
                render_job_id: render.map(|id| RenderJobId::parse(id).unwrap()),
                follow_up,
                is_repeated: render.is_some(),
            };
            let item = encode(&job, &hint).unwrap();
            assert_eq!(item["expires_at"].as_n().unwrap(), "1800172800");
            assert_eq!(decode(item).unwrap(), hint);
        }
    }
}
