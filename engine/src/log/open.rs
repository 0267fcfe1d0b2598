//! Opens a log: creates it, or recovers what is in its directory.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
    rc::Rc,
};

use super::{
    Durability, LogConfig, Marks,
    in_flight::InFlight,
    pending::Pending,
    read::Cursors,
    recovery::{
        Recovered, Recovery, Report, batches_of, find_point,
        table::{Admission, Contents, Identity, Point, admit},
    },
    rest::{self, Rest},
    shared::{Handle, Shared},
    spares::Spares,
    state::{FIRST_GENERATION, LogInner, Phase, State, WriteState},
    tail::Tail,
    together::Wanted,
};
use crate::{
    checkpoint::LogCheckpoint,
    error::{Fault, OpenError},
    journal::{EntryAt, Replay},
    rt::{DirEntry, File, OpenMode, Rt, durable, local::Notify},
    segment::{FileKind, IDENTITY_FILE, Segment, SegmentWriter, index_path, segment_path},
    types::{LogId, LogName, Offset, TopicId},
};

/// `partition.metadata` has two short lines.
const IDENTITY_BYTES_MAX: usize = 4096;

/// What the last run left of a log besides its directory.
pub struct Left<'a> {
    pub checkpoint: Option<&'a Rc<LogCheckpoint>>,
    /// That record is of an orderly end.
    pub closed: bool,
    /// `None` once the journal of this run has started.
    pub replay: Option<&'a Replay>,
}

impl Left<'_> {
    /// Whether a truncation may have been under way. The record does not tell one that has ended long ago from one whose last sync has
    /// failed, but most logs are never cut.
    fn has_an_open_cut(&self) -> bool {
        let was_cut = |known: &Rc<LogCheckpoint>| known.log_generation > FIRST_GENERATION;
        !self.closed && self.checkpoint.is_some_and(was_cut)
    }
}

/// How much of a log is to be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// All of it.
    Now,
    /// What has to be recovered; else it stays at rest until it is used.
    WhenUsed,
}

/// Opens the log in `<data_dir>/<name>`. A log that is opened after the journal of this run has started is new,
/// or could not be opened at the start and has nothing in the journal. Nothing recovered counts as durable before the engine has synced it.
pub async fn open(
    shared: &Rc<Shared>,
    data_dir: &Path,
    id: LogId,
    name: LogName,
    config: LogConfig,
    opened: Opened,
    left: Left<'_>,
) -> Result<Rc<LogInner>, OpenError> {
    let rt = &shared.rt;
    let dir = data_dir.join(name.to_string());
    if opened == Opened::WhenUsed
        && let Some(known) = at_rest(rt, id, &dir, &left).await
    {
        let identity = rest::Identity { id, name, dir };
        return Ok(LogInner::at_rest(shared, identity, config, known));
    }
    let opening = Opening {
        shared,
        id,
        dir,
        name,
        key: shared.new_log_key(),
        config,
        may_rest: opened == Opened::WhenUsed,
        cut_again: left.has_an_open_cut(),
        checkpoint: left.checkpoint,
        replay: left.replay,
    };
    let dir = &opening.dir;
    let is_new = !rt.exists(dir).await;
    if is_new {
        if opening.is_unknown() {
            return Ok(opening.create_all(data_dir).await?);
        }
        create_dir(rt, data_dir, dir).await?;
    }
    let files = tidy(rt, dir).await?;
    if !is_new && !opening.names_are_durable(&files) {
        // A run that was killed may have made them, and not got as far as the sync.
        durable::sync_dir(rt, dir).await?;
        durable::sync_dir(rt, data_dir).await?;
    }
    check_identity(rt, dir, id, &files).await?;
    if !is_new && opening.checkpoint.is_none() {
        // The run that created it may have seen a sync of this file fail: then what can be read need not be on the disk, nor will
        // another sync bring it there. Whatever a checkpoint speaks of had an identity that is.
        durable::replace_file(rt, &dir.join(IDENTITY_FILE), identity_of(id).as_bytes()).await?;
    }
    let log_start = left.checkpoint.map(|checkpoint| checkpoint.log_start);
    let files = remove_below(rt, dir, files, log_start).await?;
    Ok(opening.recover(&files).await?)
}

