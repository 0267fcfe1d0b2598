//! The disk of the simulator: what programs see, what is durable, and everything between the two.
//!
//! The assumptions, on the pessimistic side of what POSIX promises:
//! - A completed write is seen by reads at once. Until the file is synced a crash keeps any subset of its sectors; what is
//!   kept of a write past the end makes the file that long, with zeros in the gaps.
//! - A write that is still in flight when power fails is no different. Sectors are never torn, so a write is torn between them.
//! - A change of length is kept or lost as a whole until synced.
//! - Names are durable only after their directory was synced. A crash keeps a prefix of a directory's unsynced changes,
//!   as file systems with a metadata journal do. A rename within one directory is atomic; one between directories is not.
//! - Syncing a file does not make its name durable.
//! - What grows past the capacity of the disk fails with ENOSPC.
//!
//! Beyond what may be assumed of a disk, on demand ([`super::Faults`], [`Disk::rot`]): bits that change, and writes that are
//! acknowledged but lost or put elsewhere. No log survives these; the tests ask that they are noticed. Each leaves a [`Damage`].

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    io,
    path::{Component, Path, PathBuf},
    rc::Rc,
};

use bytes::Bytes;

use crate::rt::{DirEntry, DiskSpace, buf::ALIGNMENT, random::Random};

/// The unit that a device writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// Bytes that are not what the program that wrote them believes, though the disk reported no error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file's path when it happened.
    pub path: PathBuf,
    pub position: u64,
    pub len: u64,
}

/// A disk image. Carry it from one run into the next to restart a program on what an earlier one left.
pub struct Disk {
    root: DirRef,
    total_bytes: u64,
}

pub(super) type FileRef = Rc<RefCell<FileNode>>;
type DirRef = Rc<RefCell<DirNode>>;

#[derive(Clone)]
enum Node {
    File(FileRef),
    Dir(DirRef),
}

impl Default for Disk {
    fn default() -> Disk {
        Disk::empty(1 << 40)
    }
}

impl Disk {
    pub fn empty(total_bytes: u64) -> Disk {
        Disk {
            root: DirRef::default(),
            total_bytes,
        }
    }

    /// What is left after a power failure; `seed` decides the fate of everything that was not synced.
    pub fn crash(&self, seed: u64) -> Disk {
        self.crash_with(&Random::new(seed))
    }

    /// The same disk with another capacity: what an operator does about a full one.
    pub fn with_capacity(self, total_bytes: u64) -> Disk {
        Disk {
            total_bytes,
            ..self
        }
    }

    /// Flips one bit of one file whose path contains `within`, for good. `None` if no such file has content.
    pub fn rot(&self, within: &str, seed: u64) -> Option<Damage> {
        let random = Random::new(seed);
        let files = self.files();
        let with_content: Vec<_> = files
            .into_iter()
            .filter(|(path, file)| {
                path.to_string_lossy().contains(within) && file.borrow().len() > 0
            })
            .collect();
        if with_content.is_empty() {
            return None;
        }
        let (path, file) = &with_content[random.below(with_content.len() as u64) as usize];
        let position = random.below(file.borrow().len());
        file.borrow_mut().flip(position, 1 << random.below(8));
        Some(Damage {
            path: path.clone(),
            position,
            len: 1,
        })
    }

    /// A new process opens its files anew, and need not hear of errors that came before.
    pub(super) fn told_of_errors(self) -> Disk {
        for (_, file) in self.files() {
            file.borrow_mut().take_owed_error();
        }
        self
    }

    /// All files with their paths, in the order of names.
    pub(super) fn files(&self) -> Vec<(PathBuf, FileRef)> {
        let mut files = Vec::new();
        collect_files(&self.root, Path::new("/"), &mut files);
        files
    }

