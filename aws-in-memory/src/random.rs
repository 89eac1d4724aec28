//! Random numbers that follow from a seed, and where [`Entropy`](shared::entropy::Entropy)
//! comes from in tests: the operating system, or a seed.

use std::cell::Cell;

thread_local! {
    static STATE: Cell<Option<Random>> = const { Cell::new(None) };
}

/// From now on, this thread's random bytes follow from `seed`.
pub fn seed(seed: u64) {
    STATE.set(Some(Random(seed)));
}

/// Fills `bytes`; the shape of `getrandom::fill`.
pub(super) fn fill(bytes: &mut [u8]) -> Result<(), getrandom::Error> {
    let Some(mut random) = STATE.take() else { return getrandom::fill(bytes) };
    for chunk in bytes.chunks_mut(8) {
        let number = random.next().to_le_bytes();
        for (byte, random) in chunk.iter_mut().zip(number) {
            *byte = random;
        }
    }
    STATE.set(Some(random));
    Ok(())
}

/// A stream of numbers by SplitMix64: enough for a test, and no dependency whose next version
/// would change what a seed means. Equal seeds have equal streams.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // Spread, because the generator walks from seed to seed.
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    /// The next number.
    #[allow(clippy::should_implement_trait, reason = "the stream has no end")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `many`, which is not 0.
    pub fn below(&mut self, many: u64) -> u64 {
        self.next() % many
    }

    /// True one time in so many.
    pub fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    /// Sixteen bytes.
    pub fn bytes(&mut self) -> [u8; 16] {
        (u128::from(self.next()) << 64 | u128::from(self.next())).to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> [u8; 12] {
        let mut bytes = [0; 12];
        fill(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn seeded_bytes_repeat() {
        seed(5);
        let first = [filled(), filled()];
        seed(5);
        assert_eq!([filled(), filled()], first);
        assert_ne!(first[0], first[1]);
    }

    #[test]
    fn splitmix64_matches_its_reference() {
        // The first numbers of the reference implementation for the state 1234567.
        let mut random = Random(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }
}
