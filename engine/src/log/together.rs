//! Syncs that many logs ask for at the same moment become one.
//!
//! When a topic of a thousand partitions is created, or a shard is closed, each log waits for its own few files and directories to be
//! durable. One by one that is a commit of the file system's journal and a flush of the device each; a single sync of the file system
//! covers them all. While one is in flight the next gathers, as commits of the journal do. Where only a few wait, each file and
//! directory is synced by itself, since a sync of the whole file system also waits for what others have written.

use std::{
    cell::{Cell, RefCell},
    path::{Path, PathBuf},
    rc::Rc,
};

use futures_util::future::join_all;

use super::shared::Shared;
use crate::{
    error::Fault,
    rt::{
        Class, File, FileSystem, Rt, durable,
        local::{OneshotSender, oneshot},
    },
};

/// What shall be durable: the content and length of the files, the names in the directories.
#[derive(Clone, Default)]
pub struct Wanted {
    pub files: Vec<Rc<File>>,
    pub dirs: Vec<PathBuf>,
}

impl Wanted {
    fn path(&self) -> Option<&Path> {
        let file = self.files.first().map(|file| file.path());
        file.or(self.dirs.first().map(PathBuf::as_path))
    }
}

type Waiting = (Wanted, OneshotSender<Result<(), Fault>>);

pub struct Syncs {
    file_system: FileSystem,
    waiting: RefCell<Vec<Waiting>>,
    running: Cell<bool>,
    /// A sync of the file system failed: it does not say what that struck, and is told once. The sync of each file still tells.
    failed: Cell<bool>,
}

impl Syncs {
    pub fn new(file_system: FileSystem) -> Syncs {
        Syncs {
            file_system,
            waiting: RefCell::default(),
            running: Cell::new(false),
            failed: Cell::new(false),
        }
    }
}

impl Shared {
    /// Makes durable what was done before this call. After an error nothing is known of any of it.
    pub async fn sync(self: &Rc<Self>, wanted: Wanted) -> Result<(), Fault> {
        let (done, result) = oneshot();
        self.syncs.waiting.borrow_mut().push((wanted, done));
        if !self.syncs.running.replace(true) {
            let shared = Rc::clone(self);
            let run = async move { shared.run_syncs().await };
            self.rt.spawn(Class::Foreground, run).detach();
        }
        let result = result.await;
        result.expect("the task answers everyone who waits before it ends")
    }

    async fn run_syncs(&self) {
        loop {
            // Those who are about to ask join this turn.
            self.rt.yield_now().await;
            let waiting = self.syncs.waiting.take();
            if waiting.is_empty() {
                self.syncs.running.set(false);
                return;
            }
            let together = waiting.len() >= self.limits.syncs_together_min;
            if together && !self.syncs.failed.get() {
                let result = self.sync_all(&waiting).await;
                for (_, done) in waiting {
                    // Whoever left does not want to know.
                    let _ = done.send(result.clone());
                }
            } else {
                let each = waiting.into_iter().map(|(wanted, done)| async move {
                    let result = sync_each(&self.rt, &wanted).await;
                    let files = wanted.files.len() as u64;
                    self.count(|stats| stats.segment_syncs += files);
                    let _ = done.send(result);
                });
                join_all(each).await;
            }
        }
    }

    /// All data of an engine is on one file system.
    async fn sync_all(&self, waiting: &[Waiting]) -> Result<(), Fault> {
        let any = waiting.iter().find_map(|(wanted, _)| wanted.path());
        let fault = |what, error| Fault::io(what, any.unwrap_or(Path::new("")), error);
        let synced = self.syncs.file_system.sync().await;
        if let Err(error) = synced {
            self.syncs.failed.set(true);
            return Err(fault("sync the file system of", error));
        }
        self.count(|stats| stats.file_system_syncs += 1);
        let written = waiting.iter().find_map(|(wanted, _)| wanted.files.first());
        if let Some(file) = written {
            // Has the device write its cache out, whatever the file system had to do.
            let synced = file.sync().await;
            synced.map_err(|error| fault("sync", error))?;
        }
        Ok(())
    }
}

async fn sync_each(rt: &Rt, wanted: &Wanted) -> Result<(), Fault> {
    let files = wanted.files.iter().map(|file| async move {
        let synced = file.sync().await;
        synced.map_err(|error| Fault::io("sync", file.path(), error))
    });
    let dirs = wanted.dirs.iter().map(|dir| durable::sync_dir(rt, dir));
    let (files, dirs) = futures_util::future::join(join_all(files), join_all(dirs)).await;
    files.into_iter().chain(dirs).collect()
}
