//! The callback of JSON2Video in its three documented shapes, as JSON or as a form.

use serde_json::{Value, json};
use url::form_urlencoded::Serializer;

use super::super::wire::merged;
use super::{
    CallbackContent, DURATION, HEIGHT, Json2Video, Phase, ProviderApi, Render, SIZE, WIDTH,
    asset_url, client_data, own_id, result_url,
};
use crate::scenario::{CallbackContentType, CallbackShape};

/// The callback about a status of `render`.
pub(super) fn build(render: &Render, status: &str) -> CallbackContent {
    let failure = (status == Json2Video.status_name(Phase::Failed))
        .then(|| render.scenario.fail_with.as_deref().unwrap_or("Render failed"));
    let body = match render.scenario.callback_shape {
        CallbackShape::Nested => nested(render, status, failure),
        CallbackShape::FlatStrings => flat_strings(render, status, failure),
        CallbackShape::Flat => flat(render, status, failure),
    };
    match render.scenario.callback_content_type {
        CallbackContentType::Json => CallbackContent::json(Vec::new(), &body),
        CallbackContentType::Form => CallbackContent {
            headers: Vec::new(),
            content_type: "application/x-www-form-urlencoded",
            body: form(&body),
        },
    }
}

fn nested(render: &Render, status: &str, failure: Option<&str>) -> Value {
    let thumbnail = match failure {
        Some(_) => Value::Null,
        None => json!({"thumbnail": asset_url(render, "jpg")}),
    };
    json!({"success": true, "movie": merged([flat(render, status, failure), thumbnail])})
}

fn flat(render: &Render, status: &str, failure: Option<&str>) -> Value {
    let always = json!({
        "project": render.id,
        "status": status,
        "client-data": client_data(render),
    });
    let more = match failure {
        Some(message) => json!({"message": message}),
        None => json!({"url": result_url(render), "duration": DURATION, "size": SIZE}),
    };
    merged([always, more])
}

fn flat_strings(render: &Render, status: &str, failure: Option<&str>) -> Value {
    let always = json!({"project": render.id, "client-data": client_data(render)});
    let status = match &render.scenario.callback.status_override {
        None if failure.is_none() => Value::Null,
        _ => json!({"status": status}),
    };
    let more = match failure {
        Some(message) => json!({"message": message}),
        None => json!({
            "url": result_url(render),
            "width": WIDTH.to_string(),
            "height": HEIGHT.to_string(),
            "duration": DURATION.to_string(),
            "size": SIZE.to_string(),
        }),
    };
    merged([always, own_id(render), status, more])
}

fn form(body: &Value) -> String {
    let mut form = Serializer::new(String::new());
    append(&mut form, "", body);
    form.finish()
}

