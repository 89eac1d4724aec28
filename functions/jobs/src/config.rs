//! What `jobs` is set up with.

use std::sync::Arc;

use chrono::TimeDelta;
use domain::address::TargetPolicy;
use lambda_runtime::Error;
use shared::bus::Bus;
use shared::providers::Providers;
use shared::queue::DeliveryQueue;
use shared::secrets::Secrets;
use shared::store::Store;
use shared::tracker::Tracker;
use shared::{aws, env, user_specs};

use crate::Jobs;

/// Reads the settings and the installation's own provider specs, and builds the clients.
///
/// # Errors
/// When a setting is missing or wrong, which the error names, or the specs cannot be read.
pub(crate) async fn jobs() -> Result<Jobs, Error> {
    let table = env::required("TABLE_NAME")?;
    let bus = env::required("BUS_NAME")?;
    let deliveries = env::required("DELIVERY_QUEUE_URL")?;
    let prefix = env::required("PARAMETER_PREFIX")?;
    let retention = TimeDelta::days(env::parsed("RETENTION_DAYS", 90, str::parse::<u16>)?.into());
    let policy = match env::flag("ALLOW_INSECURE_TARGETS")? {
        true => TargetPolicy::local_use(),
        false => TargetPolicy::public(),
    };

    let aws = aws::config().await;
    let ssm = aws_sdk_ssm::Client::new(&aws);
    let own = user_specs::load(&ssm, &prefix).await?;
    let secrets = Arc::new(Secrets::new(ssm, &prefix));
    let tracker = Tracker {
        store: Store::new(aws_sdk_dynamodb::Client::new(&aws), table, retention),
        providers: Providers::from_env(secrets.clone(), &own)?,
        bus: Bus::new(aws_sdk_eventbridge::Client::new(&aws), bus),
        deliveries: DeliveryQueue::new(aws_sdk_sqs::Client::new(&aws), deliveries),
    };
    Ok(Jobs { tracker, secrets, policy })
}
