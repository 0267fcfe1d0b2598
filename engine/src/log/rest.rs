//! Logs at rest: they hold what a checkpoint says of them and no more, until somebody needs their segments.
//!
//! With ten thousand partitions most are idle, and a start must not look into each. What the last record of a log in a checkpoint says (marks,
//! epochs, producers) answers everything but reads below the tail, lookups by timestamp, cuts and appends. The first of these *wakes* the log:
//! its directory is listed and the index of its last segment loaded, as at a recovery that finds nothing to do. An append does not wait, so
//! it is refused as `Busy` meanwhile.
//!
//! A log begins at rest when the last run closed it in order, or when it was idle all through that run: its last segment has exactly
//! the length that the checkpoint says, no later one is there, and the journal holds nothing of it. A log that nobody has used for a while
//! goes to rest again; its last segment is cut to its exact length, so that also a start after a crash finds it at rest.
//!
//! Going to rest loses nothing: a log only does so when a durable checkpoint describes it as it is. Waking changes nothing on disk but
//! removes leftovers, and a segment that is not as the checkpoint says takes the log offline rather than being cut. Such a log needs nothing of
//! the journal, so others do not wait for it.

use std::{cell::RefCell, path::PathBuf, rc::Rc};

use super::{
    LogConfig, Marks,
    in_flight::InFlight,
    open::{check_identity, first_needed, has_leftovers, remove_below, segments_in, tidy},
    pending::Pending,
    read::{Cursors, load_index},
    recovery::{Recovered, Recovery},
    retention::is_over_age,
    shared::Shared,
    spares::Spares,
    state::{LogInner, Phase, State, WriteState},
    tail::Tail,
};
use crate::{
    checkpoint::LogCheckpoint,
    error::{Fault, OpenError},
    rt::{Class, local::Notify},
    segment::{Segment, SegmentIndex, SegmentWriter},
    types::{LogId, LogName, Offset, Timestamp},
};

/// Who a log is, and whose.
pub struct Identity {
    pub id: LogId,
    pub name: LogName,
    pub dir: PathBuf,
}

/// How much of itself a log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// All of it.
    Awake,
    /// On its way to the one or the other; whoever needs its segments waits.
    Turning,
    /// What its record in the checkpoint says; of its segments only the last one's base and length.
    Asleep,
}

/// What retention has to know of the segments of a log at rest. It does not change before the log wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outline {
    /// Of all segments.
    bytes: u64,
    /// Of the oldest segment: its largest timestamp, and its length if it is not the only one.
    oldest: Timestamp,
    spare_bytes: Option<u64>,
}

impl Outline {
    /// Whether something may go. Retention itself decides.
    fn is_due(&self, config: &LogConfig, now: Timestamp) -> bool {
        let is_too_much = |kept: u64| {
            let spare = self.spare_bytes;
            spare.is_some_and(|spare| self.bytes - spare >= kept)
        };
        self.bytes > 0
            && (is_over_age(self.oldest, config.retention_ms, now)
                || config.retention_bytes.is_some_and(is_too_much))
    }
}

/// The one segment that a log at rest knows of: the last.
fn last_segment(known: &LogCheckpoint) -> Segment {
    Segment::sealed(known.recovery_segment_base, known.recovery_position)
}

/// Whether the segments on disk are what the record says, so that there is nothing to recover.
pub fn is_as_described(known: &LogCheckpoint, files: &[(Offset, u64)]) -> bool {
    let last = (known.recovery_segment_base, known.recovery_position);
    known.log_start <= known.recovery_offset && files.last() == Some(&last)
}

