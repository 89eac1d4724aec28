//! Jobs: written one at a time, read by id, by source record or by state.

use aws_sdk_dynamodb::types::AttributeValue;
use domain::id::{JobId, SourceRecordId};
use domain::job::{Job, State};
use tracing::error;

use super::put::{Put, committed};
use super::reading::ScanFilter;
use super::{
    Committed, Consistency, Inserted, Item, Page, Store, StoreError, job_item, key, page, text,
};
use crate::telemetry::chain;

impl Store {
    /// Stores a new job.
    ///
    /// # Errors
    /// When DynamoDB does not confirm the write; the job may be stored all the same.
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

    /// Stores a changed job over its previous version. A settled job leaves the `active` index
    /// and expires after the retention time.
    ///
    /// # Errors
    /// When DynamoDB does not confirm the write; the change may be stored all the same.
    pub async fn commit_job(&self, job: &Job) -> Result<Committed<Job>, StoreError> {
        let item = job_item::encode(job, self.retention)?;
        let put = self.put(item, "v = :v", Some(job.version), "store a job's change").await?;
        committed(put, job_item::decode)
    }

    /// The job, by a consistent read.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn job(&self, id: &JobId) -> Result<Option<Job>, StoreError> {
        let item = self.get(&job_item::pk(id), job_item::SK, "read a job").await?;
        item.map(job_item::decode).transpose()
    }

    /// Those jobs of these ids that exist, in no order, by a consistent read.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn jobs(&self, ids: &[JobId]) -> Result<Vec<Job>, StoreError> {
        self.read_jobs(ids, Consistency::Strong).await
    }

    /// The same by an eventually consistent read, which costs half.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn jobs_eventual(&self, ids: &[JobId]) -> Result<Vec<Job>, StoreError> {
        self.read_jobs(ids, Consistency::Eventual).await
    }

    async fn read_jobs(
        &self,
        ids: &[JobId],
        consistency: Consistency,
    ) -> Result<Vec<Job>, StoreError> {
        let keys = ids.iter().map(|id| key(&job_item::pk(id), job_item::SK)).collect();
        self.readable_jobs(keys, consistency).await
    }

    /// The jobs at these keys, as far as they exist and this release can read them.
    pub(super) async fn readable_jobs(
        &self,
        keys: Vec<Item>,
        consistency: Consistency,
    ) -> Result<Vec<Job>, StoreError> {
        let mut jobs = Vec::new();
        for item in self.batch(keys, consistency, "read jobs").await? {
            match job_item::decode(item) {
                Ok(job) => jobs.push(job),
                // Another release may have written it. It must not hide the other jobs.
                Err(cause) => error!(error = chain(&cause), "unreadable job item skipped"),
            }
        }
        Ok(jobs)
    }

    /// The jobs of one source record, newest first. `start` is the `next` of another page.
    ///
    /// # Errors
    /// When the table cannot be read, or `start` is not the `next` of a page.
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

    /// Jobs in one state, newest first within a page. This scans the table: no index has the
    /// state as a key, because that would double the cost of every change. A page may have
    /// fewer jobs than `limit`, or none, and still have a next page.
    ///
    /// # Errors
    /// When the table cannot be read, or `start` is not the `next` of a page.
    pub async fn jobs_in_state(
        &self,
        state: State,
        start: Option<&str>,
        limit: u8,
    ) -> Result<Page<Job>, StoreError> {
        let filter = ScanFilter {
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
}
