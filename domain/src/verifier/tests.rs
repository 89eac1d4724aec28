//! - [`sender`]: signs like a sender, from the same rows, with none of the code under test.
//! - [`vectors`]: what others computed.
//! - [`rows`]: every row against every way a request can be wrong.
//! - [`union`]: every combination that a row may be.
//! - [`hostile`]: arbitrary requests.
//! - [`contradictions`]: rows that must not load.

mod contradictions;
mod hostile;
mod rows;
mod sender;
mod union;
mod vectors;
