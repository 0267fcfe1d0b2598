//! The one source of randomness: fast, seeded, not for secrets.

use std::cell::Cell;

/// SplitMix64: every seed is good and one step is a few instructions.
pub(crate) struct Random(Cell<u64>);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(Cell::new(seed))
    }

    pub(crate) fn next_u64(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.0.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Uniform enough for tests in `0..bound`; `bound` must not be 0.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing lies below 0");
        self.next_u64() % bound
    }

    pub(crate) fn coin(&self) -> bool {
        self.next_u64() & 1 == 1
    }

    /// True with this probability (0.0 never, 1.0 always).
    pub(crate) fn chance(&self, probability: f64) -> bool {
        const BITS: u32 = 53;
        let unit = (self.next_u64() >> (64 - BITS)) as f64 / (1u64 << BITS) as f64;
        unit < probability
    }
}
