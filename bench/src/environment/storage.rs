//! The disk below a folder, with the layers between.

use std::{
    fs,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{chosen, number, text};
use crate::{mounts::Mount, sample::Disk};

/// Layers that are followed: a loop device on a mapped device on ... .
const LAYERS_MAX: usize = 8;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Storage {
    /// As the kernel calls it: `nvme0n1`.
    pub disk: Option<String>,
    /// Loop and mapped devices between it and the file system, the upper first.
    pub layers: Vec<String>,
    pub model: Option<String>,
    pub firmware: Option<String>,
    pub scheduler: Option<String>,
    /// `write back` (a flush is needed) or `write through`.
    pub write_cache: Option<String>,
    /// Whether one write can be durable without a flush.
    pub forced_unit_access: Option<bool>,
    pub rotational: Option<bool>,
    pub logical_block_bytes: Option<u64>,
    pub queue_requests: Option<u64>,
}

impl Storage {
    pub fn of(dir: &Path) -> Option<Storage> {
        let mut folder = Disk::of(dir)?.folder()?;
        let mut layers = Vec::new();
        while layers.len() < LAYERS_MAX
            && let Some(below) = below(&folder)
        {
            layers.extend(name(&folder));
            folder = below;
        }
        let queue = folder.join("queue");
        let flag = |file: &str| number(queue.join(file)).map(|it| it == 1);
        Some(Storage {
            disk: name(&folder),
            layers,
            model: text(folder.join("device/model")),
            firmware: text(folder.join("device/firmware_rev"))
                .or_else(|| text(folder.join("device/rev"))),
            scheduler: text(queue.join("scheduler")).and_then(|it| chosen(&it)),
            write_cache: text(queue.join("write_cache")),
            forced_unit_access: flag("fua"),
            rotational: flag("rotational"),
            logical_block_bytes: number(queue.join("logical_block_size")),
            queue_requests: number(queue.join("nr_requests")),
        })
    }
}

fn name(folder: &Path) -> Option<String> {
    Some(folder.file_name()?.to_str()?.to_string())
}

/// The device that a loop device's file is on, or the first that a mapped device is made of.
fn below(folder: &Path) -> Option<PathBuf> {
    if let Some(file) = text(folder.join("loop/backing_file")) {
        return Disk::of(Path::new(&file))?.folder();
    }
    let mut parts: Vec<PathBuf> = fs::read_dir(folder.join("slaves"))
        .ok()?
        .flatten()
        .map(|part| part.path())
        .collect();
    parts.sort_unstable();
    let part = parts.first()?.canonicalize().ok()?;
    // A partition has its disk above it.
    if part.join("partition").exists() {
        return part.parent().map(Path::to_path_buf);
    }
    Some(part)
}

/// Type and options, and how much of it is used, as df says it.
pub fn file_system(dir: &Path) -> (Option<String>, Option<f64>) {
    let mount = Mount::of(dir).map(|it| format!("{} ({})", it.file_system, it.options));
    let used = rustix::fs::statvfs(dir).ok().and_then(|it| {
        let used = it.f_blocks.saturating_sub(it.f_bfree);
        let whole = used + it.f_bavail;
        (whole > 0).then(|| (used as f64 / whole as f64 * 1_000.0).round() / 10.0)
    });
    (mount, used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_no_disk_has_no_storage() {
        assert_eq!(Storage::of(Path::new("/proc/self")), None);
        assert_eq!(file_system(Path::new("/not/there")), (None, None));
        let (kind, _) = file_system(Path::new("/proc"));
        assert!(kind.is_some_and(|kind| kind.starts_with("proc (")));
        assert_eq!(below(Path::new("/not/there")), None);
    }
}