impl LogInner {
    /// A log that is all in segments, as its record says.
    pub fn at_rest(
        shared: &Rc<Shared>,
        identity: Identity,
        config: LogConfig,
        known: Rc<LogCheckpoint>,
    ) -> Rc<LogInner> {
        let end = known.recovery_offset;
        assert!(known.log_start <= end, "a log starts before it ends");
        let marks = Marks::empty_at(known.log_start).moved(|marks| {
            marks.durable_end = end;
            marks.counted_end = end;
            marks.log_end = end;
            marks.high_watermark = known.high_watermark.min(end).max(known.log_start);
            marks.last_stable = marks.high_watermark;
        });
        let write = WriteState {
            segment_base: known.recovery_segment_base,
            writer: Some(SegmentWriter::at(known.recovery_position)),
            in_flight: InFlight::default(),
            planned_end: end,
            flushed_end: end,
            synced_end: end,
            wanted_end: end,
            running: false,
            paused: false,
            syncs: 0,
            padded: false,
            index_saved_len: 0,
            index_saving: false,
        };
        let state = State {
            config,
            marks,
            generation: known.log_generation,
            segments: vec![last_segment(&known)],
            tail: Tail::default(),
            pending: Pending::new(end),
            producers: known.producers.clone(),
            epochs: known.epochs.clone(),
            write,
            cursors: Cursors::default(),
            spares: Spares::default(),
            checkpoint: Some(known),
            phase: Phase::Open,
            rest: Rest::Asleep,
            outline: None,
            used: false,
            fault: None,
            reported: false,
            renames_begun: 0,
            renames_synced: 0,
        };
        let Identity { id, name, dir } = identity;
        Rc::new(LogInner {
            shared: Rc::clone(shared),
            id,
            name,
            dir,
            key: shared.new_log_key(),
            may_rest: true,
            state: RefCell::new(state),
            changed: Notify::new(),
        })
    }

    /// Has the log woken if it is at rest, without waiting for it.
    pub fn wake(self: &Rc<Self>) {
        {
            let mut state = self.state.borrow_mut();
            let is_gone = state.phase == Phase::Removed || state.fault.is_some();
            if state.rest != Rest::Asleep || is_gone {
                return;
            }
            state.rest = Rest::Turning;
        }
        let log = Rc::clone(self);
        // A producer may wait for it, and it reads next to nothing.
        self.shared
            .rt
            .spawn(Class::Foreground, async move { log.run_wake().await })
            .detach();
    }

    /// Completes when the segments are known, or with the fault that keeps them from being known.
    pub async fn awake(self: &Rc<Self>) -> Result<(), Fault> {
        loop {
            self.wake();
            // Another attempt may take its time.
            let is_settled = |state: &State| state.rest != Rest::Turning || state.fault.is_some();
            self.wait_until(is_settled).await;
            let state = self.state.borrow();
            if state.rest == Rest::Awake {
                return Ok(());
            }
            if let Some(fault) = &state.fault {
                return Err(fault.clone());
            }
            if state.phase == Phase::Removed {
                let removed = std::io::Error::from(std::io::ErrorKind::NotFound);
                return Err(Fault::io("open", &self.dir, removed));
            }
        }
    }

    /// As `awake`, and not while the log is cut.
    pub async fn awake_and_whole(self: &Rc<Self>) -> Result<(), Fault> {
        loop {
            self.awake().await?;
            if self.state.borrow().phase != Phase::Cutting {
                return Ok(());
            }
            self.wait_until(|state| state.phase != Phase::Cutting).await;
        }
    }

    async fn run_wake(self: Rc<Self>) {
        let found = self.find_segments().await;
        let is_new = found.is_err() && self.fault().is_none();
        if let Err(fault) = self.end_of_turn(found)
            && is_new
        {
            tracing::error!(log = %self.name, %fault, "log cannot be opened; it is tried again until it can");
            self.shared.count(|stats| stats.faults += 1);
            self.shared.went_offline.notify_all();
            self.report();
        }
    }

    /// Another attempt to wake a log that is offline because it could not be woken.
    pub async fn mend_asleep(self: &Rc<Self>) -> Result<(), Fault> {
        let found = self.find_segments().await;
        self.end_of_turn(found)
    }

    fn end_of_turn(&self, found: Result<Recovered, Fault>) -> Result<(), Fault> {
        let outcome = match found {
            Ok(recovered) => {
                self.take_segments(recovered);
                Ok(())
            }
            Err(fault) => {
                let mut state = self.state.borrow_mut();
                state.rest = Rest::Asleep;
                state.fault = Some(fault.clone());
                Err(fault)
            }
        };
        self.changed.notify_all();
        self.shared.room.notify_all();
        outcome
    }

