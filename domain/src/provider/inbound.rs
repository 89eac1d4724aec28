//! Callback body in, its meaning out. Whether to believe it is decided by its signature, in the
//! verifier; nothing in this module authenticates the sender.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::answer::{observe, render_id};
use super::echo::EchoMask;
use super::pointer::{Pointer, first_text};
use super::spec::ProviderSpec;
use super::spec::webhook::WebhookKind;
use crate::form;
use crate::id::{JobId, RenderJobId};
use crate::job::{Observation, RenderStatus};

/// The meaning of a callback.
#[derive(Clone, Debug, PartialEq)]
pub struct Callback {
    /// The kind of callback.
    pub kind: WebhookKind,
    /// The provider's id of the render, where the body has one.
    pub render_job_id: Option<RenderJobId>,
    /// Our id of the job, where the body of an account's callback has it.
    pub job_id: Option<JobId>,
    /// The observation in the body. It is believed only when a signature proves the body.
    pub claim: Option<Observation>,
    /// Whether the body had a secret of ours in it, which is masked.
    pub had_secret: bool,
}

impl Callback {
    /// Whether it announces an end and does not tell which: its status is none of an end, or it
    /// lacks the result that a status call may have. A failure or a cancellation needs no more.
    #[must_use]
    pub fn leaves_end_open(&self, spec: &ProviderSpec) -> bool {
        let Some(claim) = &self.claim else { return self.kind == WebhookKind::Ended };
        match &claim.status {
            RenderStatus::Queued | RenderStatus::Processing => self.kind == WebhookKind::Ended,
            RenderStatus::Completed(result) => {
                result.url.is_none() && !spec.status.answer.result.is_empty()
            }
            RenderStatus::Failed(_) | RenderStatus::Cancelled | RenderStatus::TimedOut => false,
        }
    }
}

/// Why a body is not a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InboundError {
    /// It is neither JSON nor, for a provider that posts forms, a form.
    #[error("the body is not JSON")]
    NotJson,
    /// The provider does not call back.
    #[error("this provider has no callbacks")]
    NoCallbacks,
}

impl ProviderSpec {
    /// Reads the body of a callback. For a provider that may post forms, a body that is not JSON
    /// is read as a form; the content type is ignored, because vendors get it wrong. When one
    /// field of the form is signed, the callback is the JSON in that field, and the rest of the
    /// form is ignored because no signature covers it. `mask` has the secrets that the provider
    /// knows.
    ///
    /// # Errors
    /// When the body cannot be read, or the provider has no callbacks.
    pub fn read_callback(
        &self,
        body: &[u8],
        mask: &EchoMask,
        now: DateTime<Utc>,
    ) -> Result<Callback, InboundError> {
        let webhook = self.webhook.as_ref().ok_or(InboundError::NoCallbacks)?;
        let signed_field = webhook.signature.as_ref().and_then(|scheme| scheme.signed_field());
        let mut body = match (signed_field, serde_json::from_slice(body)) {
            (Some(name), _) => json_in_form(body, name).ok_or(InboundError::NotJson)?,
            (None, Ok(body)) => body,
            (None, Err(_)) if webhook.form => form(body).ok_or(InboundError::NotJson)?,
            (None, Err(_)) => return Err(InboundError::NotJson),
        };
        let had_secret = mask.mask(&mut body);
        let rule = webhook.rules.iter().find(|rule| {
            rule.when.iter().all(|(at, wanted)| {
                Pointer::parse(at).is_ok_and(|at| at.find(&body).iter().any(|it| same(it, wanted)))
            })
        });
        let kind = rule.map_or(WebhookKind::Ignore, |rule| rule.kind);
        let id = rule.and_then(|rule| first_text(&rule.id, &body)).and_then(|id| render_id(&id));
        let mark = webhook.account.as_ref().and_then(|account| first_text(&account.job, &body));
        let claim = webhook.answer.as_ref().and_then(|answer| observe(answer, &body, now));
        Ok(Callback {
            kind,
            job_id: mark
                .and_then(|mark| JobId::parse(&mark).ok().or_else(|| JobId::from_uuid(&mark))),
            claim: claim.map(|claim| Observation { render_job_id: id.clone(), ..claim }),
            render_job_id: id,
            had_secret,
        })
    }
}

/// Whether a member has the value of a rule. Case is ignored, because vendors vary it.
fn same(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::String(found), Value::String(wanted)) => found.eq_ignore_ascii_case(wanted),
        (found, wanted) => found == wanted,
    }
}

