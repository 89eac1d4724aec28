use super::super::fixtures::{
    first_context, render, secret, shown, statuses, submit_results, time_at_ms,
};
use super::*;

const BODY: &str = r#"{"input_files":{"in_video":"https://e.example/s.mp4"},"output_files":{"out_video":"result.webm"},"ffmpeg_command":"-i {{in_video}} {{out_video}}","metadata":{"order":7}}"#;

#[test]
fn status_follows_command() {
    let render = render(&RenderIo, BODY, r#"{"queuedMs":500,"durationMs":3000}"#);
    insta::assert_snapshot!(statuses(&RenderIo, &render, "", &[0, 500, 3000]), @r#"
    200 {"command_id":"11111111-1111-4111-9111-111111111111","command_type":"FFMPEG_COMMAND","error_message":null,"error_status":null,"ffmpeg_command_run_seconds":null,"metadata":{"order":7},"original_request":{"ffmpeg_command":"-i {{in_video}} {{out_video}}","input_files":{"in_video":"https://e.example/s.mp4"},"output_files":{"out_video":"result.webm"}},"output_files":{"out_video":{"file_id":"e3d0ed4d-c24e-49f5-8bed-95d8357db3e5","filename":"result.webm","size_mbytes":null,"status":"PROCESSING","storage_url":null}},"status":"QUEUED","total_processing_seconds":null}
    200 {"command_id":"11111111-1111-4111-9111-111111111111","command_type":"FFMPEG_COMMAND","error_message":null,"error_status":null,"ffmpeg_command_run_seconds":null,"metadata":{"order":7},"original_request":{"ffmpeg_command":"-i {{in_video}} {{out_video}}","input_files":{"in_video":"https://e.example/s.mp4"},"output_files":{"out_video":"result.webm"}},"output_files":{"out_video":{"file_id":"e3d0ed4d-c24e-49f5-8bed-95d8357db3e5","filename":"result.webm","size_mbytes":null,"status":"PROCESSING","storage_url":null}},"status":"PROCESSING","total_processing_seconds":null}
    200 {"command_id":"11111111-1111-4111-9111-111111111111","command_type":"FFMPEG_COMMAND","error_message":null,"error_status":null,"ffmpeg_command_run_seconds":3.0,"metadata":{"order":7},"original_request":{"ffmpeg_command":"-i {{in_video}} {{out_video}}","input_files":{"in_video":"https://e.example/s.mp4"},"output_files":{"out_video":"result.webm"}},"output_files":{"out_video":{"file_id":"e3d0ed4d-c24e-49f5-8bed-95d8357db3e5","filename":"result.webm","size_mbytes":1.24,"status":"STORED","storage_url":"https://storage.renderio.dev/files/e3d0ed4d-c24e-49f5-8bed-95d8357db3e5"}},"status":"SUCCESS","total_processing_seconds":3.0}
    "#);
}

#[test]
fn failure_has_its_text() {
    let options = r#"{"failWith":"Input file could not be reached"}"#;
    let render = render(&RenderIo, BODY, options);
    insta::assert_snapshot!(statuses(&RenderIo, &render, "", &[3000]), @r#"200 {"command_id":"11111111-1111-4111-9111-111111111111","command_type":"FFMPEG_COMMAND","error_message":"Input file could not be reached","error_status":"FFMPEG_COMMAND_FAILED","ffmpeg_command_run_seconds":3.0,"metadata":{"order":7},"original_request":{"ffmpeg_command":"-i {{in_video}} {{out_video}}","input_files":{"in_video":"https://e.example/s.mp4"},"output_files":{"out_video":"result.webm"}},"output_files":{"out_video":{"file_id":"e3d0ed4d-c24e-49f5-8bed-95d8357db3e5","filename":"result.webm","size_mbytes":null,"status":"FAILED","storage_url":null}},"status":"FAILED","total_processing_seconds":3.0}"#);
}

#[test]
fn result_may_lack_url_at_first() {
    let options = r#"{"durationMs":0,"storedAfterPolls":2,"resultUrl":"https://r/v"}"#;
    let render = render(&RenderIo, BODY, options);
    let file = |answer: Value| {
        let file = &answer["output_files"]["out_video"];
        format!("{} {}", file["status"], file["storage_url"])
    };
    let asked = |polls| {
        let render = Render { polls, ..render.clone() };
        file(command::view(&render, "SUCCESS", time_at_ms(0)))
    };
    let (none, url) = (r#""PROCESSING" null"#, r#""STORED" "https://r/v""#);
    assert_eq!([1, 2, 3].map(asked), [none, none, url]);
    let late = Render { polls: 3, ..render.clone() };
    assert_eq!(file(command::callback_view(&late, "SUCCESS")), none, "repeats have the same bytes");
}

#[test]
fn callbacks_report_end() {
    let secret = secret("whsec_test");
    let callback = |scenario, secret| {
        let context = CallbackContext { secret, ..first_context() };
        let callback = RenderIo.callback(&render(&RenderIo, BODY, scenario), &context);
        format!("{:?} {}", callback.headers, callback.body)
    };
    insta::assert_snapshot!(
        [
            callback("{}", None),
            callback(r#"{"failWith":"no codec"}"#, None),
            callback(r#"{"callback":{"statusOverride":"PROCESSING"}}"#, None),
        ]
        .join("\n"), @r#"
    [("user-agent", "RenderIO-Webhook/1.0")] {"data":{"command_id":"11111111-1111-4111-9111-111111111111","command_type":"FFMPEG_COMMAND","error_message":null,"error_status":null,"ffmpeg_command_run_seconds":3.0,"metadata":{"order":7},"original_request":{"ffmpeg_command":"-i {{in_video}} {{out_video}}","input_files":{"in_video":"https://e.example/s.mp4"},"output_files":{"out_video":"result.webm"}},"output_files":{"out_video":{"file_id":"e3d0ed4d-c24e-49f5-8bed-95d8357db3e5","filename":"result.webm","size_mbytes":1.24,"status":"STORED","storage_url":"https://storage.renderio.dev/files/e3d0ed4d-c24e-49f5-8bed-95d8357db3e5"}},"status":"SUCCESS","total_processing_seconds":3.0},"timestamp":1779602403000}
    [("user-agent", "RenderIO-Webhook/1.0")] {"data":{"command_id":"11111111-1111-4111-9111-111111111111","command_type":"FFMPEG_COMMAND","error_message":"no codec","error_status":"FFMPEG_COMMAND_FAILED","ffmpeg_command_run_seconds":3.0,"metadata":{"order":7},"original_request":{"ffmpeg_command":"-i {{in_video}} {{out_video}}","input_files":{"in_video":"https://e.example/s.mp4"},"output_files":{"out_video":"result.webm"}},"output_files":{"out_video":{"file_id":"e3d0ed4d-c24e-49f5-8bed-95d8357db3e5","filename":"result.webm","size_mbytes":null,"status":"FAILED","storage_url":null}},"status":"FAILED","total_processing_seconds":3.0},"timestamp":1779602403000}
    [("user-agent", "RenderIO-Webhook/1.0")] {"data":{"command_id":"11111111-1111-4111-9111-111111111111","command_type":"FFMPEG_COMMAND","error_message":null,"error_status":null,"ffmpeg_command_run_seconds":3.0,"metadata":{"order":7},"original_request":{"ffmpeg_command":"-i {{in_video}} {{out_video}}","input_files":{"in_video":"https://e.example/s.mp4"},"output_files":{"out_video":"result.webm"}},"output_files":{"out_video":{"file_id":"e3d0ed4d-c24e-49f5-8bed-95d8357db3e5","filename":"result.webm","size_mbytes":1.24,"status":"STORED","storage_url":"https://storage.renderio.dev/files/e3d0ed4d-c24e-49f5-8bed-95d8357db3e5"}},"status":"PROCESSING","total_processing_seconds":3.0},"timestamp":1779602403000}
    "#);

    let signed = RenderIo.callback(
        &render(&RenderIo, BODY, "{}"),
        &CallbackContext { secret: Some(&secret), ..first_context() },
    );
    let signature = secret.sign(&[signed.body.as_bytes()]);
    assert_eq!(signed.headers.last(), Some(&("x-webhook-signature", signature)));
    let unsigned = r#"{"callbackSigned":false}"#;
    assert_eq!(callback(unsigned, Some(&secret)), callback("{}", None));
}

#[test]
fn own_url_overrides_account_webhook() {
    let mut account = ProviderAccount::default();
    account.secret = Some(secret("s"));
    let destinations = |account: &ProviderAccount, own: &[&str]| -> Vec<Destination> {
        RenderIo.destinations(own.iter().map(|url| (*url).to_owned()).collect(), account, "b")
    };
    let to = |url: &str| Destination { url: url.to_owned(), secret: Some(secret("s")) };

    assert_eq!(destinations(&account, &[]), []);
    account.put_webhook(serde_json::from_str(r#"{"url":"http://all"}"#).unwrap());
    account.put_webhook(serde_json::from_str(r#"{"url":"http://b","tag":"b"}"#).unwrap());
    assert_eq!(destinations(&account, &[]), [to("http://b")]);
    assert_eq!(destinations(&account, &["http://own"]), [to("http://own")]);
}

#[test]
fn wrong_submits_are_refused() {
    let many: String = (0..11).map(|n| format!(r#""k{n}":{n},"#)).collect();
    let many = format!(
        r#"{{"ffmpeg_command":"x","output_files":{{"out_v":"v"}},"metadata":{{{}}}}}"#,
        many.trim_end_matches(',')
    );
    let bodies = [
        BODY,
        r#"{"ffmpeg_command":"x","output_files":{"out_v":"v"},"webhook_url":"http://h/x"}"#,
        r#"{}"#,
        r#"{"ffmpeg_command":"x","output_files":{"v":"v"},"input_files":{"v":"v"}}"#,
        r#"{"ffmpeg_command":"x","output_files":{"out_v":"v"},"metadata":{"a":[]}}"#,
        many.as_str(),
        r#"{"ffmpeg_command":"x","output_files":{"out_v":"v"},"webhook_url":7}"#,
    ];
    insta::assert_snapshot!(submit_results(&RenderIo, &bodies), @r#"
    {"input_files":{"in_video":"https://e.example/s.mp4"},"output_files":{"out_video":"result.webm"},"ffmpeg_command":"-i {{in_video}} {{out_video}}","metadata":{"order":7}} -> []
    {"ffmpeg_command":"x","output_files":{"out_v":"v"},"webhook_url":"http://h/x"} -> ["http://h/x"]
    {} -> 422 {"detail":[{"loc":["ffmpeg_command"],"msg":"field required","type":"value_error"},{"loc":["output_files"],"msg":"field required","type":"value_error"}]}
    {"ffmpeg_command":"x","output_files":{"v":"v"},"input_files":{"v":"v"}} -> 422 {"detail":[{"loc":["input_files"],"msg":"keys must start with in_","type":"value_error"},{"loc":["output_files"],"msg":"keys must start with out_","type":"value_error"}]}
    {"ffmpeg_command":"x","output_files":{"out_v":"v"},"metadata":{"a":[]}} -> 422 {"detail":[{"loc":["metadata"],"msg":"at most 10 keys with scalar values","type":"value_error"}]}
    {"ffmpeg_command":"x","output_files":{"out_v":"v"},"metadata":{"k0":0,"k1":1,"k2":2,"k3":3,"k4":4,"k5":5,"k6":6,"k7":7,"k8":8,"k9":9,"k10":10}} -> 422 {"detail":[{"loc":["metadata"],"msg":"at most 10 keys with scalar values","type":"value_error"}]}
    {"ffmpeg_command":"x","output_files":{"out_v":"v"},"webhook_url":7} -> 422 {"detail":[{"loc":["webhook_url"],"msg":"str type expected","type":"value_error"}]}
    "#);
}

#[test]
fn lists_are_paged_and_filtered() {
    let renders = [0, 1, 2].map(|_| render(&RenderIo, BODY, r#"{"durationMs":0}"#));
    let renders: Vec<&Render> = renders.iter().collect();
    let list = |query: &str| {
        let call = ApiCall { method: &Method::GET, path: "/api/v1/commands", query };
        let answer = RenderIo.list(&renders, &call, time_at_ms(0));
        match answer.body["commands"].as_array() {
            None => format!("{query} -> {}", shown(&answer)),
            Some(commands) => format!("{query} -> {}", commands.len()),
        }
    };
    let queries = [
        "",
        "limit=2",
        "limit=2&offset=2",
        "offset=9",
        "status=SUCCESS",
        "status=FAILED",
        "status=done",
        "limit=101",
        "offset=x",
    ];
    insta::assert_snapshot!(queries.map(list).join("\n"), @r#"
     -> 3
    limit=2 -> 2
    limit=2&offset=2 -> 1
    offset=9 -> 0
    status=SUCCESS -> 3
    status=FAILED -> 0
    status=done -> 400 {"error":"INVALID_REQUEST"}
    limit=101 -> 400 {"error":"INVALID_REQUEST"}
    offset=x -> 400 {"error":"INVALID_REQUEST"}
    "#);
}
