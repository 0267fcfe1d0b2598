//! The tool must do what it says before anything is shown with it.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::{FileExt, OpenOptionsExt},
};

use super::*;

const BYTES: u64 = 320 << 20;

#[track_caller]
fn check_power_loss(file_system: FileSystem) {
    let mut disk = Disk::new("power", file_system, BYTES);
    let synced = disk.path().join("synced");
    let written = disk.path().join("written");
    let mut file = File::create(&synced).expect("the disk takes files");
    file.write_all(b"kept").expect("and bytes");
    file.sync_all().expect("and keeps them");
    fs::write(&written, "lost").expect("the disk takes files");
    disk.lose_power(PowerLoss::Sudden);
    assert!(fs::write(&written, "more").is_err(), "without power");
    drop(file);
    disk.restore_power();
    assert_eq!(fs::read(&synced).expect("synced"), b"kept");
    assert!(!written.exists(), "what was not synced is lost");
}

#[test]
fn ext4_loses_what_was_not_synced() {
    check_power_loss(FileSystem::Ext4);
}

#[test]
fn xfs_loses_what_was_not_synced() {
    check_power_loss(FileSystem::Xfs);
}

#[test]
fn new_blocks_can_be_made_to_fail_and_mended() {
    let disk = Disk::on_tmpfs("thin", FileSystem::Ext4, 128 << 20);
    let open = |name: &str| {
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .custom_flags(libc::O_DSYNC)
            .open(disk.path().join(name))
            .expect("the disk takes files")
    };
    let old = open("old");
    let megabyte = vec![7; 1 << 20];
    old.write_all_at(&megabyte, 0).expect("before the fault");
    disk.fail_new_blocks();
    old.write_all_at(&megabyte, 0)
        .expect("blocks that exist can be overwritten");
    open("new")
        .write_all_at(&megabyte, 0)
        .expect_err("a new block");
    disk.mend();
    open("newer")
        .write_all_at(&megabyte, 0)
        .expect("after the fault");
}

#[test]
fn every_write_can_be_made_to_fail_and_reads_go_on() {
    let mut disk = Disk::new("errors", FileSystem::Ext4, BYTES);
    let path = disk.path().join("file");
    let mut file = File::create(&path).expect("the disk takes files");
    file.write_all(b"kept").expect("and bytes");
    file.sync_all().expect("and keeps them");
    disk.fail_all_writes();
    file.write_all(b"more").expect_err("read-only");
    assert_eq!(fs::read(&path).expect("reads go on"), b"kept");
    drop(file);
    disk.check_and_mount();
    assert_eq!(fs::read(&path).expect("it is mended"), b"kept");
    fs::write(&path, "more").expect("and can be written");
}

#[test]
fn disks_leave_nothing_behind() {
    let disk = Disk::new("gone", FileSystem::Ext4, BYTES);
    let dir = disk.dir.clone();
    drop(disk);
    assert!(!dir.exists());
    // As a killed run leaves it.
    let disk = std::mem::ManuallyDrop::new(Disk::new("killed", FileSystem::Ext4, BYTES));
    let file = File::create(disk.path().join("open")).expect("the disk takes files");
    leftovers::remove(&disk.dir);
    assert!(!disk.dir.exists());
    assert!(!system::is_mount_point(&disk.path()));
    drop(file);
}
