//! What a disk does, from /proc/diskstats (kernel documentation: admin-guide/iostats), and which disk holds a path or a process's files.
//!
//! A partition is counted as its whole disk, since they share it; a loop device or a mapped device is counted as itself.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use crate::{mounts::Mount, result::run::DiskSample};

/// Open files of a process that are looked at.
const FILES_MAX: usize = 100_000;
/// The kernel counts in these, whatever a disk's own are.
const SECTOR_BYTES: u64 = 512;

/// A block device by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    major: u32,
    minor: u32,
}

impl Disk {
    /// Of a block device, or of the file system that holds a file or folder; None when that is on no disk.
    pub fn of(path: &Path) -> Option<Disk> {
        let metadata = fs::metadata(path).ok()?;
        if metadata.file_type().is_block_device() {
            return Disk::numbered(metadata.rdev()).whole();
        }
        if let Some(disk) = Disk::numbered(metadata.dev()).whole() {
            return Some(disk);
        }
        // Some file systems (btrfs) have a number that is no device's.
        let source = fs::metadata(Mount::of(path)?.source).ok()?;
        let is_device = source.file_type().is_block_device();
        is_device.then(|| Disk::numbered(source.rdev()).whole())?
    }

    fn numbered(device: u64) -> Disk {
        Disk {
            major: libc::major(device),
            minor: libc::minor(device),
        }
    }

    /// Folder of the kernel about it.
    pub fn folder(self) -> Option<PathBuf> {
        let link = format!("/sys/dev/block/{}:{}", self.major, self.minor);
        Path::new(&link).canonicalize().ok()
    }

    fn whole(self) -> Option<Disk> {
        let folder = self.folder()?;
        if !folder.join("partition").exists() {
            return Some(self);
        }
        parse_number(&fs::read_to_string(folder.parent()?.join("dev")).ok()?)
    }

    pub fn counters(self) -> Option<Counters> {
        parse(&fs::read_to_string("/proc/diskstats").ok()?, self)
    }
}

/// The folder where a process has most files open to write, which is where a broker has its log; None when that cannot be seen.
pub fn folder_written_by(pid: u32) -> Option<PathBuf> {
    let mut folders: BTreeMap<u64, (usize, PathBuf)> = BTreeMap::new();
    for file in fs::read_dir(format!("/proc/{pid}/fd"))
        .ok()?
        .take(FILES_MAX)
    {
        let Ok(path) = file.map(|file| file.path()) else {
            continue;
        };
        let (Ok(link), Ok(metadata), Ok(name)) = (
            fs::symlink_metadata(&path),
            fs::metadata(&path),
            fs::read_link(&path),
        ) else {
            continue;
        };
        // The mode of the link says what the file is open for.
        let written = link.mode() & 0o200 != 0;
        let Some(folder) = name.parent().filter(|it| it.is_dir()) else {
            continue;
        };
        if written && metadata.is_file() && Disk::of(folder).is_some() {
            let seen = folders.entry(metadata.dev()).or_default();
            seen.0 += 1;
            if seen.1.as_os_str().is_empty() || folder < seen.1.as_path() {
                seen.1 = folder.to_path_buf();
            }
        }
    }
    let most = folders.into_values().max_by_key(|(files, _)| *files);
    most.map(|(_, folder)| folder)
}

fn parse_number(text: &str) -> Option<Disk> {
    let (major, minor) = text.trim().split_once(':')?;
    Some(Disk {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    })
}

/// All of a disk since the machine started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    reads: u64,
    sectors_read: u64,
    read_ms: u64,
    writes: u64,
    sectors_written: u64,
    write_ms: u64,
    busy_ms: u64,
    flushes: u64,
    flush_ms: u64,
}

impl Counters {
    /// What was done since then. Counters of some kernels go round, and such a second has less.
    pub fn since(&self, before: &Counters, seconds: f64) -> DiskSample {
        let grown = |of: fn(&Counters) -> u64| -> u64 { of(self).saturating_sub(of(before)) };
        let mean = |millis: u64, requests: u64| {
            if requests == 0 {
                0.0
            } else {
                millis as f64 / requests as f64
            }
        };
        let (reads, writes, flushes) = (
            grown(|it| it.reads),
            grown(|it| it.writes),
            grown(|it| it.flushes),
        );
        DiskSample {
            read_bytes: grown(|it| it.sectors_read).saturating_mul(SECTOR_BYTES),
            written_bytes: grown(|it| it.sectors_written).saturating_mul(SECTOR_BYTES),
            reads,
            writes,
            flushes,
            busy: (grown(|it| it.busy_ms) as f64 / 1e3 / seconds).min(1.0),
            await_ms: mean(
                grown(|it| it.read_ms).saturating_add(grown(|it| it.write_ms)),
                reads.saturating_add(writes),
            ),
            flush_await_ms: mean(grown(|it| it.flush_ms), flushes),
        }
    }
}

