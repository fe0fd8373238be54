//! Keys from keys: 64-bit mixing, written out here so that an order never changes with a library's version.

/// Multiples of 2^64 / golden ratio: far apart from one another.
pub(super) fn golden(step: u64) -> u64 {
    step.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Mixes 64 bits so that each bit of the result depends on all (the finaliser of SplitMix64, a bijection).
///
/// # Reference
/// Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", figure 16, with Stafford's variant 13.
pub(super) fn scramble(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The key of a part of what `base` is the key of.
pub(super) fn derive(base: u64, parts: &[u64]) -> u64 {
    parts.iter().fold(base, |key, &part| {
        scramble(key.wrapping_add(golden(1)) ^ scramble(part.wrapping_add(golden(2))))
    })
}