    /// Where a misdirected write of `len` bytes may end up: within a file that is there, at a block.
    pub(super) fn stray_place(&self, len: u64, random: &Random) -> Option<(PathBuf, FileRef, u64)> {
        let mut files = self.files();
        files.retain(|(_, file)| file.borrow().len() >= len);
        if files.is_empty() {
            return None;
        }
        let (path, file) = files.swap_remove(random.below(files.len() as u64) as usize);
        let blocks = (file.borrow().len() - len) / ALIGNMENT as u64 + 1;
        let position = random.below(blocks) * ALIGNMENT as u64;
        Some((path, file, position))
    }

    /// Whether so many bytes more still fit.
    pub(super) fn make_room(&self, bytes: u64) -> io::Result<()> {
        // Walking the tree is only worth it on a disk that can become full in a test.
        const LARGE_BYTES: u64 = 1 << 32;
        if bytes > 0 && self.total_bytes < LARGE_BYTES && bytes > self.space().available_bytes {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        Ok(())
    }

    pub(super) fn crash_with(&self, random: &Random) -> Disk {
        Disk {
            root: crash_dir(&self.root, random),
            total_bytes: self.total_bytes,
        }
    }

    pub(super) fn set_capacity(&mut self, total_bytes: u64) {
        self.total_bytes = total_bytes;
    }

    /// Length of all files together.
    pub fn used_bytes(&self) -> u64 {
        used_bytes(&self.root)
    }

    pub(super) fn space(&self) -> DiskSpace {
        DiskSpace {
            total_bytes: self.total_bytes,
            available_bytes: self.total_bytes.saturating_sub(self.used_bytes()),
        }
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<FileRef> {
        match self.find(path)? {
            Node::File(file) => Ok(file),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        self.find(path).is_ok()
    }

    pub(super) fn create_file(&self, path: &Path) -> io::Result<FileRef> {
        let (dir, name) = self.parent(path)?;
        let mut dir = dir.borrow_mut();
        if dir.view.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = FileRef::default();
        dir.change(Change::Put(name, Node::File(file.clone())));
        Ok(file)
    }

    pub(super) fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut dir = self.root.clone();
        for name in names(path)? {
            let next = dir.borrow().view.get(&name).cloned();
            dir = match next {
                Some(Node::Dir(next)) => next,
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => {
                    let next = DirRef::default();
                    dir.borrow_mut()
                        .change(Change::Put(name, Node::Dir(next.clone())));
                    next
                }
            };
        }
        Ok(())
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let dir = self.dir(path)?;
        let dir = dir.borrow();
        let entry = |(name, node): (&String, &Node)| DirEntry {
            name: name.clone(),
            is_dir: matches!(node, Node::Dir(_)),
            len: match node {
                Node::File(file) => file.borrow().len(),
                Node::Dir(_) => 0,
            },
        };
        Ok(dir.view.iter().map(entry).collect())
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.find(from)?;
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        let same_dir = Rc::ptr_eq(&from_dir, &to_dir);
        if same_dir && from_name == to_name {
            return Ok(());
        }
        match (to_dir.borrow().view.get(&to_name), &node) {
            (None, _) | (Some(Node::File(_)), Node::File(_)) => {}
            (Some(Node::Dir(_)), Node::File(_)) => return Err(io::ErrorKind::IsADirectory.into()),
            (Some(Node::File(_)), Node::Dir(_)) => return Err(io::ErrorKind::NotADirectory.into()),
            (Some(Node::Dir(old)), Node::Dir(_)) if old.borrow().view.is_empty() => {}
            (Some(Node::Dir(_)), _) => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
        }
        if same_dir {
            from_dir
                .borrow_mut()
                .change(Change::Rename(from_name, to_name, node));
        } else {
            to_dir.borrow_mut().change(Change::Put(to_name, node));
            from_dir.borrow_mut().change(Change::Remove(from_name));
        }
        Ok(())
    }

    pub(super) fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.file(path)?;
        let (dir, name) = self.parent(path)?;
        dir.borrow_mut().change(Change::Remove(name));
        Ok(())
    }

    /// Children first, as the system does it, so that a crash can find it half done.
    pub(super) fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let dir = self.dir(path)?;
        let children = dir.borrow().view.clone();
        for (name, child) in children {
            if let Node::Dir(_) = child {
                self.remove_dir_all(&path.join(name))?;
            } else {
                dir.borrow_mut().change(Change::Remove(name));
            }
        }
        let (parent, name) = self.parent(path)?;
        parent.borrow_mut().change(Change::Remove(name));
        Ok(())
    }

