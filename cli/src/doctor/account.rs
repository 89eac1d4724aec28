//! The limits of an account, and what a stack may use of them, as AWS says.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use aws_sdk_lambda::error::SdkError;
use aws_sdk_lambda::types::FunctionConfiguration;

/// What bounds the functions of an account in a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AccountLimits {
    /// Concurrent executions of all functions together: 1,000 by default, 10 in a new account.
    pub(super) concurrency: u32,
    /// Those that no function has reserved for itself.
    pub(super) unreserved: u32,
    /// Whether SSM takes more than 40 calls a second.
    pub(super) ssm_high_throughput: bool,
}

/// The settings of a stack that decide how many concurrent executions it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StackSettings {
    pub(super) shards: u32,
    pub(super) pollers_stay_awake: bool,
    pub(super) deliveries: u32,
    pub(super) slow_deliveries: u32,
}

/// Reads both. A stack is known by the prefix of its parameters, which each of its functions has
/// in its environment.
pub(super) async fn read(
    config: &aws_config::SdkConfig,
    stack: &str,
) -> Result<(AccountLimits, StackSettings)> {
    let lambda = aws_sdk_lambda::Client::new(config);
    let answer = lambda.get_account_settings().send().await;
    let answer = answer.map_err(SdkError::into_service_error);
    let answer = answer.context("cannot read the account's settings of Lambda")?;
    let limit =
        answer.account_limit().context("Lambda does not say what the account's limits are")?;
    let account = AccountLimits {
        concurrency: number(limit.concurrent_executions()),
        unreserved: limit.unreserved_concurrent_executions().map_or(0, number),
        ssm_high_throughput: ssm_high_throughput(config).await?,
    };
    Ok((account, settings(&lambda, stack).await?))
}

async fn ssm_high_throughput(config: &aws_config::SdkConfig) -> Result<bool> {
    let setting = "/ssm/parameter-store/high-throughput-enabled";
    let ssm = aws_sdk_ssm::Client::new(config);
    let answer = ssm.get_service_setting().setting_id(setting).send().await;
    let answer = answer.map_err(SdkError::into_service_error);
    let answer = answer.context("cannot read the account's settings of SSM")?;
    Ok(answer.service_setting().and_then(|it| it.setting_value()) == Some("true"))
}

async fn settings(lambda: &aws_sdk_lambda::Client, stack: &str) -> Result<StackSettings> {
    let prefix = format!("/render-relay/{stack}");
    let mut functions = Vec::new();
    let mut pages = lambda.list_functions().into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(SdkError::into_service_error);
        functions.extend(page.context("cannot list the functions")?.functions.unwrap_or_default());
    }
    functions.retain(|it| variable(it, "PARAMETER_PREFIX") == Some(&prefix));
    let having = |name: &str| functions.iter().find(|it| variable(it, name).is_some());
    let (Some(poller), Some(deliver)) =
        (having("POLLERS_STAY_AWAKE"), having("SLOW_DELIVERY_QUEUE_URL"))
    else {
        bail!("there is no stack `{stack}` of this release in this account and region");
    };
    let mut lanes = HashMap::new();
    let mappings = lambda.list_event_source_mappings();
    let mut pages =
        mappings.set_function_name(deliver.function_arn.clone()).into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(SdkError::into_service_error);
        let page = page.context("cannot list the event sources of `deliver`")?;
        for mapping in page.event_source_mappings.unwrap_or_default() {
            let most = mapping.scaling_config().and_then(|it| it.maximum_concurrency());
            let queue = mapping.event_source_arn().and_then(|arn| arn.rsplit(':').next());
            if let (Some(queue), Some(most)) = (queue, most) {
                lanes.insert(queue.to_owned(), number(most));
            }
        }
    }
    let lane = |name: &str| {
        let queue = variable(deliver, name).and_then(|url| url.rsplit('/').next());
        let most = queue.and_then(|queue| lanes.get(queue).copied());
        most.with_context(|| format!("the queue in {name} has no limit of concurrent executions"))
    };
    let shards = variable(poller, "POLLER_SHARDS").and_then(|text| text.parse().ok());
    Ok(StackSettings {
        shards: shards.context("POLLER_SHARDS of the poller is no number")?,
        pollers_stay_awake: variable(poller, "POLLERS_STAY_AWAKE") == Some("true"),
        deliveries: lane("DELIVERY_QUEUE_URL")?,
        slow_deliveries: lane("SLOW_DELIVERY_QUEUE_URL")?,
    })
}

fn variable<'a>(function: &'a FunctionConfiguration, name: &str) -> Option<&'a str> {
    let variables = function.environment()?.variables()?;
    variables.get(name).map(String::as_str)
}

fn number(number: i32) -> u32 {
    u32::try_from(number).unwrap_or_default()
}
