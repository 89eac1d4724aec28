//! The client of the HTTP API.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use domain::invisible::visible;
use serde_json::Value;
use ureq::Agent;
use ureq::http::Response;

pub(crate) struct Api {
    agent: Agent,
    url: String,
    key: String,
}

impl Api {
    pub(crate) fn new(url: &str, key: &str) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(35)))
            // The key goes to the stack's own host and nowhere else.
            .max_redirects(0)
            .http_status_as_error(false)
            .build();
        Self {
            agent: config.into(),
            url: url.trim_end_matches('/').to_owned(),
            key: key.to_owned(),
        }
    }

    pub(crate) fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value> {
        let request = self.agent.get(self.at(path)).header("authorization", self.bearer());
        let request =
            query.iter().fold(request, |request, (name, value)| request.query(name, value));
        read(request.call())
    }

    pub(crate) fn put(&self, path: &[&str], body: &Value) -> Result<Value> {
        let request = self.agent.put(self.at(path)).header("authorization", self.bearer());
        read(request.send_json(body))
    }

    /// Puts a text that is JSON as it is, so that errors can name lines of it.
    pub(crate) fn put_text(
        &self,
        path: &[&str],
        json: &str,
        if_match: Option<u64>,
    ) -> Result<Value> {
        let request = self.agent.put(self.at(path)).header("authorization", self.bearer());
        let request = request.header("content-type", "application/json");
        let request = match if_match {
            Some(version) => request.header("if-match", format!("\"{version}\"")),
            None => request,
        };
        read(request.send(json))
    }

    pub(crate) fn delete(&self, path: &[&str]) -> Result<Value> {
        let request = self.agent.delete(self.at(path)).header("authorization", self.bearer());
        read(request.call())
    }

    pub(crate) fn post(&self, path: &[&str]) -> Result<Value> {
        let request = self.agent.post(self.at(path)).header("authorization", self.bearer());
        read(request.send_empty())
    }

    pub(crate) fn post_json(&self, path: &[&str], body: &Value) -> Result<Value> {
        let request = self.agent.post(self.at(path)).header("authorization", self.bearer());
        read(request.send_json(body))
    }

    pub(crate) fn submit(&self, body: &Value, key: Option<&str>) -> Result<Value> {
        let request = self.agent.post(self.at(&["v1", "jobs"]));
        let request = request.header("authorization", self.bearer());
        let request = match key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        };
        read(request.send_json(body))
    }

    fn at(&self, path: &[&str]) -> String {
        format!("{}/{}", self.url, path.join("/"))
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.key)
    }
}

/// The response's JSON; a problem document becomes an error with its code and detail.
fn read(response: Result<Response<ureq::Body>, ureq::Error>) -> Result<Value> {
    let mut response = response.context("the stack does not answer")?;
    let status = response.status();
    let text = response.body_mut().read_to_string().context("the answer broke off")?;
    let body: Value = serde_json::from_str(&text)
        .with_context(|| format!("the answer ({status}) is not JSON; is the URL right?"))?;
    if status.is_success() {
        return Ok(body);
    }
    bail!("{status}, {}", problem(&body))
}

/// A problem document in a line. Its detail may quote a provider.
fn problem(body: &Value) -> String {
    let word = |name: &str| body.get(name).and_then(Value::as_str).map(visible);
    let known = |name: &str| word(name).unwrap_or_else(|| "?".to_owned());
    let field = word("field").map(|field| format!(" (field {field})")).unwrap_or_default();
    format!("{}{field}: {}", known("code"), known("detail"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn problem_shows_no_raw_control_characters() {
        let body =
            json!({"code": "provider_rejected", "detail": "no\n  state  \u{202e}done\u{1b}[2J"});
        let line = problem(&body);
        assert!(line.starts_with("provider_rejected: no"), "{line}");
        let raw = |c: char| c.is_control() || domain::invisible::is_invisible(c);
        assert!(!line.contains(raw), "{line:?}");
    }
}
