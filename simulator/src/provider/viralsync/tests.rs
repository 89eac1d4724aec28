use super::super::fixtures::{context, render, secret, shown, statuses, time_at_ms};
use super::*;

const BODY: &str = r#"{"kind":"movie","projectId":"p","movie":{"scenes":[{},{},{}]}}"#;

#[test]
fn status_follows_job() {
    let render = render(&ViralSync, BODY, r#"{"queuedMs":0,"durationMs":1000}"#);
    insta::assert_snapshot!(statuses(&ViralSync, &render, "", &[620, 1000]), @r#"
    200 {"children":{"failed":0,"queued":1,"running":1,"succeeded":1,"total":3},"createdAt":"2026-05-24T06:00:00.000Z","error":null,"jobId":"11111111-1111-4111-9111-111111111111","mediaData":null,"outputUrl":null,"parentJobId":null,"payload":{"movie":{"scenes":[{},{},{}]},"projectId":"p"},"phase":"rendering","progress":0.62,"status":"running","type":"render","updatedAt":"2026-05-24T06:00:00.620Z"}
    200 {"children":{"failed":0,"queued":0,"running":0,"succeeded":3,"total":3},"createdAt":"2026-05-24T06:00:00.000Z","error":null,"jobId":"11111111-1111-4111-9111-111111111111","mediaData":{"duration":10.0,"fileSize":8432156,"height":1080,"width":1920},"outputUrl":"https://r2.viralsync.io/outputs/11111111-1111-4111-9111-111111111111/output.mp4","parentJobId":null,"payload":{"movie":{"scenes":[{},{},{}]},"projectId":"p"},"phase":null,"progress":1.0,"status":"done","type":"render","updatedAt":"2026-05-24T06:00:01.000Z"}
    "#);
}

#[test]
fn every_phase_has_its_status() {
    let render = render(&ViralSync, BODY, r#"{"queuedMs":500,"durationMs":1500}"#);
    let short = |ms: i64| {
        let job = job::view(&render, time_at_ms(ms));
        format!("{} {} {} {}", job["status"], job["phase"], job["progress"], job["children"])
    };
    let times = [0, 500, 650, 750, 1_000, 1_350, 1_450, 1_500];
    insta::assert_snapshot!(times.map(short).join("\n"), @r#"
    "queued" null 0.0 {"failed":0,"queued":3,"running":0,"succeeded":0,"total":3}
    "running" "planning" 0.0 {"failed":0,"queued":2,"running":1,"succeeded":0,"total":3}
    "running" "dispatching" 0.15 {"failed":0,"queued":2,"running":1,"succeeded":0,"total":3}
    "waiting" "waiting" 0.25 {"failed":0,"queued":2,"running":1,"succeeded":0,"total":3}
    "running" "rendering" 0.5 {"failed":0,"queued":1,"running":1,"succeeded":1,"total":3}
    "running" "assembling" 0.85 {"failed":0,"queued":0,"running":1,"succeeded":2,"total":3}
    "running" "uploading" 0.95 {"failed":0,"queued":0,"running":1,"succeeded":2,"total":3}
    "done" null 1.0 {"failed":0,"queued":0,"running":0,"succeeded":3,"total":3}
    "#);
}

#[test]
fn failure_has_its_text() {
    let text = "SCENE_RENDER_FAILED: FFmpeg exited with code 1 on scene_2";
    let render = render(&ViralSync, BODY, &json!({"failWith": text}).to_string());
    insta::assert_snapshot!(statuses(&ViralSync, &render, "", &[3000]), @r#"200 {"children":{"failed":1,"queued":0,"running":0,"succeeded":2,"total":3},"createdAt":"2026-05-24T06:00:00.000Z","error":"SCENE_RENDER_FAILED: FFmpeg exited with code 1 on scene_2","jobId":"11111111-1111-4111-9111-111111111111","mediaData":null,"outputUrl":null,"parentJobId":null,"payload":{"movie":{"scenes":[{},{},{}]},"projectId":"p"},"phase":null,"progress":0.33,"status":"failed","type":"render","updatedAt":"2026-05-24T06:00:03.000Z"}"#);
}

#[test]
fn job_is_cancellable_until_end() {
    let mut render = render(&ViralSync, BODY, r#"{"queuedMs":0,"durationMs":1000}"#);
    let answers = [time_at_ms(400), time_at_ms(500)].map(|at| ViralSync.cancel(&mut render, at));
    insta::assert_snapshot!(answers.each_ref().map(shown).join("\n"), @r#"
    202 {}
    409 {"code":"INVALID_STATUS_TRANSITION","error":"Job cannot be cancelled in status cancelled."}
    "#);
    assert_eq!(ViralSync.state(&render, time_at_ms(399)), "waiting");
    insta::assert_snapshot!(statuses(&ViralSync, &render, "", &[9000]), @r#"200 {"children":{"failed":0,"queued":1,"running":1,"succeeded":1,"total":3},"createdAt":"2026-05-24T06:00:00.000Z","error":null,"jobId":"11111111-1111-4111-9111-111111111111","mediaData":null,"outputUrl":null,"parentJobId":null,"payload":{"movie":{"scenes":[{},{},{}]},"projectId":"p"},"phase":null,"progress":0.4,"status":"cancelled","type":"render","updatedAt":"2026-05-24T06:00:00.400Z"}"#);

    let mut ended = super::super::fixtures::render(&ViralSync, BODY, r#"{"durationMs":0}"#);
    let answer = ViralSync.cancel(&mut ended, time_at_ms(0));
    assert_eq!((answer.status, ended.cancelled_at), (StatusCode::CONFLICT, None));
}

#[test]
fn frozen_job_is_always_cancellable() {
    let options = r#"{"durationMs":1000,"freezeProgress":0.5}"#;
    let mut render = render(&ViralSync, BODY, options);
    ViralSync.cancel(&mut render, time_at_ms(5_000));
    let end = job::end(&render);
    assert_eq!(
        (&end["status"], &end["progress"], &end["timestamp"]),
        (&json!("cancelled"), &json!(0.5), &json!("2026-05-24T06:00:05.000Z"))
    );
}

#[test]
fn callbacks_report_progress_and_end() {
    let callback = |scenario, event| {
        let mut render = render(&ViralSync, BODY, scenario);
        if event == CallbackEvent::Cancelled {
            render.cancelled_at = Some(time_at_ms(740));
        }
        let callback = ViralSync.callback(&render, &context(event));
        format!("{:?} {}", callback.headers, callback.body)
    };
    let ended = CallbackEvent::Ended;
    insta::assert_snapshot!(
        [
            callback("{}", CallbackEvent::Progress(time_at_ms(1_650))),
            callback("{}", ended),
            callback(r#"{"failWith":"CODE: text"}"#, ended),
            callback(r#"{"callback":{"statusOverride":"waiting"}}"#, ended),
            callback("{}", CallbackEvent::Cancelled),
        ]
        .join("\n"), @r#"
    [] {"children":{"failed":0,"queued":1,"running":1,"succeeded":1,"total":3},"jobId":"11111111-1111-4111-9111-111111111111","outputUrl":null,"phase":"rendering","progress":0.46,"status":"running","timestamp":"2026-05-24T06:00:01.650Z"}
    [] {"jobId":"11111111-1111-4111-9111-111111111111","mediaData":{"duration":10.0,"fileSize":8432156,"height":1080,"width":1920},"outputUrl":"https://r2.viralsync.io/outputs/11111111-1111-4111-9111-111111111111/output.mp4","progress":1.0,"status":"done","timestamp":"2026-05-24T06:00:03.000Z"}
    [] {"error":"CODE: text","jobId":"11111111-1111-4111-9111-111111111111","outputUrl":null,"progress":0.33,"status":"failed","timestamp":"2026-05-24T06:00:03.000Z"}
    [] {"jobId":"11111111-1111-4111-9111-111111111111","outputUrl":null,"progress":1.0,"status":"waiting","timestamp":"2026-05-24T06:00:03.000Z"}
    [] {"jobId":"11111111-1111-4111-9111-111111111111","outputUrl":null,"progress":0.09,"status":"cancelled","timestamp":"2026-05-24T06:00:00.740Z"}
    "#);
}

#[test]
fn callbacks_are_signed() {
    let render = render(&ViralSync, BODY, "{}");
    let secret = secret("whsec_test");
    let context = CallbackContext { secret: Some(&secret), ..context(CallbackEvent::Ended) };
    let callback = ViralSync.callback(&render, &context);
    let signature = secret.sign(&[callback.body.as_bytes()]);
    assert_eq!(callback.headers, [("x-render-signature", signature)]);
}

#[test]
fn callbacks_leave_during_and_after_work() {
    let leave = |scenario| -> Vec<String> {
        let scheduled = ViralSync.scheduled_callbacks(&render(&ViralSync, BODY, scenario));
        let line = |callback: &ScheduledCallback| match callback.event {
            CallbackEvent::Progress(about) => {
                let about = (about - time_at_ms(0)).num_milliseconds();
                format!("{}: progress at {about}", callback.after.as_millis())
            }
            other => format!("{}: {other:?}", callback.after.as_millis()),
        };
        scheduled.iter().map(line).collect()
    };
    assert_eq!(
        leave(r#"{"queuedMs":100,"durationMs":400,"lateProgressMs":50}"#),
        ["200: progress at 200", "300: progress at 300", "400: Ended", "450: progress at 250"]
    );
    assert_eq!(leave(r#"{"progressCallbacks":0}"#), ["3000: Ended"]);
    assert_eq!(
        leave(r#"{"progressCallbacks":1,"freezeProgress":0.1,"lateProgressMs":5}"#),
        ["1750: progress at 1750"]
    );
    assert_eq!(
        leave(r#"{"queuedMs":500,"durationMs":400,"lateProgressMs":5}"#),
        ["400: Ended"],
        "no progress was made"
    );
    assert_eq!(leave(r#"{"callback":{"skip":true}}"#), [""; 0]);
}
