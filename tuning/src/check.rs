//! Findings: what a probe told, what a log-structured broker on direct I/O and io_uring wants, and the exact remedy.

use std::{io, path::Path};

use serde::Serialize;

use crate::probe::{self, DirectIo, FileSystem, Limit, Uring};

/// glommio asks for this much locked memory per executor, else it goes without registered buffers.
const MEMLOCK_PER_SHARD_MIN: u64 = 512 << 10;
const NOFILE_WANTED: u64 = 1 << 20;
const NOFILE_MIN: u64 = 4096;
/// Our buffers and positions are multiples of this.
const ALIGNMENT: u32 = 4096;
const KERNEL_MIN: (u32, u32) = (5, 15);
const KERNEL_WANTED: (u32, u32) = (6, 1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Ok,
    /// Could not be told, for want of rights or of support here: not a failure.
    Unknown,
    Warn,
    /// The broker will not start, or would not keep its promises.
    Fatal,
}

#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub id: &'static str,
    pub severity: Severity,
    pub current: String,
    pub wanted: String,
    pub why: &'static str,
    /// What to type or change; empty when there is nothing to do.
    pub remedy: String,
}

/// All checks, in the order in which they are worth reading.
pub fn all(data_dir: &Path, shards: u64) -> Vec<Finding> {
    vec![
        kernel(probe::kernel()),
        uring(&probe::uring()),
        memlock(probe::memlock(), shards),
        nofile(probe::nofile()),
        file_system(probe::file_system(data_dir)),
        direct_io(
            probe::direct_io(data_dir),
            probe::direct_io_round_trip(data_dir),
        ),
    ]
}

fn unknown(id: &'static str, wanted: &str, why: &'static str, error: &io::Error) -> Finding {
    Finding {
        id,
        severity: Severity::Unknown,
        current: format!("unknown: {error}"),
        wanted: wanted.to_string(),
        why,
        remedy: String::new(),
    }
}

fn kernel(found: io::Result<((u32, u32), String)>) -> Finding {
    let id = "kernel.release";
    let wanted = format!("{}.{} or newer", KERNEL_WANTED.0, KERNEL_WANTED.1);
    let why = "older kernels lack parts of io_uring, and before 6.1 they do not state the alignment of direct I/O";
    let (version, release) = match found {
        Ok(found) => found,
        Err(error) => return unknown(id, &wanted, why, &error),
    };
    let severity = match version {
        version if version >= KERNEL_WANTED => Severity::Ok,
        version if version >= KERNEL_MIN => Severity::Warn,
        _ => Severity::Fatal,
    };
    let remedy = if severity == Severity::Ok {
        String::new()
    } else {
        "install a newer kernel".to_string()
    };
    Finding {
        id,
        severity,
        current: release,
        wanted,
        why,
        remedy,
    }
}

fn uring(found: &Uring) -> Finding {
    let (severity, current, remedy) = match found {
        Uring::Works { features } => (
            Severity::Ok,
            format!("works (features {features:#x})"),
            String::new(),
        ),
        Uring::Missing => (
            Severity::Fatal,
            "the kernel has no io_uring".to_string(),
            "run a kernel with CONFIG_IO_URING=y".to_string(),
        ),
        Uring::DisabledBySysctl { level, group } => (
            Severity::Fatal,
            format!("switched off by kernel.io_uring_disabled={level}"),
            disabled_remedy(*level, *group),
        ),
        Uring::FilteredBySeccomp => (
            Severity::Fatal,
            "refused by a seccomp filter (container run time or service unit)".to_string(),
            "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile"
                .to_string(),
        ),
        Uring::MemlockTooLow => (
            Severity::Fatal,
            "not enough locked memory for a ring".to_string(),
            "raise the limit: LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited"
                .to_string(),
        ),
        Uring::Failed { errno } => (
            Severity::Fatal,
            format!(
                "io_uring_setup failed: {}",
                io::Error::from_raw_os_error(*errno)
            ),
            "see io_uring_setup(2) for this error".to_string(),
        ),
    };
    Finding {
        id: "uring.available",
        severity,
        current,
        wanted: "works".to_string(),
        why: "all disk and network I/O of the broker goes through io_uring",
        remedy,
    }
}

fn disabled_remedy(level: u32, group: Option<i64>) -> String {
    match (level, group) {
        (1, Some(gid)) if gid >= 0 => {
            format!(
                "add the broker's user to group {gid} (kernel.io_uring_group), or: sysctl -w kernel.io_uring_disabled=0"
            )
        }
        _ => "sysctl -w kernel.io_uring_disabled=0 (and a file in /etc/sysctl.d to keep it)"
            .to_string(),
    }
}

