//! The ring of journal files, written once in advance and used again and again.
//!
//! File sequence `n` lives in slot `n % files`. A slot is used again only after its last use was released; until then the writer waits.
//! Writing blocks that were written before is what makes a durable write cheap, so files are filled with zeros when they are
//! created: the first at the start, the others behind it. One that cannot be created is tried again until it is there; the
//! writer that comes to its slot waits, as it does for one that was not released.

use std::{
    cell::{Cell, RefCell},
    io,
    path::{Path, PathBuf},
    rc::{Rc, Weak},
    time::Duration,
};

use super::format::{BLOCK, FileHeader};
use crate::{
    error::Fault,
    rt::{AlignedBuf, Class, File, OpenMode, Rt, durable::sync_dir, local::Notify},
};

/// Zeros are written in pieces of this size when a file is created.
const PREWRITE_BYTES: u64 = 1 << 20;

/// A file that could not be created is tried again after this long.
const CREATE_PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub struct JournalConfig {
    /// Size of one file; a multiple of [`BLOCK`].
    pub file_bytes: u64,
    /// Files in the ring, at least two.
    pub files: usize,
    /// One commit gathers no more than this, except for a single entry that is larger.
    pub commit_bytes_max: usize,
}

impl JournalConfig {
    /// Bytes of a file that commits can take.
    pub fn commits_bytes_max(&self) -> u64 {
        self.file_bytes - BLOCK as u64
    }
}

/// Where a commit begins, or will. All entries in the commits before it were submitted before [`super::Journal::position`]
/// returned it. A checkpoint that covers these keeps it, and the next start reads the ring from here on only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalPosition {
    /// Of the ring.
    pub generation: u64,
    pub file_sequence: u64,
    pub commit_sequence: u64,
    /// In the file. The commit may also be the first one of the next file.
    pub file_position: u64,
}

/// Where the writer is, and what may be overwritten.
pub(super) struct Ring {
    rt: Rt,
    dir: PathBuf,
    config: JournalConfig,
    generation: u64,
    slots: RefCell<Vec<Slot>>,
    /// A slot became ready, or a file was released.
    changed: Notify,
    checkpoint_wanted: Notify,
    /// Sequence of the file being written.
    current: Cell<u64>,
    /// Where in it the next commit goes.
    position: Cell<u64>,
    /// The next commit waits until a file is released, or created.
    full: Cell<bool>,
    /// All files before this sequence may be overwritten.
    released_before: Cell<u64>,
}

enum Slot {
    Missing,
    /// Being created, or an attempt has failed: what it left is not trusted.
    Spoiled,
    Ready(Rc<File>),
}

impl Ring {
    /// Opens the files that are there, creates the first if need be (the others behind), and begins file sequence 0 of `generation`.
    pub async fn open(
        rt: &Rt,
        dir: PathBuf,
        config: JournalConfig,
        generation: u64,
    ) -> Result<Rc<Ring>, Fault> {
        assert!(config.files >= 2, "one file is written while another waits");
        assert!(config.file_bytes.is_multiple_of(BLOCK as u64));
        assert!(config.file_bytes >= 2 * BLOCK as u64);
        assert!(config.commit_bytes_max as u64 <= config.commits_bytes_max());
        make_dir(rt, &dir).await?;
        remove_surplus(rt, &dir, config.files).await?;
        let mut slots = Vec::with_capacity(config.files);
        for index in 0..config.files {
            slots.push(open_slot(rt, &file_path(&dir, index), &config, generation).await?);
        }
        // The files that are there may have been made by a run that was killed before it synced their names.
        sync_dir(rt, &dir).await?;
        let ring = Rc::new(Ring {
            rt: rt.clone(),
            dir,
            config,
            generation,
            slots: RefCell::new(slots),
            changed: Notify::new(),
            checkpoint_wanted: Notify::new(),
            current: Cell::new(0),
            position: Cell::new(0),
            full: Cell::new(false),
            released_before: Cell::new(0),
        });
        ring.create_if_missing(0).await?;
        let create_missing = create_missing(rt.clone(), Rc::downgrade(&ring));
        rt.spawn(Class::Housekeeping, create_missing).detach();
        ring.begin_file(0, 0).await?;
        Ok(ring)
    }

