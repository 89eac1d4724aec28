//! Render ids in the formats of the providers.

use std::fmt;

use serde::Serialize;
use uuid::Builder;
use uuid::fmt::Hyphenated;

/// A provider's id of a render.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub(crate) struct RenderId(String);

impl RenderId {
    /// A version 4 UUID from `random`.
    pub(crate) fn uuid(random: [u8; 16]) -> Self {
        Self(Builder::from_random_bytes(random).into_uuid().hyphenated().to_string())
    }

    /// The id in lower case, if `text` is a hyphenated UUID of any version.
    pub(crate) fn parse_uuid(text: &str) -> Option<Self> {
        text.parse().ok().map(|uuid: Hyphenated| Self(uuid.to_string()))
    }

    /// `prefix` and the first 12 hex digits of `random`.
    pub(crate) fn prefixed(prefix: &str, random: [u8; 16]) -> Self {
        Self(format!("{prefix}{:012x}", u128::from_be_bytes(random) >> 80))
    }

    /// One letter or digit for every byte of `random`.
    pub(crate) fn alphanumeric(random: [u8; 16]) -> Self {
        const ALPHABET: &[u8; 62] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let letter = |byte: u8| ALPHABET.get(usize::from(byte) % ALPHABET.len());
        Self(random.into_iter().filter_map(letter).copied().map(char::from).collect())
    }

    /// The id in a call, which may belong to no render.
    pub(crate) fn asked_for(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for RenderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_ids_are_uuids() {
        assert_eq!(
            RenderId::uuid([0xff; 16]),
            RenderId("ffffffff-ffff-4fff-bfff-ffffffffffff".to_owned())
        );
        assert_eq!(
            RenderId::uuid([0; 16]),
            RenderId("00000000-0000-4000-8000-000000000000".to_owned())
        );
    }

    #[test]
    fn made_ids_have_provider_lengths() {
        assert_eq!(RenderId::prefixed("job_", [0xab; 16]).0, "job_abababababab");
        assert_eq!(RenderId::prefixed("job_", [0; 16]).0, "job_000000000000");
        let bytes = [0, 25, 26, 51, 52, 61, 62, 255, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(RenderId::alphanumeric(bytes).0, "AZaz09AHBCDEFGHI");
    }

    #[test]
    fn only_uuids_parse() {
        let good = "550E8400-e29b-41d4-a716-446655440000";
        assert_eq!(RenderId::parse_uuid(good), Some(RenderId(good.to_lowercase())));
        for bad in ["", "550e8400e29b41d4a716446655440000", "550e8400-e29b-41d4-a716-44665544000g"]
        {
            assert_eq!(RenderId::parse_uuid(bad), None, "{bad}");
        }
    }
}
