//! Real sockets, and time that stands still until a test moves it: no outcome depends on
//! how quick the machine is.

use std::net::{IpAddr, TcpListener};
use std::process::Command;

use domain::address::ReceiverPorts;
use proptest::prelude::*;
use serde_json::Value;
use tokio::time::advance;

use super::test_server::{
    Answers, NAME, Reply, ScriptedResolver, StillClock, TestCertificate, TestServer, mute, no_tls,
    old_tls, settle, unused_address,
};
use super::*;

/// Posts anywhere, as on a developer's machine.
fn local_receivers() -> Receivers {
    let (resolver, tls) = (Arc::new(SystemResolver), web_tls().unwrap());
    Receivers::with_parts(resolver, tls, TargetPolicy::local_use(), EgressLimits::default())
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
        let certificate = TestCertificate::new();
        let server = TestServer::tls(replies, &certificate).await;
        let port = server.address.port().to_string();
        let policy = TargetPolicy::public()
            .with_ports(ReceiverPorts::parse(&port).unwrap())
            .with_networks(["127.0.0.1/32".parse().unwrap()]);
        let receivers = Receivers::with_parts(
            Arc::new(resolver.clone()),
            certificate.client.clone(),
            policy.clone(),
            EgressLimits::default(),
        );
        Self { receivers, resolver, server, policy }
    }

    async fn post(&self) -> PostOutcome {
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
    receivers.post(outgoing(&url)).await
}

/// Posts to a plain server that gives these replies.
async fn post_and_get(replies: Vec<Reply>) -> (PostOutcome, TestServer) {
    let _still = StillClock::hold();
    let server = TestServer::plain(replies).await;
    let answered = post_to(&local_receivers(), &server.url("/hook")).await;
    (answered.outcome, server)
}

fn answer(outcome: PostOutcome) -> ReceiverAnswer {
    match outcome {
        PostOutcome::Answer(answer) => answer,
        PostOutcome::Failure(class) => panic!("no answer: {class:?}"),
    }
}

fn failed(class: AttemptError) -> PostOutcome {
    PostOutcome::Failure(class)
}

#[tokio::test(start_paused = true)]
async fn post_sends_exact_request() {
    let (outcome, server) = post_and_get(vec![Reply::text(
        "HTTP/1.1 503 Busy\r\nretry-after: 120\r\nwebhook-delivery: disable\r\ncontent-length: 5\r\n\r\nlater",
    )])
    .await;

    let expected = ReceiverAnswer {
        status: StatusCode::SERVICE_UNAVAILABLE,
        retry_after: Some("120".to_owned()),
        webhook_delivery: Some("disable".to_owned()),
        excerpt: "later".to_owned(),
    };
    assert_eq!(outcome, PostOutcome::Answer(expected));
    let version = env!("CARGO_PKG_VERSION");
    let address = server.address;
    let request = format!(
        "POST /hook HTTP/1.1\r\nwebhook-id: evt_1\r\nuser-agent: render-relay/{version}\r\n\
         host: {address}\r\ncontent-length: 7\r\n\r\n{{\"a\":1}}"
    );
    assert_eq!(server.seen().requests, [request]);
}

#[tokio::test(start_paused = true)]
async fn redirect_is_not_followed() {
    for status in [300, 301, 302, 303, 304, 305, 307, 308] {
        for location in ["location: /second\r\n", "location: http://127.0.0.2/\r\n", ""] {
            let reply = format!("HTTP/1.1 {status} Moved\r\n{location}content-length: 0\r\n\r\n");
            let (outcome, server) = post_and_get(vec![Reply::text(&reply)]).await;

            assert_eq!(answer(outcome).status.as_u16(), status, "{location}");
            assert_eq!(server.seen().requests.len(), 1, "{status} {location}");
        }
    }
}

