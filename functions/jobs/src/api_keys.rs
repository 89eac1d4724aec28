//! API keys: made, listed and revoked by the holder of another.
//!
//! A change is one transaction with the condition that the caller's key is still in force: one
//! that was revoked a moment ago changes nothing, also when the revocation overtakes its request.
//! Each key is an item of its own, so no change touches another key. The names are the items'
//! keys, so two requests at once cannot give one name twice.

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use chrono::{DateTime, Utc};
use domain::credential::{
    ApiKey, ApiKeys, CreateRefusal, KeyCreator, KeyRecord, MAX_API_KEYS, RevokeRefusal, Scope,
};
use domain::id::{KeyId, KeyName};
use domain::request::KeyRequest;
use serde_json::{Value, json};
use shared::api::{self, Problem};
use shared::store::KeyChange;
use shared::view;
use tracing::info;

use crate::Jobs;

const MAX_BODY_BYTES: usize = 4 * 1024;

/// How often a change is decided again when others changed the keys meanwhile.
const MAX_DECISIONS: usize = 5;

/// Others changed the keys again and again while a request was handled.
#[derive(Debug, thiserror::Error)]
#[error("the API keys were changed during each of {MAX_DECISIONS} attempts")]
struct KeysContended;

impl Jobs {
    /// GET /v1/keys. The response shows no key and no hash.
    pub(crate) async fn list_keys(
        &self,
        now: DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let keys = self.keys.reread(now).await?;
        let mut records: Vec<&KeyRecord> = keys.iter().collect();
        records.sort_by_key(|record| record.created_at);
        let shown: Vec<Value> = records.into_iter().map(view::api_key).collect();
        Ok(api::json(200, &json!({"keys": shown})))
    }

    /// POST /v1/keys. The response shows the key, and no later one does. A repeat of a request
    /// whose response was lost makes no second key, because the first one has the name.
    pub(crate) async fn create_key(
        &self,
        request: &ApiGatewayV2httpRequest,
        caller: &KeyRecord,
        now: DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let body = api::body(request, MAX_BODY_BYTES)?;
        let wanted = KeyRequest::parse(&body)?;
        let unavailable = |cause| Problem::unavailable(&cause);
        let key = ApiKey::from_random(self.entropy.bytes().map_err(unavailable)?);
        let record = KeyRecord {
            id: KeyId::from_bytes(self.entropy.bytes().map_err(unavailable)?),
            name: wanted.name,
            owner: wanted.owner,
            scopes: wanted.scopes,
            hash: key.hash(),
            created_at: now,
            created_by: KeyCreator::Key(caller.id.clone()),
        };
        self.insert_key(&record, caller, now).await?;
        self.keys.forget();
        info!(key.id = %record.id, key.changed_by = %caller.id, "API key created");
        let mut shown = view::api_key(&record);
        if let Some(members) = shown.as_object_mut() {
            members.insert("key".into(), key.reveal().into());
        }
        Ok(api::json(201, &shown))
    }

    async fn insert_key(
        &self,
        record: &KeyRecord,
        caller: &KeyRecord,
        now: DateTime<Utc>,
    ) -> Result<(), Problem> {
        for _ in 0..MAX_DECISIONS {
            let keys = self.keys.reread(now).await?;
            let creator = still_admin(&keys, caller)?;
            keys.check_new(creator, &record.name, record.scopes)
                .map_err(|why| not_created(&why, &record.name))?;
            match self.tracker.store.insert_api_key_by(creator, record).await? {
                KeyChange::Made => return Ok(()),
                // By another request a moment ago, or by an item that cannot be read.
                KeyChange::Refused => return Err(name_taken(&record.name, None)),
                KeyChange::Outdated => {}
            }
        }
        Err(Problem::unavailable(&KeysContended))
    }

    /// DELETE /v1/keys/{keyId}. The response shows the key that was revoked.
    pub(crate) async fn revoke_key(
        &self,
        id: &KeyId,
        caller: &KeyRecord,
        now: DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        for _ in 0..MAX_DECISIONS {
            let keys = self.keys.reread(now).await?;
            let revoker = still_admin(&keys, caller)?;
            let revocation = keys.check_revocation(revoker, id).map_err(|why| not_revoked(&why))?;
            match self.tracker.store.revoke_api_key(revocation).await? {
                KeyChange::Made => {
                    let record = revocation.record;
                    self.keys.forget();
                    info!(key.id = %record.id, key.changed_by = %caller.id, "API key revoked");
                    return Ok(api::json(200, &view::api_key(record)));
                }
                KeyChange::Outdated | KeyChange::Refused => {}
            }
        }
        Err(Problem::unavailable(&KeysContended))
    }
}

/// The caller's key as it is now: the cache may not know yet that it was revoked.
fn still_admin<'a>(keys: &'a ApiKeys, caller: &KeyRecord) -> Result<&'a KeyRecord, Problem> {
    let record = keys.get(&caller.id).ok_or_else(Problem::unauthorized)?;
    api::require(record, Scope::Admin)?;
    Ok(record)
}

fn not_created(refusal: &CreateRefusal, name: &KeyName) -> Problem {
    match refusal {
        CreateRefusal::ScopeNotGranted(lacking) => {
            let detail = format!(
                "No key grants a scope that it lacks; yours lacks {lacking}. Ask the holder of a \
                 key that has it, or an operator with AWS credentials (`relay key create --table`)."
            );
            Problem::new(403, "scope_not_granted", "Scope not granted", detail).about("scopes")
        }
        CreateRefusal::NameTaken(id) => name_taken(name, Some(id)),
        CreateRefusal::TooMany => Problem::new(
            409,
            "too_many_keys",
            "Too many keys",
            format!(
                "A stack has at most {MAX_API_KEYS} keys. Revoke one that is not used any more."
            ),
        ),
    }
}

fn name_taken(name: &KeyName, id: Option<&KeyId>) -> Problem {
    let which = id.map(|id| format!(" ({id})")).unwrap_or_default();
    let detail = format!(
        "There is a key named `{name}` already{which}, and it is not shown again. If you lost \
         the answer that showed it, revoke it and repeat this; or choose another name."
    );
    let problem = Problem::new(409, "key_name_taken", "Name taken", detail).about("name");
    match id {
        Some(id) => problem.with("keyId", id.as_str().into()),
        None => problem,
    }
}

fn not_revoked(refusal: &RevokeRefusal) -> Problem {
    match refusal {
        RevokeRefusal::Unknown => Problem::not_found("key"),
        RevokeRefusal::LastAdmin => Problem::new(
            409,
            "last_admin_key",
            "Last admin key",
            "No other key has the scope `admin`, so none could be made or revoked any more. Make \
             another one first; or revoke this one with AWS credentials (`relay key revoke \
             --table`).",
        ),
    }
}
