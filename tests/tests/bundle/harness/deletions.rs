//! What takes items away from a stack: the table's time to live, and a stack that is made anew.

use std::sync::Arc;

use aws_in_memory::clock;
use domain::credential::Scope;
use serde_json::{Value, json};

use crate::checks::invariant_checker::text;
use crate::harness::bundle::{API_KEY, Bundle};

impl Bundle {
    /// Deletes what has expired, as DynamoDB does some time after.
    pub(crate) fn delete_expired(&self) {
        let now = clock::true_now().timestamp();
        self.delete_items(|item| {
            let expires_at = item.pointer("/expires_at/N").and_then(Value::as_str);
            expires_at.is_some_and(|at| at.parse::<i64>().unwrap() <= now)
        });
    }

    /// A stack of the same name and with the same parameters, whose table is empty.
    pub(crate) async fn make_anew(self: &Arc<Self>) {
        self.end_warm_processes();
        let config = self.aws.store().webhook_config().await.unwrap().unwrap();
        self.delete_items(|_| true);
        self.aws.add_api_key(API_KEY, Scope::ALL.into_iter().collect()).await.unwrap();
        self.aws.put_webhook_config(&config).await.unwrap();
    }

    fn delete_items(&self, is_deleted: impl Fn(&Value) -> bool) {
        let table = self.aws.table();
        for item in table.items().into_iter().filter(is_deleted) {
            let key = json!({"pk": item["pk"], "sk": item["sk"]});
            table.answer("DeleteItem", &json!({"TableName": "table", "Key": key}));
        }
        // The checks ask for the job of each request.
        let is_kept = |job: &str| table.item(&format!("job#{job}"), "job").is_some();
        self.answered_requests
            .lock()
            .unwrap()
            .retain(|answered| self.job_of(answered).is_none_or(|job| is_kept(job.as_str())));
    }

    /// The ids of the stored jobs of a source record.
    pub(crate) fn stored_jobs(&self, source: &str) -> Vec<String> {
        let items = self.aws.table().items();
        let jobs =
            items.iter().filter(|it| text(it, "sk") == "job" && text(it, "source") == source);
        jobs.map(|job| text(job, "pk").trim_start_matches("job#").to_owned()).collect()
    }
}
