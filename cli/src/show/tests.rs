use serde_json::json;

use super::*;

fn finished() -> Value {
    json!({
        "jobId": "job_1", "state": "completed", "provider": "zvid", "renderJobId": "r-1",
        "submittedTo": "api.zvid.io",
        "sourceRecordId": "product-123", "payloadVersion": null, "progress": 1.0,
        "resultUrl": "https://cdn/x.mp4", "resultExpiresAt": null, "failure": null,
        "final": true, "endedAt": "2026-05-24T12:00:09.000Z",
        "settledAt": "2026-05-24T12:00:09.400Z", "lastCheckedAt": "2026-05-24T12:00:09.000Z",
        "attemptCount": 4, "delivery": {"state": "delivered", "attempts": 1},
        "timeline": [
            {"state": "submitting", "at": "2026-05-24T12:00:00.000Z"},
            {"state": "completed", "at": "2026-05-24T12:00:09.000Z"},
        ],
    })
}

#[test]
fn job_reads_top_down() {
    insta::assert_snapshot!(job(&finished()), @r"
    job       job_1
    state     completed
    provider  zvid, render r-1
    at        api.zvid.io
    source    product-123
    result    https://cdn/x.mp4
    checked   2026-05-24T12:00:09.000Z, 4 times
    delivery  delivered after 1 attempt(s)
              2026-05-24T12:00:00.000Z  submitting
              2026-05-24T12:00:09.000Z  completed
    ");
}

#[test]
fn job_shows_no_raw_control_characters() {
    let mut hostile = finished();
    let url = "https://cdn/x.mp4\nstate     completed\u{1b}[2K\u{9b}\u{202e}4pm\u{200b}";
    hostile["resultUrl"] = json!(url);
    hostile["renderJobId"] = json!(url);
    hostile["state"] = json!("failed");
    hostile["failure"] = json!({"code": "render_failed", "message": url});
    let shown = job(&hostile);
    assert_eq!(shown.lines().filter(|line| line.starts_with("state")).count(), 1, "{shown}");
    let raw = |c: char| c != '\n' && (c.is_control() || domain::invisible::is_invisible(c));
    assert!(!shown.contains(raw), "{shown:?}");
    assert!(shown.contains(r"x.mp4\u{a}state     completed\u{1b}[2K\u{9b}\u{202e}4pm\u{200b}"));
}

#[test]
fn job_is_over_after_its_webhook() {
    let mut job = finished();
    assert!(is_over(&job));
    job["delivery"]["state"] = json!("pending");
    assert!(!is_over(&job));
    job["delivery"] = json!(null);
    assert!(is_over(&job), "no receiver is configured");
    job["settledAt"] = json!(null);
    assert!(!is_over(&job), "its webhook may not be stored yet");
    job["endedAt"] = json!(null);
    job["final"] = json!(false);
    job["state"] = json!("processing");
    job["progress"] = json!(0.5);
    assert!(!is_over(&job));
    assert_eq!(line(&job), "processing 50 %");
}

#[test]
fn unconfirmed_end_is_shown_as_such() {
    let mut job = finished();
    job["state"] = json!("failed");
    job["final"] = json!(false);
    assert!(line(&job).starts_with("failed, not final: it may still complete"));
}

#[test]
fn attempts_are_aligned_in_columns() {
    let page = json!({"deliveries": [{
        "eventId": "evt_1", "event": "video.render.completed", "state": "pending",
        "url": "https://shop.example/hooks", "nextAttemptAt": "2026-05-24T12:05:00.000Z",
        "reason": "endpoint_throttled",
        "attempts": [
            {"at": "2026-05-24T12:00:00.000Z", "durationMs": 12, "status": 500,
             "error": "status"},
            {"at": "2026-05-24T12:00:05.000Z", "durationMs": 15000, "status": null,
             "error": "timeout"},
        ],
    }]});
    insta::assert_snapshot!(deliveries(&page), @r"
    evt_1  video.render.completed  pending
    to        https://shop.example/hooks
    attempt  at                        took      answer
    1        2026-05-24T12:00:00.000Z  12 ms     500
    2        2026-05-24T12:00:05.000Z  15000 ms  timeout
    reason    endpoint_throttled
    next      2026-05-24T12:05:00.000Z
    ");
    assert_eq!(deliveries(&json!({"deliveries": []})), "(no deliveries)");
}

#[test]
fn receiver_is_shown_with_its_secrets() {
    let key = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
    let config = json!({
        "url": "https://shop.example/hooks", "events": ["video.render.failed"],
        "headerNames": ["authorization"], "updatedAt": "2026-05-24T12:00:00.000Z",
        "maxInFlight": 5, "ratePerSecond": null,
        "endpoint": {"endpointId": "ep_1c7f", "state": "disabled", "slow": true,
                     "disabledAt": "2026-05-24T12:00:00.000Z", "disabledReason": "gone",
                     "failingSince": "2026-05-19T12:00:00.000Z", "consecutiveFailures": 9},
        "secrets": [
            {"type": "v1a", "publicKey": key, "createdAt": "2026-05-24T12:00:00.000Z",
             "expiresAt": null},
            {"type": "v1", "publicKey": null, "createdAt": null,
             "expiresAt": "2026-05-25T12:00:00.000Z"},
        ],
    });
    insta::assert_snapshot!(receiver(&config), @r"
    receiver  https://shop.example/hooks
    events    video.render.failed
    headers   authorization
    limits    5 at once
    state     disabled since 2026-05-24T12:00:00.000Z: gone, slow (ep_1c7f)
    signs  since                     until                     public key
    v1a    2026-05-24T12:00:00.000Z                            whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=
    v1                               2026-05-25T12:00:00.000Z
    ");
    let mut failing = config["endpoint"].clone();
    failing["disabledAt"] = Value::Null;
    failing["state"] = "circuit_open".into();
    failing["slow"] = false.into();
    let expected = "circuit_open since 2026-05-19T12:00:00.000Z, 9 in a row (ep_1c7f)";
    assert_eq!(health(&failing), expected);
    let made = json!({"secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "secrets": []});
    insta::assert_snapshot!(rotated(&made), @r"
    secret    whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD
              keep it: it is not shown again
    signs  since  until  public key
    ");
    insta::assert_snapshot!(rotated(&json!({"publicKey": key, "secrets": []})), @r"
    key       whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=
              give it to receivers
    signs  since  until  public key
    ");
}

#[test]
fn deliveries_are_shown_as_table() {
    let line = json!({
        "jobId": "job_1", "createdAt": "2026-05-24T12:00:00.000Z", "attempts": 10,
        "event": "video.render.completed", "endpointId": "ep_1", "nextAttemptAt": null,
        "reason": "attempts_exhausted", "lastAttempt": {"status": null, "error": "dns"},
    });
    insta::assert_snapshot!(delivery_list(&[line]), @r"
    job    created                   event                   endpoint  attempts  last  reason              next
    job_1  2026-05-24T12:00:00.000Z  video.render.completed  ep_1      10        dns   attempts_exhausted
    ");
    assert!(delivery_list(&[]).ends_with("(none)"));
}

#[test]
fn recovery_is_summed_up() {
    let mut total = Recovered::default();
    total.add(&json!({"queued": 100, "disabled": 0, "next": "x"}));
    assert_eq!(total.text(false), "100 on their way again");
    assert_eq!(total.text(true), "100 on their way");
    total.add(&json!({"queued": 7, "disabled": 2, "next": null}));
    let expected = "107 on their way again; 2 left, because their receivers are disabled";
    assert_eq!(total.text(false), expected);
}

#[test]
fn job_list_is_shown_as_table() {
    let page = json!({"jobs": [finished()], "next": "x"});
    insta::assert_snapshot!(jobs(&page), @r"
    job    created  provider  source       state
    job_1           zvid      product-123  completed
    (more; the API pages with `cursor`)
    ");
}

fn stored_provider() -> Value {
    json!({
        "name": "acme", "title": "Acme", "origin": "stored", "replacesShipped": false,
        "inForce": true, "problem": null, "baseUrl": "https://api.acme.example/v1",
        "keyHost": "api.acme.example", "version": 17, "putBy": "API key 3944ff91afd9 from 192.0.2.10",
        "putAt": "2026-05-24T12:00:00.000Z",
    })
}

#[test]
fn provider_shows_who_put_its_spec() {
    insta::assert_snapshot!(provider_of_stack(&stored_provider()), @r"
    provider  acme
    title     Acme
    spec      stored
    in force  yes
    at        https://api.acme.example/v1
    key for   api.acme.example
    version   17
    put by    API key 3944ff91afd9 from 192.0.2.10
    put at    2026-05-24T12:00:00.000Z
    ");
    let replacing = provider_of_stack(&json!({"origin": "stored", "replacesShipped": true}));
    assert!(replacing.contains("stored, in place of the shipped one"), "{replacing}");
    let mut wrong = stored_provider();
    wrong["inForce"] = json!(false);
    wrong["problem"] = json!("acme.json: unknown field `limit`");
    let shown = provider_of_stack(&wrong);
    assert!(shown.contains("in force  no"), "{shown}");
    assert!(shown.contains("unknown field `limit`"), "{shown}");
}

#[test]
fn providers_are_one_a_line() {
    let shown = providers(&json!({"providers": [stored_provider()]}));
    insta::assert_snapshot!(shown, @r"
    provider  spec    version  at                           problem  paused
    acme      stored  17       https://api.acme.example/v1
    ");
}

#[test]
fn pause_is_shown_with_its_reason() {
    let mut paused = stored_provider();
    paused["pauses"] = json!([{
        "shard": 3, "since": "T1", "until": "T2", "reason": "server_error", "status": 503,
        "renders": 14,
    }]);
    let shown = providers(&json!({"providers": [paused]}));
    assert!(shown.contains("server_error (503)"), "{shown}");
    let shown = provider_of_stack(&paused);
    let line = "paused    shard 3 since T1, server_error (503), 14 renders; tried T2";
    assert!(shown.contains(line), "{shown}");
    let resumed = resumed_provider(&json!({"name": "zvid", "pauses": 2}));
    assert!(resumed.contains("2 shards"), "{resumed}");
    assert_eq!(resumed_provider(&json!({"name": "zvid", "pauses": 0})), "zvid is not paused");
}

#[test]
fn removed_provider_says_what_waits() {
    let gone = json!({"name": "acme", "shippedInForce": false, "warning": "Jobs of acme wait."});
    assert_eq!(removed_provider(&gone), "removed. Jobs of acme wait.");
    let back = json!({"name": "zvid", "shippedInForce": true, "warning": null});
    assert!(removed_provider(&back).contains("the shipped spec of zvid is in force"));
}