    async fn find_segments(&self) -> Result<Recovered, Fault> {
        let known = self.state.borrow().checkpoint.clone();
        let known = known.expect("a log rests on its record");
        let interval = self.state.borrow().config.index_interval_bytes;
        let rt = &self.shared.rt;
        let files = self.tidied(&known).await?;
        let identity = check_identity(rt, &self.dir, self.id, &files).await;
        identity.map_err(|error| match error {
            OpenError::Fault(fault) => fault,
            other => self.not_as_left(other.to_string()),
        })?;
        if !is_as_described(&known, &files) {
            let (base, len) = (known.recovery_segment_base, known.recovery_position);
            let found = files.last();
            let what = format!("segment {base} of {len} bytes should be the last, not {found:?}");
            return Err(self.not_as_left(what));
        }
        let recovery = Recovery {
            shared: &self.shared,
            dir: &self.dir,
            name: &self.name,
            log_key: self.key,
            index_interval_bytes: interval,
            checkpoint: Some(&known),
            replay: None,
            cut_again: false,
            entries: Default::default(),
        };
        let recovered = recovery.run(&files).await?;
        let recovered = recovered.expect("there are files");
        if recovered.end != known.recovery_offset {
            let (wanted, found) = (known.recovery_offset, recovered.end);
            let what = format!("it should end at {wanted}, not at {found}");
            return Err(self.not_as_left(what));
        }
        Ok(recovered)
    }

    /// The segments on disk, without what is left over.
    async fn tidied(&self, known: &LogCheckpoint) -> Result<Vec<(Offset, u64)>, Fault> {
        let rt = &self.shared.rt;
        let listed = rt.list_dir(&self.dir).await;
        let listed = listed.map_err(|error| Fault::io("list", &self.dir, error))?;
        let files = segments_in(&listed);
        if !has_leftovers(&listed) && first_needed(&files, known.log_start) == 0 {
            return Ok(files);
        }
        let _names = self.shared.hold_names().await;
        let files = tidy(rt, &self.dir).await?;
        remove_below(rt, &self.dir, files, Some(known.log_start)).await
    }

    /// Not damage that a reader could pass over: nothing of the log can be used.
    fn not_as_left(&self, what: String) -> Fault {
        let error = std::io::Error::new(std::io::ErrorKind::InvalidData, what);
        Fault::io("open", &self.dir, error)
    }

    fn take_segments(&self, recovered: Recovered) {
        let mut state = self.state.borrow_mut();
        let last = recovered.segments.last().expect("a log has a segment");
        assert_eq!(last.base, state.write.segment_base, "checked before");
        assert_eq!(recovered.end, state.marks.log_end, "checked before");
        state.write.writer = Some(SegmentWriter::at(last.len));
        state.write.index_saved_len = recovered.index_saved_len;
        state.segments = recovered.segments;
        state.used = true;
        if state.fault.take().is_some() {
            self.shared.pool.unflushed_again(state.tail.unstrand());
        }
        assert_eq!(state.rest, Rest::Turning, "whoever changes it waits");
        state.rest = Rest::Awake;
        state.outline = None;
    }

    /// Offline with something in the journal or in memory that may be nowhere else.
    pub fn holds_the_journal(&self) -> bool {
        let state = self.state.borrow();
        state.fault.is_some() && state.rest == Rest::Awake
    }

    /// Whether it is at rest and has segments before the last one.
    pub fn may_have_sealed_asleep(&self) -> bool {
        let state = self.state.borrow();
        let known = state.checkpoint.as_ref();
        state.rest == Rest::Asleep
            && known.is_some_and(|known| known.log_start < known.recovery_segment_base)
    }

    /// Back to rest after a use that does not count.
    pub async fn rest_again(self: &Rc<Self>) -> Result<(), Fault> {
        self.state.borrow_mut().used = false;
        self.rest_if_idle().await
    }

    /// Lets go of everything but the record if the log was not used since the last call.
    pub async fn rest_if_idle(self: &Rc<Self>) -> Result<(), Fault> {
        {
            let mut state = self.state.borrow_mut();
            let used = std::mem::replace(&mut state.used, false);
            if used || !self.may_rest || !state.is_at_its_record() {
                return Ok(());
            }
            state.rest = Rest::Turning;
        }
        let result = self.exact_length().await;
        if let Err(fault) = &result {
            self.poison(fault.clone());
        }
        self.forget_files();
        {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            assert_eq!(state.rest, Rest::Turning, "whoever changes it waits");
            state.rest = Rest::Awake;
            // While it turned nothing was appended or cut, but a fault may have come.
            if state.is_at_its_record() {
                state.fall_asleep();
            }
        }
        self.resume_writer();
        self.changed.notify_all();
        self.shared.room.notify_all();
        result
    }

    /// Stops the writer and cuts the active segment's file to its exact length.
    async fn exact_length(self: &Rc<Self>) -> Result<(), Fault> {
        self.pause_writer().await;
        self.end_spares().await;
        let (base, len, padded) = {
            let state = self.state.borrow();
            (state.active().base, state.active().len, state.write.padded)
        };
        match padded {
            true => self.cut_padding(base, len).await,
            false => Ok(()),
        }
    }

