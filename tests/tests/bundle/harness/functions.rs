//! The five functions as they are deployed: their handlers, set up as their `config.rs` does, with
//! AWS in memory and a network in memory.

use std::sync::Arc;
use std::time::Duration;

use aws_in_memory::{InMemoryAws, clock};
use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use chrono::{DateTime, Utc};
use domain::address::TargetPolicy;
use domain::lease::AwakePolicy;
use domain::provider::catalogue::Adjustments;
use domain::retry::DeliverySchedule;
use serde_json::json;
use shared::api_key_cache::ApiKeyCache;
use shared::egress::{Dial, EgressLimits, Receivers};
use shared::endpoint_cache::EndpointCache;
use shared::shards::Shards;
use tests::SimulatedProvider;

/// Every provider that the simulator has.
pub(crate) const PROVIDERS: [SimulatedProvider; 5] = [
    SimulatedProvider::Zvid,
    SimulatedProvider::Shotstack,
    SimulatedProvider::Json2Video,
    SimulatedProvider::ViralSync,
    SimulatedProvider::RenderIo,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Function {
    Submit,
    Poller,
    Webhook,
    Deliver,
    Jobs,
}

impl Function {
    /// The name by which traces know it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Poller => "poller",
            Self::Webhook => "webhook",
            Self::Deliver => "deliver",
            Self::Jobs => "jobs",
        }
    }

    /// The timeout in the template.
    pub(crate) fn time_limit(self) -> Duration {
        Duration::from_secs(match self {
            Self::Submit | Self::Webhook | Self::Jobs => 29,
            Self::Poller => 900,
            Self::Deliver => 30,
        })
    }
}

#[derive(Clone, Debug)]
pub(crate) enum FunctionEvent {
    Http(Box<ApiGatewayV2httpRequest>),
    Messages(SqsEvent),
    /// A call of the schedule for a shard.
    Tick(u32),
}

#[derive(Debug)]
pub(crate) enum FunctionAnswer {
    Http(Box<ApiGatewayV2httpResponse>),
    /// The ids of the messages that failed.
    Messages(Vec<String>),
    Nothing,
}

/// The parameters of the stack.
#[derive(Clone, Debug)]
pub(crate) struct StackParameters {
    pub(crate) shards: u32,
    pub(crate) schedule: DeliverySchedule,
    /// The shipped providers, at the simulator's hosts.
    pub(crate) adjustments: Adjustments,
    /// For which waits a poller keeps its concurrent execution.
    pub(crate) awake_policy: AwakePolicy,
}

/// The shipped providers, at the simulator's hosts.
pub(crate) fn adjustments() -> Adjustments {
    let hosts = PROVIDERS.map(SimulatedProvider::name);
    let base_urls =
        hosts.map(|name| (name.to_owned(), format!("http://{name}.test/{name}").parse().unwrap()));
    let policy = TargetPolicy::local_use();
    Adjustments { base_urls: base_urls.into(), policy, ..Adjustments::default() }
}

/// A started function. It handles one event after another.
pub(crate) enum Instance {
    Submit(submit::Submitter),
    Poller(poller::Poller),
    Webhook(webhook::Callbacks),
    Deliver(deliver::Deliverer),
    Jobs(jobs::Jobs),
}

/// The base URL of the API; where there are two stacks, of the first.
pub(crate) const PUBLIC_URL: &str = "http://relay.test";

