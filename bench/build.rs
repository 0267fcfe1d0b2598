//! Sets `FOREBAY_REVISION`, so that a result says what was measured. Without git, or outside a repository, it is not set.

use std::{path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Changes that were not committed: each is a change to one of these.
    for sources in ["src", "Cargo.toml", "../engine/src", "../Cargo.lock"] {
        println!("cargo::rerun-if-changed={sources}");
    }
    let Some(revision) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return;
    };
    // Of the branch that is checked out only: a worktree does not build anew when another commits.
    watch("--git-dir", "HEAD");
    if let Some(branch) = git(&["rev-parse", "--symbolic-full-name", "HEAD"]) {
        watch("--git-common-dir", &branch);
    }
    let changes = git(&["status", "--porcelain", "--untracked-files=no"]);
    let dirty = if changes.is_none_or(|it| it.is_empty()) {
        ""
    } else {
        "-dirty"
    };
    println!("cargo::rustc-env=FOREBAY_REVISION={revision}{dirty}");
}

/// A file that is missing would have the script run at every build.
fn watch(root: &str, file: &str) {
    if let Some(root) = git(&["rev-parse", root]) {
        let path = Path::new(&root).join(file);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
}

/// What it says, when it could do it.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_string())
}