/// A byte a second keeps a connection alive for ever, and an attempt for 15 s.
#[tokio::test(start_paused = true)]
async fn slow_body_ends_in_time() {
    let still = StillClock::hold();
    let server = TestServer::plain(vec![Reply::Endless {
        first: "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n",
        then: "x".to_owned(),
        pause: Duration::from_secs(1),
    }])
    .await;
    let receivers = local_receivers();
    let url = ReceiverUrl::parse(&server.url("/"), &TargetPolicy::local_use()).unwrap();
    let started = Instant::now();
    let response = receivers.exchange(&outgoing(&url)).await.unwrap();
    assert_eq!(started.elapsed(), Duration::ZERO, "the head came without delay");

    let reading = tokio::spawn(async move {
        let answer = receivers.read(response, started + receivers.limits.attempt).await;
        (answer, started.elapsed())
    });
    for _ in 0..15 {
        assert!(!reading.is_finished(), "after {:?}", started.elapsed());
        advance(Duration::from_secs(1)).await;
    }
    let (answer, took) = reading.await.unwrap();

    assert_eq!(took, Duration::from_secs(15));
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.excerpt.len() <= 16 && answer.excerpt.chars().all(|c| c == 'x'));
    drop(still);
    server.cut_short().await;
}

/// Whatever never becomes an answer takes as long as an attempt may, and no longer.
#[tokio::test(start_paused = true)]
async fn attempt_times_out_after_15_seconds() {
    let _still = StillClock::hold();
    let dripping = Reply::Endless {
        first: "HTTP/1.1 200 OK\r\nx-slow: ",
        then: "x".to_owned(),
        pause: Duration::from_secs(1),
    };
    for reply in [Reply::Silence, dripping] {
        let server = TestServer::plain(vec![reply]).await;
        let (receivers, url) = (local_receivers(), server.url("/"));
        let posting = tokio::spawn(async move { post_to(&receivers, &url).await });
        server.requests(1).await;
        for _ in 0..15 {
            assert!(!posting.is_finished());
            advance(Duration::from_secs(1)).await;
        }
        let answered = posting.await.unwrap();

        assert_eq!(answered.outcome, failed(AttemptError::Timeout));
        assert_eq!(answered.duration, Duration::from_secs(15));
    }
}

#[tokio::test(start_paused = true)]
async fn tls_handshake_counts_as_attempt() {
    let _still = StillClock::hold();
    let (address, mut connected) = mute().await;
    let receivers = local_receivers();
    let posting =
        tokio::spawn(async move { post_to(&receivers, &format!("https://{address}/")).await });
    connected.recv().await.unwrap();
    advance(Duration::from_secs(15)).await;
    let answered = posting.await.unwrap();

    assert_eq!(answered.outcome, failed(AttemptError::Timeout));
    assert_eq!(answered.duration, Duration::from_secs(15));
}

