//! API keys as one process sees them: [`shared::api_key_cache`].

use std::sync::Arc;
use std::time::Duration;

use aws_in_memory::interceptor::{FaultyOperation, Injected};
use aws_in_memory::{InMemoryAws, clock};
use domain::credential::{Revocation, Scope, ScopeSet};
use futures_util::future::join_all;
use serde_json::json;
use shared::api_key_cache::ApiKeyCache;
use shared::store::KeyChange;
use tokio::time::advance;

use crate::secrets::EveryCall;

const KEY: &str = "rr_example";

fn may_read() -> ScopeSet {
    [Scope::Read].into_iter().collect()
}

async fn with_key() -> InMemoryAws {
    let aws = InMemoryAws::new(&[]);
    aws.add_api_key(KEY, may_read()).await.unwrap();
    aws
}

/// Whether a key is in force; none when that is not known.
async fn is_in_force(keys: &ApiKeyCache, key: &str) -> Option<bool> {
    keys.record_of(key, clock::now()).await.ok().map(|record| record.is_some())
}

fn reads(aws: &InMemoryAws) -> usize {
    aws.calls().iter().filter(|call| *call == "Query").count()
}

fn refused() -> Injected {
    Injected::Refused(400, json!({"__type": "AccessDeniedException"}))
}

#[tokio::test(start_paused = true)]
async fn requests_of_half_a_minute_cost_one_read() {
    let aws = with_key().await;
    let keys = ApiKeyCache::new(aws.store());
    for _ in 0..29 {
        assert_eq!(is_in_force(&keys, KEY).await, Some(true));
        advance(Duration::from_secs(1)).await;
    }
    assert_eq!(reads(&aws), 1);
    advance(Duration::from_secs(1)).await;
    is_in_force(&keys, KEY).await;
    assert_eq!(reads(&aws), 2);
}

#[tokio::test(start_paused = true)]
async fn flood_of_wrong_keys_costs_hardly_a_read() {
    let aws = with_key().await;
    let keys = ApiKeyCache::new(aws.store());
    for n in 0..600 {
        assert_eq!(is_in_force(&keys, &format!("rr_{n}")).await, Some(false));
        advance(Duration::from_millis(100)).await;
    }
    assert_eq!(reads(&aws), 12, "one in five seconds");
    let crowd = (0..100).map(|n| format!("rr_{n}"));
    let crowd: Vec<String> = crowd.collect();
    advance(Duration::from_secs(60)).await;
    join_all(crowd.iter().map(|key| is_in_force(&keys, key))).await;
    assert_eq!(reads(&aws), 13, "and a crowd shares one");
}

#[tokio::test(start_paused = true)]
async fn new_key_is_in_force_within_seconds() {
    let aws = InMemoryAws::new(&[]);
    let keys = ApiKeyCache::new(aws.store());
    assert_eq!(is_in_force(&keys, KEY).await, Some(false));
    aws.add_api_key(KEY, may_read()).await.unwrap();
    advance(Duration::from_secs(5)).await;
    assert_eq!(is_in_force(&keys, KEY).await, Some(true));
}

#[tokio::test(start_paused = true)]
async fn keys_outlive_an_outage_by_a_minute() {
    let aws = with_key().await;
    let faults = Arc::new(EveryCall::default());
    let keys = ApiKeyCache::new(aws.seen_by(faults.clone()).store());
    assert_eq!(is_in_force(&keys, KEY).await, Some(true));
    faults.set(refused());
    advance(Duration::from_secs(59)).await;
    assert_eq!(is_in_force(&keys, KEY).await, Some(true));
    assert_eq!(is_in_force(&keys, "rr_other").await, Some(false));
    advance(Duration::from_secs(1)).await;
    assert_eq!(is_in_force(&keys, KEY).await, None, "a revoked key would be in force for ever");
    faults.set(Injected::Answered);
    assert_eq!(is_in_force(&keys, KEY).await, Some(true));
}

