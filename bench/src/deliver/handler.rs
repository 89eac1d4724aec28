//! The handler: invocations of `deliver` with ten messages each. AWS is in memory.

use anyhow::{Result, ensure};
use aws_in_memory::InMemoryAws;
use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use chrono::{TimeDelta, Utc};
use deliver::Deliverer;
use domain::delivery::Delivery;
use domain::retry::DeliverySchedule;
use futures_util::future::try_join_all;
use rustls::ClientConfig;
use shared::bus::Bus;
use shared::endpoint_cache::EndpointCache;
use shared::entropy::Entropy;
use shared::queue::{DeliveryQueue, Ticket};
use shared::store::{Store, Wait};

use crate::aws::TimedAws;

use super::core;

/// The messages of an invocation, as in the template.
const BATCH: usize = 10;

/// A warm function.
pub(super) struct Handler {
    pub(super) aws: TimedAws,
    deliverer: Deliverer,
}

impl Handler {
    pub(super) fn new(port: u16, tls: ClientConfig, secret: &str) -> Result<Self> {
        let in_memory = InMemoryAws::new(&[("webhook-secrets", secret)]);
        // The secrets are cached after the first read.
        let secrets = in_memory.secrets();
        let aws = TimedAws::new(in_memory);
        let config = aws.config();
        let policy = core::policy(port)?;
        let table = aws_sdk_dynamodb::Client::new(&config);
        let store = Store::new(table, "table".to_owned(), TimeDelta::days(90), Entropy::os());
        let deliverer = Deliverer {
            endpoints: EndpointCache::new(store.clone()),
            store,
            secrets,
            bus: Bus::new(
                aws_sdk_eventbridge::Client::new(&config),
                "bus".to_owned(),
                Entropy::os(),
            ),
            queue: DeliveryQueue::new(
                aws_sdk_sqs::Client::new(&config),
                "https://sqs/deliveries".to_owned(),
            ),
            receivers: core::receivers(tls, policy.clone()),
            policy,
            schedule: DeliverySchedule::default(),
            entropy: Entropy::os(),
        };
        Ok(Self { aws, deliverer })
    }

    /// Stores these deliveries, and returns the invocations that make them.
    pub(super) async fn prepare(&self, deliveries: &[Delivery]) -> Result<Vec<SqsEvent>> {
        let mut invocations = Vec::new();
        for batch in deliveries.chunks(BATCH) {
            let mut event = SqsEvent::default();
            for delivery in batch {
                self.deliverer.store.insert_delivery(delivery, Wait::InQueue).await?;
                event.records.push(message(delivery)?);
            }
            invocations.push(event);
        }
        Ok(invocations)
    }

    /// Runs these invocations concurrently.
    pub(super) async fn invoke(&self, invocations: Vec<SqsEvent>) -> Result<()> {
        try_join_all(invocations.into_iter().map(|one| self.one(one))).await?;
        Ok(())
    }

    async fn one(&self, invocation: SqsEvent) -> Result<()> {
        let answer = deliver::handle(&self.deliverer, invocation, Utc::now).await;
        let back = answer.map_err(anyhow::Error::from_boxed)?.batch_item_failures;
        ensure!(back.is_empty(), "{} messages came back", back.len());
        Ok(())
    }
}

fn message(delivery: &Delivery) -> Result<SqsMessage> {
    let mut message = SqsMessage::default();
    message.message_id = Some(delivery.event_id.as_str().to_owned());
    message.body = Some(serde_json::to_string(&Ticket::next(delivery))?);
    Ok(message)
}
