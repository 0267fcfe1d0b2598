//! OpenMessaging Benchmark: its workloads as input, its result format as output, so that figures can be held
//! against those others have published.
//!
//! `workload` reads its YAML files into a struct of ours and says what we do differently; `known` has its own
//! workloads by name; `export` writes its result JSON.

#[cfg_attr(
    not(test),
    expect(dead_code, reason = "no command writes their format yet")
)]
pub mod export;
pub mod fields;
pub mod known;
pub mod workload;
