//! Data directories that earlier versions wrote, in `tests/golden`: every later version must read them, and find in them what
//! `expected.txt` says. How to make new ones when a format changes is in the README there.

use std::{fmt::Write, path::Path};

use super::*;
use crate::{journal::format::BLOCK, log::fuzz::place};

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

fn golden_config() -> LogConfig {
    let mut config = config();
    config.segment_bytes = 2000;
    config
}

fn golden_rig(rt: Rt) -> Rig {
    let mut rig = Rig::new(rt, PathBuf::from("/data"));
    rig.engine.journal_file_bytes = 64 * 1024;
    rig.engine.journal_files = 2;
    rig.engine.bypass_bytes = 8 * 1024;
    rig
}

/// Two logs: batches of three producers and two epochs over several segments, the start of one log moved.
async fn fill(engine: &Engine, logs: &[Log]) {
    for round in 0..12 {
        for (at, log) in logs.iter().enumerate() {
            let producer = i64::from(round % 3);
            let batch = build(
                BatchBuilder::new(Codec::None).producer(
                    ProducerId(producer),
                    ProducerEpoch(0),
                    round / 3,
                ),
                1000 + i64::from(round),
                1,
                300 + 100 * at,
            );
            log.append(batch, LeaderEpoch(1 + round / 6))
                .expect("append");
            counted(engine, log, log.marks().log_end).await;
            log.set_high_watermark(log.marks().log_end);
        }
        if round == 8 {
            logs[1].delete_to(Offset::new(3)).await.expect("delete");
        }
    }
}

/// What an open log says, in words.
async fn told(logs: &[Log]) -> String {
    let mut text = String::new();
    for log in logs {
        let marks = log.marks();
        let (start, end) = (marks.log_start, marks.log_end);
        writeln!(text, "{}: {start} to {end}", log.name()).expect("memory");
        for (header, bytes) in read_all(log, start).await {
            let crc = crc32fast::hash(&bytes);
            let (base, epoch) = (header.base_offset, header.leader_epoch);
            writeln!(
                text,
                "batch {base} epoch {epoch} bytes {} crc {crc:08x}",
                bytes.len()
            )
            .expect("memory");
        }
        let mut producers = log.producers();
        producers.sort_by_key(|producer| producer.0.0);
        for (id, epoch, sequence, offset, _) in producers {
            writeln!(
                text,
                "producer {id} epoch {epoch} sequence {sequence} offset {offset}"
            )
            .expect("memory");
        }
    }
    text
}

/// All files below a directory of the simulated disk, without the blocks of zeros at their ends that journals have.
async fn files_in(rt: &Rt, dir: PathBuf) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut dirs, mut files) = (vec![dir], Vec::new());
    while let Some(dir) = dirs.pop() {
        for entry in rt.list_dir(&dir).await.expect("list") {
            let path = dir.join(&entry.name);
            if entry.is_dir {
                dirs.push(path);
                continue;
            }
            let mut content = rt.read_small(&path, 1 << 20).await.expect("read");
            if entry.name.ends_with(".journal") {
                let used = content.iter().rposition(|&byte| byte != 0);
                let used = used.map_or(0, |last| last + 1);
                content.truncate(used.next_multiple_of(BLOCK));
            }
            files.push((path, content));
        }
    }
    files.sort();
    files
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Orderly,
    Killed,
}

/// Writes new directories into `$FOREBAY_GOLDEN`: cargo test -p forebay-engine write_golden_directories. Without it they are written to a
/// place of their own and removed, so that this works when it is needed.
#[test]
#[allow(clippy::disallowed_methods)]
fn write_golden_directories() {
    let wanted = std::env::var_os("FOREBAY_GOLDEN").map(PathBuf::from);
    let scratch = std::env::temp_dir().join(format!("forebay-golden-{}", std::process::id()));
    write_directories(wanted.as_ref().unwrap_or(&scratch));
    if wanted.is_none() {
        let mut files = Vec::new();
        host_files(&scratch, &mut files);
        std::fs::remove_dir_all(&scratch).expect("remove");
        for name in ["clean", "killed"] {
            let dir = scratch.join(name);
            let logs = files.iter().filter(|(path, content)| {
                let is_segment = path.extension().is_some_and(|extension| extension == "log");
                path.starts_with(&dir) && is_segment && !content.is_empty()
            });
            assert!(logs.count() > 0, "{name}: no segment was written");
        }
    }
}

#[allow(clippy::disallowed_methods)]
fn write_directories(out: &Path) {
    for (end, name) in [(End::Orderly, "clean"), (End::Killed, "killed")] {
        let (expected, disk) = sim::run(1, Disk::default(), move |rt| async move {
            rt.create_dir_all(Path::new("/data")).await.expect("create");
            let (engine, logs) = golden_rig(rt).start_logs(2, golden_config()).await;
            fill(&engine, &logs).await;
            let expected = told(&logs).await;
            if end == End::Orderly {
                engine.close().await.expect("close");
            }
            expected
        });
        let (files, _) = sim::run(2, disk, |rt| async move {
            files_in(&rt, PathBuf::from("/data")).await
        });
        for (path, content) in files {
            let path = out
                .join(name)
                .join("data")
                .join(path.strip_prefix("/data").expect("below"));
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("create");
            std::fs::write(path, content).expect("write");
        }
        std::fs::write(out.join(name).join("expected.txt"), expected).expect("write");
    }
}

#[allow(clippy::disallowed_methods)]
fn host_files(dir: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            host_files(&path, found);
        } else {
            let content = std::fs::read(&path).expect("a file");
            found.push((path, content));
        }
    }
}

/// The files of every golden directory, by their paths in it.
#[allow(clippy::disallowed_methods)]
pub fn directories() -> Vec<Vec<(String, Vec<u8>)>> {
    let mut directories = Vec::new();
    for version in std::fs::read_dir(golden_dir()).expect("golden directories") {
        let version = version.expect("an entry").path();
        for case in ["clean", "killed"] {
            let root = version.join(case).join("data");
            if !root.is_dir() {
                continue;
            }
            let mut files = Vec::new();
            host_files(&root, &mut files);
            files.sort();
            let below = |(path, content): (PathBuf, Vec<u8>)| {
                let path = path.strip_prefix(&root).expect("below");
                (path.to_str().expect("plain names").to_owned(), content)
            };
            directories.push(files.into_iter().map(below).collect());
        }
    }
    directories.sort();
    directories
}

#[test]
#[allow(clippy::disallowed_methods)]
fn every_golden_directory_is_read() {
    let versions = std::fs::read_dir(golden_dir()).expect("golden directories");
    let mut read = 0;
    for version in versions {
        let version = version.expect("an entry").path();
        for case in ["clean", "killed"] {
            let case = version.join(case);
            if !case.is_dir() {
                continue;
            }
            let expected = std::fs::read_to_string(case.join("expected.txt")).expect("expected");
            let mut files = Vec::new();
            host_files(&case.join("data"), &mut files);
            let root = case.join("data");
            let name = case.display().to_string();
            sim::run(3, Disk::default(), move |rt| async move {
                for (path, content) in files {
                    let path = Path::new("/data").join(path.strip_prefix(&root).expect("below"));
                    place(&rt, &path, &content).await;
                }
                let (engine, logs) = golden_rig(rt).start_logs(2, golden_config()).await;
                assert_eq!(told(&logs).await, expected, "{name}");
                engine.close().await.expect("close");
            });
            read += 1;
        }
    }
    assert!(read >= 2, "the golden directories are there");
}
