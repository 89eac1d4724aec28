use chrono::TimeDelta;
use serde_json::json;

use super::*;
use crate::fixtures::{noon, render_id};
use crate::id::ProviderName;
use crate::provider::catalogue::{Adjustments, Catalogue};
use crate::provider::spec::SubmitSafety;

fn spec(name: &str) -> ProviderSpec {
    let name = ProviderName::parse(name).unwrap();
    Catalogue::load(&Adjustments::default()).unwrap().get(&name).unwrap().spec.clone()
}

fn answer(status: u16, body: &str) -> ProviderAnswer {
    ProviderAnswer::read(status, None, body.as_bytes(), &EchoMask::default())
}

fn submit(provider: &str, status: u16, body: &Value) -> SubmitAnswer {
    let body = body.to_string();
    spec(provider).read_submit(&answer(status, &body))
}

fn status(provider: &str, id: &str, status: u16, body: &Value) -> StatusAnswer {
    let body = body.to_string();
    let answer = answer(status, &body);
    spec(provider).read_status(&render_id(id), &answer, noon())
}

fn observed(provider: &str, id: &str, body: &Value) -> Observation {
    match status(provider, id, 200, body) {
        StatusAnswer::Observed(observation) => observation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn submit_acceptance_is_read() {
    let zvid = json!({"jobId": "550e8400-e29b-41d4-a716-446655440000", "status": "queued"});
    assert_eq!(submit("zvid", 202, &zvid), {
        SubmitAnswer::Accepted(render_id("550e8400-e29b-41d4-a716-446655440000"))
    });
    let shotstack = json!({"success": true, "response": {"id": "2abd5c11"}});
    assert_eq!(submit("shotstack", 201, &shotstack), SubmitAnswer::Accepted(render_id("2abd5c11")));
}

#[test]
fn submit_in_doubt_is_unclear() {
    for (code, body) in [
        (202, json!({})),
        (202, json!({"jobId": ".."})),
        (202, json!("not an object")),
        (500, json!({"error": "oops"})),
        (502, Value::Null),
        (504, Value::Null),
        (101, Value::Null),
        (201, json!({"jobId": "r-1"})),
        (409, json!({"error": "jobId exists already"})),
    ] {
        assert_eq!(submit("zvid", code, &body), SubmitAnswer::Unclear, "{code} {body}");
    }
}

/// What HTTP says of a submit that no rule is about: RFC 9110 section 15 and RFC 6585.
#[test]
fn submit_refusal_is_certain_by_http() {
    let certain = [
        400, 401, 402, 403, 404, 405, 406, 407, 410, 411, 412, 413, 414, 415, 417, 421, 422, 426,
        428, 429, 431, 451,
    ];
    for code in (100..=199).chain(300..=599) {
        let is_refused = matches!(submit("zvid", code, &Value::Null), SubmitAnswer::Rejected(no) if no.status == code);
        assert_eq!(is_refused, certain.contains(&code), "{code}");
    }
}

#[test]
fn submit_rule_of_spec_decides_certainty() {
    let rules = json!([
        {"on": "submit", "http": [503], "pointer": "/error", "contains": "at capacity", "means": "busy"},
        {"http": [303, 409], "pointer": "/error", "contains": "no credits", "means": "quota"},
        {"on": "submit", "http": [200, 202], "pointer": "/error", "contains": "no font", "means": "invalid"},
        {"on": "submit", "http": [422], "pointer": "/error", "contains": "again", "means": "transient"},
        {"on": "status", "http": [500], "means": "busy"},
    ]);
    let mut spec = spec("zvid");
    spec.errors = serde_json::from_value(rules).unwrap();
    let read = |status, body: Value| {
        let body = body.to_string();
        match spec.read_submit(&answer(status, &body)) {
            SubmitAnswer::Accepted(id) => id.to_string(),
            SubmitAnswer::Rejected(no) => no.failure.code.name().to_owned(),
            SubmitAnswer::Unclear => "unclear".to_owned(),
        }
    };
    assert_eq!(read(503, json!({"error": "We are AT CAPACITY"})), "provider_busy");
    assert_eq!(read(503, json!({"error": "oops"})), "unclear");
    assert_eq!(read(303, json!({"error": "no credits"})), "provider_quota");
    assert_eq!(read(409, json!({"error": "no credits"})), "provider_quota");
    assert_eq!(read(409, json!({"error": "exists"})), "unclear");
    assert_eq!(read(202, json!({"error": "no font"})), "provider_rejected");
    assert_eq!(read(202, json!({"error": "no font", "jobId": "r-1"})), "r-1");
    assert_eq!(read(422, json!({"error": "try again"})), "unclear");
    assert_eq!(read(422, json!({"error": "no scenes"})), "provider_rejected");
    assert_eq!(read(500, json!({})), "unclear", "a rule about another call");
}

#[test]
fn submit_rejection_has_message_and_code() {
    let invalid = json!({"error": "Validation failed", "message": "Please check your input",
        "details": [{"field": "visuals[0].src", "message": "\"src\" is required"}]});
    for (provider, code, body, expected, message) in [
        ("zvid", 400, &invalid, FailureCode::ProviderRejected, "\"src\" is required"),
        ("zvid", 401, &json!({"error": "no key"}), FailureCode::ProviderAuth, "no key"),
        ("zvid", 402, &Value::Null, FailureCode::ProviderQuota, "HTTP status 402"),
        ("zvid", 429, &Value::Null, FailureCode::ProviderBusy, "HTTP status 429"),
        (
            "shotstack",
            400,
            &json!({"success": false, "message": "Bad Request", "response": {"error": "no clips"}}),
            FailureCode::ProviderRejected,
            "no clips",
        ),
        (
            "shotstack",
            400,
            &json!({"success": false, "message": "Bad Request", "response": "no timeline"}),
            FailureCode::ProviderRejected,
            "no timeline",
        ),
        (
            "shotstack",
            403,
            &json!({"message": "Forbidden"}),
            FailureCode::ProviderAuth,
            "Forbidden",
        ),
        ("shotstack", 405, &Value::Null, FailureCode::ProviderRejected, "HTTP status 405"),
    ] {
        match submit(provider, code, body) {
            SubmitAnswer::Rejected(rejection) => {
                assert_eq!(rejection.failure, Failure::new(expected, message), "{code} {body}");
            }
            other => panic!("{provider} {code}: {other:?}"),
        }
    }
}

#[test]
fn status_words_are_understood() {
    for (provider, words, meaning) in [
        ("zvid", ["queued", "waiting", "delayed", "PRIORITIZED"], "Queued"),
        ("zvid", ["active", "waiting-children", "a-new-word", "done"], "Processing"),
        ("shotstack", ["queued", "Queued", "QUEUED", "queued"], "Queued"),
        ("shotstack", ["fetching", "preprocessing", "rendering", "saving"], "Processing"),
        ("shotstack", ["timeout", "error", "completed", "?"], "Processing"),
    ] {
        for word in words {
            let body = json!({"id": "r", "state": word, "response": {"id": "r", "status": word}});
            let status = format!("{:?}", observed(provider, "r", &body).status);
            assert_eq!(status, meaning, "{provider} {word}");
        }
    }
}

#[test]
fn status_result_may_be_text_or_object() {
    let expected = RenderResult { url: Some("https://cdn/x.mp4".into()), expires_at: None };
    for result in [json!("https://cdn/x.mp4"), json!({"url": "https://cdn/x.mp4"})] {
        let body = json!({"id": "r", "state": "completed", "result": result});
        let observation = observed("zvid", "r", &body);
        assert_eq!(observation.status, RenderStatus::Completed(expected.clone()));
        assert_eq!(observation.provider_status, "completed");
    }
}

#[test]
fn status_result_without_url_completes() {
    for result in [format!("https://{}", "x".repeat(9000)), "data:video/mp4;base64,AA".into()] {
        let body = json!({"id": "r", "state": "completed", "result": result});
        let expected = RenderResult { url: None, expires_at: None };
        assert_eq!(observed("zvid", "r", &body).status, RenderStatus::Completed(expected));
    }
}

#[test]
fn status_result_url_alone_never_completes() {
    let body = json!({"response": {"id": "r", "status": "rendering", "url": "https://s3/x.mp4"}});
    assert_eq!(observed("shotstack", "r", &body).status, RenderStatus::Processing);
}

#[test]
fn status_result_of_shotstack_expires() {
    let body = json!({"response": {"id": "r", "status": "done", "url": "https://s3/x.mp4"}});
    let RenderStatus::Completed(result) = observed("shotstack", "r", &body).status else {
        panic!("not completed")
    };
    assert_eq!(result.expires_at, Some(noon() + TimeDelta::days(1)));
}

#[test]
fn status_progress_is_number_or_object() {
    let body = |progress| json!({"id": "r", "state": "active", "progress": progress});
    let progress = |value| observed("zvid", "r", &body(value)).progress;
    assert_eq!(progress(json!({"phase": "rendering", "percentage": 65})), Some(0.65));
    assert_eq!(progress(json!(40)), Some(0.4));
    assert_eq!(progress(json!(-1)), None);
    assert_eq!(progress(json!("half")), None);
    assert_eq!(progress(json!(1e300)), Some(1.0));
}

#[test]
fn status_failure_has_a_reason() {
    let body = json!({"id": "r", "state": "failed", "failedReason": "no such font"});
    let expected = Failure::new(FailureCode::RenderFailed, "no such font");
    assert_eq!(observed("zvid", "r", &body).status, RenderStatus::Failed(expected));
    let silent = json!({"response": {"id": "r", "status": "failed", "error": ""}});
    let expected = Failure::new(FailureCode::RenderFailed, "the provider gave no reason");
    assert_eq!(observed("shotstack", "r", &silent).status, RenderStatus::Failed(expected));
}

#[test]
fn status_error_never_fails_the_render() {
    let unknown = json!({"success": false, "message": "Bad Request"});
    assert_eq!(status("shotstack", "r", 400, &unknown), StatusAnswer::NotFound);
    assert_eq!(status("zvid", "r", 404, &Value::Null), StatusAnswer::NotFound);
    for (code, class) in [
        (401, ErrorClass::Auth),
        (429, ErrorClass::Rate),
        (500, ErrorClass::Transient),
        (503, ErrorClass::Transient),
    ] {
        let expected = StatusAnswer::Unavailable { class, status: Some(code), retry_after: None };
        assert_eq!(status("zvid", "r", code, &Value::Null), expected);
    }
    let (class, status_code) = (ErrorClass::Transient, Some(200));
    let no_status = StatusAnswer::Unavailable { class, status: status_code, retry_after: None };
    assert_eq!(status("zvid", "r", 200, &json!({"id": "r"})), no_status);
    assert_eq!(status("zvid", "r", 200, &json!([1, 2])), no_status);
    let another = json!({"id": "other", "state": "completed", "result": "https://x"});
    assert_eq!(status("zvid", "r", 200, &another), no_status);
}

#[test]
fn status_of_uuid_is_read_in_any_spelling() {
    let id = "550e8400-e29b-41d4-a716-446655440000";
    for theirs in [id.to_uppercase(), id.replace('-', ""), format!("urn:uuid:{id}")] {
        let body = json!({"id": theirs, "state": "active"});
        // The id is kept as it was asked about: that spelling has worked.
        assert_eq!(observed("zvid", id, &body).render_job_id, Some(render_id(id)), "{theirs}");
        let accepted = submit("zvid", 202, &json!({"jobId": theirs}));
        assert_eq!(accepted, SubmitAnswer::Accepted(render_id(&theirs)), "the provider's own");
    }
}

#[test]
fn list_row_is_ours_in_any_spelling() {
    let spec = spec("renderio");
    let job = JobId::from_bytes([7; 16]);
    let SubmitSafety::List(list) = spec.submit_safety.clone() else { panic!("no list") };
    for mark in [job.as_uuid().to_uppercase(), job.as_uuid().replace('-', ""), job.to_string()] {
        let body = json!([{"command_id": "c-1", "metadata": {"relay_job": mark}}]).to_string();
        let found = spec.read_list(&list, &job, 0, &answer(200, &body));
        assert_eq!(found, ListAnswer::Found(render_id("c-1")), "{mark}");
    }
    let other = json!([{"command_id": "c-1", "metadata": {"relay_job": "JOB_07"}}]).to_string();
    assert_eq!(
        spec.read_list(&list, &job, 0, &answer(200, &other)),
        ListAnswer::Next(ListPage::Offset(1))
    );
}

/// Each value that comes out of an answer, where the provider put our secrets into all of them.
#[test]
fn answer_that_echoes_shows_no_secret() {
    let key = "sk-0123456789abcdef";
    let mask = EchoMask::default().with_secret(key);
    let read = |status, body: Value| {
        ProviderAnswer::read(status, None, body.to_string().as_bytes(), &mask)
    };
    let zvid = spec("zvid");
    let refused = read(401, json!({"message": format!("{key} is unknown")}));
    assert!(refused.had_secret());
    let SubmitAnswer::Rejected(no) = zvid.read_submit(&refused) else { panic!("not refused") };
    assert_eq!(no.failure.message, "[secret] is unknown");
    let long = format!("{}{key}", "x".repeat(290));
    let SubmitAnswer::Rejected(no) = zvid.read_submit(&read(400, json!({"message": long}))) else {
        panic!("not refused")
    };
    assert!(!no.failure.message.contains("sk-"), "cut in two: {}", no.failure.message);
    let accepted = read(202, json!({"jobId": format!("r-{key}")}));
    assert_eq!(zvid.read_submit(&accepted), SubmitAnswer::Unclear, "no id that can be shown");

    let id = render_id("r");
    let observe = |body: Value| match zvid.read_status(&id, &read(200, body), noon()) {
        StatusAnswer::Observed(observation) => observation,
        other => panic!("{other:?}"),
    };
    let word = observe(json!({"id": "r", "state": format!("waits for {key}")}));
    assert_eq!(word.provider_status, "waits for [secret]");
    let failed = observe(json!({"id": "r", "state": "failed", "failedReason": key}));
    let expected = Failure::new(FailureCode::RenderFailed, "[secret]");
    assert_eq!(failed.status, RenderStatus::Failed(expected));
    for url in [format!("https://cdn/x.mp4?k={key}"), format!("https://cdn/{key}/x.mp4")] {
        let done = observe(json!({"id": "r", "state": "completed", "result": url}));
        let expected = RenderResult { url: None, expires_at: None };
        assert_eq!(done.status, RenderStatus::Completed(expected), "useless or leaked");
    }

    let viralsync = spec("viralsync");
    let body = json!({"jobId": "r", "status": "failed", "error": format!("{key}: bad {key}")});
    let answer = viralsync.read_status(&id, &read(200, body), noon());
    let StatusAnswer::Observed(failed) = answer else { panic!("{answer:?}") };
    let expected = Failure::new(FailureCode::RenderFailed, "bad [secret]");
    assert_eq!(failed.status, RenderStatus::Failed(expected.with_provider_code("[secret]")));
    let cancel = viralsync.cancel.clone().unwrap();
    let answer = viralsync.read_cancel(&cancel, &read(409, json!({"error": format!("no {key}")})));
    assert_eq!(answer, CancelAnswer::Refused { message: "no [secret]".into() });
    let SubmitSafety::List(list) = viralsync.submit_safety.clone() else { panic!("no list") };
    let job = JobId::from_bytes([7; 16]);
    let row = json!({"jobId": format!("r-{key}"), "payload": {"movie": {"id": job}}});
    let page = read(200, json!({"jobs": [row], "nextCursor": key}));
    assert_eq!(viralsync.read_list(&list, &job, 0, &page), ListAnswer::Absent);
}

#[test]
fn list_next_page_follows_the_rows() {
    let spec = spec("renderio");
    let SubmitSafety::List(list) = &spec.submit_safety else { panic!("no list") };
    let read = |body: &Value| {
        let body = body.to_string();
        let answer = answer(200, &body);
        spec.read_list(list, &JobId::from_bytes([7; 16]), 100, &answer)
    };
    let row = json!({"command_id": "c-1", "metadata": {}});
    let page = json!({"commands": [row, row], "data": [row], "total": 102, "next": null});
    assert_eq!(read(&page), ListAnswer::Next(ListPage::Offset(102)));
    assert_eq!(read(&json!([row])), ListAnswer::Next(ListPage::Offset(101)));
    assert_eq!(read(&json!({"commands": [], "total": 102})), ListAnswer::Absent);
}
