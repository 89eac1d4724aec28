//! The running stack, as the file describes it that `cargo xtask` wrote.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

/// URLs, names and keys of the running stack.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StackDescription {
    /// Base URL of our HTTP API, without a trailing slash.
    pub api_url: String,
    /// An API key.
    pub api_key: String,
    /// The emulator itself, behind the proxy that keeps the ledger, so that the ledger does
    /// not count the tests' own requests.
    pub aws_endpoint: String,
    /// Base URL of providers, receivers and the control API.
    pub simulator_url: String,
    /// The AWS region.
    pub region: String,
    /// The stack's name.
    pub stack_name: String,
    /// The table's name.
    pub table_name: String,
    /// The event bus' name.
    pub bus_name: String,
    /// The quick lane: the queue of delivery tickets.
    pub delivery_queue_url: String,
    /// The delivery queues' dead-letter queue.
    pub dead_letter_queue_url: String,
    /// Path of the stack's SSM parameters, without a trailing slash.
    pub parameter_prefix: String,
    /// The functions' names in AWS, by their names in this repository.
    pub functions: BTreeMap<String, String>,
    /// The callback secrets by provider; only providers that sign are listed.
    pub provider_secrets: BTreeMap<String, String>,
}

impl StackDescription {
    /// Reads the description that `RELAY_STACK` points at.
    ///
    /// # Errors
    /// When no stack is running; the error says how to start one.
    pub fn running() -> Result<Self> {
        let file = std::env::var_os("RELAY_STACK").context(
            "these tests need a running stack: run `cargo xtask test`, or leave `cargo xtask up` \
             running and set RELAY_STACK to the path of its .local/stack.json",
        )?;
        let file = std::path::PathBuf::from(file);
        let text = std::fs::read(&file)
            .with_context(|| format!("no stack is up: cannot read {}", file.display()))?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{} does not describe a stack", file.display()))
    }
}
