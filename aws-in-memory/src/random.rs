//! Where random bytes come from in tests: the operating system, or a seed.

use std::cell::Cell;

thread_local! {
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on, this thread's random bytes follow from `seed`.
pub fn seed(seed: u64) {
    STATE.set(Some(seed));
}

/// Fills `bytes`; the shape of `getrandom::fill`.
pub(super) fn fill(bytes: &mut [u8]) -> Result<(), getrandom::Error> {
    let Some(mut state) = STATE.get() else { return getrandom::fill(bytes) };
    for chunk in bytes.chunks_mut(8) {
        let number = next(&mut state).to_le_bytes();
        for (byte, random) in chunk.iter_mut().zip(number) {
            *byte = random;
        }
    }
    STATE.set(Some(state));
    Ok(())
}

/// SplitMix64: enough for a test, and no dependency whose next version would change what a
/// seed means.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