fn parse(diskstats: &str, disk: Disk) -> Option<Counters> {
    let (major, minor) = (disk.major.to_string(), disk.minor.to_string());
    diskstats.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        if fields.next()? != major || fields.next()? != minor {
            return None;
        }
        let numbers: Vec<u64> = fields.skip(1).map_while(|it| it.parse().ok()).collect();
        // Kernels before 5.5 do not count flushes.
        let number = |at: usize| numbers.get(at).copied().unwrap_or(0);
        (numbers.len() >= 11).then(|| Counters {
            reads: number(0),
            sectors_read: number(2),
            read_ms: number(3),
            writes: number(4),
            sectors_written: number(6),
            write_ms: number(7),
            busy_ms: number(9),
            flushes: number(15),
            flush_ms: number(16),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VDA: Disk = Disk {
        major: 254,
        minor: 0,
    };

    #[test]
    fn the_line_of_a_disk_is_found_and_read() {
        let text = "   7       0 loop0 1 2 3 4 5 6 7 8 9 10 11
 254      01 vda 9 9 9 9 9 9 9 9 9 9 9
 254       0 vda 100 0 800 50 200 0 1600 300 0 400 700 0 0 0 0 10 20
";
        let counters = parse(text, VDA).expect("vda");
        assert_eq!((counters.reads, counters.flushes), (100, 10));
        let sample = counters.since(&Counters::default(), 0.5);
        let expected = DiskSample {
            read_bytes: 409_600,
            written_bytes: 819_200,
            reads: 100,
            writes: 200,
            flushes: 10,
            busy: 0.8,
            await_ms: 350.0 / 300.0,
            flush_await_ms: 2.0,
        };
        assert_eq!(sample, expected);
        // Nothing happened, or the counters went round.
        assert_eq!(counters.since(&counters, 1.0), DiskSample::default());
        assert_eq!(
            Counters::default().since(&counters, 1.0),
            DiskSample::default()
        );
    }

    #[test]
    fn odd_texts_have_no_disk() {
        for odd in [
            "",
            "254",
            "254 0",
            "254 0 vda",
            "254 0 vda 1 2 3",
            "254 0 vda 1 2 x 4 5 6 7 8 9 10 11",
            "254 1 vda1 1 2 3 4 5 6 7 8 9 10 11",
        ] {
            assert_eq!(parse(odd, VDA), None, "{odd}");
        }
        // An old kernel.
        let old = parse("254 0 vda 1 2 3 4 5 6 7 8 9 10 11", VDA).expect("vda");
        assert_eq!((old.reads, old.busy_ms, old.flushes), (1, 10, 0));
        for (odd, expected) in [("8:1\n", true), ("", false), ("8", false), ("8:x", false)] {
            assert_eq!(parse_number(odd).is_some(), expected, "{odd}");
        }
    }

    #[test]
    fn what_is_on_no_disk_has_none() {
        assert_eq!(Disk::of(Path::new("/proc/self")), None);
        assert_eq!(Disk::of(Path::new("/not/there")), None);
        assert_eq!(folder_written_by(u32::MAX), None);
    }

    #[test]
    fn a_process_is_found_out_by_the_files_it_writes() {
        let dir = std::env::temp_dir().join(format!("forebay-files-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("create");
        let files: Vec<_> = (0..64)
            .map(|number| fs::File::create(dir.join(number.to_string())).expect("create"))
            .collect();
        let found = folder_written_by(std::process::id());
        if let Some(disk) = Disk::of(&dir) {
            assert_eq!(found.and_then(|found| Disk::of(&found)), Some(disk));
            assert!(disk.counters().is_some());
        }
        drop(files);
        fs::remove_dir_all(&dir).expect("remove");
    }
}
