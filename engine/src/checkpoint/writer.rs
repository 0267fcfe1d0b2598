//! Writes the checkpoint file of a shard: whole at first, then only what changed, at its end.
//!
//! A checkpoint of logs of which few changed costs one durable write of a block or two. When the additions have grown past what all
//! logs take, the file is replaced by a new one.
//!
//! Crash analysis. A new file is written beside the old one, synced, and renamed into its place. Of an addition any of its sectors may
//! be there: its CRC tells. Records are true one by one, so those of a checkpoint that did not come to its end may be used;
//! the position in the journal, which speaks for all of them, is in its last part. After a failed addition nothing more is added to that file.

use std::path::{Path, PathBuf};

use super::{
    CHECKPOINT_BYTES_MAX, LogCheckpoint,
    format::{Ending, encode_part, encode_record, part_len},
};
use crate::{
    error::Fault,
    journal::JournalPosition,
    rt::{
        File, OpenMode, Rt,
        durable::{self, Replacement},
    },
    types::ShardId,
};

/// A part is written when it has grown to this.
const PART_BYTES: usize = 1 << 20;

/// Additions up to this size do not make a file worth replacing.
const ADDED_BYTES_MIN: u64 = 1 << 20;

pub struct Writer {
    rt: Rt,
    dir: PathBuf,
    path: PathBuf,
    /// The file of this run, once it has one that takes additions.
    file: Option<Appendable>,
}

struct Appendable {
    file: File,
    len: u64,
    /// Without additions.
    whole_len: u64,
    next_sequence: u64,
}

/// What stands at the end of a checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Conclusion {
    /// Of the shard's journal in this run.
    pub generation: u64,
    /// Everything that the shard's ring holds before this is covered.
    pub journal: Option<JournalPosition>,
    /// At an orderly end: nothing follows.
    pub clean: bool,
}

impl Writer {
    pub fn new(rt: Rt, dir: &Path, shard: ShardId) -> Writer {
        Writer {
            rt,
            dir: dir.to_path_buf(),
            path: super::file_path(dir, shard),
            file: None,
        }
    }

    /// Whether the next checkpoint must have all logs, rather than those that changed since the last one.
    pub fn wants_all(&self) -> bool {
        self.file
            .as_ref()
            .is_none_or(|file| file.len - file.whole_len > file.whole_len.max(ADDED_BYTES_MIN))
    }

    /// Makes records durable: of all logs if the writer wants that, else of those that changed. `repeated` are records of earlier runs,
    /// each with the generation of its run; only a checkpoint of all logs has them.
    pub async fn write<'a>(
        &mut self,
        conclusion: Conclusion,
        records: impl Iterator<Item = &'a LogCheckpoint>,
        repeated: impl Iterator<Item = (u64, &'a LogCheckpoint)>,
    ) -> Result<(), Fault> {
        // Taken away: what fails takes no more additions.
        let wants_all = self.wants_all();
        let (mut sink, next_sequence) = match self.file.take().filter(|_| !wants_all) {
            Some(file) => {
                let next_sequence = file.next_sequence;
                (Sink::Old(file), next_sequence)
            }
            None => (Sink::New(self.begin().await?), 0),
        };
        let mut parts = Parts {
            rt: &self.rt,
            sink: &mut sink,
            path: &self.path,
            generation: conclusion.generation,
            sequence: next_sequence,
            records: Vec::new(),
        };
        for record in records {
            parts.push(conclusion.generation, record).await?;
        }
        let mut repeated = repeated.filter(|_| next_sequence == 0).peekable();
        if repeated.peek().is_some() {
            // A file begins with a part of the run that wrote it, and ends with one.
            parts.put(Ending::GoesOn, None).await?;
            for (generation, record) in repeated {
                parts.push(generation, record).await?;
            }
            parts.put(Ending::GoesOn, None).await?;
            parts.generation = conclusion.generation;
        }
        let ending = match conclusion.clean {
            true => Ending::EndsRun,
            false => Ending::EndsHere,
        };
        parts.put(ending, conclusion.journal).await?;
        let next_sequence = parts.sequence;
        self.file = Some(self.conclude(sink, next_sequence).await?);
        Ok(())
    }

    async fn begin(&self) -> Result<Replacement, Fault> {
        let dir = &self.dir;
        let created = self.rt.create_dir_all(dir).await;
        created.map_err(|error| Fault::io("create the directory", dir, error))?;
        // Also when it was there: a run that was killed may have made it and not got as far as the sync.
        durable::sync_dir(&self.rt, dir.parent().unwrap_or(Path::new("."))).await?;
        Replacement::begin(&self.rt, &self.path).await
    }

    async fn conclude(&self, sink: Sink, next_sequence: u64) -> Result<Appendable, Fault> {
        match sink {
            Sink::Old(file) => Ok(Appendable {
                next_sequence,
                ..file
            }),
            Sink::New(replacement) => {
                let len = replacement.written();
                replacement.finish().await?;
                let opened = self.rt.open(&self.path, OpenMode::ReadWriteDurable).await;
                let file = opened.map_err(|error| Fault::io("open", &self.path, error))?;
                Ok(Appendable {
                    file,
                    len,
                    whole_len: len,
                    next_sequence,
                })
            }
        }
    }
}

enum Sink {
    New(Replacement),
    Old(Appendable),
}

/// The parts of one checkpoint on their way to the file.
struct Parts<'a> {
    rt: &'a Rt,
    sink: &'a mut Sink,
    path: &'a Path,
    generation: u64,
    sequence: u64,
    records: Vec<u8>,
}

impl Parts<'_> {
    async fn push(&mut self, generation: u64, record: &LogCheckpoint) -> Result<(), Fault> {
        if generation != self.generation || self.records.len() >= PART_BYTES {
            if !self.records.is_empty() {
                self.put(Ending::GoesOn, None).await?;
            }
            self.generation = generation;
        }
        encode_record(&mut self.records, record);
        Ok(())
    }

    async fn put(&mut self, ending: Ending, journal: Option<JournalPosition>) -> Result<(), Fault> {
        let mut buffer = self.rt.alloc(part_len(self.records.len()));
        let len = buffer.len() as u64;
        encode_part(
            buffer.bytes_mut(),
            self.generation,
            self.sequence,
            ending,
            journal,
            &self.records,
        );
        let position = match &*self.sink {
            Sink::New(replacement) => replacement.written(),
            Sink::Old(file) => file.len,
        };
        if position + len > CHECKPOINT_BYTES_MAX {
            let what = format!("a checkpoint of more than {CHECKPOINT_BYTES_MAX} bytes");
            return Err(Fault::corrupt(what, self.path));
        }
        match self.sink {
            Sink::New(replacement) => replacement.write(buffer).await?,
            Sink::Old(file) => {
                let written = file.file.write_at(buffer, position).await;
                written.map_err(|error| Fault::io("add to the checkpoint", self.path, error))?;
                file.len += len;
            }
        }
        self.sequence += 1;
        self.records.clear();
        Ok(())
    }
}
