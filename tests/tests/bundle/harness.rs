//! The whole bundle in one process, and what it has around it.

pub(crate) mod backend;
pub(crate) mod bundle;
pub(crate) mod deletions;
pub(crate) mod driver;
pub(crate) mod event_sources;
pub(crate) mod functions;
pub(crate) mod gateway;
pub(crate) mod invocation;
pub(crate) mod operator;
pub(crate) mod parallel;
pub(crate) mod process;
pub(crate) mod provider_callbacks;
pub(crate) mod provider_hosts;
pub(crate) mod receivers;
pub(crate) mod renders;
pub(crate) mod simulator;
pub(crate) mod template;
