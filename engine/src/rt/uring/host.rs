//! What we ask the host by plain system calls. All of it blocks: call it from the blocking pool, or before the shards start.
#![allow(clippy::disallowed_methods)]

use std::{
    ffi::CString,
    fs, io,
    io::Read,
    mem::MaybeUninit,
    os::{fd::AsRawFd, unix::ffi::OsStrExt},
    path::Path,
};

use crate::rt::{DirEntry, DiskSpace};

/// The cores this process may run on, in ascending order.
#[allow(unsafe_code)]
pub fn usable_cores() -> io::Result<Vec<usize>> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: the kernel writes at most the size we pass into memory that we own, and a zeroed set is a valid one.
    let set = unsafe {
        let size = size_of::<libc::cpu_set_t>();
        if libc::sched_getaffinity(0, size, set.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        set.assume_init()
    };
    let cores = 0..libc::CPU_SETSIZE as usize;
    // SAFETY: CPU_ISSET reads bits below CPU_SETSIZE of a valid set.
    Ok(cores
        .filter(|core| unsafe { libc::CPU_ISSET(*core, &set) })
        .collect())
}

#[allow(unsafe_code)]
pub(super) fn disk_space(path: &Path) -> io::Result<DiskSpace> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut stat = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: `path` ends in a zero byte and lives through the call; the kernel fills `stat`, which is plain integers.
    let stat = unsafe {
        if libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        stat.assume_init()
    };
    Ok(DiskSpace {
        total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

/// Lets the rings of the calling thread hand up to `workers` calls to threads of the kernel that would otherwise wait, as a direct write does that
/// makes its file longer. Without it there are four for each core (io_uring_register(2), `IORING_REGISTER_IOWQ_MAX_WORKERS`, since Linux 5.15).
///
/// The number belongs to the calling thread, whichever ring it is told to. The executor keeps its descriptors to itself, so one is looked up.
/// What comes back is the number that was in force before.
#[allow(unsafe_code)]
pub(super) fn set_ring_workers(workers: u32) -> io::Result<u32> {
    const IORING_REGISTER_IOWQ_MAX_WORKERS: libc::c_uint = 19;
    let ring = ring_of_this_process()?;
    // Of calls that end soon (files), and of those that may not (sockets): 0 leaves that one as it is.
    let mut counts: [libc::c_uint; 2] = [workers, 0];
    // SAFETY: the kernel reads and writes two integers that we own, and refuses a descriptor that is no ring (any more).
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring,
            IORING_REGISTER_IOWQ_MAX_WORKERS,
            counts.as_mut_ptr(),
            counts.len(),
        )
    };
    match result {
        0 => Ok(counts[0]),
        _ => Err(io::Error::last_os_error()),
    }
}

fn ring_of_this_process() -> io::Result<libc::c_int> {
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        // One that was closed meanwhile is not ours.
        let leads_to = fs::read_link(entry.path()).unwrap_or_default();
        if leads_to.as_os_str() == "anon_inode:[io_uring]"
            && let Some(ring) = entry.file_name().to_str().and_then(|fd| fd.parse().ok())
        {
            return Ok(ring);
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Since Linux 5.8 it reports what could not be written.
#[allow(unsafe_code)]
pub(super) fn sync_file_system(any: &fs::File) -> io::Result<()> {
    // SAFETY: the descriptor is open through the call, which takes no memory of ours.
    match unsafe { libc::syncfs(any.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

pub(super) fn list_dir(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // Removed since the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        entries.push(DirEntry {
            name: entry.file_name().to_string_lossy().into_owned(),
            is_dir: metadata.is_dir(),
            len: if metadata.is_dir() { 0 } else { metadata.len() },
        });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// `None` if the file is larger.
pub(super) fn read_up_to(path: &Path, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    fs::File::open(path)?
        .take(bytes_max as u64 + 1)
        .read_to_end(&mut content)?;
    Ok((content.len() <= bytes_max).then_some(content))
}