    pub fn config(&self) -> &JournalConfig {
        &self.config
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn current(&self) -> u64 {
        self.current.get()
    }

    /// Where in the current file the next commit goes, if there is room.
    pub fn file_position(&self) -> u64 {
        self.position.get()
    }

    /// Makes room for a commit of `len` bytes: goes on to the next file if the current one has too little left, and waits until that one
    /// is released. `first_commit` is the sequence of the commit to come.
    pub async fn reserve(&self, len: u64, first_commit: u64) -> Result<(), Fault> {
        assert!(len <= self.config.commits_bytes_max());
        if self.position.get() + len <= self.config.file_bytes {
            return Ok(());
        }
        let next = self.current.get() + 1;
        while next - self.released_before.get() >= self.config.files as u64 {
            self.full.set(true);
            let released = self.changed.listen();
            self.checkpoint_wanted.notify_all();
            released.await;
        }
        while self.ready_file(next).is_none() {
            self.full.set(true);
            let created = self.changed.listen();
            self.checkpoint_wanted.notify_all();
            created.await;
        }
        self.full.set(false);
        self.begin_file(next, first_commit).await?;
        if self.needs_checkpoint() {
            self.checkpoint_wanted.notify_all();
        }
        Ok(())
    }

    /// Writes a commit where `reserve` made room for it; durable when this returns.
    pub async fn write(&self, commit: AlignedBuf) -> Result<(), Fault> {
        let position = self.position.get();
        let end = position + commit.len() as u64;
        assert!(end <= self.config.file_bytes, "room was made before");
        let file = self.ready_file(self.current.get());
        let file = file.expect("its header was written");
        file.write_at(commit, position)
            .await
            .map_err(|error| Fault::io("write to the journal", file.path(), error))?;
        self.position.set(end);
        Ok(())
    }

    pub fn release_before(&self, sequence: u64) {
        assert!(
            sequence <= self.current.get(),
            "the file being written stays"
        );
        if sequence > self.released_before.get() {
            self.released_before.set(sequence);
            self.changed.notify_all();
        }
    }

    pub fn is_full(&self) -> bool {
        self.full.get()
    }

    /// More than half of the files are in use.
    pub fn needs_checkpoint(&self) -> bool {
        let used = self.current.get() - self.released_before.get() + 1;
        assert!(used <= self.config.files as u64);
        used * 2 > self.config.files as u64
    }

    pub fn checkpoint_wanted(&self) -> Notify {
        self.checkpoint_wanted.clone()
    }

    /// Writes the header of a new use of a file, alone and durable: from then on its old commits are void.
    async fn begin_file(&self, sequence: u64, first_commit: u64) -> Result<(), Fault> {
        let file = self.ready_file(sequence);
        let file = file.expect("the writer has waited for it");
        let mut block = self.rt.alloc(BLOCK);
        FileHeader {
            generation: self.generation,
            file_sequence: sequence,
            first_commit,
            file_bytes: self.config.file_bytes,
        }
        .encode(block.bytes_mut());
        file.write_at(block, 0)
            .await
            .map_err(|error| Fault::io("write a header to the journal", file.path(), error))?;
        self.current.set(sequence);
        self.position.set(BLOCK as u64);
        Ok(())
    }

    fn slot_of(&self, sequence: u64) -> usize {
        (sequence % self.config.files as u64) as usize
    }

    fn ready_file(&self, sequence: u64) -> Option<Rc<File>> {
        match &self.slots.borrow()[self.slot_of(sequence)] {
            Slot::Ready(file) => Some(file.clone()),
            Slot::Missing | Slot::Spoiled => None,
        }
    }

    async fn create_if_missing(&self, index: usize) -> Result<(), Fault> {
        let path = file_path(&self.dir, index);
        let spoiled = match self.slots.borrow()[index] {
            Slot::Ready(_) => return Ok(()),
            Slot::Missing => false,
            Slot::Spoiled => true,
        };
        self.slots.borrow_mut()[index] = Slot::Spoiled;
        if spoiled && self.rt.exists(&path).await {
            remove(&self.rt, &path).await?;
        }
        create(&self.rt, &path, self.config.file_bytes).await?;
        sync_dir(&self.rt, &self.dir).await?;
        let file = self
            .rt
            .open(&path, OpenMode::ReadWriteDurable)
            .await
            .map_err(|error| Fault::io("open the journal file", &path, error))?;
        self.slots.borrow_mut()[index] = Slot::Ready(Rc::new(file));
        self.changed.notify_all();
        Ok(())
    }
}

/// Ends when all files are there, or nobody needs them any more.
async fn create_missing(rt: Rt, ring: Weak<Ring>) {
    let mut told = false;
    let mut index = 0;
    loop {
        {
            let Some(ring) = ring.upgrade().filter(|ring| index < ring.config.files) else {
                return;
            };
            match ring.create_if_missing(index).await {
                Ok(()) => {
                    index += 1;
                    continue;
                }
                Err(fault) if !told => {
                    told = true;
                    tracing::error!(%fault, "a journal file cannot be created; it will be tried again, and meanwhile logs may have to go on past the journal");
                }
                Err(_) => {}
            }
        }
        rt.sleep(CREATE_PAUSE).await;
    }
}

pub(super) fn file_path(dir: &Path, index: usize) -> PathBuf {
    dir.join(format!("{index}.journal"))
}

/// The index in a file's name; `None` for names that are not ours.
pub fn file_index(name: &str) -> Option<usize> {
    let index = name.strip_suffix(".journal")?.parse().ok()?;
    (name == format!("{index}.journal")).then_some(index)
}

/// Also when it is there: a run that was killed may have made it and not got as far as the sync.
async fn make_dir(rt: &Rt, dir: &Path) -> Result<(), Fault> {
    rt.create_dir_all(dir)
        .await
        .map_err(|error| Fault::io("create the directory", dir, error))?;
    // The data directory holds `journal`, which holds the shard's own.
    for parent in dir.ancestors().skip(1).take(2) {
        sync_dir(rt, parent).await?;
    }
    Ok(())
}

/// Files past the end of the ring, from a run with more of them, would only take space.
async fn remove_surplus(rt: &Rt, dir: &Path, files: usize) -> Result<(), Fault> {
    let listed = rt
        .list_dir(dir)
        .await
        .map_err(|error| Fault::io("list the directory", dir, error))?;
    for entry in listed {
        if file_index(&entry.name).is_some_and(|index| index >= files) {
            remove(rt, &dir.join(&entry.name)).await?;
        }
    }
    Ok(())
}

async fn open_slot(
    rt: &Rt,
    path: &Path,
    config: &JournalConfig,
    generation: u64,
) -> Result<Slot, Fault> {
    let fault = |what, error| Fault::io(what, path, error);
    let file = match rt.open(path, OpenMode::ReadWriteDurable).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Slot::Missing),
        Err(error) => return Err(fault("open the journal file", error)),
    };
    let block = file
        .read_at(0, BLOCK)
        .await
        .map_err(|error| fault("read the header of", error))?;
    if let Some(header) = FileHeader::decode(&block) {
        assert!(
            header.generation < generation,
            "a new run takes a generation never used before"
        );
    }
    let len = file
        .len()
        .await
        .map_err(|error| fault("read the length of", error))?;
    if len == config.file_bytes {
        return Ok(Slot::Ready(Rc::new(file)));
    }
    // Half created, or the configuration changed. Nothing in it is needed: `open` is called when recovery is durable.
    file.close().await.map_err(|error| fault("close", error))?;
    remove(rt, path).await?;
    Ok(Slot::Missing)
}

async fn remove(rt: &Rt, path: &Path) -> Result<(), Fault> {
    rt.remove_file(path)
        .await
        .map_err(|error| Fault::io("remove", path, error))
}

async fn create(rt: &Rt, path: &Path, file_bytes: u64) -> Result<(), Fault> {
    let fault = |what, error| Fault::io(what, path, error);
    let file = rt
        .open(path, OpenMode::Create)
        .await
        .map_err(|error| fault("create the journal file", error))?;
    file.allocate(file_bytes)
        .await
        .map_err(|error| fault("reserve space for", error))?;
    let mut position = 0;
    while position < file_bytes {
        let len = PREWRITE_BYTES.min(file_bytes - position);
        file.write_at(rt.alloc(len as usize), position)
            .await
            .map_err(|error| fault("fill", error))?;
        position += len;
    }
    file.sync().await.map_err(|error| fault("sync", error))?;
    file.close().await.map_err(|error| fault("close", error))
}
