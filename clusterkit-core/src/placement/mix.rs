//! The one source of "randomness" of the placement: integer mixing, the same on every machine.
//!
//! No security property is claimed; people's keys are hashed in [`crate::hash`].

/// Mixes two words into one whose bits all depend on both (splitmix-style finaliser).
pub(super) const fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.wrapping_mul(0x9E37_79B9_7F4A_7C15)
        ^ b.wrapping_mul(0xD1B5_4A32_D192_ED03)
            .wrapping_add(0x8CB9_2BA7_2F3D_8DD7);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Returns a stable key of a node's id.
pub(super) fn node_key(id: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(id.as_bytes())
}
