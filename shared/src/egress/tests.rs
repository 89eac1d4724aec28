use std::net::IpAddr;

use proptest::prelude::*;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::test_server::{
    Answers, Certificate, NAME, Reply, ScriptedResolver, TestServer, no_tls, nobody, settle,
};
use super::*;

/// More than the busiest machine's loopback takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// For what would take for ever.
const LIMIT: Duration = Duration::from_millis(300);

/// As if time were no matter; each test that waits for a limit to pass says which.
fn patient() -> Limits {
    Limits { attempt: PATIENCE, dns: PATIENCE, connect: PATIENCE, ..Limits::default() }
}

/// Posts anywhere, as on a developer's machine.
fn local_receivers() -> Receivers {
    receivers_within(PATIENCE)
}

/// The same, with that long for an attempt.
fn receivers_within(attempt: Duration) -> Receivers {
    let limits = Limits { attempt, ..patient() };
    let resolver = Arc::new(SystemResolver);
    Receivers::with_parts(resolver, web_tls().unwrap(), TargetPolicy::local_use(), limits)
}

/// Posts by TLS to public addresses, of which 127.0.0.1 is made one.
struct Guarded {
    receivers: Receivers,
    resolver: ScriptedResolver,
    server: TestServer,
    policy: TargetPolicy,
}

impl Guarded {
    async fn new(resolver: ScriptedResolver, replies: Vec<Reply>) -> Self {
        Self::within(patient(), resolver, replies).await
    }

    async fn within(limits: Limits, resolver: ScriptedResolver, replies: Vec<Reply>) -> Self {
        let certificate = Certificate::new();
        let server = TestServer::tls(replies, &certificate).await;
        let policy = TargetPolicy::public()
            .with_ports([server.address.port()])
            .with_networks(["127.0.0.1/32".parse().unwrap()]);
        let receivers = Receivers::with_parts(
            Arc::new(resolver.clone()),
            certificate.client.clone(),
            policy.clone(),
            limits,
        );
        Self { receivers, resolver, server, policy }
    }

    async fn post(&self) -> Outcome {
        let url = ReceiverUrl::parse(&self.server.named_url("/hook"), &self.policy).unwrap();
        self.receivers.post(outgoing(&url)).await.outcome
    }
}

fn outgoing(url: &ReceiverUrl) -> Outgoing<'_> {
    Outgoing {
        url,
        headers: vec![(HeaderName::from_static("webhook-id"), HeaderValue::from_static("evt_1"))],
        body: Bytes::from_static(b"{\"a\":1}"),
    }
}

async fn post_to(receivers: &Receivers, url: &str) -> Answered {
    let url = ReceiverUrl::parse(url, &TargetPolicy::local_use()).unwrap();
    timeout(PATIENCE * 2, receivers.post(outgoing(&url))).await.expect("ends by itself")
}

/// Posts to a plain server that gives these replies.
async fn post_and_get(replies: Vec<Reply>) -> (Outcome, TestServer) {
    let server = TestServer::plain(replies).await;
    let answered = post_to(&local_receivers(), &server.url("/hook")).await;
    (answered.outcome, server)
}

fn answer(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Answer(answer) => answer,
        Outcome::Failure(class) => panic!("no answer: {class:?}"),
    }
}

fn failed(class: FailureClass) -> Outcome {
    Outcome::Failure(class)
}