/// The record of a log of which there is nothing to recover.
async fn at_rest(rt: &Rt, id: LogId, dir: &Path, left: &Left<'_>) -> Option<Rc<LogCheckpoint>> {
    let known = left.checkpoint?;
    let in_journal = left.replay.is_some_and(|replay| {
        replay.entries(id).iter().any(|entry| {
            entry.log_generation == known.log_generation
                && entry.next_offset > known.recovery_offset
        })
    });
    if in_journal || known.log_start > known.recovery_offset || left.has_an_open_cut() {
        return None;
    }
    if !left.closed {
        // What cannot be listed is for the recovery to complain about.
        let listed = rt.list_dir(dir).await.ok()?;
        let files = segments_in(&listed);
        let has_to_go = has_leftovers(&listed) || first_needed(&files, known.log_start) > 0;
        if has_to_go || !rest::is_as_described(known, &files) {
            return None;
        }
    }
    Some(Rc::clone(known))
}

/// A log on its way to be open.
struct Opening<'a> {
    shared: &'a Rc<Shared>,
    id: LogId,
    name: LogName,
    dir: PathBuf,
    key: u64,
    config: LogConfig,
    may_rest: bool,
    cut_again: bool,
    checkpoint: Option<&'a Rc<LogCheckpoint>>,
    replay: Option<&'a Replay>,
}

impl Opening<'_> {
    /// A checkpoint only speaks of files that had their names.
    fn names_are_durable(&self, files: &[(Offset, u64)]) -> bool {
        let last = files.last().map(|&(base, _)| base);
        self.checkpoint
            .is_some_and(|known| last == Some(known.recovery_segment_base))
    }

    /// Whether nothing of it is left anywhere but perhaps in its directory.
    fn is_unknown(&self) -> bool {
        self.checkpoint.is_none() && self.journal_entries().is_empty()
    }

    /// Directory, identity and first segment of a new log. All of it becomes durable at once, in any order: a crash before that
    /// leaves a log without data, whose creation the next open finishes.
    async fn create_all(self, data_dir: &Path) -> Result<Rc<LogInner>, Fault> {
        let rt = &self.shared.rt;
        let base = Offset::ZERO;
        let created = rt.create_dir_all(&self.dir).await;
        created.map_err(|error| Fault::io("create", &self.dir, error))?;
        let identity = create_identity(rt, &self.dir, self.id).await?;
        let path = segment_path(&self.dir, base);
        let segment = rt.open(&path, OpenMode::Create).await;
        let segment = Rc::new(segment.map_err(|error| Fault::io("create", path, error))?);
        let wanted = Wanted {
            files: vec![Rc::new(identity), Rc::clone(&segment)],
            dirs: vec![self.dir.clone(), data_dir.to_path_buf()],
        };
        self.shared.sync(wanted).await?;
        let key = ((self.key, base), Handle::Behind);
        self.shared.files.put(key, segment);
        Ok(self.empty(base))
    }

    /// A log with nothing in it, and its first segment's file.
    async fn create(self) -> Result<Rc<LogInner>, Fault> {
        let log = self.empty(Offset::ZERO);
        log.create_segment(Offset::ZERO).await?;
        Ok(log)
    }

    fn empty(&self, base: Offset) -> Rc<LogInner> {
        let now = self.shared.rt.wall_clock();
        let interval = self.config.index_interval_bytes;
        self.with(Recovered {
            segments: vec![Segment::new(base, interval, now)],
            epochs: Default::default(),
            producers: Default::default(),
            end: base,
            generation: FIRST_GENERATION,
            durable_end: base,
            index_saved_len: 0,
            rest: Vec::new(),
            report: Report::default(),
        })
    }

    async fn recover(self, files: &[(Offset, u64)]) -> Result<Rc<LogInner>, Fault> {
        let recovery = Recovery {
            shared: self.shared,
            dir: &self.dir,
            name: &self.name,
            log_key: self.key,
            index_interval_bytes: self.config.index_interval_bytes,
            checkpoint: self.checkpoint.map(Rc::as_ref),
            replay: self.replay,
            cut_again: self.cut_again,
            entries: self.journal_entries(),
        };
        let Some(mut recovered) = recovery.run(files).await? else {
            return self.create().await;
        };
        let rest = std::mem::take(&mut recovered.rest);
        let known = self.checkpoint.map(|known| known.recovery_offset);
        let known_below = known.unwrap_or(Offset::ZERO);
        let mut report = recovered.report;
        let log = self.with(recovered);
        if let Some(replay) = self.replay {
            report.appended_batches = log.append_rest(replay, &rest, known_below).await?;
        }
        let checkpoint = self.checkpoint.map(Rc::as_ref);
        log.restore_marks(checkpoint);
        // Should the log fail before its next checkpoint, that one repeats what is known.
        if matches!(
            find_point(checkpoint, files).0,
            Point::InFile | Point::AtNextFile
        ) {
            log.state.borrow_mut().checkpoint = self.checkpoint.cloned();
        }
        if report.restored_batches + report.appended_batches + report.cut_bytes > 0 {
            tracing::info!(
                log = %log.name,
                walked_batches = report.walked_batches,
                restored_batches = report.restored_batches,
                appended_batches = report.appended_batches,
                cut_bytes = report.cut_bytes,
                log_end = %log.state.borrow().marks.log_end,
                "recovered: put back what only the journal had, cut what was not whole"
            );
        }
        Ok(log)
    }

    /// The journal entries of this log and generation. Of two with the same offset the later one counts.
    fn journal_entries(&self) -> BTreeMap<Offset, EntryAt> {
        let entries = self
            .replay
            .map_or_else(Vec::new, |replay| replay.entries(self.id));
        let newest = entries.iter().map(|entry| entry.log_generation).max();
        let generation = self.checkpoint.map(|known| known.log_generation).or(newest);
        entries
            .into_iter()
            .filter(|entry| Some(entry.log_generation) == generation)
            .map(|entry| (entry.base_offset, entry))
            .collect()
    }

    fn with(&self, recovered: Recovered) -> Rc<LogInner> {
        Rc::new(LogInner {
            shared: Rc::clone(self.shared),
            id: self.id,
            name: self.name.clone(),
            dir: self.dir.clone(),
            key: self.key,
            may_rest: self.may_rest,
            state: RefCell::new(recovered_state(recovered, self.config.clone())),
            changed: Notify::new(),
        })
    }
}