#[tokio::test(start_paused = true)]
async fn stale_keys_are_reread_after_a_pause() {
    let aws = with_key().await;
    let faults = Arc::new(EveryCall::default());
    let keys = ApiKeyCache::new(aws.seen_by(faults.clone()).store());
    is_in_force(&keys, KEY).await;
    faults.set(refused());
    advance(Duration::from_secs(30)).await;
    is_in_force(&keys, KEY).await;
    faults.set(Injected::Answered);
    let before = reads(&aws);
    advance(Duration::from_secs(4)).await;
    is_in_force(&keys, KEY).await;
    assert_eq!(reads(&aws), before, "no request waits for what has just failed");
    advance(Duration::from_secs(1)).await;
    is_in_force(&keys, KEY).await;
    assert_eq!(reads(&aws), before + 1);
}

#[tokio::test]
async fn unreadable_key_locks_out_no_other() {
    let aws = with_key().await;
    for broken in [
        json!({"pk": {"S": "api-keys"}, "sk": {"S": "broken"}}),
        json!({"pk": {"S": "api-keys"}, "sk": {"S": "not a name"}, "sha256": {"N": "5"}}),
    ] {
        assert_eq!(
            aws.table().answer("PutItem", &json!({"TableName": "t", "Item": broken})).0,
            200
        );
    }
    let keys = ApiKeyCache::new(aws.store());
    assert_eq!(is_in_force(&keys, KEY).await, Some(true));
    let stored = aws.store().api_keys().await.unwrap();
    let names: Vec<_> = stored.unreadable.iter().map(|key| key.name.as_str()).collect();
    assert_eq!((stored.keys.iter().count(), names), (1, vec!["broken", "not a name"]));
}

/// A name that was given again belongs to another key.
#[tokio::test]
async fn deletion_spares_a_namesake() {
    let aws = InMemoryAws::new(&[]);
    let old = aws.add_api_key("rr_old", may_read()).await.unwrap();
    aws.store().delete_api_key(&old).await.unwrap();
    aws.store().delete_api_key(&old).await.unwrap();
    let new = aws.add_api_key("rr_new", may_read()).await.unwrap();
    assert_eq!(new.name, old.name);
    aws.store().delete_api_key(&old).await.unwrap();
    let keys = aws.store().api_keys().await.unwrap().keys;
    assert_eq!(keys.of("rr_new").map(|record| &record.id), Some(&new.id));
}

/// Two transactions about one item at once: DynamoDB cancels one of them.
#[tokio::test]
async fn conflicting_key_change_is_outdated() {
    let aws = InMemoryAws::new(&[]);
    let mine = aws.add_api_key("rr_mine", may_read()).await.unwrap();
    let conflict = |codes: [&str; 2]| {
        let reasons = codes.map(|code| json!({"Code": code}));
        Injected::Refused(
            400,
            json!({
                "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
                "Message": "Transaction cancelled",
                "CancellationReasons": reasons,
            }),
        )
    };
    for codes in [["TransactionConflict", "None"], ["None", "TransactionConflict"]] {
        let faults = FaultyOperation::new("TransactWriteItems", conflict(codes));
        let store = aws.seen_by(faults).store();
        let revocation = Revocation { record: &mine, remaining: &mine };
        let changed = store.revoke_api_key(revocation).await.unwrap();
        assert_eq!(changed, KeyChange::Outdated, "{codes:?}");
    }
    assert!(aws.store().api_keys().await.unwrap().keys.of("rr_mine").is_some());
}

#[tokio::test]
async fn many_keys_are_read_page_by_page() {
    let aws = InMemoryAws::new(&[]);
    let padding = "x".repeat(300_000);
    for n in 0..9 {
        // Anything that makes an item large; pages end after 1 MiB.
        let item = json!({
            "pk": {"S": "api-keys"}, "sk": {"S": format!("key-of-{n}")},
            "id": {"S": format!("key_{n:032}")}, "owner": {"S": "o"}, "scopes": {"L": []},
            "sha256": {"S": domain::credential::ApiKeyHash::of(&format!("rr_{n}")).to_hex()},
            "created_at": {"N": "0"}, "created_by": {"S": "operator"}, "padding": {"S": padding},
        });
        assert_eq!(aws.table().answer("PutItem", &json!({"TableName": "t", "Item": item})).0, 200);
    }
    let keys = ApiKeyCache::new(aws.store());
    for n in 0..9 {
        assert_eq!(is_in_force(&keys, &format!("rr_{n}")).await, Some(true), "{n}");
    }
    assert!(reads(&aws) > 1);
}
