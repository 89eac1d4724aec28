//! Why a request body is refused.

/// Why a body is not a valid request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is larger than [`MAX_BODY_BYTES`].
    #[error("the request body is larger than 1 MiB")]
    TooLarge,
    /// It is not a JSON object.
    #[error("the request body is not a JSON object: {0}")]
    NotAnObject(String),
    /// A required member is missing.
    #[error("`{field}` is missing")]
    Missing {
        /// The name of the member.
        field: &'static str,
    },
    /// A member has a wrong type or value, or is unknown.
    #[error("`{field}` {problem}")]
    Invalid {
        /// The name of the member.
        field: String,
        /// The problem, as the rest of a sentence that begins with the name.
        problem: String,
    },
    /// The address policy refuses the callback URL.
    #[error("`callbackUrl`: {0}")]
    CallbackUrl(String),
}