fn limit_text(limit: Limit) -> String {
    let text = |value: Option<u64>| value.map_or("unlimited".to_string(), |v| v.to_string());
    format!("soft {}, hard {}", text(limit.soft), text(limit.hard))
}

fn memlock(found: io::Result<Limit>, shards: u64) -> Finding {
    let id = "rlimit.memlock";
    let needed = MEMLOCK_PER_SHARD_MIN * shards;
    let wanted = format!("unlimited, at least {needed} bytes for {shards} shards");
    let why = "each shard registers its I/O buffers, which counts as locked memory; below 512 KiB it cannot start";
    let limit = match found {
        Ok(limit) => limit,
        Err(error) => return unknown(id, &wanted, why, &error),
    };
    let severity = match limit.soft {
        None => Severity::Ok,
        Some(bytes) if bytes >= needed => Severity::Ok,
        Some(bytes) if bytes >= MEMLOCK_PER_SHARD_MIN => Severity::Warn,
        Some(_) => Severity::Fatal,
    };
    let remedy = match severity {
        Severity::Ok => String::new(),
        _ => {
            "LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited before the start".to_string()
        }
    };
    Finding {
        id,
        severity,
        current: limit_text(limit),
        wanted,
        why,
        remedy,
    }
}

fn nofile(found: io::Result<Limit>) -> Finding {
    let id = "rlimit.nofile";
    let wanted = format!("{NOFILE_WANTED} or more");
    let why = "every segment that is open and every connection takes a file descriptor";
    let limit = match found {
        Ok(limit) => limit,
        Err(error) => return unknown(id, &wanted, why, &error),
    };
    // The broker raises its soft limit to the hard one by itself.
    let severity = match limit.hard {
        None => Severity::Ok,
        Some(files) if files >= NOFILE_WANTED => Severity::Ok,
        Some(files) if files >= NOFILE_MIN => Severity::Warn,
        Some(_) => Severity::Fatal,
    };
    let remedy = match severity {
        Severity::Ok => String::new(),
        _ => format!("LimitNOFILE={NOFILE_WANTED} in the unit, or ulimit -n {NOFILE_WANTED}"),
    };
    Finding {
        id,
        severity,
        current: limit_text(limit),
        wanted,
        why,
        remedy,
    }
}

fn file_system(found: io::Result<FileSystem>) -> Finding {
    let id = "fs.type";
    let wanted = "xfs or ext4 on a local disk, data=ordered".to_string();
    let why = "direct I/O with durable writes is what the log is built on; file systems in memory, in layers or behind a network do not keep it";
    let found = match found {
        Ok(found) => found,
        Err(error) => return unknown(id, &wanted, why, &error),
    };
    let journals_data = found
        .options
        .split(',')
        .any(|option| option == "data=journal");
    let no_barrier = found
        .options
        .split(',')
        .any(|o| o == "nobarrier" || o == "barrier=0");
    let (severity, remedy) = match found.kind.as_str() {
        _ if no_barrier => (
            Severity::Fatal,
            "mount it with barriers: without them a durable write is not durable",
        ),
        "ext4" if journals_data => (
            Severity::Fatal,
            "mount it with data=ordered: data=journal turns direct I/O off",
        ),
        "xfs" | "ext4" => (Severity::Ok, ""),
        "btrfs" | "zfs" | "f2fs" | "bcachefs" => (Severity::Warn, "untested: prefer xfs or ext4"),
        _ => (
            Severity::Fatal,
            "put the data directory on an xfs or ext4 file system of a local disk",
        ),
    };
    Finding {
        id,
        severity,
        current: format!(
            "{} at {} ({})",
            found.kind,
            found.mount_point.display(),
            found.options
        ),
        wanted,
        why,
        remedy: remedy.to_string(),
    }
}

