//! Writes of the table whose answer is lost, or that another writer wins.

use std::time::Duration;

use aws_in_memory::interceptor::{FaultyOperation, Injected};
use aws_in_memory::{InMemoryAws, builders};
use domain::id::JobId;
use domain::job::Job;
use serde_json::json;
use shared::store::{Committed, Inserted};
use tokio::time::{Instant, timeout};

fn job(source: &str) -> Job {
    builders::job().source_record(source).build()
}

#[tokio::test]
async fn unanswered_write_is_recognised() {
    let aws = InMemoryAws::new(&[]);
    let store = aws.tracker().unwrap().store;
    aws.lose_next_answer();
    assert_eq!(store.insert_job(&job("ours")).await.unwrap(), Inserted::New);

    let changed = job("ours").next_version();
    aws.lose_next_answer();
    let committed = store.commit_job(&changed).await.unwrap();
    assert_eq!(committed, Committed::Stored, "invariant 3: our own write is no conflict");
    assert_eq!(store.job(&changed.id).await.unwrap(), Some(changed));
}

#[tokio::test(start_paused = true)]
async fn unprocessed_keys_are_requested_again() {
    let aws = InMemoryAws::new(&[]);
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

#[tokio::test(start_paused = true)]
async fn unprocessed_keys_end_in_an_error() {
    let key = json!({"pk": {"S": "job"}, "sk": {"S": "x"}});
    let busy = json!({"Responses": {}, "UnprocessedKeys": {"table": {"Keys": [key]}}});
    let busy = FaultyOperation::new("BatchGetItem", Injected::Refused(200, busy));
    let aws = InMemoryAws::new(&[]).seen_by(busy);
    let began = Instant::now();
    let read = timeout(Duration::from_secs(60), aws.store().jobs(&[job("many").id])).await;
    assert!(read.unwrap().is_err());
    let waited = began.elapsed();
    assert!((3..8).contains(&waited.as_secs()), "{waited:?}");
    assert!(aws.calls().is_empty(), "none reached the table");
}

#[tokio::test]
async fn foreign_write_is_a_conflict() {
    let aws = InMemoryAws::new(&[]);
    let store = aws.tracker().unwrap().store;
    store.insert_job(&job("theirs")).await.unwrap();
    let second = store.insert_job(&job("ours")).await.unwrap();
    assert_eq!(second, Inserted::Exists(job("theirs")));
    let stale = job("ours").next_version().next_version();
    let overtaken = store.commit_job(&stale).await.unwrap();
    let conflict = Committed::Conflict(Some(job("theirs")));
    assert_eq!(overtaken, conflict, "invariant 3: a write needs the version that was read");
}