#[tokio::test(start_paused = true)]
async fn huge_body_is_cut() {
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

#[tokio::test(start_paused = true)]
async fn endless_head_is_refused() {
    for (then, what) in [("x-more: yes\r\n", "headers"), ("xxxxxxxxxxx", "one header")] {
        let (outcome, server) = post_and_get(vec![Reply::Endless {
            first: "HTTP/1.1 200 OK\r\nx-first: x",
            then: then.repeat(500),
            pause: Duration::ZERO,
        }])
        .await;

        assert_eq!(outcome, failed(AttemptError::TooLarge), "{what}");
        assert!(server.cut_short().await < 10_000_000, "{what}");
    }
}

/// However the bytes arrive, and whatever of the body arrives with them.
#[tokio::test(start_paused = true)]
async fn head_of_64_kib_is_the_limit() {
    let head = |size: usize| {
        let (first, last) = ("HTTP/1.1 200 OK\r\nx-more: ", "\r\ncontent-length: 100000\r\n\r\n");
        format!("{first}{}{last}", "x".repeat(size - first.len() - last.len()))
    };
    for (size, expected) in [
        (60_000, None),
        (65_535, None),
        (65_536, None),
        (65_537, Some(AttemptError::TooLarge)),
        (65_600, Some(AttemptError::TooLarge)),
        (70_000, Some(AttemptError::TooLarge)),
        (300_000, Some(AttemptError::TooLarge)),
    ] {
        for body in [0, 1, 30_000, 100_000] {
            let reply = [head(size).into_bytes(), vec![b'y'; body]].concat();
            let (outcome, server) = post_and_get(vec![Reply::Last(reply)]).await;
            let failure = match outcome {
                PostOutcome::Failure(class) => Some(class),
                PostOutcome::Answer(_) => None,
            };
            assert_eq!(failure, expected, "{size} bytes and {body} of the body");
            assert_eq!(server.seen().requests.len(), 1, "one post for {size} bytes");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn hundred_headers_are_accepted() {
    for (count, expected) in [(99, None), (100, Some(AttemptError::TooLarge))] {
        let more = "x-more: yes\r\n".repeat(count);
        let reply = format!("HTTP/1.1 200 OK\r\n{more}content-length: 0\r\n\r\n");
        let failure = match post_and_get(vec![Reply::text(&reply)]).await {
            (PostOutcome::Failure(class), _) => Some(class),
            (PostOutcome::Answer(_), _) => None,
        };
        assert_eq!(failure, expected, "{count} and one");
    }
}

#[tokio::test(start_paused = true)]
async fn connection_failures_are_classified() {
    let _still = StillClock::hold();
    let (_port, unused) = unused_address();
    let refused = post_to(&local_receivers(), &format!("http://{unused}/")).await;
    assert_eq!(refused.outcome, failed(AttemptError::Connect));

    let (hung_up, server) = post_and_get(vec![Reply::HangUp, Reply::ok()]).await;
    assert_eq!(hung_up, failed(AttemptError::Reset));
    assert_eq!(server.seen().requests.len(), 1, "a fresh connection gets one chance");

    let (not_http, _) = post_and_get(vec![Reply::text("220 mail.example ESMTP\r\n\r\n")]).await;
    assert_eq!(not_http, failed(AttemptError::Reset));
}

#[tokio::test(start_paused = true)]
async fn truncated_body_keeps_the_status() {
    let (outcome, _) = post_and_get(vec![Reply::Last(
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec(),
    )])
    .await;
    assert_eq!(answer(outcome).excerpt, "half");
}

#[tokio::test(start_paused = true)]
async fn dead_kept_connection_is_retried() {
    // Whether the client sees the end of a kept connection before it writes the
    // next request (closed after an answer) or only afterwards (closed instead of
    // one), the next post is delivered.
    let closed_after = Reply::Last(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec());
    let _still = StillClock::hold();
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

#[tokio::test(start_paused = true)]
async fn only_known_certificates_are_trusted() {
    let _still = StillClock::hold();
    let guarded = Guarded::new(ScriptedResolver::fixed(&["127.0.0.1"]), vec![Reply::ok()]).await;
    assert_eq!(answer(guarded.post().await).excerpt, "ok");
    assert_eq!(guarded.resolver.asked(), [format!("{NAME}.")], "once, and fully qualified");

    let stranger = Receivers::with_parts(
        Arc::new(guarded.resolver.clone()),
        web_tls().unwrap(),
        guarded.policy.clone(),
        EgressLimits::default(),
    );
    let url = ReceiverUrl::parse(&guarded.server.named_url("/"), &guarded.policy).unwrap();
    let untrusted = stranger.post(outgoing(&url)).await.outcome;
    assert_eq!(untrusted, failed(AttemptError::Tls));

    let other_name = guarded.server.named_url("/").replace(NAME, "other.example");
    let url = ReceiverUrl::parse(&other_name, &guarded.policy).unwrap();
    let misnamed = guarded.receivers.post(outgoing(&url)).await.outcome;
    assert_eq!(misnamed, failed(AttemptError::Tls));
    assert_eq!(guarded.server.seen().requests.len(), 1, "no request without trust");

    let no_tls = post_to(&local_receivers(), &format!("https://{}/", no_tls().await)).await;
    assert_eq!(no_tls.outcome, failed(AttemptError::Tls));
}

#[tokio::test(start_paused = true)]
async fn forbidden_address_blocks_the_name() {
    let _still = StillClock::hold();
    for answers in [&["1.1.1.1", "127.0.0.2"][..], &["127.0.0.1", "fe80::1"], &["::ffff:10.0.0.1"]]
    {
        let guarded = Guarded::new(ScriptedResolver::fixed(answers), vec![Reply::ok()]).await;
        assert_eq!(guarded.post().await, failed(AttemptError::Blocked), "{answers:?}");
        assert_eq!(guarded.server.seen().connections, 0);
    }
}

/// The table of `domain`, as a resolver's answers: nothing of it is ever dialled.
#[tokio::test(start_paused = true)]
async fn refused_address_is_never_dialled() {
    let _still = StillClock::hold();
    let table: Value =
        serde_json::from_str(include_str!("../../../domain/tests/addresses.json")).unwrap();
    let (refused, disguised) = (&table["refused"], &table["disguised"]);
    let addresses =
        refused.as_object().unwrap().keys().chain(disguised.as_object().unwrap().keys());
    let answers: Vec<Answers> = addresses.map(|address| Answers::of(&[address])).collect();
    let count = answers.len();
    let resolver = ScriptedResolver::new(answers);
    let receivers = Receivers::with_parts(
        Arc::new(resolver.clone()),
        web_tls().unwrap(),
        TargetPolicy::public(),
        EgressLimits::default(),
    );
    let url = format!("https://{NAME}/");
    for asked in 1..=count {
        let outcome = post_to(&receivers, &url).await.outcome;
        assert_eq!(outcome, failed(AttemptError::Blocked), "answer {asked}");
        assert_eq!(resolver.asked().len(), asked);
    }
}

#[tokio::test(start_paused = true)]
async fn rebinding_name_is_not_followed() {
    let _still = StillClock::hold();
    let resolver =
        ScriptedResolver::new([Answers::of(&["127.0.0.1"]), Answers::of(&["127.0.0.2"])]);
    let closing = Reply::Last(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nok".to_vec());
    let guarded = Guarded::new(resolver, vec![closing]).await;
    // A client that resolves once to check and once more to connect arrives here.
    let trap = Trap::at(&format!("127.0.0.2:{}", guarded.server.address.port()));

    assert_eq!(answer(guarded.post().await).excerpt, "ok");
    assert_eq!(guarded.resolver.asked().len(), 1, "what was vetted is what was dialled");
    assert_eq!(guarded.server.seen().connections, 1, "127.0.0.1 was dialled");

    assert_eq!(guarded.post().await, failed(AttemptError::Blocked));
    assert_eq!(guarded.resolver.asked().len(), 2, "a new connection is vetted anew");
    assert_eq!(guarded.server.seen().connections, 1);
    assert!(trap.is_untouched());
}

#[tokio::test(start_paused = true)]
async fn name_without_address_fails_dns() {
    for answers in [Answers::Unknown, Answers::Never, Answers::of(&[])] {
        let guarded = Guarded::new(ScriptedResolver::new([answers]), vec![Reply::ok()]).await;
        assert_eq!(guarded.post().await, failed(AttemptError::Dns));
    }
}

#[tokio::test(start_paused = true)]
async fn resolver_times_out_after_5_seconds() {
    let guarded = Guarded::new(ScriptedResolver::new([Answers::Never]), vec![Reply::ok()]).await;
    let started = Instant::now();
    assert_eq!(guarded.post().await, failed(AttemptError::Dns));
    assert_eq!(started.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn old_tls_is_refused() {
    let _still = StillClock::hold();
    let (address, mut received) = old_tls().await;
    let outcome = post_to(&local_receivers(), &format!("https://{address}/")).await.outcome;
    assert_eq!(outcome, failed(AttemptError::Tls));
    // A fatal alert (2): protocol_version (70), RFC 8446 §6.
    assert_eq!(received.recv().await.unwrap(), [0x15, 3, 3, 0, 2, 2, 70]);
}

/// Again in a process whose environment names a proxy for everything.
#[test]
fn environment_proxies_are_ignored() {
    let trap = Trap::at("127.0.0.1:0");
    let mut tests = Command::new(std::env::current_exe().unwrap());
    for test in ["post_sends_exact_request", "only_known_certificates_are_trusted"] {
        tests.arg(format!("egress::tests::{test}"));
    }
    for scheme in ["HTTP", "HTTPS", "ALL"] {
        let name = format!("{scheme}_PROXY");
        tests.env(name.to_lowercase(), trap.url()).env(name, trap.url());
    }
    let output =
        tests.arg("--exact").env_remove("NO_PROXY").env_remove("no_proxy").output().unwrap();
    let output_text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && output_text.contains("2 passed"), "{output_text}");
    assert!(trap.is_untouched());
}

/// An address that no connection should reach.
struct Trap(TcpListener);

impl Trap {
    fn at(address: &str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }

    fn is_untouched(&self) -> bool {
        self.0.accept().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

#[tokio::test(start_paused = true)]
async fn url_is_judged_by_current_policy() {
    let _still = StillClock::hold();
    let guarded = Guarded::new(ScriptedResolver::fixed(&["127.0.0.1"]), vec![Reply::ok()]).await;
    for url in [
        "https://[::1]/".to_owned(),
        "https://localhost/".to_owned(),
        // All of it is allowed but the scheme.
        guarded.server.named_url("/").replace("https", "http"),
    ] {
        let answered = post_to(&guarded.receivers, &url).await;
        assert_eq!(answered.outcome, failed(AttemptError::Blocked), "{url}");
    }
    assert_eq!(guarded.server.seen().connections, 0);
}

/// The connector by itself: nothing before it has looked at the address.
#[tokio::test(start_paused = true)]
async fn literal_addresses_are_judged_when_dialled() {
    use tower_service::Service;

    let _still = StillClock::hold();
    let server = TestServer::plain(vec![Reply::ok()]).await;
    let mut connector = GuardedConnector::new(
        Arc::new(ScriptedResolver::fixed(&["1.1.1.1"])),
        Arc::new(TargetPolicy::public()),
        &EgressLimits::default(),
    );
    for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]"] {
        let uri = format!("http://{host}:{}/", server.address.port());
        let refused = connector.call(uri.parse().unwrap()).await.err().expect("is not dialled");
        assert_eq!(refused.class(), AttemptError::Blocked, "{host}");
    }
    assert_eq!(server.seen().connections, 0);
}

#[test]
fn default_limits_are_as_documented() {
    let limits = EgressLimits::default();
    assert_eq!(limits.attempt, Duration::from_secs(15));
    assert_eq!(limits.dns, Duration::from_secs(5));
    assert_eq!((limits.body, limits.excerpt), (64 * 1024, 1024));
}

#[test]
fn excerpt_ends_between_characters() {
    assert_eq!(excerpt("aäaä".as_bytes(), 5), "aäa");
    assert_eq!(excerpt("ääää".as_bytes(), 4), "ää");
    assert_eq!(excerpt(b"\xff\xfeok", 4), "\u{fffd}");
    assert_eq!(excerpt(b"", 4), "");
}

proptest! {
    #[test]
    fn excerpt_keeps_the_limit(bytes: Vec<u8>, limit in 0_usize..80) {
        prop_assert!(excerpt(&bytes, limit).len() <= limit);
    }

    /// Otherwise `post` would block a URL that was accepted.
    #[test]
    fn receiver_url_is_a_uri(text in "https://[a-z0-9.-]{1,12}\\.example(/\\PC{0,30})?(\\?\\PC{0,30})?") {
        if let Ok(url) = ReceiverUrl::parse(&text, &TargetPolicy::public()) {
            prop_assert!(Uri::try_from(url.as_str()).is_ok(), "{url}");
        }
    }

    /// The guard must find the address wherever the TCP connector does.
    #[test]
    fn literal_host_stays_literal(ip: IpAddr) {
        let host = match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let url = ReceiverUrl::parse(&format!("http://{host}/"), &TargetPolicy::local_use()).unwrap();
        let uri = Uri::try_from(url.as_str()).unwrap();
        prop_assert_eq!(guard::literal_host(&uri), Some(ip));
    }
}