fn append(form: &mut Serializer<'_, String>, name: &str, value: &Value) {
    let inner = |key: &str| {
        if name.is_empty() { key.to_owned() } else { format!("{name}[{key}]") }
    };
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                append(form, &inner(key), member);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                append(form, &inner(&index.to_string()), item);
            }
        }
        Value::String(text) => drop(form.append_pair(name, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            form.append_pair(name, &value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::fixtures::{first_context, render};
    use super::*;

    const BODY: &str = r#"{"id":"my-movie","client-data":{"order_id":"ord 42","tags":[1]}}"#;

    fn callback(options: &Value) -> String {
        let render = render(&Json2Video, BODY, &options.to_string());
        let callback = Json2Video.callback(&render, &first_context());
        assert_eq!(callback.headers, []);
        format!("{} {}", callback.content_type, callback.body)
    }

    #[test]
    fn success_has_three_shapes() {
        let shapes = ["nested", "flatStrings", "flat"];
        let callbacks = shapes.map(|shape| callback(&json!({"callbackShape": shape})));
        insta::assert_snapshot!(callbacks.join("\n"), @r#"
        application/json {"movie":{"client-data":{"order_id":"ord 42","tags":[1]},"duration":10.5,"project":"11111111-1111-4111-9111-111111111111","size":4567890,"status":"done","thumbnail":"https://assets.json2video.com/clients/simulated/renders/11111111-1111-4111-9111-111111111111.jpg","url":"https://assets.json2video.com/clients/simulated/renders/11111111-1111-4111-9111-111111111111.mp4"},"success":true}
        application/json {"client-data":{"order_id":"ord 42","tags":[1]},"duration":"10.5","height":"1080","id":"my-movie","project":"11111111-1111-4111-9111-111111111111","size":"4567890","url":"https://assets.json2video.com/clients/simulated/renders/11111111-1111-4111-9111-111111111111.mp4","width":"1920"}
        application/json {"client-data":{"order_id":"ord 42","tags":[1]},"duration":10.5,"project":"11111111-1111-4111-9111-111111111111","size":4567890,"status":"done","url":"https://assets.json2video.com/clients/simulated/renders/11111111-1111-4111-9111-111111111111.mp4"}
        "#);
    }

    #[test]
    fn failure_has_three_shapes() {
        let shapes = ["nested", "flatStrings", "flat"];
        let callbacks =
            shapes.map(|shape| callback(&json!({"callbackShape": shape, "failWith": "no codec"})));
        insta::assert_snapshot!(callbacks.join("\n"), @r#"
        application/json {"movie":{"client-data":{"order_id":"ord 42","tags":[1]},"message":"no codec","project":"11111111-1111-4111-9111-111111111111","status":"error"},"success":true}
        application/json {"client-data":{"order_id":"ord 42","tags":[1]},"id":"my-movie","message":"no codec","project":"11111111-1111-4111-9111-111111111111","status":"error"}
        application/json {"client-data":{"order_id":"ord 42","tags":[1]},"message":"no codec","project":"11111111-1111-4111-9111-111111111111","status":"error"}
        "#);
    }

    #[test]
    fn forms_have_three_shapes() {
        let shapes = ["nested", "flatStrings", "flat"];
        let callbacks = shapes
            .map(|shape| callback(&json!({"callbackShape": shape, "callbackContentType": "form"})));
        insta::assert_snapshot!(callbacks.join("\n"), @r"
        application/x-www-form-urlencoded movie%5Bclient-data%5D%5Border_id%5D=ord+42&movie%5Bclient-data%5D%5Btags%5D%5B0%5D=1&movie%5Bduration%5D=10.5&movie%5Bproject%5D=11111111-1111-4111-9111-111111111111&movie%5Bsize%5D=4567890&movie%5Bstatus%5D=done&movie%5Bthumbnail%5D=https%3A%2F%2Fassets.json2video.com%2Fclients%2Fsimulated%2Frenders%2F11111111-1111-4111-9111-111111111111.jpg&movie%5Burl%5D=https%3A%2F%2Fassets.json2video.com%2Fclients%2Fsimulated%2Frenders%2F11111111-1111-4111-9111-111111111111.mp4&success=true
        application/x-www-form-urlencoded client-data%5Border_id%5D=ord+42&client-data%5Btags%5D%5B0%5D=1&duration=10.5&height=1080&id=my-movie&project=11111111-1111-4111-9111-111111111111&size=4567890&url=https%3A%2F%2Fassets.json2video.com%2Fclients%2Fsimulated%2Frenders%2F11111111-1111-4111-9111-111111111111.mp4&width=1920
        application/x-www-form-urlencoded client-data%5Border_id%5D=ord+42&client-data%5Btags%5D%5B0%5D=1&duration=10.5&project=11111111-1111-4111-9111-111111111111&size=4567890&status=done&url=https%3A%2F%2Fassets.json2video.com%2Fclients%2Fsimulated%2Frenders%2F11111111-1111-4111-9111-111111111111.mp4
        ");
    }

    #[test]
    fn status_can_be_overridden() {
        insta::assert_snapshot!(
            callback(&json!({"callback": {"statusOverride": "running"}})), @r#"application/json {"client-data":{"order_id":"ord 42","tags":[1]},"duration":"10.5","height":"1080","id":"my-movie","project":"11111111-1111-4111-9111-111111111111","size":"4567890","status":"running","url":"https://assets.json2video.com/clients/simulated/renders/11111111-1111-4111-9111-111111111111.mp4","width":"1920"}"#);
    }
}
