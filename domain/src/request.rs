//! The bodies that clients send to the API, checked member by member.

mod api_key;
mod error;
mod job;
pub(crate) mod members;
mod receiver;
mod record;

pub use api_key::KeyRequest;
pub use error::RequestError;
pub use job::{JobRequest, MAX_BODY_BYTES};
pub use receiver::{ReceiverSettings, SettingsError};
pub use record::{Claim, RequestRecord};
