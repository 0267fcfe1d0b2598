//! Looks at the files themselves after an orderly end: a full scan of every segment against the model and against its index,
//! and no file that nobody answers for.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    path::{Path, PathBuf},
    rc::Rc,
};

use bytes::Bytes;
use forebay_engine::{
    Offset, Timestamp,
    rt::{
        Rt,
        sim::{self, Disk},
    },
    segment::{FileKind, Index, index::INTERVAL_BYTES_MIN, index_path, segment_path},
};

use crate::{
    actions::World,
    model::{Held, LogModel},
    plan::{DATA_DIR, LOGS},
};

const FILE_BYTES_MAX: usize = 1 << 22;

/// Returns the disk as it was.
pub fn check(world: &Rc<RefCell<World>>, disk: Disk) -> Disk {
    let world = world.clone();
    let ((), disk) = sim::run(0, disk, move |rt| async move {
        let names = names_in(&rt, Path::new(DATA_DIR)).await;
        // What an error left to do is done by the next start.
        let erred = world.borrow().life.trouble.excuses_faults();
        let known = |name: &String| {
            let logs = &world.borrow().models;
            let is_log = logs.iter().any(|model| model.name.to_string() == *name);
            // The removal of a deleted log's directory need not have outlived the power: the next start does it again.
            let is_deleted = name.ends_with("-delete");
            is_log || is_deleted || ["journal", "checkpoint"].contains(&name.as_str())
        };
        let stray: Vec<&String> = names.iter().filter(|name| !known(name)).collect();
        assert!(stray.is_empty(), "left behind: {stray:?}");
        for at in 0..LOGS {
            let (model, cut_end) = world.borrow().models[at].uncut();
            let name = model.name.to_string();
            // Of one that is to be deleted nothing is promised: an error may have stopped that anywhere.
            if names.contains(&name) && !model.deleting {
                let dir = Path::new(DATA_DIR).join(name);
                check_log(&rt, &model, cut_end, dir, erred).await;
            }
        }
    });
    disk
}

async fn names_in(rt: &Rt, dir: &Path) -> BTreeSet<String> {
    let listed = rt.list_dir(dir).await.expect("list");
    listed.into_iter().map(|entry| entry.name).collect()
}

async fn check_log(rt: &Rt, model: &LogModel, cut_end: i64, dir: PathBuf, erred: bool) {
    let names = names_in(rt, &dir).await;
    let mut segments = Vec::new();
    let mut indexes = BTreeSet::new();
    for name in &names {
        match FileKind::of(name) {
            FileKind::Segment(base) => segments.push(base),
            FileKind::Index(base) => {
                indexes.insert(base);
            }
            FileKind::Identity => {}
            // Not due yet, or not removed, when the engine was closed; the next open takes it.
            FileKind::Deleted | FileKind::Spare => {
                let base: i64 = name[..20].parse().expect("the base offset of a segment");
                assert!(
                    base < model.log_start(),
                    "{}: {name} is not below the log start",
                    model.name
                );
            }
            // Of an index that was being built again when the engine was closed.
            FileKind::Temporary => {
                assert!(name.ends_with(".fbi.tmp"), "{}: {name}", model.name)
            }
            FileKind::Foreign => {
                panic!("{}: {name} was left behind", model.name)
            }
        }
    }
    segments.sort();
    let mut next: Option<Offset> = None;
    for &base in &segments {
        assert!(
            next.is_none_or(|next| next == base),
            "{}: segment {base} does not follow",
            model.name
        );
        let batches = scan(rt, model, &segment_path(&dir, base), base).await;
        next = Some(
            batches
                .last()
                .map_or(base, |(_, held)| held.header.next_offset()),
        );
        if indexes.remove(&base) {
            check_index(rt, model, &index_path(&dir, base), base, &batches).await;
        }
    }
    assert!(
        indexes.is_empty(),
        "{}: indexes without segments: {indexes:?}",
        model.name
    );
    let end = next.map_or(0, Offset::get);
    assert!(
        [model.end(), cut_end].contains(&end),
        "{}: the files end at {end}",
        model.name
    );
    let log_start = Offset::new(model.log_start());
    let second = segments.get(1);
    assert!(
        erred || second.is_none_or(|&second| second > log_start),
        "{}: a segment below the log start {log_start} was kept: {segments:?}",
        model.name
    );
}

