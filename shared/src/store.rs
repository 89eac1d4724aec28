//! Where truth lives: one DynamoDB table.
//!
//! | item | pk / sk | written |
//! |---|---|---|
//! | job | `job#<id>` / `job` | whole, by one conditional put per change |
//! | submitted payload | `job#<id>` / `payload` | once |
//! | delivery | `job#<id>` / `delivery#<eventId>` | whole, by one conditional put per change |
//! | delivery of a test | `test` / `delivery#<eventId>` | the same |
//! | webhook configuration | `config` / `webhook` | by its owner |
//! | who is changing it | `config` / `hold` | before and after each change |
//! | endpoint | `endpoint#<hash of its URL>` / `endpoint` | whole, while there is something to say of it |
//! | how long renders take | `law#<provider>` / `law` | at most once a minute and process |
//! | lease of a shard | `lease#<shard>` / `lease` | when taken over, and once a minute while awake |
//! | number of shards | `shards` / `shards` | when there are more than ever |
//!
//! A change and what follows from it (a job's outbox, a delivery's next attempt) are one
//! item and so one write. Every write is conditional on the version that was read, so two
//! writers cannot both win, and the loser learns what the winner wrote from the same answer.
//!
//! The indexes project keys only, and only keys that never change while an item is in the
//! index: an item pays for an index when it enters and when it leaves.

mod active;
mod config;
mod delivery_item;
mod endpoint_item;
mod endpoints;
mod job_item;
mod law_item;
mod lease_item;
mod page;
mod payload;
mod reading;
mod undelivered;

use std::collections::HashMap;
use std::error::Error;
use std::fmt;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use chrono::{DateTime, TimeDelta, Utc};
use domain::delivery::Delivery;
use domain::id::{EventId, JobId, SourceRecordId};
use domain::job::{Job, State};
use domain::time;
use tracing::error;

use crate::telemetry::chain;

use reading::Filter;

pub use config::{Hold, Reached, WebhookConfig};
pub use endpoints::AsOf;
pub use law_item::Learnt;
pub use page::Page;
pub use payload::{MAX_STORED_PAYLOAD, PayloadTooLarge, StoredPayload};
pub use undelivered::{Order, Span};

type Item = HashMap<String, AttributeValue>;

/// The table.
#[derive(Clone, Debug)]
pub struct Store {
    client: Client,
    table: String,
    retention: TimeDelta,
}

