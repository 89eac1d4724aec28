//! The clients of a function, built from its environment once per cold start.

use std::sync::Arc;

use aws_config::SdkConfig;
use chrono::{TimeDelta, Utc};
use domain::address::{PrivateHosts, PrivateNetworks, ReceiverPorts, TargetPolicy};
use lambda_runtime::Error;

use crate::aws;
use crate::bus::Bus;
use crate::duration_models::DurationModels;
use crate::egress::provider::ProviderHttp;
use crate::entropy::Entropy;
use crate::env::{self, EnvError};
use crate::provider_specs::ProviderSpecs;
use crate::providers::{self, Providers};
use crate::queue::{DeliveryQueue, WakeQueue};
use crate::secrets::Secrets;
use crate::store::Store;
use crate::tracker::Tracker;

/// The clients of one process. All of them share one connector.
pub struct Setup {
    aws: SdkConfig,
    prefix: String,
    entropy: Entropy,
}

impl Setup {
    /// Reads the AWS configuration.
    ///
    /// # Errors
    /// When a setting is missing or malformed; the error names it.
    pub fn from_env() -> Result<Self, EnvError> {
        let prefix = env::required("PARAMETER_PREFIX")?;
        Ok(Self { aws: aws::config()?, prefix, entropy: Entropy::os() })
    }

    /// The operating system's randomness.
    #[must_use]
    pub fn entropy(&self) -> Entropy {
        self.entropy
    }

    /// The client of the table.
    ///
    /// # Errors
    /// When a setting is missing or malformed; the error names it.
    pub fn store(&self) -> Result<Store, EnvError> {
        let table = env::required("TABLE_NAME")?;
        let days = env::parsed("RETENTION_DAYS", 90, str::parse::<u16>)?;
        let client = aws_sdk_dynamodb::Client::new(&self.aws);
        Ok(Store::new(client, table, TimeDelta::days(days.into()), self.entropy))
    }

    /// The event bus.
    ///
    /// # Errors
    /// When a setting is missing; the error names it.
    pub fn bus(&self) -> Result<Bus, EnvError> {
        let name = env::required("BUS_NAME")?;
        Ok(Bus::new(aws_sdk_eventbridge::Client::new(&self.aws), name, self.entropy))
    }

    /// The delivery queue.
    ///
    /// # Errors
    /// When a setting is missing; the error names it.
    pub fn deliveries(&self) -> Result<DeliveryQueue, EnvError> {
        let url = env::required("DELIVERY_QUEUE_URL")?;
        Ok(DeliveryQueue::new(aws_sdk_sqs::Client::new(&self.aws), url))
    }

    /// The delivery queue, with its slow lane.
    ///
    /// # Errors
    /// When a setting is missing; the error names it.
    pub fn delivery_lanes(&self) -> Result<DeliveryQueue, EnvError> {
        Ok(self.deliveries()?.with_slow_lane(env::required("SLOW_DELIVERY_QUEUE_URL")?))
    }

    /// The wake queue.
    ///
    /// # Errors
    /// When a setting is missing; the error names it.
    pub fn wakes(&self) -> Result<WakeQueue, EnvError> {
        let url = env::required("WAKE_QUEUE_URL")?;
        Ok(WakeQueue::new(aws_sdk_sqs::Client::new(&self.aws), url))
    }

    /// The stack's secrets. Each call makes a cache of its own.
    ///
    /// # Errors
    /// When a setting is missing or malformed; the error names it.
    pub fn secrets(&self) -> Result<Secrets, EnvError> {
        let (client, store) = (aws_sdk_ssm::Client::new(&self.aws), self.store()?);
        Ok(Secrets::new(&client, &self.prefix, self.entropy, store, Utc::now))
    }

    /// The tracker, with the provider specs in the table among the providers.
    ///
    /// # Errors
    /// When a setting is missing or malformed, which the error names, or the specs cannot
    /// be read.
    pub async fn tracker(&self, secrets: Arc<Secrets>) -> Result<Tracker, Error> {
        let policy = provider_policy()?;
        let store = self.store()?;
        let adjustments = providers::adjustments(policy.clone())?;
        let specs = ProviderSpecs::load(store.clone(), adjustments).await?;
        Ok(Tracker {
            duration_models: DurationModels::new(store.clone()),
            store,
            providers: Providers::new(specs, ProviderHttp::new(policy)?, secrets),
            bus: self.bus()?,
            deliveries: self.deliveries()?,
        })
    }
}

/// The policy of which hosts providers may be at.
///
/// # Errors
/// When a setting is malformed; the error names it.
pub fn provider_policy() -> Result<TargetPolicy, EnvError> {
    let none = PrivateHosts::default();
    let hosts = env::parsed("PRIVATE_PROVIDER_HOSTS", none, PrivateHosts::parse)?;
    Ok(match env::flag("ALLOW_INSECURE_TARGETS")? {
        true => TargetPolicy::local_use(),
        false => TargetPolicy::public().with_private_hosts(hosts),
    })
}

/// The policy of which receivers this stack may post to.
///
/// # Errors
/// When a setting is malformed; the error names it.
pub fn target_policy() -> Result<TargetPolicy, EnvError> {
    let ports = env::parsed("RECEIVER_PORTS", ReceiverPorts::default(), ReceiverPorts::parse)?;
    let none = PrivateNetworks::default();
    let networks = env::parsed("PRIVATE_RECEIVER_NETWORKS", none, PrivateNetworks::parse)?;
    let none = PrivateHosts::default();
    let hosts = env::parsed("PRIVATE_RECEIVER_HOSTS", none, PrivateHosts::parse)?;
    let plain_http = env::flag("ALLOW_HTTP_RECEIVERS")?;
    if env::flag("ALLOW_INSECURE_TARGETS")? {
        return Ok(TargetPolicy::local_use());
    }
    let policy = TargetPolicy::public()
        .with_ports(ports)
        .with_private_networks(networks)
        .with_private_hosts(hosts);
    Ok(if plain_http { policy.with_plain_http() } else { policy })
}