async fn create_dir(rt: &Rt, data_dir: &Path, dir: &Path) -> Result<(), Fault> {
    let created = rt.create_dir_all(dir).await;
    created.map_err(|error| Fault::io("create", dir, error))?;
    durable::sync_dir(rt, data_dir).await
}

/// Lists the segments in order, and removes what a crash left unfinished.
pub async fn tidy(rt: &Rt, dir: &Path) -> Result<Vec<(Offset, u64)>, Fault> {
    let listed = rt.list_dir(dir).await;
    let listed = listed.map_err(|error| Fault::io("list", dir, error))?;
    let segments = segments_in(&listed);
    let mut removed = false;
    for entry in listed {
        match FileKind::of(&entry.name) {
            FileKind::Segment(_) | FileKind::Index(_) | FileKind::Identity => {}
            FileKind::Deleted | FileKind::Spare | FileKind::Temporary => {
                let path = dir.join(&entry.name);
                match rt.remove_file(&path).await {
                    Ok(()) => removed = true,
                    // Its time had come anyway.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(Fault::io("remove", path, error)),
                }
            }
            FileKind::Foreign => {
                tracing::warn!(dir = %dir.display(), name = entry.name, "not a file of ours; left alone");
            }
        }
    }
    if removed {
        durable::sync_dir(rt, dir).await?;
    }
    Ok(segments)
}

/// Whether there is something that `tidy` would remove.
pub fn has_leftovers(listed: &[DirEntry]) -> bool {
    listed.iter().any(|entry| {
        let kind = FileKind::of(&entry.name);
        matches!(
            kind,
            FileKind::Deleted | FileKind::Spare | FileKind::Temporary
        )
    })
}

pub fn segments_in(listed: &[DirEntry]) -> Vec<(Offset, u64)> {
    let mut segments: Vec<(Offset, u64)> = listed
        .iter()
        .filter_map(|entry| match FileKind::of(&entry.name) {
            FileKind::Segment(base) => Some((base, entry.len)),
            _ => None,
        })
        .collect();
    segments.sort_unstable();
    segments
}

