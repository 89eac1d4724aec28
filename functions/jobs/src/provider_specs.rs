//! The providers of the stack: the shipped specs, and those that its owner puts over or beside
//! them.
//!
//! A spec that is put is in force in all functions within a minute. It does not decide where a
//! provider's key goes: the hosts of a key are stored with the key, which takes AWS credentials.

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use chrono::{DateTime, Utc};
use domain::credential::KeyRecord;
use domain::id::ProviderName;
use domain::provider::Catalogue;
use domain::provider::catalogue::{CatalogueError, OwnSpec};
use http::HeaderValue;
use http::header::{ETAG, IF_MATCH};
use serde_json::json;
use shared::api::{self, Problem};
use shared::provider_specs::file_of;
use shared::store::{Committed, DocumentId, MAX_SPEC_BYTES, SpecEntry, SpecIndex};
use shared::telemetry::chain;
use shared::view;
use tracing::{info, warn};

use crate::Jobs;

/// The most specs of a stack.
const MAX_SPECS: usize = 200;

/// The most bytes of all of them together. Every function reads and holds them: in memory they
/// are more than ten times as large.
const MAX_BYTES_OF_SPECS: usize = 1024 * 1024;

/// How often a change is decided again after a conflict.
pub(crate) const MAX_CONFLICT_RETRIES: usize = 8;

/// A change of the index that is stored.
struct Changed {
    /// What the index said before.
    before: Option<SpecEntry>,
    /// What it says now.
    after: SpecEntry,
}

impl Jobs {
    /// GET /v1/providers.
    pub(crate) async fn list_providers(&self) -> Result<ApiGatewayV2httpResponse, Problem> {
        let specs = self.tracker.providers.specs().reload().await?;
        let mut names: Vec<&str> = specs.catalogue.names().map(ProviderName::as_str).collect();
        names.extend(specs.stored.keys().map(String::as_str));
        names.extend(specs.shipped_left_out.keys().map(String::as_str));
        names.sort_unstable();
        names.dedup();
        let names = names.into_iter().filter_map(|name| ProviderName::parse(name).ok());
        let pauses = self.provider_pauses(&specs).await?;
        let shown: Vec<_> = names.map(|name| view::provider(&name, &specs, &pauses)).collect();
        Ok(api::json(200, &json!({"providers": shown})))
    }

    /// GET /v1/providers/{name}, with the spec itself.
    pub(crate) async fn show_provider(
        &self,
        name: &ProviderName,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let specs = self.tracker.providers.specs().reload().await?;
        let stored = specs.stored.get(name.as_str());
        let document = match stored {
            Some(stored) => stored.json.as_deref(),
            None => Some(Catalogue::shipped(name).ok_or_else(|| Problem::not_found("provider"))?),
        };
        let pauses = self.provider_pauses(&specs).await?;
        let mut shown = view::provider(name, &specs, &pauses);
        if let Some(members) = shown.as_object_mut() {
            let document = document.and_then(|json| serde_json::from_str(json).ok());
            members.insert("spec".into(), document.unwrap_or_default());
        }
        Ok(tagged(api::json(200, &shown), stored.and_then(|stored| stored.entry.as_ref())))
    }

    /// PUT /v1/providers/{name}. The last writer wins, unless the request says with `If-Match`
    /// which version it has seen.
    pub(crate) async fn put_provider(
        &self,
        name: &ProviderName,
        request: &ApiGatewayV2httpRequest,
        caller: &KeyRecord,
        now: DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let seen = seen_version(request)?;
        let body = api::body(request, MAX_SPEC_BYTES)?;
        let json = String::from_utf8(body).map_err(|_| {
            Problem::new(400, "malformed_json", "Malformed JSON", "The body is not UTF-8.")
        })?;
        let own = OwnSpec { file: file_of(name.as_str()), name: name.to_string(), json };
        let specs = self.tracker.providers.specs();
        specs.adjustments().check(&own).map_err(|error| refused(&error))?;

        let by = changed_by(caller);
        let changed = self.put_in_force(name, &own.json, seen, &by, now).await?;
        let Changed { before, after } = changed;
        self.retire(before.as_ref().map(|entry| &entry.document), now).await;
        info!(
            provider.name = %name,
            spec.version = after.version,
            spec.put_by = by,
            "provider spec put"
        );
        let specs = specs.reload().await?;
        let pauses = self.provider_pauses(&specs).await?;
        Ok(tagged(api::json(200, &view::provider(name, &specs, &pauses)), Some(&after)))
    }

