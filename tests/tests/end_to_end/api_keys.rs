//! API keys of the deployed stack: made by another key, bound to their scopes, and revoked while
//! the functions are warm.

use anyhow::{Result, ensure};
use bytes::Bytes;
use chrono::Utc;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tests::{TestStack, eventually};

/// A key that was just made.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MadeKey {
    key_id: String,
    key: String,
}

#[tokio::test]
async fn key_opens_its_scopes_until_revoked() -> Result<()> {
    let stack = TestStack::connect("keys").await?;
    let admin = stack.api_key().to_owned();
    let name = format!("reader-{}", Utc::now().timestamp_micros());
    let body = json!({"name": name, "owner": "tests", "scopes": ["read"]}).to_string();
    let made = stack.call_as(&admin, Method::POST, "keys", body.clone()).await?.expect(201)?;
    let made: MadeKey = made.json()?;

    // Warm functions know the new key within seconds.
    let list = "jobs?sourceRecordId=none";
    eventually("the key may read", async || {
        stack.call_as(&made.key, Method::GET, list, Bytes::new()).await?.expect(200)
    })
    .await?;
    eventually("the key may not submit", async || {
        let refused = stack.call_as(&made.key, Method::POST, "jobs", "{}").await?.expect(403)?;
        let problem: Value = refused.json()?;
        ensure!(problem["code"] == "scope_missing" && problem["scope"] == "submit", "{problem}");
        Ok(())
    })
    .await?;
    stack.call_as(&made.key, Method::GET, "keys", Bytes::new()).await?.expect(403)?;
    let again = stack.call_as(&admin, Method::POST, "keys", body).await?.expect(409)?;
    assert_eq!(again.json::<Value>()?["keyId"], made.key_id);

    let path = format!("keys/{}", made.key_id);
    stack.call_as(&admin, Method::DELETE, &path, Bytes::new()).await?.expect(200)?;
    eventually("the key is refused", async || {
        stack.call_as(&made.key, Method::GET, list, Bytes::new()).await?.expect(401)
    })
    .await?;
    stack.call_as(&admin, Method::GET, list, Bytes::new()).await?.expect(200)?;
    Ok(())
}