/// Why the table could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It did not answer, or refused; the same call may work later.
    #[error("the table could not be asked to {doing}")]
    Unavailable {
        /// What was tried.
        doing: &'static str,
        /// What the SDK says.
        source: Box<dyn Error + Send + Sync>,
    },
    /// An item in it is not what we write.
    #[error("an item in the table is not a {kind}: {problem}")]
    Corrupt {
        /// What it should be.
        kind: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// What came of storing something new.
#[derive(Clone, Debug, PartialEq)]
pub enum Inserted<T> {
    /// It is stored.
    New,
    /// Something was there already, and still is.
    Exists(T),
}

/// What came of storing a change.
#[derive(Clone, Debug, PartialEq)]
pub enum Committed<T> {
    /// It is stored.
    Stored,
    /// Somebody else changed it first, into this; decide again. None when it is gone.
    Overtaken(Option<T>),
}

impl Store {
    /// The table called `table`; settled jobs are kept for `retention`.
    #[must_use]
    pub fn new(client: Client, table: String, retention: TimeDelta) -> Self {
        Self { client, table, retention }
    }

    /// Stores a job that must be new.
    ///
    /// # Errors
    /// When the table cannot be written; the job may be stored all the same.
    pub async fn insert_job(&self, job: &Job) -> Result<Inserted<Job>, StoreError> {
        let item = job_item::encode(job, self.retention)?;
        match self.put(item, "attribute_not_exists(pk)", None, "store a job").await? {
            Put::Stored => Ok(Inserted::New),
            Put::Refused(Some(item)) => job_item::decode(item).map(Inserted::Exists),
            Put::Refused(None) => Err(StoreError::Corrupt {
                kind: "job",
                problem: "the table says it exists and does not show it".into(),
            }),
        }
    }

    /// Stores a changed job over the version it was made from. A settled one leaves the
    /// active jobs and is deleted after the retention time.
    ///
    /// # Errors
    /// When the table cannot be written; the change may be stored all the same.
    pub async fn commit_job(&self, job: &Job) -> Result<Committed<Job>, StoreError> {
        let item = job_item::encode(job, self.retention)?;
        let put = self.put(item, "v = :v", Some(job.version), "store a job's change").await?;
        committed(put, job_item::decode)
    }

    /// The job, as of now.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn job(&self, id: &JobId) -> Result<Option<Job>, StoreError> {
        let item = self.get(&job_item::pk(id), job_item::SK, "read a job").await?;
        item.map(job_item::decode).transpose()
    }

    /// The jobs of these ids that exist, in no order.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn jobs(&self, ids: &[JobId]) -> Result<Vec<Job>, StoreError> {
        self.read_jobs(ids, AsOf::Now).await
    }

    /// The jobs of these ids, as they were a moment ago, at half the price.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn jobs_lately(&self, ids: &[JobId]) -> Result<Vec<Job>, StoreError> {
        self.read_jobs(ids, AsOf::Recently).await
    }

    async fn read_jobs(&self, ids: &[JobId], as_of: AsOf) -> Result<Vec<Job>, StoreError> {
        let keys = ids.iter().map(|id| key(&job_item::pk(id), job_item::SK)).collect();
        let mut jobs = Vec::new();
        for item in self.batch(keys, as_of, "read jobs").await? {
            match job_item::decode(item) {
                Ok(job) => jobs.push(job),
                // Written by another release, perhaps. It must not hide the others.
                Err(cause) => error!(error = chain(&cause), "unreadable job item skipped"),
            }
        }
        Ok(jobs)
    }

    /// The jobs of one source record, newest first. `start` is a former page's `next`.
    ///
    /// # Errors
    /// When the table cannot be read, or `start` is no page's `next`.
    pub async fn jobs_of_source(
        &self,
        source: &SourceRecordId,
        start: Option<&str>,
        limit: u8,
    ) -> Result<Page<Job>, StoreError> {
        let doing = "list the jobs of a source record";
        let output = self
            .client
            .query()
            .table_name(&self.table)
            .index_name("by_source")
            .key_condition_expression("#source = :source")
            .expression_attribute_names("#source", "source")
            .expression_attribute_values(":source", AttributeValue::S(source.to_string()))
            .scan_index_forward(false)
            .limit(limit.into())
            .set_exclusive_start_key(start.map(page::decode_cursor).transpose()?)
            .send()
            .await
            .map_err(|error| page::unreadable(doing, start, error.into_service_error()))?;
        let ids = output.items().iter().map(job_item::id_of).collect::<Result<Vec<_>, _>>()?;
        let mut items = self.jobs(&ids).await?;
        items.sort_by_key(|job| std::cmp::Reverse(job.created_at));
        let next = output.last_evaluated_key.map(|key| page::encode_cursor(&key)).transpose()?;
        Ok(Page { items, next })
    }

    /// Jobs in one state, newest first within a page. Reads the whole table a page at a
    /// time: no index holds the state, because an attribute that changes would double what
    /// every change costs. A page may have fewer jobs than asked for, or none, and a next
    /// one all the same.
    ///
    /// # Errors
    /// When the table cannot be read, or `start` is no page's `next`.
    pub async fn jobs_in_state(
        &self,
        state: State,
        start: Option<&str>,
        limit: u8,
    ) -> Result<Page<Job>, StoreError> {
        let filter = Filter {
            expression: "sk = :job AND #state = :state",
            names: &[("#state", "state")],
            values: [(":job", text(job_item::SK)), (":state", text(state.name()))].into(),
        };
        let page = self.scan(filter, start, limit, "list the jobs in a state").await?;
        let mut items =
            page.items.into_iter().map(job_item::decode).collect::<Result<Vec<_>, _>>()?;
        items.sort_by_key(|job| std::cmp::Reverse(job.created_at));
        Ok(Page { items, next: page.next })
    }

    /// Keeps what a caller submitted; never over something else.
    ///
    /// # Errors
    /// When the table cannot be written; the payload may be stored all the same.
    pub async fn insert_payload(
        &self,
        id: &JobId,
        payload: &StoredPayload,
        now: DateTime<Utc>,
    ) -> Result<Inserted<StoredPayload>, StoreError> {
        let item = payload::encode(id, payload, (now + self.retention).timestamp())?;
        match self.put(item, "attribute_not_exists(pk)", None, "store a payload").await? {
            Put::Stored => Ok(Inserted::New),
            Put::Refused(item) => payload::decode(&item.unwrap_or_default()).map(Inserted::Exists),
        }
    }

    /// Stores a delivery that must be new; answers whether it was.
    ///
    /// # Errors
    /// When the table cannot be written; the delivery may be stored all the same.
    pub async fn insert_delivery(
        &self,
        delivery: &Delivery,
        wait: Wait,
    ) -> Result<Inserted<Delivery>, StoreError> {
        let item = self.waiting(delivery, wait)?;
        match self.put(item, "attribute_not_exists(pk)", None, "store a delivery").await? {
            Put::Stored => Ok(Inserted::New),
            Put::Refused(item) => {
                delivery_item::decode(item.unwrap_or_default()).map(Inserted::Exists)
            }
        }
    }

    /// Stores a changed delivery over the version it was made from. One whose next attempt
    /// is further away than the queue can carry enters the `due` index by the same write.
    ///
    /// # Errors
    /// When the table cannot be written; the change may be stored all the same.
    pub async fn commit_delivery(
        &self,
        delivery: &Delivery,
        wait: Wait,
    ) -> Result<Committed<Delivery>, StoreError> {
        let item = self.waiting(delivery, wait)?;
        let doing = "store a delivery's change";
        let put = self.put(item, "v = :v", Some(delivery.version), doing).await?;
        committed(put, delivery_item::decode)
    }

    fn waiting(&self, delivery: &Delivery, wait: Wait) -> Result<Item, StoreError> {
        let mut item = delivery_item::encode(delivery, self.retention)?;
        if let Wait::InIndex { until } = wait {
            item.insert("due_shard".into(), number(delivery.shard.into()));
            item.insert("due_at".into(), AttributeValue::N(time::millis(until).to_string()));
        }
        Ok(item)
    }

    /// The delivery of one event of a job, or of a test, as of now.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn delivery(
        &self,
        job: Option<&JobId>,
        event: &EventId,
    ) -> Result<Option<Delivery>, StoreError> {
        let sk = delivery_item::sk(event);
        let item = self.get(&delivery_item::pk(job), &sk, "read a delivery").await?;
        item.map(delivery_item::decode).transpose()
    }

    /// All deliveries of a job, oldest first.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn deliveries(&self, job: &JobId) -> Result<Vec<Delivery>, StoreError> {
        let doing = "list the deliveries of a job";
        let mut pages = self
            .client
            .query()
            .table_name(&self.table)
            .key_condition_expression("pk = :pk AND begins_with(sk, :sk)")
            .expression_attribute_values(":pk", AttributeValue::S(job_item::pk(job)))
            .expression_attribute_values(":sk", AttributeValue::S(delivery_item::SK_PREFIX.into()))
            .consistent_read(true)
            .into_paginator()
            .send();
        let mut deliveries = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| unavailable(doing, error.into_service_error()))?;
            for item in page.items.unwrap_or_default() {
                deliveries.push(delivery_item::decode(item)?);
            }
        }
        deliveries.sort_by_key(|delivery| delivery.created_at);
        Ok(deliveries)
    }

    /// The deliveries of a shard whose long wait is over by `until`, soonest first: their job,
    /// none for a test, and their event.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn due_deliveries(
        &self,
        shard: u32,
        until: DateTime<Utc>,
    ) -> Result<Vec<(Option<JobId>, EventId)>, StoreError> {
        let doing = "list due deliveries";
        let mut pages = self
            .client
            .query()
            .table_name(&self.table)
            .index_name("due")
            .key_condition_expression("due_shard = :shard AND due_at <= :until")
            .expression_attribute_values(":shard", number(shard.into()))
            .expression_attribute_values(
                ":until",
                AttributeValue::N(time::millis(until).to_string()),
            )
            .into_paginator()
            .send();
        let mut due = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| unavailable(doing, error.into_service_error()))?;
            for item in page.items() {
                due.push((delivery_item::job_of(item)?, delivery_item::event_of(item)?));
            }
        }
        Ok(due)
    }

    async fn get(
        &self,
        pk: &str,
        sk: &str,
        doing: &'static str,
    ) -> Result<Option<Item>, StoreError> {
        let get = self.client.get_item().table_name(&self.table).set_key(Some(key(pk, sk)));
        let output = get.consistent_read(true).send().await;
        Ok(output.map_err(|error| unavailable(doing, error.into_service_error()))?.item)
    }

    /// Puts the version of an item that follows the one in the table; the first, 1, follows
    /// none.
    async fn put_version(
        &self,
        item: Item,
        version: u64,
        doing: &'static str,
    ) -> Result<Put, StoreError> {
        match version {
            0 | 1 => self.put(item, "attribute_not_exists(pk)", None, doing).await,
            _ => self.put(item, "v = :v", Some(version), doing).await,
        }
    }

    /// Puts an item if `condition` holds; `:v` in it is the version before `version`.
    ///
    /// The item carries a mark of this very call. When the answer to a write that was stored
    /// is lost and the client repeats it, the repeat is refused by our own item; the mark
    /// tells that from somebody else's.
    async fn put(
        &self,
        mut item: Item,
        condition: &str,
        version: Option<u64>,
        doing: &'static str,
    ) -> Result<Put, StoreError> {
        let mark: [u8; 8] = crate::random_bytes().map_err(|error| unavailable(doing, error))?;
        let mark = AttributeValue::B(Blob::new(mark));
        item.insert(MARK.into(), mark.clone());
        let is_key = |name: &str| matches!(name, "pk" | "sk");
        let place = item.clone().into_iter().filter(|(name, _)| is_key(name)).collect();
        let mut put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression(condition)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        if let Some(version) = version {
            put = put.expression_attribute_values(":v", number(version.saturating_sub(1)));
        }
        match put.send().await.map_err(aws_sdk_dynamodb::error::SdkError::into_service_error) {
            Ok(_) => Ok(Put::Stored),
            Err(PutItemError::ConditionalCheckFailedException(failed)) => {
                let ours = failed.item.as_ref().is_some_and(|item| item.get(MARK) == Some(&mark));
                Ok(if ours { Put::Stored } else { Put::Refused(failed.item) })
            }
            Err(error) => match self.holds(&place, &mark).await {
                true => Ok(Put::Stored),
                false => Err(unavailable(doing, error)),
            },
        }
    }

    /// Whether a write whose every answer was lost is in the table after all.
    async fn holds(&self, place: &Item, mark: &AttributeValue) -> bool {
        let get = self.client.get_item().table_name(&self.table).set_key(Some(place.clone()));
        let found = get.consistent_read(true).send().await.ok().and_then(|output| output.item);
        found.is_some_and(|item| item.get(MARK) == Some(mark))
    }
}