    async fn put_in_force(
        &self,
        name: &ProviderName,
        json: &str,
        seen: Option<u64>,
        by: &str,
        now: DateTime<Utc>,
    ) -> Result<Changed, Problem> {
        let store = &self.tracker.store;
        let mut index = store.spec_index().await?;
        for _ in 0..MAX_CONFLICT_RETRIES {
            allows(&index, name, json.len(), seen)?;
            // A document is offered once: it may have been in force for a moment, and the
            // request that replaced it lets it expire.
            let document = store.insert_spec_document(json).await?;
            let before = index.get(name);
            let (next, after) = index.with(name, document.clone(), json.len(), by, now);
            // Without an answer the document may be in force, so it stays.
            match store.commit_spec_index(&next).await? {
                Committed::Stored => return Ok(Changed { before, after }),
                Committed::Conflict(current) => index = current.unwrap_or_default(),
            }
            // The answer may have been lost, and another name changed since.
            let ours = index.get(name).filter(|entry| entry.document == document);
            if let Some(after) = ours {
                return Ok(Changed { before, after });
            }
            self.retire(Some(&document), now).await;
        }
        Err(too_many_changes())
    }

    /// DELETE /v1/providers/{name}. A shipped spec of the same name is in force again, so it must
    /// fit the settings; without one the jobs of the provider wait.
    pub(crate) async fn remove_provider(
        &self,
        name: &ProviderName,
        request: &ApiGatewayV2httpRequest,
        caller: &KeyRecord,
        now: DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let seen = seen_version(request)?;
        let is_shipped = Catalogue::shipped(name).is_some();
        let mut index = self.tracker.store.spec_index().await?;
        for _ in 0..MAX_CONFLICT_RETRIES {
            if !index.contains(name) {
                return Err(not_stored(name, is_shipped));
            }
            matches_seen(&index, name, seen)?;
            let fits = self.tracker.providers.specs().adjustments().check_shipped(name);
            fits.map_err(|error| shipped_unfit(name, &error))?;
            let before = index.get(name);
            match self.tracker.store.commit_spec_index(&index.without(name)).await? {
                Committed::Stored => {
                    self.retire(before.as_ref().map(|entry| &entry.document), now).await;
                    info!(
                        provider.name = %name,
                        spec.put_by = changed_by(caller),
                        "provider spec removed"
                    );
                    return Ok(api::json(200, &removed(name, is_shipped)));
                }
                Committed::Conflict(current) => index = current.unwrap_or_default(),
            }
        }
        Err(too_many_changes())
    }

    /// Lets a document expire that is not in force. If that fails it stays, and does no harm.
    async fn retire(&self, document: Option<&DocumentId>, now: DateTime<Utc>) {
        let Some(document) = document else { return };
        if let Err(cause) = self.tracker.store.retire_spec_document(document, now).await {
            warn!(error = chain(&cause), "replaced provider spec stays in the table");
        }
    }
}

/// Whether a spec of so many bytes may be put into this index.
fn allows(
    index: &SpecIndex,
    name: &ProviderName,
    bytes: usize,
    seen: Option<u64>,
) -> Result<(), Problem> {
    matches_seen(index, name, seen)?;
    let others = index.without(name);
    let detail = if others.specs().count() >= MAX_SPECS {
        format!("The stack has {MAX_SPECS} specs of its own, the most that it holds.")
    } else if others.bytes().saturating_add(bytes) > MAX_BYTES_OF_SPECS {
        format!(
            "The stack's own specs may have {MAX_BYTES_OF_SPECS} bytes together. The others have \
             {}, and this one has {bytes}.",
            others.bytes()
        )
    } else {
        return Ok(());
    };
    Err(Problem::new(409, "too_many_providers", "Too many providers", detail))
}

