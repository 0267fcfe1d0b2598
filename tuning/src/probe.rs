//! Facts about the host, each read with the system call or file that tells the truth about it.
//!
//! Sources: io_uring_setup(2), statx(2) (`STATX_DIOALIGN`, since Linux 6.1), statfs(2), getrlimit(2), open(2) (`O_DIRECT`),
//! and Documentation/admin-guide/sysctl/kernel.rst of the kernel (`io_uring_disabled`, `io_uring_group`).

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    ffi::CString,
    fs, io,
    os::{fd::AsRawFd, unix::ffi::OsStrExt, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Why io_uring cannot be used, told apart because the remedies differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uring {
    Works {
        features: u32,
    },
    /// The kernel was built without it, or is too old.
    Missing,
    /// `kernel.io_uring_disabled` is 1 (and we are not in the group) or 2.
    DisabledBySysctl {
        level: u32,
        group: Option<i64>,
    },
    /// A seccomp filter is at work and the sysctl is not to blame.
    FilteredBySeccomp,
    /// The ring's memory does not fit the locked-memory limit (kernels before 5.12).
    MemlockTooLow,
    Failed {
        errno: i32,
    },
}

/// Enough of `struct io_uring_params`: the kernel writes 120 bytes.
#[repr(C)]
struct UringParams {
    head: [u32; 5],
    features: u32,
    rest: [u32; 24],
}

const _: () = assert!(size_of::<UringParams>() == 120);

pub fn uring() -> Uring {
    let mut params = UringParams {
        head: [0; 5],
        features: 0,
        rest: [0; 24],
    };
    // SAFETY: io_uring_setup reads and writes one io_uring_params, whose size the assertion above fixes.
    #[allow(unsafe_code)]
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4_u32, &raw mut params) };
    if fd >= 0 {
        let fd = i32::try_from(fd).expect("a file descriptor fits an int");
        // SAFETY: the descriptor was just made for us and nobody else knows it.
        #[allow(unsafe_code)]
        unsafe {
            libc::close(fd)
        };
        return Uring::Works {
            features: params.features,
        };
    }
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
    explain_uring_failure(errno, &Sysctls::read(), seccomp_mode())
}

/// What the kernel says about who may use io_uring.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sysctls {
    pub io_uring_disabled: Option<u32>,
    pub io_uring_group: Option<i64>,
}

impl Sysctls {
    fn read() -> Sysctls {
        Sysctls {
            io_uring_disabled: number("/proc/sys/kernel/io_uring_disabled"),
            io_uring_group: number("/proc/sys/kernel/io_uring_group"),
        }
    }
}

fn number<T: std::str::FromStr>(path: &str) -> Option<T> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// `Seccomp:` of /proc/self/status: 0 off, 1 strict, 2 filter.
fn seccomp_mode() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp:"));
    line.and_then(|mode| mode.trim().parse().ok()).unwrap_or(0)
}

/// EPERM alone does not tell a sysctl from a filter: the sysctl is read first, and blamed only if it is set.
fn explain_uring_failure(errno: i32, sysctls: &Sysctls, seccomp: u32) -> Uring {
    match errno {
        libc::ENOSYS if seccomp == 2 => Uring::FilteredBySeccomp,
        libc::ENOSYS => Uring::Missing,
        libc::ENOMEM => Uring::MemlockTooLow,
        libc::EPERM | libc::EACCES => match sysctls.io_uring_disabled {
            Some(level) if level > 0 => Uring::DisabledBySysctl {
                level,
                group: sysctls.io_uring_group,
            },
            _ if seccomp == 2 => Uring::FilteredBySeccomp,
            _ => Uring::Failed { errno },
        },
        errno => Uring::Failed { errno },
    }
}

/// A soft and hard limit of this process; `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

fn limit(resource: libc::__rlimit_resource_t) -> io::Result<Limit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: getrlimit writes one rlimit, which lives here.
    #[allow(unsafe_code)]
    let result = unsafe { libc::getrlimit(resource, &raw mut limit) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let known = |value: u64| (value != libc::RLIM_INFINITY).then_some(value);
    Ok(Limit {
        soft: known(limit.rlim_cur),
        hard: known(limit.rlim_max),
    })
}

pub fn memlock() -> io::Result<Limit> {
    limit(libc::RLIMIT_MEMLOCK)
}

pub fn nofile() -> io::Result<Limit> {
    limit(libc::RLIMIT_NOFILE)
}

