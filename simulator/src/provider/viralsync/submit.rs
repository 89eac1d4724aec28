//! The rules of a submit to ViralSync.

use serde_json::Value;

use super::AcceptedSubmit;

/// # Errors
/// The first reason to refuse the submit.
pub(super) fn read(body: &Value) -> Result<AcceptedSubmit, &'static str> {
    if let Some(complaint) = complaint(body) {
        return Err(complaint);
    }
    let url = body.get("callbackUrl").and_then(Value::as_str).map(str::to_owned);
    Ok(AcceptedSubmit { id: None, callback_urls: url.into_iter().collect() })
}

/// The first reason to refuse a submit, if there is one.
fn complaint(body: &Value) -> Option<&'static str> {
    if body.get("kind").is_none_or(|kind| kind != "movie") {
        return Some("kind must be \"movie\"");
    }
    let project = body.get("projectId").and_then(Value::as_str);
    if project.is_none_or(str::is_empty) {
        return Some("projectId is required");
    }
    let scenes = body.pointer("/movie/scenes").and_then(Value::as_array);
    if scenes.is_none_or(Vec::is_empty) {
        return Some("movie.scenes must have at least one scene");
    }
    if body.get("callbackUrl").is_some_and(|url| !url.is_string()) {
        return Some("callbackUrl must be a string");
    }
    let preset = body.pointer("/renderOptions/qualityPreset");
    let presets = ["stable", "balanced", "fast", "turbo"];
    if preset.is_some_and(|preset| !presets.iter().any(|known| preset == known)) {
        return Some("renderOptions.qualityPreset must be stable, balanced, fast or turbo");
    }
    let concurrency = body.pointer("/renderOptions/requestedConcurrency");
    let is_allowed = |wanted: &Value| wanted.as_u64().is_some_and(|it| (1..=32).contains(&it));
    if concurrency.is_some_and(|wanted| !is_allowed(wanted)) {
        return Some("renderOptions.requestedConcurrency must be between 1 and 32");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::super::fixtures::submit_results;
    use super::super::ViralSync;

    #[test]
    fn wrong_submits_are_refused() {
        let bodies = [
            r#"{"kind":"movie","projectId":"p","movie":{"scenes":[{},{},{}]}}"#,
            r#"{"kind":"movie","projectId":"p","callbackUrl":"http://h/x","movie":{"scenes":[{}]},"renderOptions":{"qualityPreset":"turbo","requestedConcurrency":32}}"#,
            r#"{"projectId":"p","movie":{"scenes":[{}]}}"#,
            r#"{"kind":"movie","movie":{"scenes":[{}]}}"#,
            r#"{"kind":"movie","projectId":"p","movie":{"scenes":[]}}"#,
            r#"{"kind":"movie","projectId":"p","movie":{"scenes":[{}]},"callbackUrl":7}"#,
            r#"{"kind":"movie","projectId":"p","movie":{"scenes":[{}]},"renderOptions":{"qualityPreset":"best"}}"#,
            r#"{"kind":"movie","projectId":"p","movie":{"scenes":[{}]},"renderOptions":{"requestedConcurrency":33}}"#,
            r#"[]"#,
        ];
        insta::assert_snapshot!(submit_results(&ViralSync, &bodies), @r#"
        {"kind":"movie","projectId":"p","movie":{"scenes":[{},{},{}]}} -> []
        {"kind":"movie","projectId":"p","callbackUrl":"http://h/x","movie":{"scenes":[{}]},"renderOptions":{"qualityPreset":"turbo","requestedConcurrency":32}} -> ["http://h/x"]
        {"projectId":"p","movie":{"scenes":[{}]}} -> 400 {"code":"INVALID_REQUEST","error":"kind must be \"movie\""}
        {"kind":"movie","movie":{"scenes":[{}]}} -> 400 {"code":"INVALID_REQUEST","error":"projectId is required"}
        {"kind":"movie","projectId":"p","movie":{"scenes":[]}} -> 400 {"code":"INVALID_REQUEST","error":"movie.scenes must have at least one scene"}
        {"kind":"movie","projectId":"p","movie":{"scenes":[{}]},"callbackUrl":7} -> 400 {"code":"INVALID_REQUEST","error":"callbackUrl must be a string"}
        {"kind":"movie","projectId":"p","movie":{"scenes":[{}]},"renderOptions":{"qualityPreset":"best"}} -> 400 {"code":"INVALID_REQUEST","error":"renderOptions.qualityPreset must be stable, balanced, fast or turbo"}
        {"kind":"movie","projectId":"p","movie":{"scenes":[{}]},"renderOptions":{"requestedConcurrency":33}} -> 400 {"code":"INVALID_REQUEST","error":"renderOptions.requestedConcurrency must be between 1 and 32"}
        [] -> 400 {"code":"INVALID_REQUEST","error":"kind must be \"movie\""}
        "#);
    }
}