    /// What a sync of this directory that starts now will make durable.
    pub(super) fn start_sync_dir(&self, path: &Path) -> io::Result<SyncDir> {
        let dir = self.dir(path)?;
        let upto = dir.borrow().changes_made;
        Ok(SyncDir { dir, upto })
    }

    /// What a sync of everything that starts now will make durable.
    pub(super) fn start_sync_all(&self) -> SyncAll {
        let mut sync = SyncAll::default();
        sync.add(&self.root);
        sync
    }

    fn find(&self, path: &Path) -> io::Result<Node> {
        let mut node = Node::Dir(self.root.clone());
        for name in names(path)? {
            let Node::Dir(dir) = node else {
                return Err(io::ErrorKind::NotADirectory.into());
            };
            let next = dir.borrow().view.get(&name).cloned();
            node = next.ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(node)
    }

    fn dir(&self, path: &Path) -> io::Result<DirRef> {
        match self.find(path)? {
            Node::Dir(dir) => Ok(dir),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn parent(&self, path: &Path) -> io::Result<(DirRef, String)> {
        let mut names = names(path)?;
        let name = names.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let dir: std::path::PathBuf = names.iter().collect();
        Ok((self.dir(&dir)?, name))
    }
}

/// There is no working directory here: relative paths start at the root.
fn names(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => {
                let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?;
                names.push(name.to_owned());
            }
            Component::ParentDir => {
                names.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(names)
}

fn collect_files(dir: &DirRef, path: &Path, files: &mut Vec<(PathBuf, FileRef)>) {
    for (name, node) in &dir.borrow().view {
        match node {
            Node::File(file) => files.push((path.join(name), file.clone())),
            Node::Dir(dir) => collect_files(dir, &path.join(name), files),
        }
    }
}

fn used_bytes(dir: &DirRef) -> u64 {
    let bytes_of = |node: &Node| match node {
        Node::File(file) => file.borrow().len(),
        Node::Dir(dir) => used_bytes(dir),
    };
    dir.borrow().view.values().map(bytes_of).sum()
}

#[derive(Default)]
struct DirNode {
    view: BTreeMap<String, Node>,
    durable: BTreeMap<String, Node>,
    /// In the order they were made; the view has them all.
    unsynced: VecDeque<Change>,
    changes_made: u64,
}

enum Change {
    Put(String, Node),
    Remove(String),
    Rename(String, String, Node),
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, Node>) {
        match self {
            Change::Put(name, node) => {
                names.insert(name.clone(), node.clone());
            }
            Change::Remove(name) => {
                names.remove(name);
            }
            Change::Rename(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), node.clone());
            }
        }
    }
}

impl DirNode {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.view);
        self.unsynced.push_back(change);
        self.changes_made += 1;
    }
}

pub(super) struct SyncDir {
    dir: DirRef,
    upto: u64,
}

impl SyncDir {
    pub(super) fn finish(self) {
        let mut dir = self.dir.borrow_mut();
        let dir = &mut *dir;
        // A sync that started later may have finished before.
        while dir.changes_made - (dir.unsynced.len() as u64) < self.upto {
            let change = dir
                .unsynced
                .pop_front()
                .expect("fewer are synced than made");
            change.apply(&mut dir.durable);
        }
    }
}

/// A sync of all directories and files.
#[derive(Default)]
pub(super) struct SyncAll {
    dirs: Vec<SyncDir>,
    files: Vec<(FileRef, u64)>,
}

