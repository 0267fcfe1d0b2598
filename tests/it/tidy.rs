//! The rules of this code base that a compiler does not check. The lists of exceptions may only shrink.

use std::{
    fs,
    path::{Path, PathBuf},
};

const FILE_LINES_MAX: usize = 800;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the workspace")
}

/// Every source file of ours, as (path from the root, text).
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for top in ["engine", "server", "bench", "tuning", "tests"] {
        collect(&root().join(top), &mut found);
    }
    assert!(found.len() > 30, "only {} source files found", found.len());
    found
}

fn collect(dir: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).expect("a source directory can be read") {
        let path: PathBuf = entry.expect("a source directory can be read").path();
        if path.is_dir() {
            if !path.ends_with("target") {
                collect(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("sources are UTF-8");
            let name = path
                .strip_prefix(root())
                .expect("below the root")
                .display()
                .to_string();
            found.push((name, text));
        }
    }
}

/// Files that hold nothing but tests, or what tests need.
fn is_test(name: &str) -> bool {
    name.ends_with("/tests.rs") || name.contains("/tests/") || name.starts_with("tests/")
}

/// The part of a file that is not its unit tests.
fn production(text: &str) -> &str {
    let parts = text.split("\n#[cfg(test)]\nmod tests {").next();
    parts.expect("split gives at least one part")
}

#[track_caller]
fn check_none(what: &str, offenders: &[String]) {
    assert!(
        offenders.is_empty(),
        "{what}:\n  {}",
        offenders.join("\n  ")
    );
}

#[test]
fn every_file_says_why_it_exists() {
    let offenders: Vec<String> = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(name, _)| name)
        .collect();
    check_none("files that do not open with //!", &offenders);
}

#[test]
fn files_stay_small() {
    let offenders: Vec<String> = sources()
        .iter()
        .map(|(name, text)| (name, production(text).lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(name, lines)| format!("{name}: {lines} lines"))
        .collect();
    check_none("files that have outgrown one head", &offenders);
}

#[test]
fn sources_are_ascii() {
    let mut offenders = Vec::new();
    for (name, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            if !line.is_ascii() {
                offenders.push(format!("{name}:{}", number + 1));
            }
        }
    }
    check_none("lines that are not ASCII", &offenders);
}

/// (below this path, not allowed to say, but for these files)
const LAYERS: [(&str, &[&str], &[&str]); 9] = [
    ("engine/src", &["glommio"], &["engine/src/rt/uring"]),
    (
        "engine/src",
        &["std::fs", "std::thread", "std::time::Instant", "SystemTime"],
        &["engine/src/rt/"],
    ),
    ("engine/src", &["forebay_server", "kafka_protocol"], &[]),
    (
        "engine/src/batch",
        &[
            "crate::log",
            "crate::segment",
            "crate::journal",
            "crate::engine",
            "crate::rt",
        ],
        &[],
    ),
    (
        "engine/src/segment",
        &["crate::log", "crate::engine", "crate::journal"],
        &[],
    ),
    (
        "engine/src/journal",
        &["crate::log", "crate::engine", "crate::segment"],
        &[],
    ),
    ("server/src", &["glommio"], &[]),
    (
        "server/src/coord",
        &["kafka_protocol", "crate::wire", "crate::net", "crate::api"],
        &[],
    ),
    (
        "server/src/meta",
        &["kafka_protocol", "crate::wire", "crate::net", "crate::api"],
        &[],
    ),
];

#[test]
fn layers_do_not_reach_upward() {
    let mut offenders = Vec::new();
    for (name, text) in sources() {
        for (below, words, exceptions) in LAYERS {
            let excepted = exceptions.iter().any(|part| name.starts_with(part));
            if !name.starts_with(below) || is_test(&name) || excepted {
                continue;
            }
            for (number, line) in production(&text).lines().enumerate() {
                let code = line
                    .split("//")
                    .next()
                    .expect("split gives at least one part");
                if let Some(word) = words.iter().find(|word| code.contains(**word)) {
                    offenders.push(format!("{name}:{}: {word}", number + 1));
                }
            }
        }
    }
    check_none("names from the wrong layer", &offenders);
}

#[test]
fn nothing_is_left_half_done() {
    let words = [
        "todo!(",
        "unimplemented!(",
        "#[ignore",
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ];
    let mut offenders = Vec::new();
    for (name, text) in sources() {
        if name == "tests/it/tidy.rs" {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                offenders.push(format!("{name}:{}: {word}", number + 1));
            }
        }
    }
    check_none("left half done", &offenders);
}