#[tokio::test]
async fn delivers_the_exact_request_and_hands_back_the_answer() {
    let (outcome, server) = post_and_get(vec![Reply::text(
        "HTTP/1.1 503 Busy\r\nretry-after: 120\r\nwebhook-delivery: disable\r\ncontent-length: 5\r\n\r\nlater",
    )])
    .await;

    let expected = Answer {
        status: StatusCode::SERVICE_UNAVAILABLE,
        retry_after: Some("120".to_owned()),
        webhook_delivery: Some("disable".to_owned()),
        excerpt: "later".to_owned(),
    };
    assert_eq!(outcome, Outcome::Answer(expected));
    let version = env!("CARGO_PKG_VERSION");
    let address = server.address;
    let request = format!(
        "POST /hook HTTP/1.1\r\nwebhook-id: evt_1\r\nuser-agent: render-relay/{version}\r\n\
         host: {address}\r\ncontent-length: 7\r\n\r\n{{\"a\":1}}"
    );
    assert_eq!(server.seen().requests, [request]);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_goes_nowhere() {
    for status in [301, 302, 307, 308] {
        let (outcome, server) = post_and_get(vec![Reply::text(&format!(
            "HTTP/1.1 {status} Moved\r\nlocation: /second\r\ncontent-length: 0\r\n\r\n"
        ))])
        .await;

        assert_eq!(answer(outcome).status.as_u16(), status);
        assert_eq!(server.seen().requests.len(), 1);
    }
}

#[tokio::test]
async fn a_dripping_body_ends_in_time_with_the_status_it_had() {
    let dripping = Reply::Endless {
        first: "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n",
        then: "x".to_owned(),
        pause: Duration::from_millis(20),
    };
    // A busy machine may need longer until the first drops are there.
    for limit in [500, 5_000, 50_000].map(Duration::from_millis) {
        let server = TestServer::plain(vec![dripping.clone()]).await;
        let answered = post_to(&receivers_within(limit), &server.url("/hook")).await;

        assert!(answered.duration >= limit, "{:?}", answered.duration);
        match answered.outcome {
            Outcome::Answer(answer) if !answer.excerpt.is_empty() => {
                assert_eq!(answer.status, StatusCode::OK);
                server.cut_short().await;
                return;
            }
            Outcome::Answer(_) | Outcome::Failure(FailureClass::Timeout) => {}
            Outcome::Failure(class) => panic!("{class:?}"),
        }
    }
    panic!("no drop arrived");
}

#[tokio::test]
async fn a_dripping_head_is_a_timeout() {
    let server = TestServer::plain(vec![Reply::Endless {
        first: "HTTP/1.1 200 OK\r\nx-slow: ",
        then: "x".to_owned(),
        pause: Duration::from_millis(20),
    }])
    .await;
    let answered = post_to(&receivers_within(LIMIT), &server.url("/hook")).await;

    assert_eq!(answered.outcome, failed(FailureClass::Timeout));
    // A busy machine may not even get the request there.
    if !server.seen().requests.is_empty() {
        server.cut_short().await;
    }
}

#[tokio::test]
async fn the_attempt_ends_when_its_time_is_over() {
    let server = TestServer::plain(vec![Reply::Silence]).await;
    let answered = post_to(&receivers_within(LIMIT), &server.url("/")).await;

    assert_eq!(answered.outcome, failed(FailureClass::Timeout));
    // How much later depends on the machine; `post_to` knows when it is never.
    assert!(answered.duration >= LIMIT, "{:?}", answered.duration);
}

#[tokio::test]
async fn a_huge_body_is_cut_and_the_connection_closed() {
    const TEN_MB: usize = 10_000_000;
    let (outcome, server) = post_and_get(vec![Reply::Endless {
        first: "HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n",
        then: "y".repeat(16 * 1024),
        pause: Duration::ZERO,
    }])
    .await;

    let answer = answer(outcome);
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.excerpt, "y".repeat(1024));
    assert!(server.cut_short().await < TEN_MB, "only what fits into socket buffers is sent");
}

#[tokio::test]
async fn endless_heads_are_refused_early() {
    for (then, what) in [("x-more: yes\r\n", "headers"), ("xxxxxxxxxxx", "one header")] {
        let (outcome, server) = post_and_get(vec![Reply::Endless {
            first: "HTTP/1.1 200 OK\r\nx-first: x",
            then: then.repeat(500),
            pause: Duration::ZERO,
        }])
        .await;

        assert_eq!(outcome, failed(FailureClass::TooLarge), "{what}");
        assert!(server.cut_short().await < 10_000_000, "{what}");
    }
}

#[tokio::test]
async fn a_hundred_headers_are_enough() {
    for (count, expected) in [(99, None), (100, Some(FailureClass::TooLarge))] {
        let more = "x-more: yes\r\n".repeat(count);
        let reply = format!("HTTP/1.1 200 OK\r\n{more}content-length: 0\r\n\r\n");
        let failure = match post_and_get(vec![Reply::text(&reply)]).await {
            (Outcome::Failure(class), _) => Some(class),
            (Outcome::Answer(_), _) => None,
        };
        assert_eq!(failure, expected, "{count} and one");
    }
}