/// Writes `partition.metadata` into a new directory; the caller syncs it.
async fn create_identity(rt: &Rt, dir: &Path, id: LogId) -> Result<File, Fault> {
    let path = dir.join(IDENTITY_FILE);
    let fault = |error| Fault::io("create", &path, error);
    let content = identity_of(id);
    let mut block = rt.alloc(content.len());
    block.bytes_mut()[..content.len()].copy_from_slice(content.as_bytes());
    let file = rt.open(&path, OpenMode::Create).await.map_err(fault)?;
    file.write_at(block, 0).await.map_err(fault)?;
    file.truncate(content.len() as u64).await.map_err(fault)?;
    Ok(file)
}

fn identity_of(id: LogId) -> String {
    format!("version: 0\ntopic_id: {}", id.topic_id)
}

/// The directory must say that it is this log's. One without identity may only be the beginning of a creation.
pub async fn check_identity(
    rt: &Rt,
    dir: &Path,
    id: LogId,
    files: &[(Offset, u64)],
) -> Result<(), OpenError> {
    let path = dir.join(IDENTITY_FILE);
    let (mut identity, mut found) = (Identity::Missing, None);
    if rt.exists(&path).await {
        let content = rt.read_small(&path, IDENTITY_BYTES_MAX).await;
        let content = content.map_err(|error| Fault::io("read", &path, error))?;
        found = identity_in(&content);
        identity = match found {
            Some(topic_id) if topic_id == id.topic_id => Identity::Ours,
            Some(_) => Identity::Anothers,
            None => Identity::Garbage,
        };
    }
    let contents = match files.iter().any(|&(_, len)| len > 0) {
        true => Contents::Data,
        false => Contents::Nothing,
    };
    match admit(identity, contents) {
        Admission::GoOn => Ok(()),
        Admission::FinishCreation => {
            let data_dir = dir.parent().expect("a log's directory lies in another");
            durable::sync_dir(rt, data_dir).await?;
            durable::replace_file(rt, &path, identity_of(id).as_bytes()).await?;
            Ok(())
        }
        Admission::Refuse if identity == Identity::Garbage => {
            Err(Fault::corrupt("not a partition.metadata of version 0", path).into())
        }
        Admission::Refuse => Err(OpenError::WrongIdentity {
            path: dir.to_path_buf(),
            found: found.map_or(
                "nobody (partition.metadata is missing)".into(),
                |topic_id| topic_id.to_string(),
            ),
        }),
    }
}

/// Whose directory it says it is, if it can be read.
pub async fn read_identity(rt: &Rt, dir: &Path) -> Result<Option<TopicId>, Fault> {
    let path = dir.join(IDENTITY_FILE);
    if !rt.exists(&path).await {
        return Ok(None);
    }
    let content = rt.read_small(&path, IDENTITY_BYTES_MAX).await;
    let content = content.map_err(|error| Fault::io("read", &path, error))?;
    Ok(identity_in(&content))
}

fn identity_in(content: &[u8]) -> Option<TopicId> {
    let text = std::str::from_utf8(content).ok()?;
    let mut lines = text.lines();
    if lines.next()?.trim_end() != "version: 0" {
        return None;
    }
    TopicId::parse(lines.next()?.strip_prefix("topic_id: ")?.trim_end())
}

/// Removes the segments that lie wholly below the log start: a crash came between that mark and their removal.
pub async fn remove_below(
    rt: &Rt,
    dir: &Path,
    mut files: Vec<(Offset, u64)>,
    log_start: Option<Offset>,
) -> Result<Vec<(Offset, u64)>, Fault> {
    let Some(log_start) = log_start else {
        return Ok(files);
    };
    let kept = files.split_off(first_needed(&files, log_start));
    if !files.is_empty() {
        remove_segments(rt, dir, &files).await?;
    }
    Ok(kept)
}

/// Index of the newest one that begins at or below the log start: what is before that is not needed and may have holes.
pub fn first_needed(files: &[(Offset, u64)], log_start: Offset) -> usize {
    let after = files.partition_point(|&(base, _)| base <= log_start);
    after.saturating_sub(1)
}