    /// Whether retention has to look at the log. One at rest is not woken to find that out.
    pub async fn retention_is_due(&self, now: Timestamp) -> Result<bool, Fault> {
        {
            let state = self.state.borrow();
            if state.rest != Rest::Asleep {
                return Ok(true);
            }
            let config = &state.config;
            let is_limited = config.retention_ms.is_some() || config.retention_bytes.is_some();
            if !config.delete || !is_limited {
                return Ok(false);
            }
        }
        let outline = self.outline().await?;
        let state = self.state.borrow();
        Ok(outline.is_none_or(|outline| outline.is_due(&state.config, now)))
    }

    /// Bytes in segments.
    pub async fn size_bytes(&self) -> Result<u64, Fault> {
        if let Some(outline) = self.outline().await? {
            return Ok(outline.bytes);
        }
        let state = self.state.borrow();
        Ok(state.segments.iter().map(|segment| segment.len).sum())
    }

    /// Of a log at rest; `None` of one that is not. A log of one segment is described by its record, of others the directory is listed.
    async fn outline(&self) -> Result<Option<Outline>, Fault> {
        let (known, interval) = {
            let state = self.state.borrow();
            if state.rest != Rest::Asleep || state.outline.is_some() {
                return Ok(state.outline);
            }
            let interval = state.config.index_interval_bytes;
            (
                state.checkpoint.clone().expect("a log rests on it"),
                interval,
            )
        };
        let outline = match &known.index {
            Some(index) if known.log_start >= known.recovery_segment_base => Outline {
                bytes: known.recovery_position,
                oldest: index.newest(),
                spare_bytes: None,
            },
            _ => self.outline_from_disk(&known, interval).await?,
        };
        let mut state = self.state.borrow_mut();
        if state.rest != Rest::Asleep {
            return Ok(None);
        }
        state.outline = Some(outline);
        Ok(state.outline)
    }

    async fn outline_from_disk(
        &self,
        known: &LogCheckpoint,
        interval: u64,
    ) -> Result<Outline, Fault> {
        let rt = &self.shared.rt;
        let listed = rt.list_dir(&self.dir).await;
        let listed = listed.map_err(|error| Fault::io("list", &self.dir, error))?;
        let files = segments_in(&listed);
        let files = &files[first_needed(&files, known.log_start)..];
        let Some(&(base, len)) = files.first() else {
            return Err(self.not_as_left("there is no segment".to_string()));
        };
        let oldest = match load_index(rt, &self.dir, base, interval).await {
            Ok(index) => index.newest(),
            // It is built again when the log is awake.
            Err(_) => Timestamp(0),
        };
        Ok(Outline {
            bytes: files.iter().map(|&(_, len)| len).sum(),
            oldest,
            spare_bytes: (files.len() > 1).then_some(len),
        })
    }
}

impl State {
    /// Whether a durable checkpoint says all there is to say of this log, and nothing is under way.
    fn is_at_its_record(&self) -> bool {
        let Some(known) = &self.checkpoint else {
            return false;
        };
        let write = &self.write;
        self.phase == Phase::Open
            && self.rest == Rest::Awake
            && self.fault.is_none()
            && known.log_generation == self.generation
            && known.recovery_offset == self.marks.log_end
            && known.log_start == self.marks.log_start
            && known.recovery_segment_base == self.active().base
            && known.recovery_position == self.active().len
            && write.segment_base == self.active().base
            && write.flushed_end == self.marks.log_end
            && write.synced_end == self.marks.log_end
            && !write.index_saving
            && !self.has_segments_below_start()
            && self.marks.durable_end == self.marks.log_end
            && self.pending.is_idle()
    }

    fn fall_asleep(&mut self) {
        self.rest = Rest::Asleep;
        let first = &self.segments[0];
        let oldest = match &first.index {
            SegmentIndex::OnDisk { max_timestamp } => *max_timestamp,
            SegmentIndex::Live(index) => Some(index.newest()),
        };
        // Where the oldest one's timestamp is not known all is looked up when somebody asks.
        self.outline = oldest.map(|oldest| Outline {
            bytes: self.segments.iter().map(|segment| segment.len).sum(),
            oldest,
            spare_bytes: (self.segments.len() > 1).then_some(first.len),
        });
        let known = self.checkpoint.as_ref().expect("checked before");
        self.segments = vec![last_segment(known)];
        self.write.writer = Some(SegmentWriter::at(known.recovery_position));
        self.tail.shrink();
    }
}
