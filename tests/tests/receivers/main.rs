//! The default receiver's configuration: rotation of secrets, subscribed events and headers.
//! Receivers in Python and Node verify the signatures with public libraries.
//!
//! A stack has one webhook configuration, so these tests have a stack of their own, and run one
//! after the other.

// `cfg(test)` is always true here; it tells the lints that helpers are tests too.
#[cfg(test)]
mod configuration;
#[cfg(test)]
mod owner;
#[cfg(test)]
mod rotation;
