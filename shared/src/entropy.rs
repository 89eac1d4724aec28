//! Randomness, passed as an argument as the clock is: the operating system's in a function,
//! and bytes that follow from a seed in a test.

/// A source of random bytes.
#[derive(Clone, Copy, Debug)]
pub struct Entropy {
    fill: fn(&mut [u8]) -> Result<(), getrandom::Error>,
}

impl Entropy {
    /// The operating system's source.
    #[must_use]
    pub const fn os() -> Self {
        Self::from_fn(getrandom::fill)
    }

    /// A source that fills a slice by `fill`.
    #[must_use]
    pub const fn from_fn(fill: fn(&mut [u8]) -> Result<(), getrandom::Error>) -> Self {
        Self { fill }
    }

    /// Random bytes.
    ///
    /// # Errors
    /// When the source has none. The operating system's always has, on every system that is
    /// supported.
    pub fn bytes<const N: usize>(self) -> Result<[u8; N], getrandom::Error> {
        let mut bytes = [0; N];
        (self.fill)(&mut bytes)?;
        Ok(bytes)
    }

    /// A random number in `0.0..1.0`, for jitter.
    #[must_use]
    pub fn jitter_sample(self) -> f64 {
        // Without randomness there is no jitter, and everything else still works.
        let bytes: [u8; 4] = self.bytes().unwrap_or_default();
        f64::from(u32::from_be_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn highest(bytes: &mut [u8]) -> Result<(), getrandom::Error> {
        bytes.fill(0xff);
        Ok(())
    }

    fn none(_: &mut [u8]) -> Result<(), getrandom::Error> {
        Err(getrandom::Error::UNSUPPORTED)
    }

    #[test]
    fn jitter_sample_is_below_one() {
        let sample = Entropy::from_fn(highest).jitter_sample();
        assert!((0.999..1.0).contains(&sample), "{sample}");
    }

    #[test]
    fn failing_source_gives_no_jitter() {
        assert_eq!(Entropy::from_fn(none).jitter_sample(), 0.0);
        assert!(Entropy::from_fn(none).bytes::<8>().is_err());
    }
}
