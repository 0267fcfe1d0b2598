//! Randomness for unit tests: a seeded generator and the seeds to run with.
//!
//! A failing test names its seed; `FOREBAY_SEED=<seed>` then runs that one alone.

/// SplitMix64: small, and good enough to pick test data.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform enough in `0..bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0);
        (self.next() % bound as u64) as usize
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Runs `check` with each seed, and says which one failed.
pub fn for_seeds(count: u64, check: impl Fn(u64)) {
    let seeds = match std::env::var("FOREBAY_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("FOREBAY_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..count,
    };
    for seed in seeds {
        let report = OnPanic(seed);
        check(seed);
        std::mem::forget(report);
    }
}

struct OnPanic(u64);

impl Drop for OnPanic {
    fn drop(&mut self) {
        eprintln!("failed with FOREBAY_SEED={}", self.0);
    }
}