/// Where a delivery waits for its next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// In the queue, or not at all.
    InQueue,
    /// In the `due` index, which the poller drains.
    InIndex {
        /// Until when.
        until: DateTime<Utc>,
    },
}

/// The attribute that tells which call wrote an item.
const MARK: &str = "w";

enum Put {
    Stored,
    Refused(Option<Item>),
}

fn committed<T>(
    put: Put,
    decode: impl FnOnce(Item) -> Result<T, StoreError>,
) -> Result<Committed<T>, StoreError> {
    match put {
        Put::Stored => Ok(Committed::Stored),
        Put::Refused(item) => item.map(decode).transpose().map(Committed::Overtaken),
    }
}

fn key(pk: &str, sk: &str) -> Item {
    HashMap::from([
        ("pk".to_owned(), AttributeValue::S(pk.to_owned())),
        ("sk".to_owned(), AttributeValue::S(sk.to_owned())),
    ])
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn unavailable(doing: &'static str, error: impl Error + Send + Sync + 'static) -> StoreError {
    StoreError::Unavailable { doing, source: Box::new(error) }
}

fn corrupt(kind: &'static str, problem: impl fmt::Display) -> StoreError {
    StoreError::Corrupt { kind, problem: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use domain::event::EventSet;
    use domain::id::ProviderName;
    use domain::job::Intent;
    use domain::polling::Tracking;

    use super::*;
    use crate::fake::FakeAws;

    fn job(source: &str) -> Job {
        let intent = Intent {
            id: JobId::from_bytes([7; 16]),
            provider: ProviderName::parse("zvid").unwrap(),
            source_record_id: SourceRecordId::parse(source).unwrap(),
            payload_version: None,
            metadata: serde_json::Map::new(),
            callback_url: None,
            wanted: EventSet::ends(),
            fingerprint: [0; 32],
            tracking: Tracking::PollOnly,
            durations: None,
            shard: 0,
        };
        Job::intend(intent, time::from_millis(1_800_000_000_000).unwrap())
    }

    #[tokio::test]
    async fn a_write_whose_answer_was_lost_is_ours() {
        let aws = FakeAws::new(&[]);
        let store = aws.tracker().unwrap().store;
        aws.lose_next_answer();
        assert_eq!(store.insert_job(&job("ours")).await.unwrap(), Inserted::New);

        let changed = job("ours").bumped();
        aws.lose_next_answer();
        assert_eq!(store.commit_job(&changed).await.unwrap(), Committed::Stored);
        assert_eq!(store.job(&changed.id).await.unwrap(), Some(changed));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_busy_table_leaves_out_is_asked_for_again() {
        let aws = FakeAws::new(&[]);
        aws.table().split_batches();
        let store = aws.tracker().unwrap().store;
        let mut ids: Vec<JobId> = (1..=101).map(|id| JobId::from_bytes([id; 16])).collect();
        for id in &ids {
            store.insert_job(&Job { id: id.clone(), ..job("many") }).await.unwrap();
        }
        let read = store.jobs(&ids).await.unwrap();
        let mut read: Vec<JobId> = read.into_iter().map(|job| job.id).collect();
        read.sort();
        ids.sort();
        assert_eq!(read, ids);
    }

    #[tokio::test]
    async fn a_write_of_somebody_else_is_not() {
        let aws = FakeAws::new(&[]);
        let store = aws.tracker().unwrap().store;
        store.insert_job(&job("theirs")).await.unwrap();
        let second = store.insert_job(&job("ours")).await.unwrap();
        assert_eq!(second, Inserted::Exists(job("theirs")));
        let stale = job("ours").bumped().bumped();
        let overtaken = store.commit_job(&stale).await.unwrap();
        assert_eq!(overtaken, Committed::Overtaken(Some(job("theirs"))));
    }
}