fn direct_io(stated: io::Result<DirectIo>, round_trip: io::Result<()>) -> Finding {
    let id = "fs.direct_io";
    let wanted =
        format!("memory and offset alignment of at most {ALIGNMENT} bytes, proven by a write");
    let why = "the log bypasses the page cache; a file system that falls back to it silently breaks both speed and durability";
    let stated = match stated {
        Ok(stated) => stated,
        Err(error) => return unknown(id, &wanted, why, &error),
    };
    let current = match stated {
        DirectIo::Stated {
            memory_align,
            offset_align,
        } => {
            format!("memory {memory_align}, offset {offset_align} bytes")
        }
        DirectIo::Unsupported => "not supported on this file system".to_string(),
        DirectIo::Unstated => "not stated by this kernel or file system".to_string(),
    };
    let fits = match stated {
        DirectIo::Stated {
            memory_align,
            offset_align,
        } => memory_align <= ALIGNMENT && offset_align <= ALIGNMENT,
        DirectIo::Unsupported => false,
        DirectIo::Unstated => true,
    };
    let (severity, current, remedy) = match (fits, round_trip) {
        (true, Ok(())) => (Severity::Ok, current, String::new()),
        (false, _) => (
            Severity::Fatal,
            current,
            "use a file system with direct I/O and blocks of at most 4096 bytes".to_string(),
        ),
        (true, Err(error)) => (
            Severity::Fatal,
            format!("{current}; a direct write failed: {error}"),
            "use a file system with direct I/O (xfs, ext4)".to_string(),
        ),
    };
    Finding {
        id,
        severity,
        current,
        wanted,
        why,
        remedy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(finding: &Finding, severity: Severity) {
        assert_eq!(finding.severity, severity, "{finding:?}");
        let silent = matches!(severity, Severity::Ok | Severity::Unknown);
        assert_eq!(
            finding.remedy.is_empty(),
            silent,
            "a remedy iff there is something to remedy"
        );
    }

    #[test]
    fn limits_are_graded() {
        let limit = |soft, hard| Ok(Limit { soft, hard });
        check(&memlock(limit(None, None), 8), Severity::Ok);
        check(
            &memlock(limit(Some(8 << 20), Some(8 << 20)), 2),
            Severity::Ok,
        );
        check(
            &memlock(limit(Some(1 << 20), Some(1 << 20)), 8),
            Severity::Warn,
        );
        check(&memlock(limit(Some(64 << 10), None), 1), Severity::Fatal);
        check(&nofile(limit(Some(1024), Some(1 << 20))), Severity::Ok);
        check(&nofile(limit(Some(1024), Some(20_000))), Severity::Warn);
        check(&nofile(limit(Some(256), Some(256))), Severity::Fatal);
        check(
            &nofile(Err(io::ErrorKind::PermissionDenied.into())),
            Severity::Unknown,
        );
    }

    #[test]
    fn file_systems_are_graded() {
        let on = |kind: &str, options: &str| {
            file_system(Ok(FileSystem {
                kind: kind.to_string(),
                mount_point: "/data".into(),
                options: options.to_string(),
            }))
        };
        check(&on("xfs", "rw,noatime"), Severity::Ok);
        check(&on("ext4", "rw,relatime"), Severity::Ok);
        check(&on("ext4", "rw,data=journal"), Severity::Fatal);
        check(&on("ext4", "rw,barrier=0"), Severity::Fatal);
        check(&on("btrfs", "rw"), Severity::Warn);
        for kind in ["tmpfs", "overlay", "nfs4", "9p", "fuse.sshfs"] {
            check(&on(kind, "rw"), Severity::Fatal);
        }
    }

    #[test]
    fn direct_io_is_believed_only_when_it_works() {
        let stated = |memory_align, offset_align| {
            Ok(DirectIo::Stated {
                memory_align,
                offset_align,
            })
        };
        let refused = || Err(io::Error::from_raw_os_error(libc::EINVAL));
        check(&direct_io(stated(512, 512), Ok(())), Severity::Ok);
        check(&direct_io(stated(4, 4096), Ok(())), Severity::Ok);
        check(&direct_io(stated(512, 16_384), Ok(())), Severity::Fatal);
        check(&direct_io(stated(512, 512), refused()), Severity::Fatal);
        check(&direct_io(Ok(DirectIo::Unstated), Ok(())), Severity::Ok);
        check(
            &direct_io(Ok(DirectIo::Unsupported), refused()),
            Severity::Fatal,
        );
    }

    #[test]
    fn old_kernels_and_absent_rings_are_fatal() {
        let release = |major, minor| kernel(Ok(((major, minor), format!("{major}.{minor}.0"))));
        check(&release(6, 18), Severity::Ok);
        check(&release(5, 15), Severity::Warn);
        check(&release(5, 4), Severity::Fatal);
        check(&uring(&Uring::Works { features: 1 }), Severity::Ok);
        for found in [
            Uring::Missing,
            Uring::DisabledBySysctl {
                level: 1,
                group: Some(1000),
            },
            Uring::DisabledBySysctl {
                level: 2,
                group: None,
            },
            Uring::FilteredBySeccomp,
            Uring::MemlockTooLow,
            Uring::Failed {
                errno: libc::EINVAL,
            },
        ] {
            check(&uring(&found), Severity::Fatal);
        }
    }
}
