//! The default receiver's owner: secrets that take over from each other, what the receiver
//! gets and with which headers. What is signed is verified by receivers that are not ours.
//!
//! A stack has one configuration, so these tests are alone on theirs, and one after the
//! other.

// `cfg(test)` is always true here; it tells the lints that helpers are tests too.
#[cfg(test)]
mod configuration;
#[cfg(test)]
mod owner;
#[cfg(test)]
mod rotation;