#[tokio::test]
async fn connections_that_fail_say_how() {
    let (_port, unused) = nobody();
    let refused = post_to(&local_receivers(), &format!("http://{unused}/")).await;
    assert_eq!(refused.outcome, failed(FailureClass::Connect));

    let (hung_up, server) = post_and_get(vec![Reply::HangUp, Reply::ok()]).await;
    assert_eq!(hung_up, failed(FailureClass::Reset));
    assert_eq!(server.seen().requests.len(), 1, "a fresh connection gets one chance");

    let (not_http, _) = post_and_get(vec![Reply::text("220 mail.example ESMTP\r\n\r\n")]).await;
    assert_eq!(not_http, failed(FailureClass::Reset));
}

#[tokio::test]
async fn a_truncated_body_does_not_undo_the_status() {
    let (outcome, _) = post_and_get(vec![Reply::Last(
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec(),
    )])
    .await;
    assert_eq!(answer(outcome).excerpt, "half");
}

#[tokio::test]
async fn connections_are_kept_and_may_die() {
    // Whether the client sees the end of a kept connection before it writes the
    // next request (closed after an answer) or only afterwards (closed instead of
    // one), the next post is delivered.
    let closed_after = Reply::Last(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec());
    let replies =
        vec![Reply::ok(), Reply::ok(), closed_after, Reply::ok(), Reply::HangUp, Reply::ok()];
    let server = TestServer::plain(replies).await;
    let receivers = local_receivers();

    for connections in [1, 1, 1, 2, 3] {
        let answered = post_to(&receivers, &server.url("/")).await;
        assert_eq!(answer(answered.outcome).status, StatusCode::OK);
        assert_eq!(server.seen().connections, connections);
        settle().await;
    }
    assert_eq!(server.seen().requests.len(), 6, "one was written twice");
}

#[tokio::test]
async fn trusts_known_certificates_only() {
    let guarded = Guarded::new(ScriptedResolver::fixed(&["127.0.0.1"]), vec![Reply::ok()]).await;
    assert_eq!(answer(guarded.post().await).excerpt, "ok");
    assert_eq!(guarded.resolver.asked(), [format!("{NAME}.")], "once, and fully qualified");

    let stranger = Receivers::with_parts(
        Arc::new(guarded.resolver.clone()),
        web_tls().unwrap(),
        guarded.policy.clone(),
        patient(),
    );
    let url = ReceiverUrl::parse(&guarded.server.named_url("/"), &guarded.policy).unwrap();
    let untrusted = stranger.post(outgoing(&url)).await.outcome;
    assert_eq!(untrusted, failed(FailureClass::Tls));

    let other_name = guarded.server.named_url("/").replace(NAME, "other.example");
    let url = ReceiverUrl::parse(&other_name, &guarded.policy).unwrap();
    let misnamed = guarded.receivers.post(outgoing(&url)).await.outcome;
    assert_eq!(misnamed, failed(FailureClass::Tls));
    assert_eq!(guarded.server.seen().requests.len(), 1, "no request without trust");

    let no_tls = post_to(&local_receivers(), &format!("https://{}/", no_tls().await)).await;
    assert_eq!(no_tls.outcome, failed(FailureClass::Tls));
}

#[tokio::test]
async fn one_forbidden_address_blocks_the_name() {
    for answers in [&["1.1.1.1", "127.0.0.2"][..], &["127.0.0.1", "fe80::1"], &["::ffff:10.0.0.1"]]
    {
        let guarded = Guarded::new(ScriptedResolver::fixed(answers), vec![Reply::ok()]).await;
        assert_eq!(guarded.post().await, failed(FailureClass::Blocked), "{answers:?}");
        assert_eq!(guarded.server.seen().connections, 0);
    }
}