/// A form as an object of strings. A body without any `name=value` is not a form.
fn form(body: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(body).ok()?;
    if !text.contains('=') {
        return None;
    }
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let fields = form::fields(body)?.into_iter();
    let members = fields.map(|field| (text(field.name), Value::String(text(field.value))));
    Some(Value::Object(Map::from_iter(members)))
}

/// The document in the field of this name, which must occur once.
fn json_in_form(body: &[u8], name: &str) -> Option<Value> {
    let fields = form::fields(body)?;
    let mut fields = fields.iter().filter(|field| field.name == name.as_bytes());
    match (fields.next(), fields.next()) {
        (Some(field), None) => serde_json::from_slice(&field.value).ok(),
        (_, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::noon;
    use crate::id::ProviderName;
    use crate::provider::catalogue::{Adjustments, Catalogue};

    fn spec(provider: &str) -> ProviderSpec {
        let name = ProviderName::parse(provider).unwrap();
        let catalogue = Catalogue::load(&Adjustments::default()).unwrap();
        catalogue.get(&name).unwrap().spec.clone()
    }

    fn read(provider: &str, body: &Value) -> (WebhookKind, Option<String>) {
        let callback = spec(provider)
            .read_callback(body.to_string().as_bytes(), &EchoMask::default(), noon())
            .unwrap();
        (callback.kind, callback.render_job_id.map(String::from))
    }

    #[test]
    fn callback_names_its_render() {
        let ended = |id: &str| (WebhookKind::Ended, Some(id.to_owned()));
        let zvid = json!({"event": "render.completed", "jobId": "z-1", "test": false});
        assert_eq!(read("zvid", &zvid), ended("z-1"));
        let shotstack = json!({"type": "edit", "action": "render", "id": "s-1", "status": "done"});
        assert_eq!(read("shotstack", &shotstack), ended("s-1"));
    }

    #[test]
    fn callback_of_other_event_is_ignored() {
        let serve = json!({"type": "serve", "action": "copy", "id": "x", "render": "s-1"});
        assert_eq!(read("shotstack", &serve).0, WebhookKind::Ignore);
        let test = json!({"event": "render.completed", "jobId": "z-1", "test": true});
        assert_eq!(read("zvid", &test).0, WebhookKind::Ignore);
        for strange in [json!(null), json!([]), json!("text"), json!({"event": 5})] {
            assert_eq!(read("zvid", &strange), (WebhookKind::Ignore, None), "{strange}");
        }
    }

    #[test]
    fn callback_of_json2video_has_four_shapes() {
        let ended = (WebhookKind::Ended, Some("WAEE8PohgVwv2teP".to_owned()));
        for body in [
            json!({"success": true, "movie": {"project": "WAEE8PohgVwv2teP", "status": "done"}}),
            json!({"width": "1920", "project": "WAEE8PohgVwv2teP", "id": "your-movie-id"}),
            json!({"project": "WAEE8PohgVwv2teP", "status": "done"}),
        ] {
            assert_eq!(read("json2video", &body), ended);
        }
        let form = b"width=1920&project=WAEE8PohgVwv2teP&url=https%3A%2F%2Fa%2Fb.mp4";
        let callback =
            spec("json2video").read_callback(form, &EchoMask::default(), noon()).unwrap();
        assert_eq!((callback.kind, callback.render_job_id.map(String::from)), ended);
    }

    #[test]
    fn callback_form_may_be_multipart() {
        let part = |name: &str, value: &str| {
            format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let body = format!("{}{}--x--\r\n", part("width", "1920"), part("project", "p-1"));
        let callback = spec("json2video")
            .read_callback(body.as_bytes(), &EchoMask::default(), noon())
            .unwrap();
        assert_eq!(callback.render_job_id.map(String::from).as_deref(), Some("p-1"));
        let cut = &body.as_bytes()[..body.len() - 4];
        assert_eq!(
            spec("json2video").read_callback(cut, &EchoMask::default(), noon()),
            Err(InboundError::NotJson)
        );
    }

    #[test]
    fn callback_form_reads_signed_field_only() {
        let mut spec = spec("viralsync");
        let scheme = json!({
            "method": {"kind": "hmac", "hash": "sha384"},
            "carrier": {"kind": "form", "field": "signature", "prefix": "sha384:"},
            "encoding": "hex", "key": {"form": "text"}, "content": "{form:payload}",
        });
        let webhook = spec.webhook.as_mut().unwrap();
        webhook.signature = Some(serde_json::from_value(scheme).unwrap());
        let payload = "%7B%22jobId%22%3A%22v-1%22%2C%22status%22%3A%22running%22%7D";
        let form = format!("status=done&signature=sha384%3Aaa&payload={payload}&jobId=v-2");
        let callback = spec.read_callback(form.as_bytes(), &EchoMask::default(), noon()).unwrap();
        assert_eq!(callback.render_job_id.map(String::from).as_deref(), Some("v-1"));
        assert_eq!(callback.claim.unwrap().provider_status, "running");
        for other in [
            "{\"jobId\":\"v-1\",\"status\":\"done\"}".to_owned(),
            "payload=text".to_owned(),
            format!("payload={payload}&payload={payload}"),
        ] {
            let refused = spec.read_callback(other.as_bytes(), &EchoMask::default(), noon());
            assert_eq!(refused, Err(InboundError::NotJson), "{other}");
        }
    }

    #[test]
    fn callback_of_account_names_our_job() {
        let job = JobId::from_bytes([7; 16]);
        let zvid = json!({"event": "render.completed", "jobId": job.as_uuid(),
            "data": {"status": "completed", "url": "https://cdn/x.mp4"}});
        let callback = spec("zvid")
            .read_callback(zvid.to_string().as_bytes(), &EchoMask::default(), noon())
            .unwrap();
        assert_eq!(callback.job_id, Some(job.clone()));
        let claim = callback.claim.unwrap();
        assert_eq!(claim.provider_status, "completed");

        let renderio = json!({"data": {"command_id": "c-1", "status": "SUCCESS",
            "metadata": {"relay_job": job}, "output_files": {}}, "timestamp": 1});
        let callback = spec("renderio")
            .read_callback(renderio.to_string().as_bytes(), &EchoMask::default(), noon())
            .unwrap();
        assert_eq!(callback.job_id, Some(job));
    }

    #[test]
    fn callback_without_result_leaves_end_open() {
        let id = "job_a1";
        let is_open = |body: Value| {
            let spec = spec("viralsync");
            let callback = spec
                .read_callback(body.to_string().as_bytes(), &EchoMask::default(), noon())
                .unwrap();
            callback.leaves_end_open(&spec)
        };
        assert!(!is_open(json!({"jobId": id, "status": "done", "outputUrl": "https://a/b.mp4"})));
        for url in [Value::Null, json!(""), json!("pending"), json!("javascript:alert(1)")] {
            assert!(is_open(json!({"jobId": id, "status": "done", "outputUrl": url})), "{url}");
        }
        assert!(is_open(json!({"jobId": id, "status": "done"})));
        for status in ["failed", "cancelled", "running"] {
            assert!(!is_open(json!({"jobId": id, "status": status})), "{status}");
        }
        // Where a status call has no result either, there is nothing to ask for.
        let mut spec = spec("viralsync");
        spec.status.answer.result.clear();
        let body = json!({"jobId": id, "status": "done"}).to_string();
        assert!(
            !spec
                .read_callback(body.as_bytes(), &EchoMask::default(), noon())
                .unwrap()
                .leaves_end_open(&spec)
        );
    }

    #[test]
    fn callback_that_echoes_shows_no_secret() {
        let mask = EchoMask::default().with_secret("sk-0123456789abcdef");
        let body = r#"{"jobId":"v-1","status":"failed","error":"sk\u002d0123456789abcdef is bad"}"#;
        let callback = spec("viralsync").read_callback(body.as_bytes(), &mask, noon()).unwrap();
        assert!(callback.had_secret);
        let claim = format!("{:?}", callback.claim.unwrap().status);
        assert!(claim.contains("[secret] is bad"), "{claim}");
        let form = b"project=sk%2D0123456789abcdef&width=1";
        let callback = spec("json2video").read_callback(form, &mask, noon()).unwrap();
        assert_eq!((callback.had_secret, callback.render_job_id), (true, None));
    }

    #[test]
    fn callback_without_json_is_refused() {
        for body in [&b""[..], b"{", b"\xff\xfe", b"a=b"] {
            assert_eq!(
                spec("zvid").read_callback(body, &EchoMask::default(), noon()),
                Err(InboundError::NotJson)
            );
        }
        assert_eq!(
            spec("json2video").read_callback(b"text", &EchoMask::default(), noon()),
            Err(InboundError::NotJson)
        );
    }
}
