//! Bringing a log to rest: described for a checkpoint, its side file written, closed, deleted.

use std::{path::Path, rc::Rc};

use super::{
    open::read_identity,
    rest::Rest,
    shared::{Handle, Shared},
    state::{LogInner, Phase, State},
    together::Wanted,
    write::Waited,
};
use crate::{
    checkpoint::LogCheckpoint,
    error::Fault,
    rt::durable,
    segment::{index_path, segment_path},
    types::{LogId, LogName, Offset},
};

/// Longest part of a topic's name in the name of a directory to be deleted: a file name has 255 bytes.
const DELETED_TOPIC_BYTES_MAX: usize = 200;

/// What a checkpoint says of a log.
#[derive(Clone, Debug)]
pub enum Described {
    /// Everything that was in the log when the description began is durable in segments.
    Now(Rc<LogCheckpoint>),
    /// The log is offline or gone: what the last checkpoint said.
    Before(Option<Rc<LogCheckpoint>>),
}

impl LogInner {
    /// Describes the log at its present end, and makes everything below that durable in segments. An offline log keeps what the last
    /// checkpoint said of it, if that still holds.
    pub async fn describe_durably(self: &Rc<Self>) -> Described {
        loop {
            if self.state.borrow().phase == Phase::Removed {
                return Described::Before(None);
            }
            let described = self.describe();
            match self.sync_to(described.recovery_offset).await {
                Ok(Waited::Reached) => return Described::Now(described),
                Ok(Waited::Cut) => {}
                // Whatever keeps it from waking, what it has is in its record.
                Err(_) if self.state.borrow().rest != Rest::Awake => {
                    return Described::Now(described);
                }
                Err(_) => return Described::Before(self.state.borrow().checkpoint.clone()),
            }
        }
    }

    fn describe(&self) -> Rc<LogCheckpoint> {
        let state = self.state.borrow();
        let marks = &state.marks;
        match &state.checkpoint {
            Some(known)
                if known.log_generation == state.generation
                    && known.recovery_offset == marks.log_end
                    && known.recovery_segment_base == state.last_with_file().base
                    && known.log_start == marks.log_start
                    && known.high_watermark == marks.high_watermark =>
            {
                Rc::clone(known)
            }
            // Of its segments it knows only what the record says.
            Some(known) if state.rest != Rest::Awake => Rc::new(LogCheckpoint {
                high_watermark: marks.high_watermark,
                producers: state.producers.clone(),
                ..LogCheckpoint::clone(known)
            }),
            _ => Rc::new(state.describe(self.id)),
        }
    }

    /// Whether a description has not been overtaken by a cut, nor the log taken online again since it could not be described.
    pub fn is_described_by(&self, described: &Described) -> bool {
        match described {
            Described::Now(known) => known.log_generation == self.state.borrow().generation,
            Described::Before(_) => false,
        }
    }

    /// Writes the side file of the active segment, if that is more than `lag_bytes` ahead of it. It covers no more than the last
    /// checkpoint does, so a crash never finds an index that speaks of batches which recovery may cut.
    pub async fn save_index(&self, lag_bytes: u64) -> Result<(), Fault> {
        let (index, generation) = {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            let (Some(known), Some(index)) = (&state.checkpoint, state.active().live_index())
            else {
                return Ok(());
            };
            let active = state.active();
            let behind = active.len.saturating_sub(state.write.index_saved_len);
            let is_written = state.write.segment_base == active.base;
            if behind == 0
                || behind < lag_bytes
                || !is_written
                || known.recovery_segment_base != active.base
                || known.log_generation != state.generation
                || state.fault.is_some()
            {
                return Ok(());
            }
            let mut index = index.clone();
            index.rewind(known.recovery_position);
            state.write.index_saving = true;
            (index, state.generation)
        };
        let base = index.base();
        let _names = self.shared.keep_names().await;
        let gone = {
            let state = self.state.borrow();
            state.generation != generation || state.phase == Phase::Removed
        };
        let result = match gone {
            // Cut or deleted meanwhile: the file would speak of what another segment of this name does not hold.
            true => Ok(()),
            false => {
                let path = index_path(&self.dir, base);
                durable::replace_file(&self.shared.rt, &path, &index.encode()).await
            }
        };
        {
            let mut state = self.state.borrow_mut();
            state.write.index_saving = false;
            if result.is_ok() && !gone && state.write.segment_base == base {
                state.write.index_saved_len = index.len();
            }
        }
        self.changed.notify_all();
        result
    }

