//! What we publish about ourselves, held against what we do: the OpenAPI document, the
//! schema of events, the schema of provider specs, the template's settings and the list of log
//! messages.

// `cfg(test)` is always true here; it tells the lints that helpers are tests too.
#[cfg(test)]
mod contract;
#[cfg(test)]
mod events;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod providers;
#[cfg(test)]
mod settings;
#[cfg(test)]
mod signatures;
#[cfg(test)]
mod source;
#[cfg(test)]
mod values;
