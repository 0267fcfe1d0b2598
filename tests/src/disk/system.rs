//! The system calls and programs behind [`super::Disk`].
#![allow(unsafe_code)]

use std::{
    ffi::{CString, OsStr},
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
    process::Command,
};

use super::{NEEDS, PowerLoss};

const FS_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;
const SHUTDOWN_LOG_FLUSH: u32 = 1;
const SHUTDOWN_NO_LOG_FLUSH: u32 = 2;
const FIFREEZE: libc::c_ulong = 0xc004_5877;
const FITHAW: libc::c_ulong = 0xc004_5878;

/// Runs a program that must end well.
pub fn run(program: &str, options: &[&str], paths: &[&Path]) -> String {
    run_to(&[0], program, options, paths)
}

/// Runs a program that must end with one of these codes; what it printed.
pub fn run_to(codes: &[i32], program: &str, options: &[&str], paths: &[&Path]) -> String {
    let output = Command::new(program)
        .args(options)
        .args(paths)
        .output()
        .unwrap_or_else(|error| panic!("{NEEDS}: {program}: {error}"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output
            .status
            .code()
            .is_some_and(|code| codes.contains(&code)),
        "{NEEDS}: {program} {options:?} {paths:?} ended with {}: {stdout}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    stdout
}

/// A loop device. Detached when dropped.
pub struct LoopDevice(PathBuf);

impl LoopDevice {
    pub fn attach(image: &Path) -> LoopDevice {
        let printed = run("losetup", &["--find", "--show"], &[image]);
        LoopDevice(PathBuf::from(printed.trim()))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn number(&self) -> (u32, u32) {
        let device = fs::metadata(&self.0)
            .expect("an attached device exists")
            .rdev();
        (libc::major(device), libc::minor(device))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let detached = Command::new("losetup")
            .arg("--detach")
            .arg(&self.0)
            .output();
        if !detached.is_ok_and(|output| output.status.success()) {
            eprintln!("cannot detach {}", self.0.display());
        }
    }
}

/// Detaches whatever device has this image.
pub fn detach_image(image: &Path) {
    let listed = Command::new("losetup")
        .args(["--noheadings", "--output", "NAME", "--associated"])
        .arg(image)
        .output();
    for device in listed
        .iter()
        .flat_map(|output| output.stdout.split(|byte| *byte == b'\n'))
    {
        let device = device.trim_ascii();
        if !device.is_empty() {
            drop(LoopDevice(PathBuf::from(OsStr::from_bytes(device))));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountKind {
    New,
    /// Changes the options of what is mounted.
    Again,
}

pub fn mount(
    source: &Path,
    at: &Path,
    kind: &str,
    how: MountKind,
    options: &str,
) -> io::Result<()> {
    let flags = match how {
        MountKind::New => 0,
        MountKind::Again => libc::MS_REMOUNT,
    };
    let (source, at) = (c_string(source), c_string(at));
    let kind = CString::new(kind).expect("no zero byte in a name");
    let options = CString::new(options).expect("no zero byte in options");
    // SAFETY: all four strings are alive and end in a zero byte.
    let result = unsafe {
        libc::mount(
            source.as_ptr(),
            at.as_ptr(),
            kind.as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    };
    check(result)
}

pub fn unmount(at: &Path) -> io::Result<()> {
    unmount_with(at, 0)
}

/// Out of sight at once, gone with its last user.
pub fn unmount_lazily(at: &Path) -> io::Result<()> {
    unmount_with(at, libc::MNT_DETACH)
}

fn unmount_with(at: &Path, flags: libc::c_int) -> io::Result<()> {
    let at = c_string(at);
    // SAFETY: the string is alive and ends in a zero byte.
    check(unsafe { libc::umount2(at.as_ptr(), flags) })
}

pub fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| fs::symlink_metadata(path).map(|found| found.dev()).ok();
    let parent = path.parent().and_then(device);
    device(path).is_some_and(|own| Some(own) != parent)
}

pub fn shut_down(mount: &Path, how: PowerLoss) -> io::Result<()> {
    let flags = match how {
        PowerLoss::Sudden => SHUTDOWN_NO_LOG_FLUSH,
        PowerLoss::AfterJournalFlush => SHUTDOWN_LOG_FLUSH,
    };
    let dir = File::open(mount)?;
    // SAFETY: the request reads one u32 through the pointer, which is alive; the descriptor is open.
    check(unsafe { libc::ioctl(dir.as_raw_fd(), FS_IOC_SHUTDOWN, &raw const flags) })
}

pub fn freeze(mount: &Path) -> io::Result<()> {
    let dir = File::open(mount)?;
    // SAFETY: the request ignores its argument; the descriptor is open.
    check(unsafe { libc::ioctl(dir.as_raw_fd(), FIFREEZE, 0) })
}

pub fn thaw(mount: &Path) -> io::Result<()> {
    let dir = File::open(mount)?;
    // SAFETY: the request ignores its argument; the descriptor is open.
    check(unsafe { libc::ioctl(dir.as_raw_fd(), FITHAW, 0) })
}

pub fn free_bytes(path: &Path) -> u64 {
    let found = statistics(path);
    found.f_bavail * found.f_frsize
}

pub fn used_bytes(path: &Path) -> u64 {
    let found = statistics(path);
    (found.f_blocks - found.f_bfree) * found.f_frsize
}

fn statistics(path: &Path) -> libc::statvfs {
    let name = c_string(path);
    let mut found = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the string ends in a zero byte, and the pointer has room for one `statvfs`.
    let result = unsafe { libc::statvfs(name.as_ptr(), found.as_mut_ptr()) };
    check(result).unwrap_or_else(|error| panic!("statvfs {}: {error}", path.display()));
    // SAFETY: the call succeeded, so it has filled the structure.
    unsafe { found.assume_init() }
}

fn c_string(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no zero byte in a path")
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