impl SyncAll {
    fn add(&mut self, dir: &DirRef) {
        let upto = dir.borrow().changes_made;
        self.dirs.push(SyncDir {
            dir: dir.clone(),
            upto,
        });
        for node in dir.borrow().view.values() {
            match node {
                Node::Dir(dir) => self.add(dir),
                Node::File(file) => {
                    let upto = file.borrow().start_sync();
                    self.files.push((file.clone(), upto));
                }
            }
        }
    }

    pub(super) fn finish(self) {
        for (file, upto) in self.files {
            file.borrow_mut().finish_sync(upto);
        }
        for dir in self.dirs {
            dir.finish();
        }
    }

    pub(super) fn fail(self, random: &Random) {
        for (file, upto) in self.files {
            let mut file = file.borrow_mut();
            file.owes_error |= file.edits_settled() < upto;
            file.fail_sync(upto, random);
        }
    }
}

fn crash_dir(dir: &DirRef, random: &Random) -> DirRef {
    let dir = dir.borrow();
    let mut names = dir.durable.clone();
    let kept = random.below(dir.unsynced.len() as u64 + 1) as usize;
    for change in dir.unsynced.iter().take(kept) {
        change.apply(&mut names);
    }
    for node in names.values_mut() {
        *node = match node {
            Node::File(file) => Node::File(file.borrow().crash(random)),
            Node::Dir(dir) => Node::Dir(crash_dir(dir, random)),
        };
    }
    Rc::new(RefCell::new(DirNode {
        view: names.clone(),
        durable: names,
        ..DirNode::default()
    }))
}

/// How far a write gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Survives {
    /// Until the next crash, unless synced.
    Cached,
    /// Any crash.
    Durably,
}

#[derive(Default)]
pub(super) struct FileNode {
    view: Vec<u8>,
    durable: Vec<u8>,
    /// What the view has and `durable` has not yet, in order of completion.
    unsynced: VecDeque<Edit>,
    edits_made: u64,
    in_flight: BTreeMap<u64, (u64, Bytes)>,
    writes_started: u64,
    /// A sync of the file system has failed on it, and nobody who syncs this file was told: its next sync fails too, as on Linux.
    owes_error: bool,
}

#[derive(Clone)]
enum Edit {
    Write(u64, Bytes, Survives),
    SetLen(u64),
}

impl Edit {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Edit::Write(position, bytes, _) => put(content, *position, bytes),
            Edit::SetLen(len) => content.resize(*len as usize, 0),
        }
    }
}

fn put(content: &mut Vec<u8>, position: u64, bytes: &[u8]) {
    let start = position as usize;
    let end = start + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[start..end].copy_from_slice(bytes);
}

/// The sectors of a write that make it, in any combination.
fn some_sectors(position: u64, bytes: &Bytes, random: &Random) -> Vec<(u64, Bytes)> {
    (0..bytes.len())
        .step_by(SECTOR_BYTES)
        .filter(|_| random.coin())
        .map(|start| {
            let end = bytes.len().min(start + SECTOR_BYTES);
            (position + start as u64, bytes.slice(start..end))
        })
        .collect()
}

impl FileNode {
    pub(super) fn len(&self) -> u64 {
        self.view.len() as u64
    }

    /// Short at the end of the file.
    pub(super) fn read(&self, position: u64, len: usize) -> Bytes {
        let start = self.view.len().min(position as usize);
        let end = self.view.len().min(start.saturating_add(len));
        Bytes::copy_from_slice(&self.view[start..end])
    }

    pub(super) fn start_write(&mut self, position: u64, bytes: Bytes) -> u64 {
        self.writes_started += 1;
        self.in_flight
            .insert(self.writes_started, (position, bytes));
        self.writes_started
    }

    pub(super) fn finish_write(&mut self, write: u64, survives: Survives) {
        let (position, bytes) = self.take_in_flight(write);
        self.edit(Edit::Write(position, bytes, survives));
    }

    /// The write was acknowledged, but its bytes are not here: the file is as long as if they were.
    pub(super) fn lose_write(&mut self, write: u64) -> (u64, Bytes) {
        let (position, bytes) = self.take_in_flight(write);
        let end = position + bytes.len() as u64;
        if end > self.len() {
            self.edit(Edit::SetLen(end));
        }
        (position, bytes)
    }

