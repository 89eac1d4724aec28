//! The stack that is up, as the file says that `cargo xtask` wrote.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

/// Where everything is.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stack {
    /// Base URL of our HTTP API, without a trailing slash.
    pub api_url: String,
    /// A key for it.
    pub api_key: String,
    /// The emulator itself, past the ledger: what tests ask is not to be counted.
    pub aws_endpoint: String,
    /// Base URL of providers, receivers and the control API.
    pub simulator_url: String,
    /// The AWS region.
    pub region: String,
    /// The stack's name.
    pub stack_name: String,
    /// The one table.
    pub table_name: String,
    /// The event bus.
    pub bus_name: String,
    /// Where the tickets of deliveries wait.
    pub delivery_queue_url: String,
    /// Where those go that could not be followed.
    pub dead_letter_queue_url: String,
    /// Path of the stack's SSM parameters, without a trailing slash.
    pub parameter_prefix: String,
    /// The functions' names in AWS, by ours.
    pub functions: BTreeMap<String, String>,
    /// What providers sign their callbacks with, by name; only of those that do.
    pub provider_secrets: BTreeMap<String, String>,
}

impl Stack {
    /// The stack that `RELAY_STACK` points at.
    ///
    /// # Errors
    /// When there is none; the error says how to get one.
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
