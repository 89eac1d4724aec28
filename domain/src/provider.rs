//! Providers as data. One JSON document says how a provider is asked, how it answers and
//! how it calls back; the interpreter in this module runs any of them.
//!
//! - [`spec`]: the vocabulary, and what makes a document valid.
//! - [`pointer`]: where in a JSON document something is.
//! - [`request`]: spec and job in, HTTP request out.
//! - [`answer`]: HTTP answer in, [`crate::job::Report`] out.
//! - [`inbound`]: callback body in, meaning out.
//! - [`catalogue`]: the specs that ship with us, and those of an installation.
//! - [`conversation`]: what a provider said, told again to a spec.
//!
//! No provider's name occurs in this code: a new provider is one more file of data.

pub mod answer;
pub mod catalogue;
pub mod conversation;
pub mod inbound;
pub mod pointer;
pub mod request;
pub mod spec;

pub use answer::{CancelAnswer, ListAnswer, Rejection, StatusAnswer, SubmitAnswer};
pub use catalogue::Catalogue;
pub use inbound::Callback;
pub use request::{HttpRequest, Method};
pub use spec::{ErrorClass, ProviderSpec, SpecError};
