//! Hostile input by the million: valid input, mutated where it means something, and a
//! property that must hold whatever comes of it. A panic is a failure of every target.
//!
//! Each execution is made from one seed, so a run is the same every time and one execution
//! can be had alone. As an ordinary test a target is short; `cargo xtask fuzz` runs it
//! optimised and as long as wanted, by the settings that [`run`] reads.
//!
//! - [`run`]: seeds, counting, what a failure prints.
//! - [`random`]: numbers from a seed.
//! - [`mutation`]: bytes and JSON, changed a little.
//! - [`signatures`]: every scheme of the verifier.
//! - [`provider_answers`]: what providers answer and post, and their specs.
//! - [`requests`]: what callers send, and headers of receivers.

// `cfg(test)` is always true here; it tells the lints that helpers are tests too.
#[cfg(test)]
mod mutation;
#[cfg(test)]
mod provider_answers;
#[cfg(test)]
mod random;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod run;
#[cfg(test)]
mod signatures;

// The verifier's own tests have a sender that shares no code with the verifier. It names
// its types by these paths.
#[cfg(test)]
use domain::verifier;
#[cfg(test)]
#[path = "../../src/verifier/tests/sender.rs"]
#[allow(dead_code, reason = "the verifier's own tests use the rest of it")]
mod sender;
