//! What a killed run leaves behind: mounts, loop devices and images, found by the names of their directories.
//!
//! `<temporary directory>/forebay-disk-<pid>-<number>-<name>`. A directory whose process is alive belongs to a test that runs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::system;

const PREFIX: &str = "forebay-disk-";

pub fn dir_of(pid: u32, number: u32, name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("{PREFIX}{pid}-{number}-{name}"))
}

/// Takes down every disk whose process is gone.
pub fn sweep() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(owner);
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(&entry.path());
        }
    }
}

fn owner(name: &str) -> Option<u32> {
    let (pid, _) = name.strip_prefix(PREFIX)?.split_once('-')?;
    pid.parse().ok()
}

/// Removes a disk's directory with all that is mounted in it. A file system that is still in use loses its power first, so that nobody
/// goes on writing to it, and goes away with its last user; its loop device goes with it.
pub fn remove(dir: &Path) {
    let mounted = dir.join("mounted");
    let _ = system::thaw(&mounted);
    if system::is_mount_point(&mounted) {
        let _ = system::shut_down(&mounted, super::PowerLoss::Sudden);
        let _ = system::unmount_lazily(&mounted);
    }
    for image in [dir.join("image"), dir.join("backing/image")] {
        system::detach_image(&image);
    }
    let _ = system::unmount_lazily(&dir.join("backing"));
    if let Err(error) = fs::remove_dir_all(dir) {
        eprintln!("left behind: {}: {error}", dir.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_tells_whose_it_is() {
        let dir = dir_of(4711, 3, "a-b");
        let name = dir.file_name().and_then(|name| name.to_str());
        assert_eq!(name.and_then(owner), Some(4711));
        assert_eq!(owner("forebay-disk-x-1-n"), None);
        assert_eq!(owner("else-4711-1-n"), None);
    }
}
