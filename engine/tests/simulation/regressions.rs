//! Seeds that once failed. A change of the workload gives each seed another meaning, so what a seed here was found for is
//! also held by a test of its own where that is named.

/// (seed, what it found)
pub const SEEDS: &[(u64, &str)] = &[
    (
        859,
        "a segment whose files could not be renamed was forgotten, and left a hole in their sequence",
    ),
    (1186, "the same"),
    (
        6977,
        "retention went on with limits that had been lifted while it read an index",
    ),
    (
        7048,
        "a partition.metadata whose sync had failed was believed by the next start, and lost with the power",
    ),
    (12065, "the same"),
    (
        9354,
        "a cut where a segment begins took the wrong length, since the segment before it was deleted meanwhile",
    ),
    (20237, "the same"),
    (
        11822,
        "a deletion failed when only the renamed directory was left to remove",
    ),
    (
        20803,
        "a log whose deletion had failed was said to be closed in order",
    ),
];