/// Removes the files, newest first and one by one: a hole in the sequence of segments must not survive a crash.
async fn remove_segments(rt: &Rt, dir: &Path, files: &[(Offset, u64)]) -> Result<(), Fault> {
    for &(base, _) in files.iter().rev() {
        for path in [index_path(dir, base), segment_path(dir, base)] {
            if rt.exists(&path).await {
                let removed = rt.remove_file(&path).await;
                removed.map_err(|error| Fault::io("remove", path, error))?;
            }
        }
        durable::sync_dir(rt, dir).await?;
    }
    Ok(())
}

fn recovered_state(recovered: Recovered, config: LogConfig) -> State {
    let (start, end) = (recovered.segments[0].base, recovered.end);
    let durable_end = recovered.durable_end.max(start).min(end);
    let counted_end = match config.durability {
        Durability::Persisted => durable_end,
        Durability::Replicated => end,
    };
    let marks = Marks::empty_at(start).moved(|marks| {
        marks.durable_end = durable_end;
        marks.counted_end = counted_end;
        marks.log_end = end;
    });
    let active = recovered.segments.last().expect("a log has a segment");
    let write = WriteState {
        segment_base: active.base,
        writer: Some(SegmentWriter::at(active.len)),
        in_flight: InFlight::default(),
        planned_end: end,
        flushed_end: end,
        synced_end: durable_end,
        wanted_end: end,
        running: false,
        paused: false,
        syncs: 0,
        // That cut may not be durable yet: an orderly end makes it so.
        padded: recovered.report.shortened,
        index_saved_len: recovered.index_saved_len,
        index_saving: false,
    };
    State {
        config,
        marks,
        generation: recovered.generation,
        tail: Tail::default(),
        pending: Pending::new(end),
        producers: recovered.producers,
        epochs: recovered.epochs,
        write,
        segments: recovered.segments,
        cursors: Cursors::default(),
        spares: Spares::default(),
        checkpoint: None,
        phase: Phase::Open,
        rest: Rest::Awake,
        outline: None,
        used: true,
        fault: None,
        reported: false,
        renames_begun: 0,
        renames_synced: 0,
    }
}

impl LogInner {
    /// Log start and high watermark as of the checkpoint, as far as the log still goes.
    fn restore_marks(&self, checkpoint: Option<&LogCheckpoint>) {
        let Some(checkpoint) = checkpoint else {
            return;
        };
        let mut state = self.state.borrow_mut();
        state.marks = state.marks.moved(|marks| {
            marks.log_start = marks.log_start.max(checkpoint.log_start);
            let high_watermark = checkpoint.high_watermark.min(marks.log_end);
            marks.high_watermark = high_watermark.max(marks.log_start);
            marks.last_stable = marks.high_watermark;
        });
        let log_start = state.marks.log_start;
        state.epochs.trim_to(log_start);
    }

    /// Appends what only the journal holds, as it was appended before the crash. Producers and epochs below `known_below` are known.
    /// Returns how many batches.
    async fn append_rest(
        self: &Rc<Self>,
        replay: &Replay,
        rest: &[EntryAt],
        known_below: Offset,
    ) -> Result<u64, Fault> {
        let mut appended = 0;
        for entry in rest {
            let bytes = replay.bytes(entry).await?;
            let is_known = entry.base_offset < known_below;
            let latest = self.state.borrow().epochs.latest();
            let epoch = latest.filter(|_| !is_known);
            for (header, batch) in batches_of(&bytes, entry, epoch, &self.dir)? {
                let kept_bytes = bytes.len();
                let now = self.shared.rt.wall_clock();
                {
                    let mut state = self.state.borrow_mut();
                    if !is_known {
                        state.producers.update(&header, header.base_offset, now);
                        state.epochs.append(header.leader_epoch, header.base_offset);
                    }
                    state.place(&header, batch, kept_bytes, now);
                    state.pending.skip(header.next_offset());
                }
                self.placed(kept_bytes);
                appended += 1;
            }
            let unflushed = self.state.borrow().tail.unflushed_bytes();
            if unflushed >= self.shared.limits.write_chunk_bytes_max {
                let end = self.state.borrow().marks.log_end;
                self.flush_to(end).await?;
            }
        }
        Ok(appended)
    }
}
