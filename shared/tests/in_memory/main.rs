//! `shared` on an AWS in memory.

// `cfg(test)` is always true here; so the lints treat helpers as tests too.
#[cfg(test)]
mod api_keys;
#[cfg(test)]
mod aws_limits;
#[cfg(test)]
mod bus;
#[cfg(test)]
mod durations;
#[cfg(test)]
mod endpoint_cache;
#[cfg(test)]
mod places;
#[cfg(test)]
mod provider_specs;
#[cfg(test)]
mod secret_changes;
#[cfg(test)]
mod secrets;
mod shards;
#[cfg(test)]
mod ssm_quota;
#[cfg(test)]
mod store;
#[cfg(test)]
mod tracker;
#[cfg(test)]
mod undelivered;
#[cfg(test)]
mod webhook_config;