/// The file system a directory lies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    pub kind: String,
    pub mount_point: PathBuf,
    pub options: String,
}

/// The mount of /proc/self/mountinfo that holds `path`: the longest mount point that is a prefix, the last one if equal.
pub fn file_system(path: &Path) -> io::Result<FileSystem> {
    let path = path.canonicalize()?;
    find_mount(&fs::read_to_string("/proc/self/mountinfo")?, &path)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no mount holds the path"))
}

fn find_mount(mountinfo: &str, path: &Path) -> Option<FileSystem> {
    let mut best: Option<FileSystem> = None;
    for line in mountinfo.lines() {
        // 36 35 98:0 /root /mount/point options [optional fields] - type source super_options
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(4);
        let (mount_point, options) = (fields.next()?, fields.next()?);
        let mount_point = PathBuf::from(unescape(mount_point));
        if !path.starts_with(&mount_point) {
            continue;
        }
        let deeper = best.as_ref().is_none_or(|best| {
            mount_point.components().count() >= best.mount_point.components().count()
        });
        if deeper {
            let mut after = after.split(' ');
            let kind = after.next()?.to_string();
            let super_options = after.nth(1).unwrap_or_default();
            best = Some(FileSystem {
                kind,
                mount_point,
                options: format!("{options},{super_options}"),
            });
        }
    }
    best
}

/// mountinfo writes space, tab, newline and backslash in octal.
fn unescape(field: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(field.to_string(), |text, (code, plain)| {
        text.replace(code, plain)
    })
}

/// What direct I/O asks of memory and offsets on the file system of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectIo {
    /// As the kernel states it (`STATX_DIOALIGN`).
    Stated {
        memory_align: u32,
        offset_align: u32,
    },
    /// The kernel says that this file system has none.
    Unsupported,
    /// The kernel does not say (before 6.1, or the file system does not tell).
    Unstated,
}

/// Asks for the alignment with a file of our own in `dir`, since directories have none.
pub fn direct_io(dir: &Path) -> io::Result<DirectIo> {
    let probe = ProbeFile::create(dir)?;
    let name = CString::new(probe.path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "path with a NUL"))?;
    // SAFETY: all-zero bytes are a valid statx (integers only).
    #[allow(unsafe_code)]
    let mut statx: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the name is NUL-terminated and statx writes one struct, which lives here.
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::statx(
            libc::AT_FDCWD,
            name.as_ptr(),
            0,
            libc::STATX_DIOALIGN,
            &raw mut statx,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(if statx.stx_mask & libc::STATX_DIOALIGN == 0 {
        DirectIo::Unstated
    } else if statx.stx_dio_offset_align == 0 {
        DirectIo::Unsupported
    } else {
        DirectIo::Stated {
            memory_align: statx.stx_dio_mem_align,
            offset_align: statx.stx_dio_offset_align,
        }
    })
}

/// Writes one aligned block with `O_DIRECT` and reads it back: some file systems accept the flag and fail at the write.
pub fn direct_io_round_trip(dir: &Path) -> io::Result<()> {
    const BLOCK: usize = 4096;
    let probe = ProbeFile::create(dir)?;
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(&probe.path)?;
    let layout = Layout::from_size_align(BLOCK, BLOCK).expect("a power of two is an alignment");
    // SAFETY: the layout is not empty; the block is checked, used only for its length, and freed with the same layout.
    #[allow(unsafe_code)]
    unsafe {
        let block = alloc_zeroed(layout);
        if block.is_null() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        block.write_bytes(0x5A, BLOCK);
        let written = libc::pwrite(file.as_raw_fd(), block.cast(), BLOCK, 0);
        let write_error = io::Error::last_os_error();
        block.write_bytes(0, BLOCK);
        let read = libc::pread(file.as_raw_fd(), block.cast(), BLOCK, 0);
        let read_error = io::Error::last_os_error();
        let same = std::slice::from_raw_parts(block, BLOCK)
            .iter()
            .all(|byte| *byte == 0x5A);
        dealloc(block, layout);
        match (written, read) {
            (4096, 4096) if same => Ok(()),
            (4096, 4096) => Err(io::Error::other("direct I/O read back other bytes")),
            (4096, _) => Err(read_error),
            _ => Err(write_error),
        }
    }
}

/// A small file that is removed again.
struct ProbeFile {
    path: PathBuf,
}

impl ProbeFile {
    fn create(dir: &Path) -> io::Result<ProbeFile> {
        let path = dir.join(format!(".forebay-probe-{}", std::process::id()));
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        Ok(ProbeFile { path })
    }
}

