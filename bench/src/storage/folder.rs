//! Where a run keeps its files, whether there is room for them, and where its result goes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use forebay_engine::SpaceConfig;
use serde::Serialize;

use super::subject::on_one_shard;
use crate::limits::{ROUNDS_MAX, within};

/// The engine's journals, and files of the raw device.
pub const BASE_BYTES: u64 = 1 << 30;

/// What every measurement of a disk asks for.
#[derive(Clone, Debug, Args, Serialize)]
pub struct RunOptions {
    /// Rounds; the sides take turns within each
    #[arg(long, default_value_t = 5)]
    pub rounds: u32,
    /// Ends within 30 seconds: two or three short rounds, and fewer and smaller logs
    #[arg(long)]
    pub quick: bool,
    /// Directory on the disk to measure; a folder of our own is made in it and removed
    #[arg(long, default_value = ".")]
    #[serde(skip)]
    pub dir: PathBuf,
    /// New folder for result.json, report.html, series.csv and the histograms
    #[arg(long, value_name = "DIR")]
    #[serde(skip)]
    pub out: Option<PathBuf>,
    /// What to call this side in reports
    #[arg(long)]
    #[serde(skip)]
    pub label: Option<String>,
}

impl RunOptions {
    pub fn check(&self) -> Result<(), String> {
        within("--rounds", self.rounds, 1..=ROUNDS_MAX)
    }

    /// A folder for what the run writes, for which there must be room.
    pub fn folder(&self, planned_bytes: u64) -> Result<Folder, String> {
        Folder::create(&self.dir, planned_bytes)
    }
}

/// A folder that is removed when the run ends, well or not.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// In `dir`, which must exist and have room for what the run writes.
    fn create(dir: &Path, planned_bytes: u64) -> Result<Folder, String> {
        if !dir.is_dir() {
            return Err(format!("--dir {}: no such directory", dir.display()));
        }
        check_room(dir, planned_bytes)?;
        let path = dir.join(format!("forebay-bench-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Folder(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// An empty folder in it.
    pub fn make(&self, name: &str) -> Result<PathBuf, String> {
        let dir = self.0.join(name);
        fs::create_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(dir)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// With all that is in it.
pub fn remove(dir: &Path) -> Result<(), String> {
    fs::remove_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))
}

/// Files below it with this ending that have something in them; all of them without one. In their order.
pub fn files(dir: &Path, ending: &str) -> Result<Vec<PathBuf>, String> {
    let said = |error: std::io::Error| format!("{}: {error}", dir.display());
    let (mut found, mut dirs) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).map_err(said)? {
            let entry = entry.map_err(said)?;
            let (path, about) = (entry.path(), entry.metadata().map_err(said)?);
            let ends = ending.is_empty() || path.extension().is_some_and(|it| it == ending);
            if about.is_dir() {
                dirs.push(path);
            } else if ends && about.len() > 0 {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Near its reserve the engine refuses appends, so the run must not come to it.
fn check_room(dir: &Path, planned_bytes: u64) -> Result<(), String> {
    let of_shard = dir.to_path_buf();
    let space = on_one_shard(move |rt| async move {
        let space = rt.disk_space(&of_shard).await;
        space.map_err(|error| format!("{}: {error}", of_shard.display()))
    })?;
    let reserve_bytes = SpaceConfig::default().reserve_bytes_of(space.total_bytes);
    let needed = planned_bytes.saturating_add(reserve_bytes);
    if space.available_bytes >= needed {
        return Ok(());
    }
    Err(format!(
        "--dir {}: the run needs about {} MiB free, and {} MiB are",
        dir.display(),
        needed >> 20,
        space.available_bytes >> 20
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(dir: &Path, planned_bytes: u64) -> String {
        let made = Folder::create(dir, planned_bytes);
        made.expect_err("the run cannot be done")
    }

    #[test]
    fn a_run_without_room_is_refused_before_it_begins() {
        let dir = std::env::temp_dir();
        assert!(refused(&dir, 1 << 60).contains("MiB free"));
        assert!(refused(&dir, u64::MAX).contains("MiB free"));
        let missing = dir.join("forebay-bench-no-such-directory");
        assert!(refused(&missing, 0).contains("no such directory"));
        assert!(!missing.exists());
    }

    #[test]
    fn a_folder_goes_with_all_that_is_in_it() {
        let folder = Folder::create(&std::env::temp_dir(), 0).expect("there is room for nothing");
        let inner = folder.make("round-0").expect("it is new");
        fs::write(inner.join("file"), "something").expect("the folder is ours");
        assert!(folder.make("round-0").is_err(), "it is there");
        let path = folder.path().to_path_buf();
        drop(folder);
        assert!(!path.exists());
    }
}