impl Instance {
    pub(crate) async fn start(
        function: Function,
        aws: &InMemoryAws,
        network: Arc<dyn Dial>,
        parameters: &StackParameters,
        public_url: &str,
    ) -> Result<Self, String> {
        let policy = TargetPolicy::local_use();
        if function == Function::Deliver {
            return Ok(Self::Deliver(deliver::Deliverer {
                endpoints: EndpointCache::new(aws.store()),
                store: aws.store(),
                secrets: aws.secrets(),
                bus: aws.bus(),
                queue: aws.deliveries(),
                receivers: Receivers::through(network, policy.clone(), EgressLimits::default())
                    .map_err(|error| error.to_string())?,
                policy,
                schedule: parameters.schedule.clone(),
                entropy: aws.entropy(),
            }));
        }
        // All other functions read the provider specs at their start.
        let tracker = aws.started_tracker(network, parameters.adjustments.clone()).await;
        let tracker = tracker.map_err(|error| error.to_string())?;
        let secrets = Arc::clone(tracker.providers.secrets());
        Ok(match function {
            Function::Submit => Self::Submit(submit::Submitter {
                keys: ApiKeyCache::new(aws.store()),
                tracker,
                secrets,
                wakes: aws.wakes(),
                public_url: public_url.to_owned(),
                shards: Shards::new(parameters.shards),
                policy,
                entropy: aws.entropy(),
            }),
            Function::Poller => {
                let poller = poller::Poller::new(tracker, aws.wakes(), parameters.shards);
                Self::Poller(poller.with_awake_policy(parameters.awake_policy))
            }
            Function::Webhook => {
                let (wakes, entropy) = (aws.wakes(), aws.entropy());
                Self::Webhook(webhook::Callbacks { tracker, secrets, wakes, entropy })
            }
            Function::Jobs | Function::Deliver => {
                let (shards, entropy) = (Shards::new(parameters.shards), aws.entropy());
                let keys = ApiKeyCache::new(aws.store());
                Self::Jobs(jobs::Jobs { tracker, secrets, keys, policy, shards, entropy })
            }
        })
    }

    pub(crate) async fn handle(&self, event: FunctionEvent) -> Result<FunctionAnswer, String> {
        let http = |answer: Result<ApiGatewayV2httpResponse, lambda_runtime::Error>| {
            answer
                .map(|answer| FunctionAnswer::Http(Box::new(answer)))
                .map_err(|error| error.to_string())
        };
        match (self, event) {
            (Self::Submit(it), FunctionEvent::Http(event)) => {
                http(submit::handle(it, (*event).into(), clock::now).await)
            }
            (Self::Webhook(it), FunctionEvent::Http(event)) => {
                http(webhook::handle(it, (*event).into(), clock::now).await)
            }
            (Self::Jobs(it), FunctionEvent::Http(event)) => {
                http(jobs::handle(it, (*event).into(), clock::now).await)
            }
            (Self::Deliver(it), FunctionEvent::Messages(event)) => {
                let answer = deliver::handle(it, event, clock::now).await;
                answer
                    .map(|answer| FunctionAnswer::Messages(back(answer)))
                    .map_err(|error| error.to_string())
            }
            (Self::Poller(it), FunctionEvent::Messages(event)) => {
                let call =
                    serde_json::from_value(json!(event)).map_err(|error| error.to_string())?;
                let answer = poller::handle(it, call, poller_until(), clock::now)
                    .await
                    .map_err(|error| error.to_string())?;
                let answer = serde_json::from_value(answer).map_err(|error| error.to_string())?;
                Ok(FunctionAnswer::Messages(back(answer)))
            }
            (Self::Poller(it), FunctionEvent::Tick(shard)) => {
                let call = serde_json::from_value(json!({"shard": shard}));
                let call = call.map_err(|error| error.to_string())?;
                let answer = poller::handle(it, call, poller_until(), clock::now).await;
                answer.map(|_| FunctionAnswer::Nothing).map_err(|error| error.to_string())
            }
            (_, event) => panic!("no function of the template is called with {event:?}"),
        }
    }
}

/// The deadline of a poller's invocation that begins now, by the process's own clock.
fn poller_until() -> DateTime<Utc> {
    clock::now() + Function::Poller.time_limit()
}

fn back(response: SqsBatchResponse) -> Vec<String> {
    response.batch_item_failures.into_iter().map(|failure| failure.item_identifier).collect()
}