    /// Bytes that were meant for another place.
    pub(super) fn stray_write(&mut self, position: u64, bytes: Bytes, survives: Survives) {
        self.edit(Edit::Write(position, bytes, survives));
    }

    /// Changes a byte in every version of the file that a program or a crash could still find.
    pub(super) fn flip(&mut self, position: u64, mask: u8) {
        let at = position as usize;
        for content in [&mut self.view, &mut self.durable] {
            if let Some(byte) = content.get_mut(at) {
                *byte ^= mask;
            }
        }
        for edit in &mut self.unsynced {
            if let Edit::Write(start, bytes, _) = edit
                && (*start..*start + bytes.len() as u64).contains(&position)
            {
                let mut changed = bytes.to_vec();
                changed[(position - *start) as usize] ^= mask;
                *bytes = changed.into();
            }
        }
    }

    /// The write failed, or nobody waits for it any more.
    pub(super) fn tear_write(&mut self, write: u64, random: &Random) {
        let (position, bytes) = self.take_in_flight(write);
        for (position, sector) in some_sectors(position, &bytes, random) {
            self.edit(Edit::Write(position, sector, Survives::Cached));
        }
    }

    fn take_in_flight(&mut self, write: u64) -> (u64, Bytes) {
        self.in_flight
            .remove(&write)
            .expect("a write ends exactly once")
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.edit(Edit::SetLen(len));
    }

    fn edit(&mut self, edit: Edit) {
        edit.apply(&mut self.view);
        self.unsynced.push_back(edit);
        self.edits_made += 1;
        self.settle_durable_writes();
    }

    /// A durable write stays in line behind earlier edits that may yet be lost, so that none of them overwrites it.
    fn settle_durable_writes(&mut self) {
        while let Some(Edit::Write(_, _, Survives::Durably)) = self.unsynced.front() {
            self.settle_one();
        }
    }

    fn settle_one(&mut self) {
        let edit = self.unsynced.pop_front().expect("the caller saw one");
        edit.apply(&mut self.durable);
    }

    /// What a sync that starts now will make durable: writes that have completed, not those in flight.
    pub(super) fn start_sync(&self) -> u64 {
        self.edits_made
    }

    pub(super) fn finish_sync(&mut self, upto: u64) {
        while self.edits_settled() < upto {
            self.settle_one();
        }
        self.settle_durable_writes();
    }

    pub(super) fn take_owed_error(&mut self) -> bool {
        std::mem::take(&mut self.owes_error)
    }

    /// Each write is made durable or forgotten: the next sync succeeds without it.
    pub(super) fn fail_sync(&mut self, upto: u64, random: &Random) {
        while self.edits_settled() < upto {
            let durable = matches!(
                self.unsynced.front(),
                Some(Edit::Write(_, _, Survives::Durably))
            );
            if durable || random.coin() {
                self.settle_one();
            } else {
                self.unsynced.pop_front();
            }
        }
        self.settle_durable_writes();
    }

    fn edits_settled(&self) -> u64 {
        self.edits_made - self.unsynced.len() as u64
    }

    fn crash(&self, random: &Random) -> FileRef {
        let mut content = self.durable.clone();
        for edit in &self.unsynced {
            match edit {
                Edit::Write(position, bytes, Survives::Cached) => {
                    for (position, sector) in some_sectors(*position, bytes, random) {
                        put(&mut content, position, &sector);
                    }
                }
                Edit::Write(_, _, Survives::Durably) => edit.apply(&mut content),
                Edit::SetLen(_) if random.coin() => edit.apply(&mut content),
                Edit::SetLen(_) => {}
            }
        }
        for (position, bytes) in self.in_flight.values() {
            for (position, sector) in some_sectors(*position, bytes, random) {
                put(&mut content, position, &sector);
            }
        }
        Rc::new(RefCell::new(FileNode {
            view: content.clone(),
            durable: content,
            ..FileNode::default()
        }))
    }
}
