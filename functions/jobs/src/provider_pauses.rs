//! The pauses of providers: what the leases of the shards say of them, and how one is ended.
//!
//! A pause is ended by an entry in the index of the provider specs. Every poller looks there
//! within 20 s, and drops the pauses that began before.

use aws_lambda_events::apigw::ApiGatewayV2httpResponse;
use chrono::{DateTime, Utc};
use domain::id::ProviderName;
use domain::polling::Pause;
use futures_util::future::try_join_all;
use serde_json::json;
use shared::api::{self, Problem};
use shared::provider_specs::SpecsInForce;
use shared::store::{Committed, StoreError};
use tracing::info;

use crate::Jobs;
use crate::provider_specs::{MAX_CONFLICT_RETRIES, too_many_changes};

/// A pause, and the shard and provider that it is of.
pub(crate) type ShardPause = (u32, ProviderName, Pause);

impl Jobs {
    /// The pauses that are in force, of all providers and shards.
    pub(crate) async fn provider_pauses(
        &self,
        specs: &SpecsInForce,
    ) -> Result<Vec<ShardPause>, StoreError> {
        let store = &self.tracker.store;
        let shards = self.shards.most(store).await?;
        let leases = try_join_all((0..shards).map(|shard| store.lease(shard))).await?;
        let pauses = leases.into_iter().flatten().flat_map(|lease| {
            let shard = lease.shard;
            lease.pauses.into_iter().map(move |(name, pause)| (shard, name, pause))
        });
        Ok(pauses.filter(|(_, name, pause)| !specs.ends(name, pause)).collect())
    }

    /// POST /v1/providers/{name}/resume.
    pub(crate) async fn resume_provider(
        &self,
        name: &ProviderName,
        now: DateTime<Utc>,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let specs = self.tracker.providers.specs().reload().await?;
        if specs.get(name).is_none() && !specs.is_left_out(name) {
            return Err(Problem::not_found("provider"));
        }
        let pauses = self.provider_pauses(&specs).await?;
        let paused = pauses.iter().filter(|(_, paused, _)| paused == name).count();
        // Without a pause there is nothing to store, and no poller to be told.
        if paused > 0 {
            self.store_resume(name, now).await?;
            info!(provider.name = %name, "provider pauses ended by hand");
        }
        Ok(api::json(200, &json!({"name": name, "pauses": paused})))
    }

    async fn store_resume(&self, name: &ProviderName, now: DateTime<Utc>) -> Result<(), Problem> {
        let store = &self.tracker.store;
        let mut index = store.spec_index().await?;
        for _ in 0..MAX_CONFLICT_RETRIES {
            match store.commit_spec_index(&index.resumed(name, now)).await? {
                Committed::Stored => return Ok(()),
                Committed::Conflict(current) => index = current.unwrap_or_default(),
            }
        }
        Err(too_many_changes())
    }
}
