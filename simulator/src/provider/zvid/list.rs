//! `GET /api/jobs`: the jobs in pages. The rows use other names than status answers.

use chrono::{DateTime, Utc};
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    ApiAnswer, ApiCall, Phase, ProviderApi, Render, Zvid, invalid, iso, result_url, thumbnail_url,
};

/// The type of every job here.
const TYPE: &str = "video";

pub(super) fn answer(
    zvid: &Zvid,
    renders: &[&Render],
    call: &ApiCall<'_>,
    now: DateTime<Utc>,
) -> ApiAnswer {
    let Some(limit) = call.number("limit", 10, 1..=100) else {
        return invalid(&[("limit", "\"limit\" must be between 1 and 100".to_owned())]);
    };
    let Some(page) = call.number("page", 1, 1..=1_000_000) else {
        return invalid(&[("page", "\"page\" must be a positive number".to_owned())]);
    };
    let mut matching = renders.to_vec();
    if call.parameter("type").is_some_and(|kind| kind != TYPE) {
        matching.clear();
    }
    let pages = matching.len().div_ceil(limit);
    let total = matching.len();
    let rows = matching.into_iter().skip((page - 1) * limit).take(limit);
    let body = json!({
        "jobs": rows.map(|render| row(zvid, render, now)).collect::<Vec<Value>>(),
        "pagination": {
            "page": page,
            "limit": limit,
            "total": total,
            "totalPages": pages,
            "hasNext": page < pages,
        },
    });
    ApiAnswer::new(StatusCode::OK, body)
}

fn row(zvid: &Zvid, render: &Render, now: DateTime<Utc>) -> Value {
    let phase = render.phase(now);
    let is_done = phase == Phase::Completed;
    let has_ended = is_done || phase == Phase::Failed;
    json!({
        "id": render.id,
        "status": zvid.status_name(phase),
        "type": TYPE,
        "name": render.submitted().pointer("/payload/name"),
        "outputUrl": is_done.then(|| result_url(render)),
        "thumbnailUrl": is_done.then(|| thumbnail_url(render)),
        "errorMessage": render.scenario.fail_with.as_deref().filter(|_| phase == Phase::Failed),
        "creditsConsumed": if is_done { 15 } else { 0 },
        "createdAt": iso(render.submitted_at),
        "completedAt": has_ended.then(|| iso(render.finished_at())),
    })
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::super::super::fixtures::{render, shown, time_at_ms};
    use super::*;

    fn call(query: &str) -> ApiCall<'_> {
        ApiCall { method: &Method::GET, path: "/api/jobs", query }
    }

    #[test]
    fn rows_show_renders() {
        let body = r#"{"payload":{"name":"Example"}}"#;
        let done = render(&Zvid, body, "{}");
        let failed = render(&Zvid, "{}", r#"{"failWith":"no codec"}"#);
        let shown = [0, 3_000]
            .map(|ms| shown(&answer(&Zvid, &[&done, &failed], &call(""), time_at_ms(ms))));
        insta::assert_snapshot!(shown.join("\n"), @r#"
        200 {"jobs":[{"completedAt":null,"createdAt":"2026-05-24T06:00:00.000Z","creditsConsumed":0,"errorMessage":null,"id":"11111111-1111-4111-9111-111111111111","name":"Example","outputUrl":null,"status":"queued","thumbnailUrl":null,"type":"video"},{"completedAt":null,"createdAt":"2026-05-24T06:00:00.000Z","creditsConsumed":0,"errorMessage":null,"id":"11111111-1111-4111-9111-111111111111","name":null,"outputUrl":null,"status":"queued","thumbnailUrl":null,"type":"video"}],"pagination":{"hasNext":false,"limit":10,"page":1,"total":2,"totalPages":1}}
        200 {"jobs":[{"completedAt":"2026-05-24T06:00:03.000Z","createdAt":"2026-05-24T06:00:00.000Z","creditsConsumed":15,"errorMessage":null,"id":"11111111-1111-4111-9111-111111111111","name":"Example","outputUrl":"https://cdn.zvid.io/11111111-1111-4111-9111-111111111111.mp4","status":"completed","thumbnailUrl":"https://cdn.zvid.io/11111111-1111-4111-9111-111111111111.jpg","type":"video"},{"completedAt":"2026-05-24T06:00:03.000Z","createdAt":"2026-05-24T06:00:00.000Z","creditsConsumed":0,"errorMessage":"no codec","id":"11111111-1111-4111-9111-111111111111","name":null,"outputUrl":null,"status":"failed","thumbnailUrl":null,"type":"video"}],"pagination":{"hasNext":false,"limit":10,"page":1,"total":2,"totalPages":1}}
        "#);
    }

    #[test]
    fn pages_follow_cursor() {
        let renders: Vec<Render> = (0..3).map(|_| render(&Zvid, "{}", "{}")).collect();
        let renders: Vec<&Render> = renders.iter().collect();
        let list = |query: &str| {
            let answer = answer(&Zvid, &renders, &call(query), time_at_ms(0));
            match answer.body["jobs"].as_array() {
                None => format!("{query} -> {}", shown(&answer)),
                Some(jobs) => format!("{query} -> {} {}", jobs.len(), answer.body["pagination"]),
            }
        };
        let queries =
            ["", "limit=2", "limit=2&page=2", "page=9", "type=image", "limit=0", "page=x"];
        insta::assert_snapshot!(queries.map(list).join("\n"), @r#"
         -> 3 {"hasNext":false,"limit":10,"page":1,"total":3,"totalPages":1}
        limit=2 -> 2 {"hasNext":true,"limit":2,"page":1,"total":3,"totalPages":2}
        limit=2&page=2 -> 1 {"hasNext":false,"limit":2,"page":2,"total":3,"totalPages":2}
        page=9 -> 0 {"hasNext":false,"limit":10,"page":9,"total":3,"totalPages":1}
        type=image -> 0 {"hasNext":false,"limit":10,"page":1,"total":0,"totalPages":0}
        limit=0 -> 400 {"details":[{"field":"limit","message":"\"limit\" must be between 1 and 100"}],"error":"Validation failed","message":"Please check your input and try again"}
        page=x -> 400 {"details":[{"field":"page","message":"\"page\" must be a positive number"}],"error":"Validation failed","message":"Please check your input and try again"}
        "#);
    }
}
