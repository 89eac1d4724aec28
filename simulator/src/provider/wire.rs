//! The parts of requests and answers that all providers share.

use std::ops::RangeInclusive;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::Value;
use url::form_urlencoded;

use crate::render::Render;
use crate::render_id::RenderId;

/// A request to a provider's API.
#[derive(Debug)]
pub(crate) struct ApiCall<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    /// Without the leading `?`; may be empty.
    pub(crate) query: &'a str,
}

impl ApiCall<'_> {
    /// The first query parameter with this name, unescaped; `None` when it is missing or empty.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = form_urlencoded::parse(self.query.as_bytes());
        let (_, value) = pairs.find(|(key, _)| key == name)?;
        Some(value.into_owned()).filter(|value| !value.is_empty())
    }

    /// The value of a numeric query parameter, or `default` when it is missing; `None` when it is
    /// not a number within `range`.
    pub(crate) fn number(
        &self,
        name: &str,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> Option<usize> {
        match self.parameter(name) {
            None => Some(default),
            Some(text) => text.parse().ok().filter(|number| range.contains(number)),
        }
    }

    /// The id in the path between `prefix` and `suffix`.
    pub(super) fn id_between(&self, prefix: &str, suffix: &str) -> Option<RenderId> {
        let id = self.path.strip_prefix(prefix)?.strip_suffix(suffix)?;
        (!id.is_empty() && !id.contains('/')).then(|| RenderId::asked_for(id))
    }
}

/// The operation that a call requests.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Submit,
    Status(RenderId),
    List,
    Cancel(RenderId),
    Delete(RenderId),
    Unknown,
}

/// The reason for an error answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ApiRefusal {
    NoKey,
    WrongKey,
    NoSuchPath,
    NotJson,
    UnknownRender,
    /// The scenario demands this status.
    Forced(StatusCode),
}

#[derive(Clone, Debug)]
pub(crate) struct ApiAnswer {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Value,
}

impl ApiAnswer {
    pub(crate) fn new(status: StatusCode, body: Value) -> Self {
        Self { status, headers: Vec::new(), body }
    }

    /// Replaces a header of the same name.
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.retain(|(present, _)| *present != name);
        self.headers.push((name, value));
        self
    }
}

impl IntoResponse for ApiAnswer {
    fn into_response(self) -> Response {
        (self.status, HeaderMap::from_iter(self.headers), Json(self.body)).into_response()
    }
}

/// Merges objects; values of other types are skipped.
pub(super) fn merged(parts: impl IntoIterator<Item = Value>) -> Value {
    let members = parts.into_iter().filter_map(|part| match part {
        Value::Object(members) => Some(members),
        _ => None,
    });
    Value::Object(members.flatten().collect())
}

/// A page of a list with cursors.
pub(super) struct RenderPage<'a> {
    pub(super) renders: Vec<&'a Render>,
    /// The cursor of the next page; `None` on the last.
    pub(super) next: Option<String>,
}

impl<'a> RenderPage<'a> {
    /// The page of a cursor, or the first page without one; `None` for a cursor that no page
    /// returned. New renders do not move the pages.
    pub(super) fn of(renders: &[&'a Render], cursor: Option<&str>, limit: usize) -> Option<Self> {
        let begin = match cursor {
            None => 0,
            Some(cursor) => 1 + renders.iter().position(|it| cursor_after(it) == cursor)?,
        };
        let rest = renders.iter().skip(begin);
        let page: Vec<_> = rest.clone().take(limit).copied().collect();
        let more = rest.count() > page.len();
        let next = page.last().filter(|_| more).map(|last| cursor_after(last));
        Some(Self { renders: page, next })
    }
}

/// The cursor contains characters that a client must escape in a query.
fn cursor_after(render: &Render) -> String {
    format!("after={}&v=1", render.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(query: &str) -> ApiCall<'_> {
        ApiCall { method: &Method::GET, path: "/jobs/7/cancel", query }
    }

    #[test]
    fn parameters_are_unescaped() {
        let call = call("cursor=after%3Dx%26v%3D1&limit=&limit=7&page=2");
        assert_eq!(call.parameter("cursor").as_deref(), Some("after=x&v=1"));
        assert_eq!(call.parameter("limit"), None);
        assert_eq!(call.parameter("offset"), None);
        assert_eq!(call.number("page", 1, 1..=10), Some(2));
        assert_eq!(call.number("page", 1, 3..=10), None);
        assert_eq!(call.number("cursor", 1, 1..=10), None);
        assert_eq!(call.number("offset", 5, 1..=10), Some(5));
    }

    #[test]
    fn ids_are_whole_path_segments() {
        let call = call("");
        let id = |prefix, suffix| call.id_between(prefix, suffix).map(|id| id.to_string());
        assert_eq!(id("/jobs/", "/cancel").as_deref(), Some("7"));
        assert_eq!(id("/jobs/", ""), None);
        assert_eq!(id("/jobs/7", "/cancel"), None);
    }

    #[test]
    fn later_header_replaces_earlier() {
        let name = http::header::RETRY_AFTER;
        let answer = ApiAnswer::new(StatusCode::OK, Value::Null)
            .with_header(name.clone(), HeaderValue::from_static("14"))
            .with_header(name.clone(), HeaderValue::from_static("1"));
        assert_eq!(answer.headers, [(name, HeaderValue::from_static("1"))]);
    }
}
