//! Seeds that once failed. A change of the workload gives each seed another meaning, so what a seed here was found for is
//! also held by a test of its own where that is named.

/// (seed, what it found)
pub const SEEDS: &[(u64, &str)] = &[
    (
        859,
        "a segment whose files could not be renamed was forgotten, and left a hole in their sequence",
    ),
    (1186, "the same"),
];
