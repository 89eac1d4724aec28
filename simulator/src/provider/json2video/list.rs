//! `GET /movies` without a project: the movies of a period, in pages.

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveTime, TimeDelta, Utc};
use http::StatusCode;
use serde_json::{Value, json};

use super::super::wire::RenderPage;
use super::{ApiAnswer, ApiCall, Json2Video, Render, failure, iso};

const MAX_LIMIT: usize = 100;
const MAX_DAYS: i64 = 93;

pub(super) fn answer(
    json2video: &Json2Video,
    renders: &[&Render],
    call: &ApiCall<'_>,
    now: DateTime<Utc>,
) -> ApiAnswer {
    let Some(limit) = call.number("limit", MAX_LIMIT, 1..=MAX_LIMIT) else {
        return failure(StatusCode::BAD_REQUEST, "Invalid limit");
    };
    let Some((from, to)) = asked_time(call, now) else {
        return failure(StatusCode::BAD_REQUEST, "Invalid date range");
    };
    let mut matching = renders.to_vec();
    matching.retain(|render| (from..=to).contains(&render.submitted_at));
    let cursor = call.parameter("next_token");
    let Some(page) = RenderPage::of(&matching, cursor.as_deref(), limit) else {
        return failure(StatusCode::BAD_REQUEST, "Invalid next_token");
    };
    // Lists always include the submitted JSON: `format=simple` is for single movies.
    let movies: Vec<Value> =
        page.renders.iter().map(|render| json2video.movie_and_json(render, now)).collect();
    let body = json!({
        "success": true,
        "from": iso(from),
        "to": iso(to),
        "count": movies.len(),
        "limit": limit,
        "has_next": page.next.is_some(),
        "has_prev": cursor.is_some(),
        "next_token": page.next,
        "movies": movies,
        "remaining_quota": {"time": 1_807},
    });
    ApiAnswer::new(StatusCode::OK, body)
}

/// The period of a query. By default it is from the first of the month to the end of the day;
/// `None` when it is wrong or too long.
fn asked_time(call: &ApiCall<'_>, now: DateTime<Utc>) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    let today = now.date_naive();
    let asked = |name, other_name| call.parameter(name).or_else(|| call.parameter(other_name));
    let from = match asked("date_start", "from") {
        Some(text) => parse(&text, start_of)?,
        None => start_of(today.with_day(1)?),
    };
    let to = match asked("date_end", "to") {
        Some(text) => parse(&text, end_of)?,
        None => end_of(today),
    };
    (from <= to && to - from <= TimeDelta::days(MAX_DAYS)).then_some((from, to))
}

/// An ISO 8601 time, or a date, which stands for `moment` of that day.
fn parse(text: &str, moment: impl Fn(NaiveDate) -> DateTime<Utc>) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
    time.ok().or_else(|| text.parse().ok().map(moment))
}

fn start_of(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}

fn end_of(day: NaiveDate) -> DateTime<Utc> {
    let next_day = day.checked_add_days(Days::new(1)).unwrap_or(NaiveDate::MAX);
    start_of(next_day) - TimeDelta::milliseconds(1)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::super::super::fixtures::{render, shown, time_at_ms};
    use super::*;
    use crate::render_id::RenderId;

    fn list(query: &str) -> String {
        let day = 24 * 3_600 * 1_000;
        let renders: Vec<Render> = [0, -day, -20 * day, -30 * day]
            .into_iter()
            .enumerate()
            .map(|(index, ms)| Render {
                id: RenderId::asked_for(&format!("movie{index}")),
                submitted_at: time_at_ms(ms),
                ..render(&Json2Video, r#"{"client-data":{"order_id":7}}"#, "{}")
            })
            .collect();
        let renders: Vec<&Render> = renders.iter().collect();
        let call = ApiCall { method: &Method::GET, path: "/movies", query };
        let answer = answer(&Json2Video, &renders, &call, time_at_ms(0));
        match answer.body["movies"].as_array() {
            None => shown(&answer),
            Some(movies) => {
                let projects: Vec<_> =
                    movies.iter().map(|it| it["project"].as_str().unwrap()).collect();
                let next = &answer.body["next_token"];
                format!("{} next {next} prev {}", projects.join(" "), answer.body["has_prev"])
            }
        }
    }

    #[test]
    fn queries_are_paged_or_refused() {
        let queries = [
            "",
            "limit=1",
            "limit=1&next_token=after%3Dmovie0%26v%3D1",
            "limit=1&next_token=after=movie0&v=1",
            "date_start=2026-04-20",
            "date_start=2026-04-20&date_end=2026-05-04T06:00:00Z",
            "date_start=2026-01-01",
            "from=2026-05-23&to=2026-05-23",
            "date_start=2026-05-24&date_end=2026-05-23",
            "date_start=yesterday",
            "limit=101",
            "limit=0",
        ];
        let shown: Vec<String> =
            queries.iter().map(|query| format!("{query} -> {}", list(query))).collect();
        insta::assert_snapshot!(shown.join("\n"), @r#"
         -> movie0 movie1 movie2 next null prev false
        limit=1 -> movie0 next "after=movie0&v=1" prev false
        limit=1&next_token=after%3Dmovie0%26v%3D1 -> movie1 next "after=movie1&v=1" prev true
        limit=1&next_token=after=movie0&v=1 -> 400 {"message":"Invalid next_token","success":false}
        date_start=2026-04-20 -> movie0 movie1 movie2 movie3 next null prev false
        date_start=2026-04-20&date_end=2026-05-04T06:00:00Z -> movie2 movie3 next null prev false
        date_start=2026-01-01 -> 400 {"message":"Invalid date range","success":false}
        from=2026-05-23&to=2026-05-23 -> movie1 next null prev false
        date_start=2026-05-24&date_end=2026-05-23 -> 400 {"message":"Invalid date range","success":false}
        date_start=yesterday -> 400 {"message":"Invalid date range","success":false}
        limit=101 -> 400 {"message":"Invalid limit","success":false}
        limit=0 -> 400 {"message":"Invalid limit","success":false}
        "#);
    }

    #[test]
    fn answer_is_complete() {
        let body = r#"{"client-data":{"order_id":7},"scenes":[]}"#;
        let render = render(&Json2Video, body, "{}");
        let call = ApiCall { method: &Method::GET, path: "/movies", query: "format=simple" };
        insta::assert_snapshot!(shown(&answer(&Json2Video, &[&render], &call, time_at_ms(0))), @r#"200 {"count":1,"from":"2026-05-01T00:00:00.000Z","has_next":false,"has_prev":false,"limit":100,"movies":[{"client-data":{"order_id":7},"created_at":"2026-05-24T06:00:00.000Z","json":{"client-data":{"order_id":7},"scenes":[]},"message":"","project":"11111111-1111-4111-9111-111111111111","status":"pending","success":true}],"next_token":null,"remaining_quota":{"time":1807},"success":true,"to":"2026-05-24T23:59:59.999Z"}"#);
    }
}
