//! Tests only: the webhook libraries that receivers use, against our signatures and our verifier.
