//! The rules of a submit to Zvid.

use serde_json::{Map, Value};

use super::{AcceptedSubmit, Complaint};
use crate::render_id::RenderId;

/// The allowed fields of a submit. The documentation says that others are refused.
const SUBMIT_FIELDS: [&str; 7] =
    ["payload", "template", "variables", "overrides", "webhookUrl", "jobId", "clientKey"];

const MAX_WEBHOOK_URL_CHARS: usize = 2_048;

pub(super) fn read(body: &Value) -> Result<AcceptedSubmit, Vec<Complaint>> {
    let Some(fields) = body.as_object() else {
        return Err(vec![("body", "must be an object".to_owned())]);
    };
    let mut complaints = complaints_about_content(fields);
    let webhook_url = text(fields, "webhookUrl", &mut complaints);
    if webhook_url.is_some_and(|url| !is_web_url(url)) {
        complaints.push(("webhookUrl", "\"webhookUrl\" must be a valid uri".to_owned()));
    }
    let job_id = text(fields, "jobId", &mut complaints);
    let id = job_id.and_then(RenderId::parse_uuid);
    if job_id.is_some() && id.is_none() {
        complaints.push(("jobId", "\"jobId\" must be a valid GUID".to_owned()));
    }
    if !complaints.is_empty() {
        return Err(complaints);
    }
    Ok(AcceptedSubmit { id, callback_urls: webhook_url.map(str::to_owned).into_iter().collect() })
}

fn complaints_about_content(fields: &Map<String, Value>) -> Vec<Complaint> {
    let mut complaints: Vec<Complaint> = fields
        .keys()
        .filter(|name| !SUBMIT_FIELDS.contains(&name.as_str()))
        .map(|name| ("body", format!("\"{name}\" is not allowed")))
        .collect();
    match (fields.get("payload"), fields.get("template")) {
        (Some(payload), None) if payload.is_object() => {}
        (Some(_), None) => complaints.push(("payload", "\"payload\" must be an object".to_owned())),
        (None, Some(template)) if template.as_str().is_some_and(is_template_id) => {}
        (None, Some(_)) => {
            complaints.push(("template", "\"template\" is not a template id".to_owned()));
        }
        (Some(_), Some(_)) | (None, None) => complaints.push((
            "payload",
            "exactly one of \"payload\" and \"template\" is required".to_owned(),
        )),
    }
    complaints
}

fn text<'a>(
    fields: &'a Map<String, Value>,
    name: &'static str,
    complaints: &mut Vec<Complaint>,
) -> Option<&'a str> {
    let value = fields.get(name)?;
    if !value.is_string() {
        complaints.push((name, format!("\"{name}\" must be a string")));
    }
    value.as_str()
}

/// Zvid itself accepts only public addresses and ports 80 and 443, which a simulator's client does
/// not have.
fn is_web_url(url: &str) -> bool {
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    url.chars().count() <= MAX_WEBHOOK_URL_CHARS
        && host.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
}

/// `^tpl_[A-Za-z0-9]{20}$`
fn is_template_id(text: &str) -> bool {
    text.strip_prefix("tpl_")
        .is_some_and(|id| id.len() == 20 && id.chars().all(|c| c.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::super::{ProviderApi, Zvid};

    #[test]
    fn wrong_submits_are_refused() {
        let template = "tpl_0123456789abcdefghij";
        let result = |body: &str| match Zvid.read_submit(&serde_json::from_str(body).unwrap()) {
            Ok(submission) => format!("{body} -> {submission:?}"),
            Err(answer) => format!("{body} -> {} {}", answer.status, answer.body["details"]),
        };
        insta::assert_snapshot!(
            [
                r#"{"payload":{"name":"n"}}"#,
                &format!(r#"{{"template":"{template}","webhookUrl":"http://h:1/x"}}"#),
                r#"{"payload":{},"jobId":"550e8400-e29b-41d4-a716-446655440000"}"#,
                r#"[]"#,
                r#"{}"#,
                &format!(r#"{{"payload":{{}},"template":"{template}"}}"#),
                r#"{"payload":"{}"}"#,
                r#"{"template":"tpl_1"}"#,
                r#"{"payload":{},"webhookUrl":"ftp://h/x"}"#,
                r#"{"payload":{},"webhookUrl":7}"#,
                r#"{"payload":{},"jobId":"7"}"#,
                r#"{"payload":{},"metadata":{}}"#,
            ]
            .map(result)
            .join("\n"), @r#"
            {"payload":{"name":"n"}} -> AcceptedSubmit { id: None, callback_urls: [] }
            {"template":"tpl_0123456789abcdefghij","webhookUrl":"http://h:1/x"} -> AcceptedSubmit { id: None, callback_urls: ["http://h:1/x"] }
            {"payload":{},"jobId":"550e8400-e29b-41d4-a716-446655440000"} -> AcceptedSubmit { id: Some(RenderId("550e8400-e29b-41d4-a716-446655440000")), callback_urls: [] }
            [] -> 400 Bad Request [{"field":"body","message":"must be an object"}]
            {} -> 400 Bad Request [{"field":"payload","message":"exactly one of \"payload\" and \"template\" is required"}]
            {"payload":{},"template":"tpl_0123456789abcdefghij"} -> 400 Bad Request [{"field":"payload","message":"exactly one of \"payload\" and \"template\" is required"}]
            {"payload":"{}"} -> 400 Bad Request [{"field":"payload","message":"\"payload\" must be an object"}]
            {"template":"tpl_1"} -> 400 Bad Request [{"field":"template","message":"\"template\" is not a template id"}]
            {"payload":{},"webhookUrl":"ftp://h/x"} -> 400 Bad Request [{"field":"webhookUrl","message":"\"webhookUrl\" must be a valid uri"}]
            {"payload":{},"webhookUrl":7} -> 400 Bad Request [{"field":"webhookUrl","message":"\"webhookUrl\" must be a string"}]
            {"payload":{},"jobId":"7"} -> 400 Bad Request [{"field":"jobId","message":"\"jobId\" must be a valid GUID"}]
            {"payload":{},"metadata":{}} -> 400 Bad Request [{"field":"body","message":"\"metadata\" is not allowed"}]
            "#);
    }
}
