//! Where a run keeps its files, and whether there is room for them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::append::on_one_shard;

/// The engine's journals, and files of the raw device.
pub const BASE_BYTES: u64 = 1 << 30;

/// Of this the engine refuses appends (`SpaceConfig::reserve_bytes`), so a run must not come near it.
const RESERVE_BYTES: u64 = 1 << 30;

/// A folder that is removed when the run ends, well or not.
pub struct Folder(pub PathBuf);

impl Folder {
    /// In `dir`, which must exist and have room for what the run writes.
    pub fn create(dir: &Path, planned_bytes: u64) -> Result<Folder, String> {
        if !dir.is_dir() {
            return Err(format!("--dir {}: no such directory", dir.display()));
        }
        let of_shard = dir.to_path_buf();
        let space = on_one_shard(move |rt| async move {
            let space = rt.disk_space(&of_shard).await;
            space.map_err(|error| format!("{}: {error}", of_shard.display()))
        })?;
        let needed = planned_bytes.saturating_add(RESERVE_BYTES.min(space.total_bytes / 10));
        if space.available_bytes < needed {
            return Err(format!(
                "--dir {}: the run needs about {} MiB free, and {} MiB are",
                dir.display(),
                needed >> 20,
                space.available_bytes >> 20
            ));
        }
        let path = dir.join(format!("forebay-bench-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(dir: &Path, planned_bytes: u64) -> String {
        match Folder::create(dir, planned_bytes) {
            Ok(folder) => panic!("{} was made", folder.0.display()),
            Err(why) => why,
        }
    }

    #[test]
    fn a_run_without_room_is_refused_before_it_begins() {
        let dir = std::env::temp_dir();
        assert!(refused(&dir, 1 << 60).contains("MiB free"));
        let missing = dir.join("forebay-bench-no-such-directory");
        assert!(refused(&missing, 0).contains("no such directory"));
        assert!(!missing.exists());
    }
}
