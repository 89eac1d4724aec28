//! What `deliver` is set up with.

use chrono::TimeDelta;
use domain::address::TargetPolicy;
use domain::retry::DeliverySchedule;
use lambda_runtime::Error;
use shared::bus::Bus;
use shared::egress::Receivers;
use shared::queue::DeliveryQueue;
use shared::secrets::Secrets;
use shared::store::Store;
use shared::{aws, env};

use crate::deliverer::Deliverer;

/// Reads the settings and builds the clients.
///
/// # Errors
/// When a setting is missing or wrong; the error names it.
pub(crate) async fn deliverer() -> Result<Deliverer, Error> {
    let table = env::required("TABLE_NAME")?;
    let bus = env::required("BUS_NAME")?;
    let deliveries = env::required("DELIVERY_QUEUE_URL")?;
    let prefix = env::required("PARAMETER_PREFIX")?;
    let fallback = DeliverySchedule::default();
    let schedule = env::parsed("DELIVERY_SCHEDULE", fallback, DeliverySchedule::parse)?;
    let retention = TimeDelta::days(env::parsed("RETENTION_DAYS", 90, str::parse::<u16>)?.into());
    let policy = match env::flag("ALLOW_INSECURE_TARGETS")? {
        true => TargetPolicy::local_use(),
        false => TargetPolicy::public(),
    };

    let aws = aws::config().await;
    Ok(Deliverer {
        store: Store::new(aws_sdk_dynamodb::Client::new(&aws), table, retention),
        secrets: Secrets::new(aws_sdk_ssm::Client::new(&aws), &prefix),
        bus: Bus::new(aws_sdk_eventbridge::Client::new(&aws), bus),
        queue: DeliveryQueue::new(aws_sdk_sqs::Client::new(&aws), deliveries),
        receivers: Receivers::new(policy.clone())?,
        policy,
        schedule,
    })
}
