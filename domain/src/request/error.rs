//! Why a request body is refused.

/// Why a body is not a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is larger than [`MAX_BODY_BYTES`].
    #[error("the request body is larger than 1 MiB")]
    TooLarge,
    /// It is not a JSON object.
    #[error("the request body is not a JSON object: {0}")]
    NotAnObject(String),
    /// A member that must be there is not.
    #[error("`{field}` is missing")]
    Missing {
        /// Its name.
        field: &'static str,
    },
    /// A member is not what it must be.
    #[error("`{field}` {problem}")]
    Invalid {
        /// Its name.
        field: String,
        /// What is wrong, to be read after the name.
        problem: String,
    },
    /// The callback URL is one that is never called.
    #[error("`callbackUrl`: {0}")]
    CallbackUrl(String),
}
