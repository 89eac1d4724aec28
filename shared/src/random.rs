//! Randomness, all of it: what comes from here follows from a seed where a test wants it to.

#[cfg(any(test, feature = "fake-aws"))]
use crate::fake::random as source;
#[cfg(not(any(test, feature = "fake-aws")))]
use getrandom as source;

/// Bytes from the operating system's random source.
///
/// # Errors
/// When it has none, which no supported system does.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    source::fill(&mut bytes)?;
    Ok(bytes)
}

/// A random number in `0.0..1.0`, for jitter.
#[must_use]
pub fn luck() -> f64 {
    // Without randomness there is no jitter, and everything else still works.
    let bytes: [u8; 4] = random_bytes().unwrap_or_default();
    f64::from(u32::from_be_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}