fn matches_seen(index: &SpecIndex, name: &ProviderName, seen: Option<u64>) -> Result<(), Problem> {
    let version = index.get(name).map(|entry| entry.version);
    if seen.is_none() || seen == version {
        return Ok(());
    }
    let detail = match version {
        Some(version) => format!("The spec of {name} has version {version} now."),
        None => format!("No spec of {name} was put, or it was removed."),
    };
    let problem = Problem::new(412, "version_mismatch", "Version mismatch", detail);
    Err(problem.about("If-Match").with("version", version.into()))
}

/// The version in `If-Match`, as `ETag` has it: a number in quotation marks.
fn seen_version(request: &ApiGatewayV2httpRequest) -> Result<Option<u64>, Problem> {
    let Some(value) = request.headers.get(IF_MATCH) else { return Ok(None) };
    let number = value.to_str().ok().map(|text| text.trim().trim_matches('"'));
    number.and_then(|number| number.parse().ok()).map(Some).ok_or_else(|| {
        let detail = "`If-Match` must be the version that was read, such as \"17\".";
        Problem::new(422, "invalid_field", "Invalid field", detail).about("If-Match")
    })
}

fn tagged(
    mut response: ApiGatewayV2httpResponse,
    entry: Option<&SpecEntry>,
) -> ApiGatewayV2httpResponse {
    let tag = entry.and_then(|entry| HeaderValue::from_str(&format!("\"{}\"", entry.version)).ok());
    if let Some(tag) = tag {
        response.headers.insert(ETAG, tag);
    }
    response
}

/// Who changes a spec: the name of the key and its id, which no later key has.
fn changed_by(caller: &KeyRecord) -> String {
    format!("{} ({})", caller.name, caller.id)
}

fn refused(error: &CatalogueError) -> Problem {
    let problem =
        Problem::new(422, "invalid_provider_spec", "Invalid provider spec", format!("{error}."));
    match error {
        CatalogueError::BaseUrl { place, .. } => problem.about(place),
        CatalogueError::Name { .. } => problem.about("name"),
        CatalogueError::Spec(_)
        | CatalogueError::Unfit { .. }
        | CatalogueError::NoEnvironment { .. } => problem,
    }
}

fn not_stored(name: &ProviderName, is_shipped: bool) -> Problem {
    let detail = match is_shipped {
        true => format!("{name} is shipped with this release and no spec was put over it."),
        false => "There is no provider of this name.".to_owned(),
    };
    Problem::new(404, "not_found", "Not found", detail)
}

fn shipped_unfit(name: &ProviderName, error: &CatalogueError) -> Problem {
    let detail = format!(
        "Without this spec there would be none of {name}: the stack's settings do not fit the \
         shipped one ({error}). Change ProviderEnvironments or ProviderBaseUrls first, or put \
         another spec over this one."
    );
    Problem::new(409, "shipped_spec_unfit", "Shipped spec does not fit", detail)
}

pub(crate) fn too_many_changes() -> Problem {
    Problem::new(
        409,
        "change_in_progress",
        "Another change is under way",
        "Other requests are changing provider specs right now. Nothing was changed; try again.",
    )
    .retry_after(1)
}

fn removed(name: &ProviderName, is_shipped: bool) -> serde_json::Value {
    let warning = (!is_shipped).then(|| {
        format!(
            "Jobs of {name} that have not ended wait for a spec of this name for a day and are \
             given up then. `GET /v1/jobs?state=processing` and its like show them."
        )
    });
    json!({"name": name, "removed": true, "shippedInForce": is_shipped, "warning": warning})
}