/// Every byte of a segment is a batch of the model, in order.
async fn scan(rt: &Rt, model: &LogModel, path: &Path, base: Offset) -> Vec<(u64, Held)> {
    let content = rt.read_small(path, FILE_BYTES_MAX).await.expect("read");
    let mut rest = Bytes::from(content);
    let mut position = 0;
    let mut next = base.get();
    let mut batches = Vec::new();
    while !rest.is_empty() {
        let held = model.batches.get(&next).unwrap_or_else(|| {
            panic!(
                "{}: the file of {base} goes on at {position} where the log has no batch",
                model.name
            )
        });
        let len = held.bytes.len();
        assert!(
            rest.len() >= len && rest[..len] == held.bytes,
            "{}: the batch at {next} differs in its file",
            model.name
        );
        let _ = rest.split_to(len);
        batches.push((position, held.clone()));
        position += len as u64;
        next = held.next();
    }
    batches
}

/// The index leads to every batch and every timestamp of the segment, and not too early.
async fn check_index(
    rt: &Rt,
    model: &LogModel,
    path: &Path,
    base: Offset,
    batches: &[(u64, Held)],
) {
    let name = &model.name;
    let content = rt.read_small(path, FILE_BYTES_MAX).await.expect("read");
    let index = Index::decode(&content, base, model.config.index_interval_bytes, path)
        .unwrap_or_else(|fault| panic!("{name}: {fault}"));
    let covered: Vec<_> = batches
        .iter()
        .filter(|(position, _)| *position < index.len())
        .collect();
    let Some((last_position, last)) = covered.last() else {
        assert_eq!(index.len(), 0, "{name}: an index of nothing");
        return;
    };
    assert_eq!(
        index.len(),
        last_position + last.bytes.len() as u64,
        "{name}: the index ends within a batch"
    );
    assert_eq!(
        index.next_offset(),
        last.header.next_offset(),
        "{name}: end of the index"
    );
    let largest = covered
        .iter()
        .map(|(_, held)| held.header.max_timestamp)
        .max();
    assert_eq!(
        Some(index.max_timestamp()),
        largest,
        "{name}: largest timestamp of the index"
    );
    let mut largest_before = Timestamp(-1);
    let batch_bytes_max = covered
        .iter()
        .map(|(_, held)| held.bytes.len() as u64)
        .max()
        .unwrap_or(0);
    for (position, held) in &covered {
        for offset in [held.base(), held.next() - 1] {
            let place = index.find_offset(Offset::new(offset));
            let at = covered
                .iter()
                .find(|(position, _)| *position == place.position);
            let (_, found) = at.unwrap_or_else(|| {
                panic!(
                    "{name}: the index leads to {} where no batch begins",
                    place.position
                )
            });
            assert_eq!(
                found.header.base_offset, place.offset,
                "{name}: the index calls the batch at {} another",
                place.position
            );
            assert!(
                place.position <= *position,
                "{name}: the index leads past {offset}"
            );
            assert!(
                place.position + INTERVAL_BYTES_MIN + 2 * batch_bytes_max >= *position,
                "{name}: the index leaves {offset} out"
            );
        }
        if held.header.max_timestamp > largest_before {
            let place = index.find_timestamp(held.header.max_timestamp);
            assert!(
                place.position <= *position,
                "{name}: the index leads past {}",
                held.header.max_timestamp
            );
            largest_before = held.header.max_timestamp;
        }
    }
}
