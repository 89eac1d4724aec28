//! Where a job is asked about: at the base URL that it was submitted to, whatever changed since.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aws_in_memory::interceptor::NoFaults;
use aws_in_memory::network::{Network, host};
use aws_in_memory::{InMemoryAws, builders, clock};
use bytes::Bytes;
use domain::address::TargetPolicy;
use domain::id::RenderJobId;
use domain::job::{Job, Report, Transition};
use domain::provider::StatusAnswer;
use domain::provider::catalogue::Adjustments;
use http::Response;
use shared::providers::KeyError;
use shared::tracker::{TrackError, Tracker};

const SHOTSTACK: &str = include_str!("../../../providers/shotstack.json");

/// A network on which every host answers that a render is done, and the URLs that were asked.
fn network(hosts: &[&str]) -> (Network, Arc<Mutex<Vec<String>>>) {
    let (network, asked) = (Network::default(), Arc::<Mutex<Vec<String>>>::default());
    for name in hosts {
        let asked = Arc::clone(&asked);
        let at = (*name).to_owned();
        let answer = move |request: http::Request<Bytes>| {
            asked.lock().unwrap().push(format!("{at}{}", request.uri().path()));
            let done = r#"{"response": {"id": "r-1", "status": "done", "url": "https://v/1"}}"#;
            Response::new(Bytes::from_static(done.as_bytes()))
        };
        network.add(name, host(answer));
    }
    (network, asked)
}

async fn tracker(aws: &InMemoryAws, network: &Network, adjustments: Adjustments) -> Tracker {
    aws.started_tracker(network.seen_by(Arc::new(NoFaults)), adjustments).await.unwrap()
}

/// An accepted job that was submitted there.
fn submitted_to(base_url: &str) -> Job {
    let job = builders::job().provider("shotstack").submitted_to(base_url).build();
    let accepted = Report::Accepted(RenderJobId::parse("r-1").unwrap());
    match job.apply(&accepted, 0, job.created_at) {
        Transition::Changed(job) => *job,
        Transition::Unchanged => panic!("not accepted"),
    }
}

fn local() -> Adjustments {
    Adjustments { policy: TargetPolicy::local_use(), ..Adjustments::default() }
}

/// The parameters `ProviderBaseUrls` and `ProviderEnvironments` change, and a spec is put that
/// does not have the environment of the job any more.
#[tokio::test(start_paused = true)]
async fn job_is_asked_about_at_its_own_place() {
    let key = r#"{"key": "k", "hosts": ["old.test:80", "new.test:80"]}"#;
    let default = "https://api.shotstack.io/edit/v1";
    let moved = SHOTSTACK.replace(default, "https://new.test/edit/v1");
    let by_url = Adjustments {
        base_urls: [("shotstack".to_owned(), "http://new.test/edit/v2".parse().unwrap())].into(),
        ..local()
    };
    let staging = SHOTSTACK.replacen("\"stage\":", "\"sandbox\":", 1);
    let staging = staging.replace(default, "https://new.test/edit/v1");
    let environments = BTreeMap::from([("shotstack".to_owned(), "default".to_owned())]);
    let by_environment = Adjustments { environments, ..local() };
    for (spec, adjustments) in
        [(None, by_url), (Some(moved), local()), (Some(staging), by_environment)]
    {
        let aws = InMemoryAws::new(&[("providers/shotstack/api-key", key)]);
        let (network, asked) = network(&["old.test", "new.test"]);
        if let Some(spec) = &spec {
            aws.put_spec("shotstack", spec).await.unwrap();
        }
        let tracker = tracker(&aws, &network, adjustments).await;
        let name = domain::id::ProviderName::parse("shotstack").unwrap();
        let now = tracker.providers.get(&name).unwrap();
        assert_eq!(now.base_url.host_str(), Some("new.test"), "the change is in force");
        let job = submitted_to("http://old.test/edit/stage");
        let answer = tracker.fetch_status(&job, None, clock::now()).await.unwrap();
        assert!(matches!(answer, Some(StatusAnswer::Observed(_))), "{answer:?}");
        assert_eq!(*asked.lock().unwrap(), ["old.test/edit/stage/render/r-1"]);
    }
}

/// What the table says of a job is trusted no more than a spec.
#[tokio::test(start_paused = true)]
async fn stored_place_gets_no_key_of_other_hosts() {
    let key = r#"{"key": "key-4242", "hosts": ["new.test:80", "api.shotstack.io"]}"#;
    for place in [
        "http://old.test/edit/v1",
        "http://u:p@new.test/edit/v1",
        "http://new.test:8080/edit/v1",
        "https://new.test/edit/v1",
        "https://api.shotstack.io.evil.example",
    ] {
        let aws = InMemoryAws::new(&[("providers/shotstack/api-key", key)]);
        let (network, asked) = network(&["old.test", "new.test", "api.shotstack.io.evil.example"]);
        let tracker = tracker(&aws, &network, local()).await;
        let answer = tracker.fetch_status(&submitted_to(place), None, clock::now()).await;
        let refused = matches!(answer, Err(TrackError::Key(KeyError::NotForHost { .. })));
        assert!(refused, "{place}: {answer:?}");
        assert!(!format!("{answer:?}").contains("4242"));
        assert!(asked.lock().unwrap().is_empty(), "{place}");
    }
}

/// Also where the key would be for it: the policy may be another than when it was submitted.
#[tokio::test(start_paused = true)]
async fn stored_place_is_checked_when_dialled() {
    for (place, hosts) in [
        ("http://old.test/edit/v1", "old.test:80"),
        ("https://127.0.0.1/edit/v1", "127.0.0.1"),
        ("https://169.254.169.254/edit", "169.254.169.254"),
        ("https://[fd00:ec2::254]/edit", "[fd00:ec2::254]"),
        ("https://render.corp.internal/edit", "render.corp.internal"),
    ] {
        let key = format!(r#"{{"key": "k", "hosts": ["{hosts}"]}}"#);
        let aws = InMemoryAws::new(&[("providers/shotstack/api-key", &key)]);
        let name = hosts.trim_end_matches(":80");
        let (network, asked) = network(&[name]);
        let policy = TargetPolicy::public();
        let public = Adjustments { policy, ..Adjustments::default() };
        let tracker = tracker(&aws, &network, public).await;
        let answer = tracker.fetch_status(&submitted_to(place), None, clock::now()).await.unwrap();
        assert!(matches!(answer, Some(StatusAnswer::Unavailable { .. })), "{place}: {answer:?}");
        assert!(asked.lock().unwrap().is_empty(), "{place}");
    }
}

/// An item is billed by the KiB, at each of its writes.
#[tokio::test(start_paused = true)]
async fn small_job_stays_below_one_kib() {
    let aws = InMemoryAws::new(&[]);
    let job = builders::job()
        .provider("shotstack")
        .submitted_to("https://api.shotstack.io/edit/stage")
        .payload_version("product-promo-v4")
        .callback_url(Some("https://shop.example/hooks/renders"))
        .metadata(&serde_json::json!({"campaign": "spring"}))
        .build();
    aws.store().insert_job(&job).await.unwrap();
    let before = aws.table().consumed();
    let accepted =
        Report::Accepted(RenderJobId::parse("2abd5c11-0f3d-4c6d-ba20-235fc9b8e8b7").unwrap());
    let Transition::Changed(job) = job.apply(&accepted, 0, job.created_at) else { panic!() };
    aws.store().commit_job(&job).await.unwrap();
    let units = aws.table().consumed().writes - before.writes;
    assert_eq!(units, 1);
}