    /// Takes no more appends, writes everything, and cuts the active segment's file to its exact length.
    pub async fn finish(self: &Rc<Self>) -> Result<(), Fault> {
        self.wait_until(State::is_still).await;
        self.state.borrow_mut().phase = Phase::Closed;
        let log_end = self.state.borrow().marks.log_end;
        self.flush_to(log_end).await?;
        // A segment that was begun gets its file, so that all before it are sealed.
        self.wait_until(|state| state.fault.is_some() || state.segment_to_seal().is_none())
            .await;
        self.pause_writer().await;
        self.end_spares().await;
        if let Some(fault) = self.fault() {
            return Err(fault);
        }
        let (base, len, padded) = {
            let state = self.state.borrow();
            (state.active().base, state.active().len, state.write.padded)
        };
        if padded {
            self.cut_padding(base, len).await?;
        }
        self.sync_to(log_end).await?;
        self.forget_files();
        Ok(())
    }

    /// Also makes everything in the segment durable: nothing is written to it any more.
    pub async fn cut_padding(&self, base: Offset, len: u64) -> Result<(), Fault> {
        let fault = |error| self.io_fault("close", base, error);
        let path = segment_path(&self.dir, base);
        let key = self.segment_key(base);
        let file = self
            .shared
            .open_segment(key, &path, Handle::Behind)
            .await
            .map_err(fault)?;
        file.truncate(len).await.map_err(fault)?;
        let (files, dirs) = (vec![file], Vec::new());
        self.synced(self.shared.sync(Wanted { files, dirs }))
            .await?;
        let moved = {
            let mut state = self.state.borrow_mut();
            state.write.padded = false;
            state.write.synced_end = state.write.flushed_end;
            state.advance()
        };
        if moved {
            self.report();
        }
        Ok(())
    }

    /// Lets go of files, read-ahead and indexes.
    pub fn forget_files(&self) {
        let mut state = self.state.borrow_mut();
        state.cursors.clear(&self.shared);
        for segment in &state.segments {
            self.shared.forget_segment(self.segment_key(segment.base));
        }
    }

    /// Takes the log out of the data directory: renamed first, so that a crash leaves all of it or a directory to be removed.
    pub async fn remove(self: &Rc<Self>, data_dir: &Path) -> Result<(), Fault> {
        self.wait_until(State::is_still).await;
        self.state.borrow_mut().phase = Phase::Removed;
        self.changed.notify_all();
        self.pause_writer().await;
        self.end_spares().await;
        self.forget_files();
        remove_dir(&self.shared, data_dir, &self.name).await
    }
}

/// Takes the directory of a log that is not open out of the data directory, if it is that log's. What belongs to somebody else stays.
pub async fn remove_unopened(
    shared: &Rc<Shared>,
    data_dir: &Path,
    id: LogId,
    name: &LogName,
) -> Result<(), Fault> {
    let dir = data_dir.join(name.to_string());
    if !shared.rt.exists(&dir).await {
        return Ok(());
    }
    if read_identity(&shared.rt, &dir).await? != Some(id.topic_id) {
        tracing::warn!(dir = %dir.display(), "not deleted with its topic: it does not say that it belongs to it");
        return Ok(());
    }
    remove_dir(shared, data_dir, name).await
}

async fn remove_dir(shared: &Rc<Shared>, data_dir: &Path, name: &LogName) -> Result<(), Fault> {
    let rt = &shared.rt;
    let dir = data_dir.join(name.to_string());
    let mut topic = name.topic.clone();
    topic.truncate(DELETED_TOPIC_BYTES_MAX);
    let unique = rt.random_u64();
    let deleted = format!("{topic}-{}.{unique:016x}-delete", name.partition);
    let deleted = data_dir.join(deleted);
    {
        let _names = shared.hold_names().await;
        let renamed = rt.rename(&dir, &deleted).await;
        renamed.map_err(|error| Fault::io("rename", &dir, error))?;
    }
    let (files, dirs) = (Vec::new(), vec![data_dir.to_path_buf()]);
    shared.sync(Wanted { files, dirs }).await?;
    if let Err(error) = rt.remove_dir_all(&deleted).await {
        // The log is gone; what has this name goes at the next start.
        tracing::warn!(dir = %deleted.display(), %error, "the directory of a deleted log is left for the next start to remove");
    }
    Ok(())
}