impl Drop for ProbeFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The kernel's release as (major, minor), and as it calls itself.
pub fn kernel() -> io::Result<((u32, u32), String)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?
        .trim()
        .to_string();
    let mut parts = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok(((major, minor), release)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("odd release {release}"),
        )),
    }
}

/// Memory this process may use: the smallest of physical memory and the limits of our cgroup and those above it.
pub fn memory_bytes() -> io::Result<u64> {
    let physical = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| physical_bytes(&text));
    // "max" is no number: no limit.
    let limits = cgroup_limit_files()
        .into_iter()
        .filter_map(|path| number::<u64>(&path));
    let smallest = limits.chain(physical).min();
    smallest.ok_or_else(|| io::Error::other("neither /proc/meminfo nor a cgroup says"))
}

fn physical_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The limit files of our cgroup (version 2) and of all above it, and that of version 1.
fn cgroup_limit_files() -> Vec<String> {
    let mut files = vec!["/sys/fs/cgroup/memory/memory.limit_in_bytes".to_owned()];
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    if let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::")) {
        let mut path = path.trim().trim_end_matches('/').to_owned();
        loop {
            files.push(format!("/sys/fs/cgroup{path}/memory.max"));
            match path.rfind('/') {
                Some(parent) => path.truncate(parent),
                None => break,
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eperm_is_blamed_on_what_is_really_set() {
        let check = |errno, disabled, seccomp, expected: Uring| {
            let sysctls = Sysctls {
                io_uring_disabled: disabled,
                io_uring_group: Some(-1),
            };
            assert_eq!(explain_uring_failure(errno, &sysctls, seccomp), expected);
        };
        let by_sysctl = |level| Uring::DisabledBySysctl {
            level,
            group: Some(-1),
        };
        check(libc::EPERM, Some(2), 0, by_sysctl(2));
        check(libc::EPERM, Some(1), 2, by_sysctl(1));
        check(libc::EPERM, Some(0), 2, Uring::FilteredBySeccomp);
        check(libc::EPERM, None, 2, Uring::FilteredBySeccomp);
        check(
            libc::EPERM,
            Some(0),
            0,
            Uring::Failed { errno: libc::EPERM },
        );
        check(libc::ENOSYS, None, 0, Uring::Missing);
        check(libc::ENOSYS, None, 2, Uring::FilteredBySeccomp);
        check(libc::ENOMEM, Some(0), 0, Uring::MemlockTooLow);
    }

    #[test]
    fn the_deepest_and_last_mount_holds_a_path() {
        let mountinfo = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 22 0:25 / /tmp rw,nosuid - tmpfs tmpfs rw,size=1k
31 22 8:1 / /data\\040dir rw,noatime - xfs /dev/sda1 rw,attr2
32 30 0:99 / /tmp rw - overlay overlay rw
";
        let check = |path: &str, kind: &str, mount: &str| {
            let found = find_mount(mountinfo, Path::new(path)).expect("the root holds everything");
            assert_eq!(
                (found.kind.as_str(), found.mount_point.as_path()),
                (kind, Path::new(mount))
            );
        };
        check("/home/x", "ext4", "/");
        check("/tmp/x", "overlay", "/tmp");
        check("/tmpx", "ext4", "/");
        check("/data dir/kafka", "xfs", "/data dir");
    }

    #[test]
    fn the_probes_of_this_host_answer() {
        assert!(memlock().is_ok());
        assert!(
            nofile()
                .expect("a limit")
                .soft
                .is_none_or(|files| files > 0)
        );
        assert!(kernel().expect("a release").0 >= (5, 0));
        let here = std::env::current_dir().expect("a test has a directory");
        assert!(!file_system(&here).expect("a mount").kind.is_empty());
        let before = fs::read_dir(&here).expect("readable").count();
        direct_io(&here).expect("statx answers");
        direct_io_round_trip(&here).expect("the build directory takes direct I/O");
        assert_eq!(
            fs::read_dir(&here).expect("readable").count(),
            before,
            "nothing is left behind"
        );
    }

    #[test]
    fn physical_memory_is_read_from_meminfo() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(physical_bytes(text), expected);
        check(
            "MemTotal:       24571 kB\nMemFree: 1 kB\n",
            Some(24571 * 1024),
        );
        check("MemFree: 1 kB\n", None);
        check("MemTotal: many kB\n", None);
        check("", None);
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(memory_bytes().expect("Linux says") >= 64 << 20);
    }
}
