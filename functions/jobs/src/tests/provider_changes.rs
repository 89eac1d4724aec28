//! Changes of provider specs that the settings do not fit, or whose answers are lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_in_memory::interceptor::{Call, CallInterceptor, Injected, Interception};
use domain::provider::catalogue::Adjustments;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::providers::{Stack, VIRALSYNC, acme};
use super::*;

/// Without its shipped spec the provider would be gone from a stack that was set up for `v2`.
#[tokio::test]
async fn removal_spares_spec_that_settings_need() {
    let environments = [("viralsync".to_owned(), "v2".to_owned())].into();
    let adjustments = Adjustments { environments, ..Adjustments::default() };
    let stack = Stack::adjusted(with_key().await, adjustments).await;
    let (_, listed) = stack.call("GET", None, "").await;
    let listed = listed["providers"].as_array().unwrap();
    let shown = listed.iter().find(|it| it["name"] == "viralsync").unwrap();
    assert_eq!((&shown["inForce"], &shown["origin"]), (&false.into(), &"shipped".into()));
    assert_eq!(shown["problem"], "viralsync has no environment `v2`");

    let v2 = "\"v2\": \"https://v2.viralsync.example\", \"default\":";
    let v2 = VIRALSYNC.replacen("\"default\":", v2, 1);
    let (status, put) = stack.call("PUT", Some("viralsync"), &v2).await;
    assert_eq!((status, &put["inForce"]), (200, &true.into()), "{put}");
    let (status, problem) = stack.call("DELETE", Some("viralsync"), "").await;
    assert_eq!((status, &problem["code"]), (409, &"shipped_spec_unfit".into()), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("no environment `v2`"), "{problem}");
    let (_, shown) = stack.call("GET", Some("viralsync"), "").await;
    assert_eq!((&shown["inForce"], &shown["origin"]), (&true.into(), &"stored".into()));
}

/// What another process does before the commit of an index is repeated.
#[derive(Clone, Copy, Debug)]
enum Meanwhile {
    /// Nothing, and no answer about the index arrives any more.
    Outage,
    /// It puts a spec of another name.
    PutsOther,
    /// It replaces the spec, and lets the document expire that was in force.
    Replaces,
}

/// Loses the answer of the first commit of an index.
#[derive(Debug)]
struct LosesCommit {
    aws: InMemoryAws,
    meanwhile: Meanwhile,
    commits: AtomicUsize,
}

impl LosesCommit {
    async fn act(&self) {
        match self.meanwhile {
            Meanwhile::Outage => {}
            Meanwhile::PutsOther => self.aws.put_spec("other", "{}").await.unwrap(),
            Meanwhile::Replaces => {
                let store = self.aws.store();
                let name = ProviderName::parse("acme").unwrap();
                let replaced = store.spec_index().await.unwrap().get(&name).unwrap().document;
                self.aws.put_spec("acme", "{}").await.unwrap();
                store.retire_spec_document(&replaced, Utc::now()).await.unwrap();
            }
        }
    }

    async fn decide(&self, call: &Call<'_>) -> Injected {
        let place = if call.what == "PutItem" { &call.body["Item"] } else { &call.body["Key"] };
        let is_index = place["pk"]["S"] == "provider-specs" && place["sk"]["S"] == "index";
        let is_commit = is_index && call.what == "PutItem";
        let before = self.commits.fetch_add(is_commit.into(), Ordering::SeqCst);
        match (is_index, self.meanwhile, before) {
            (true, Meanwhile::Outage, 0) if !is_commit => Injected::Answered,
            (true, Meanwhile::Outage, _) => Injected::Unanswered,
            (true, _, 0) if is_commit => Injected::Unanswered,
            (true, _, 1) if is_commit => {
                self.act().await;
                Injected::Answered
            }
            _ => Injected::Answered,
        }
    }
}

impl CallInterceptor for LosesCommit {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        async move { self.decide(call).await.into() }.boxed()
    }
}

/// Puts `acme` while that happens, and gives the answer.
async fn put_with(aws: &InMemoryAws, meanwhile: Meanwhile, seen: Option<&str>) -> (i64, Value) {
    let faults = LosesCommit { aws: aws.clone(), meanwhile, commits: AtomicUsize::new(0) };
    let process = aws.seen_by(Arc::new(faults));
    let stack = Stack::adjusted(process, Adjustments::default()).await;
    stack.call_seeing("PUT", Some("acme"), &acme(), seen).await
}

/// How many documents expire of those that the index names.
fn expiring(aws: &InMemoryAws) -> usize {
    let index = aws.table().item("provider-specs", "index").unwrap();
    let entries = index["specs"]["M"].as_object().unwrap().values();
    let documents = entries.map(|entry| entry["M"]["document"]["S"].as_str().unwrap());
    let items = documents.map(|id| aws.table().item("provider-specs", &format!("document#{id}")));
    items.filter(|item| !item.as_ref().unwrap()["expires_at"].is_null()).count()
}

#[tokio::test(start_paused = true)]
async fn spec_of_unanswered_commit_is_kept() {
    let aws = with_key().await;
    let (status, problem) = put_with(&aws, Meanwhile::Outage, None).await;
    assert_eq!((status, &problem["code"]), (503, &"temporarily_unavailable".into()), "{problem}");
    assert_eq!(expiring(&aws), 0, "it is in force all the same");
}

#[tokio::test(start_paused = true)]
async fn spec_of_overtaken_commit_is_kept() {
    for seen in [None, Some("\"1\"")] {
        let aws = with_key().await;
        aws.put_spec("acme", "{}").await.unwrap();
        let (status, put) = put_with(&aws, Meanwhile::PutsOther, seen).await;
        assert_eq!((status, &put["version"]), (200, &2.into()), "{put}");
        assert_eq!(expiring(&aws), 0, "{seen:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn document_is_not_offered_twice() {
    let aws = with_key().await;
    let (status, put) = put_with(&aws, Meanwhile::Replaces, None).await;
    assert_eq!((status, &put["version"]), (200, &3.into()), "{put}");
    assert_eq!(expiring(&aws), 0, "the other process let ours expire");
}

#[tokio::test]
async fn replaced_and_removed_specs_expire() {
    let stack = Stack::new().await;
    for (method, expected) in [("PUT", 0), ("PUT", 1), ("DELETE", 2)] {
        assert_eq!(stack.call(method, Some("acme"), &acme()).await.0, 200);
        let items = stack.aws.table().items();
        let expiring = items.iter().filter(|item| !item["expires_at"].is_null()).count();
        assert_eq!(expiring, expected, "{method}");
    }
}
