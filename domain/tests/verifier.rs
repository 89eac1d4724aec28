//! The verifier of callbacks, held against requests that a sender of its own signs.
//!
//! - `sender`: signs like a sender, from the same rows, with none of the code under test.
//! - `vectors`: signatures that other implementations computed.
//! - `rows`: every row against every way in which a request can be wrong.
//! - `union`: every combination of values that a row may have.
//! - `hostile`: arbitrary requests.
//! - `contradictions`: rows that must not load.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod sender;

mod verifier {
    mod contradictions;
    mod hostile;
    mod rows;
    mod union;
    mod vectors;
}
