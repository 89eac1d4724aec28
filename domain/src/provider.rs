//! Providers as data. One JSON document, the spec, describes the requests to a provider, its
//! answers and its callbacks; the interpreter in this module runs every spec.
//!
//! - [`spec`]: the vocabulary, and what makes a document valid.
//! - [`pointer`]: a place in a JSON document.
//! - [`request`]: spec and job in, HTTP request out.
//! - [`key`]: an API key, and the hosts that it may be sent to.
//! - [`answer`]: HTTP answer in, [`crate::job::Report`] out.
//! - [`echo`]: our secrets that a provider sends back, masked.
//! - [`inbound`]: callback body in, its meaning out.
//! - [`catalogue`]: the specs that ship with the project, and those of an installation.
//! - [`conversation`]: recorded answers of a provider, replayed against a spec.
//!
//! No provider's name occurs in this code: a new provider is one more file of data.

pub mod answer;
pub mod catalogue;
pub mod conversation;
pub mod echo;
pub mod inbound;
pub mod key;
pub mod pointer;
pub mod request;
pub mod spec;

pub use answer::{CancelAnswer, ListAnswer, Rejection, StatusAnswer, SubmitAnswer};
pub use catalogue::Catalogue;
pub use echo::EchoMask;
pub use inbound::Callback;
pub use key::{KeyNotForHost, ProviderKey};
pub use request::{HttpMethod, HttpRequest};
pub use spec::{ErrorClass, ProviderSpec, SpecError};
