//! The deployed template, from a customer's request to a receiver's webhook, with
//! everything on the way that repeats, lies, is late or says no.

// `cfg(test)` is always true here; it tells the lints that helpers are tests too.
#[cfg(test)]
mod account_webhooks;
#[cfg(test)]
mod bad_requests;
#[cfg(test)]
mod callbacks;
#[cfg(test)]
mod cancelling;
#[cfg(test)]
mod crashes;
#[cfg(test)]
mod dead_letters;
#[cfg(test)]
mod deliveries;
#[cfg(test)]
mod endings;
#[cfg(test)]
mod endpoints;
#[cfg(test)]
mod json2video;
#[cfg(test)]
mod own_provider;
#[cfg(test)]
mod polling;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod renders;
#[cfg(test)]
mod repeats;
#[cfg(test)]
mod signed_callbacks;
#[cfg(test)]
mod unclear_submits;