#[tokio::test]
async fn a_name_that_rebinds_is_never_followed() {
    let resolver =
        ScriptedResolver::new([Answers::of(&["127.0.0.1"]), Answers::of(&["127.0.0.2"])]);
    let closing = Reply::Last(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nok".to_vec());
    let guarded = Guarded::new(resolver, vec![closing]).await;
    let trap = TcpListener::bind(("127.0.0.2", guarded.server.address.port())).await.unwrap();

    assert_eq!(answer(guarded.post().await).excerpt, "ok");
    assert_eq!(guarded.resolver.asked().len(), 1, "what was vetted is what was dialled");

    assert_eq!(guarded.post().await, failed(FailureClass::Blocked));
    assert_eq!(guarded.resolver.asked().len(), 2);
    assert_eq!(guarded.server.seen().connections, 1);
    assert!(timeout(Duration::from_millis(50), trap.accept()).await.is_err());
}

#[tokio::test]
async fn names_without_addresses_are_a_dns_failure() {
    for (answers, dns) in
        [(Answers::Unknown, PATIENCE), (Answers::Never, LIMIT), (Answers::of(&[]), PATIENCE)]
    {
        let limits = Limits { dns, ..patient() };
        let resolver = ScriptedResolver::new([answers]);
        let guarded = Guarded::within(limits, resolver, vec![Reply::ok()]).await;
        assert_eq!(guarded.post().await, failed(FailureClass::Dns));
    }
}

#[tokio::test]
async fn a_laxer_policys_url_is_blocked() {
    let guarded = Guarded::new(ScriptedResolver::fixed(&["127.0.0.1"]), vec![Reply::ok()]).await;
    for url in [
        "https://[::1]/".to_owned(),
        "https://localhost/".to_owned(),
        // All of it is allowed but the scheme.
        guarded.server.named_url("/").replace("https", "http"),
    ] {
        let answered = post_to(&guarded.receivers, &url).await;
        assert_eq!(answered.outcome, failed(FailureClass::Blocked), "{url}");
    }
    assert_eq!(guarded.server.seen().connections, 0);
}

/// The connector by itself: nothing before it has looked at the address.
#[tokio::test]
async fn literal_addresses_are_judged_where_they_are_dialled() {
    use tower_service::Service;

    let server = TestServer::plain(vec![Reply::ok()]).await;
    let mut connector = GuardedConnector::new(
        Arc::new(ScriptedResolver::fixed(&["1.1.1.1"])),
        Arc::new(TargetPolicy::public()),
        &patient(),
    );
    for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]"] {
        let uri = format!("http://{host}:{}/", server.address.port());
        let refused = connector.call(uri.parse().unwrap()).await.err().expect("is not dialled");
        assert_eq!(refused.class(), FailureClass::Blocked, "{host}");
    }
    assert_eq!(server.seen().connections, 0);
}

#[test]
fn excerpts_end_between_characters() {
    assert_eq!(excerpt("aäaä".as_bytes(), 5), "aäa");
    assert_eq!(excerpt("ääää".as_bytes(), 4), "ää");
    assert_eq!(excerpt(b"\xff\xfeok", 4), "\u{fffd}");
    assert_eq!(excerpt(b"", 4), "");
}

proptest! {
    #[test]
    fn excerpts_keep_the_limit(bytes: Vec<u8>, limit in 0_usize..80) {
        prop_assert!(excerpt(&bytes, limit).len() <= limit);
    }

    /// Otherwise `post` would block a URL that was accepted.
    #[test]
    fn every_receiver_url_is_a_uri(text in "https://[a-z0-9.-]{1,12}\\.example(/\\PC{0,30})?(\\?\\PC{0,30})?") {
        if let Ok(url) = ReceiverUrl::parse(&text, &TargetPolicy::public()) {
            prop_assert!(Uri::try_from(url.as_str()).is_ok(), "{url}");
        }
    }

    /// The guard must find the address wherever the TCP connector does.
    #[test]
    fn literal_hosts_stay_literal(ip: IpAddr) {
        let host = match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let url = ReceiverUrl::parse(&format!("http://{host}/"), &TargetPolicy::local_use()).unwrap();
        let uri = Uri::try_from(url.as_str()).unwrap();
        prop_assert_eq!(guard::literal_host(&uri), Some(ip));
    }
}
