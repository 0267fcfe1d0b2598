//! Whole lives of an engine on a simulated machine, one per seed, checked against a model.
//!
//! A seed decides everything: sizes, configurations, what is done, when, and what the disk does. Each run is a few *lives* on
//! one disk image: open and recover, work for a while, then an orderly end, a kill, or a power failure at any point.
//! `engine/README.md`, "What the simulator does", says what is done and what is checked.
//!
//! ```text
//! FOREBAY_SEED=17 cargo test -p forebay-engine --profile testrelease --test simulation seeds     one seed
//! FOREBAY_SEEDS=100000 ...                                                                      seeds 0 to 99999
//! FOREBAY_SEEDS=5000..6000 ...                                                                  these
//! FOREBAY_SAY=1 ...                                                                             tell every step
//! FOREBAY_FAILURES=20 ...                                                                       stop after the 20th failure
//! FOREBAY_THREADS=1 ...                                                                         not one per core
//! ```

/// What is done and answered, for whoever replays a seed.
macro_rules! say {
    ($($what:tt)*) => {
        if std::env::var_os("FOREBAY_SAY").is_some() {
            eprintln!($($what)*);
        }
    };
}

mod actions;
mod audit;
mod life;
mod model;
mod plan;
mod regressions;
#[allow(dead_code)]
#[path = "../../src/testing.rs"]
mod testing;

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// What a change has to pass. More take longer and find rarer things.
const SEEDS: Range<u64> = if cfg!(debug_assertions) {
    0..30
} else {
    0..1000
};

#[test]
fn seeds() {
    let range = asked_for();
    let begun = Instant::now();
    let next = AtomicU64::new(range.start);
    let (events, lives) = (AtomicU64::new(0), AtomicU64::new(0));
    let failures = AtomicU64::new(0);
    let failures_max = number_in("FOREBAY_FAILURES").unwrap_or(1);
    let threads = number_in("FOREBAY_THREADS");
    let available = || std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let threads = threads.unwrap_or_else(available);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failures.load(Ordering::Relaxed) < failures_max {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= range.end {
                        return;
                    }
                    match catch_unwind(AssertUnwindSafe(|| life::run_seed(seed))) {
                        Ok(run) => {
                            events.fetch_add(run.events, Ordering::Relaxed);
                            lives.fetch_add(run.lives, Ordering::Relaxed);
                        }
                        Err(_) => {
                            failures.fetch_add(1, Ordering::Relaxed);
                            eprintln!("simulation: seed {seed} failed, number {} of this run", seed - range.start + 1);
                            eprintln!("replay: FOREBAY_SEED={seed} cargo test -p forebay-engine --profile testrelease --test simulation seeds");
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner();
    assert_eq!(failures, 0, "seeds failed, see above");
    println!(
        "{} seeds, {} lives, {} events in {:.1} s",
        range.end - range.start,
        lives.into_inner(),
        events.into_inner(),
        begun.elapsed().as_secs_f64()
    );
}

fn number(text: &str) -> u64 {
    text.trim().parse().expect("a number")
}

fn number_in(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| number(&text))
}

fn asked_for() -> Range<u64> {
    if let Some(seed) = number_in("FOREBAY_SEED") {
        return seed..seed + 1;
    }
    let Ok(seeds) = std::env::var("FOREBAY_SEEDS") else {
        return SEEDS;
    };
    match seeds.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => 0..number(&seeds),
    }
}

#[test]
fn regressions() {
    for (seed, what) in regressions::SEEDS {
        println!("seed {seed}: {what}");
        life::run_seed(*seed);
    }
}

/// Else a failing seed could not be replayed.
#[test]
fn a_seed_is_one_order_of_events() {
    for seed in 0..5 {
        let (first, second) = (life::run_seed(seed), life::run_seed(seed));
        assert_eq!(first, second, "seed {seed}");
    }
}

/// `tests/planted/run` needs a build for each bug, as `bench/trials` does for its slowness. This only holds that each could still be planted.
#[test]
#[allow(clippy::disallowed_methods)]
fn the_planted_bugs_still_apply() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut patches = 0;
    let planted = ["tests/planted", "bench/planted"];
    let entries = planted.map(|dir| std::fs::read_dir(root.join(dir)).expect("list"));
    for entry in entries.into_iter().flatten() {
        let path = entry.expect("list").path();
        if path
            .extension()
            .is_none_or(|extension| extension != "patch")
        {
            continue;
        }
        patches += 1;
        let patch = std::fs::read_to_string(&path).expect("read");
        let target = patch.lines().find_map(|line| line.strip_prefix("--- a/"));
        let target = root.join(target.expect("a patch names its file"));
        let source = std::fs::read_to_string(&target).expect("read");
        for hunk in patch.split("\n@@").skip(1) {
            let before = hunk.lines().skip(1).filter(|line| !line.starts_with('+'));
            let before: Vec<&str> = before.map(|line| line.get(1..).unwrap_or("")).collect();
            assert!(
                source.contains(&before.join("\n")),
                "{} no longer applies: bring it up to date",
                path.display()
            );
        }
    }
    assert!(patches >= 7, "only {patches} planted bugs");
}
