//! What lies in a data directory and belongs to nothing: journals and checkpoints of shards that a former, larger number of cores
//! had, and entries that nobody knows. They are found and named; whoever knows what they are may remove them. Nothing here does,
//! since a directory that no topic claims may hold somebody's data.

use std::path::{Path, PathBuf};

use super::{CHECKPOINT_DIR, DELETED_SUFFIX, JOURNAL_DIR, scrub::scrubbed_by};
use crate::{
    checkpoint::shard_of,
    error::Fault,
    journal::ring::file_index,
    rt::{DirEntry, Rt},
};

/// Each in the order of paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strays {
    /// Of shards that do not exist any more. Once all logs are open nothing in them is needed.
    pub former_shards: Vec<PathBuf>,
    pub unknown: Vec<PathBuf>,
}

impl Strays {
    /// Looks through the data directory of an engine with so many shards. `is_known` tells the names of logs, and of what the engine's
    /// owner keeps beside them.
    pub async fn find(
        rt: &Rt,
        data_dir: &Path,
        shards: u16,
        is_known: impl Fn(&DirEntry) -> bool,
    ) -> Result<Strays, Fault> {
        let mut strays = Strays::default();
        for entry in list(rt, data_dir).await? {
            let path = data_dir.join(&entry.name);
            match entry.name.as_str() {
                CHECKPOINT_DIR if entry.is_dir => strays.in_checkpoints(rt, &path, shards).await?,
                JOURNAL_DIR if entry.is_dir => strays.in_journals(rt, &path, shards).await?,
                name if entry.is_dir && name.ends_with(DELETED_SUFFIX) => {}
                _ if is_known(&entry) => {}
                _ => strays.unknown.push(path),
            }
        }
        strays.former_shards.sort();
        strays.unknown.sort();
        Ok(strays)
    }

    pub fn len(&self) -> usize {
        self.former_shards.len() + self.unknown.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    async fn in_checkpoints(&mut self, rt: &Rt, dir: &Path, shards: u16) -> Result<(), Fault> {
        for entry in list(rt, dir).await? {
            // The unfinished half of a file that is replaced.
            let name = entry.name.strip_suffix(".tmp").unwrap_or(&entry.name);
            let shard = shard_of(name).or_else(|| scrubbed_by(name));
            self.of_shard(
                dir.join(&entry.name),
                shard.map(|shard| u32::from(shard.0)),
                shards,
            );
        }
        Ok(())
    }

    async fn in_journals(&mut self, rt: &Rt, dir: &Path, shards: u16) -> Result<(), Fault> {
        for entry in list(rt, dir).await? {
            let path = dir.join(&entry.name);
            let shard = entry.name.parse::<u32>().ok();
            let shard = shard.filter(|shard| entry.is_dir && entry.name == shard.to_string());
            if shard.is_some_and(|shard| shard < u32::from(shards)) {
                let files = list(rt, &path).await?;
                let unknown = files.iter().filter(|file| file_index(&file.name).is_none());
                self.unknown
                    .extend(unknown.map(|file| path.join(&file.name)));
            }
            self.of_shard(path, shard, shards);
        }
        Ok(())
    }

    fn of_shard(&mut self, path: PathBuf, shard: Option<u32>, shards: u16) {
        match shard {
            Some(shard) if shard < u32::from(shards) => {}
            Some(_) => self.former_shards.push(path),
            None => self.unknown.push(path),
        }
    }
}

async fn list(rt: &Rt, dir: &Path) -> Result<Vec<DirEntry>, Fault> {
    let listed = rt.list_dir(dir).await;
    listed.map_err(|error| Fault::io("list the directory", dir, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::{OpenMode, sim};

    #[test]
    fn what_belongs_to_nothing_is_named_and_left_alone() {
        sim::run(1, sim::Disk::default(), |rt| async move {
            let data_dir = Path::new("/data");
            let dirs = [
                "journal/0",
                "journal/1",
                "journal/2",
                "journal/01",
                "journal/x",
                "checkpoint",
                "t-0",
                "t-1",
                "t-2.0123456789abcdef-delete",
                "lost+found",
            ];
            for dir in dirs {
                rt.create_dir_all(&data_dir.join(dir))
                    .await
                    .expect("create");
            }
            let files = [
                "meta.properties",
                "notes",
                "journal/0/0.journal",
                "journal/0/0.journal.old",
                "journal/2/0.journal",
                "checkpoint/shard-0",
                "checkpoint/shard-1",
                "checkpoint/shard-1.tmp",
                "checkpoint/shard-7",
                "checkpoint/shard-07",
                "checkpoint/scrub-1",
                "checkpoint/scrub-2",
                "checkpoint/other",
                "t-0/anything",
            ];
            for file in files {
                let path = data_dir.join(file);
                let file = rt.open(&path, OpenMode::Create).await.expect("create");
                file.close().await.expect("close");
            }
            let is_known = |entry: &DirEntry| ["t-0", "meta.properties"].contains(&&*entry.name);
            let found = Strays::find(&rt, data_dir, 2, is_known)
                .await
                .expect("finds");
            let paths = |names: &[&str]| -> Vec<PathBuf> {
                names.iter().map(|name| data_dir.join(name)).collect()
            };
            let expected = Strays {
                former_shards: paths(&["checkpoint/scrub-2", "checkpoint/shard-7", "journal/2"]),
                unknown: paths(&[
                    "checkpoint/other",
                    "checkpoint/shard-07",
                    "journal/0/0.journal.old",
                    "journal/01",
                    "journal/x",
                    "lost+found",
                    "notes",
                    "t-1",
                ]),
            };
            assert_eq!(found, expected);
            for path in expected.former_shards.iter().chain(&expected.unknown) {
                assert!(rt.exists(path).await);
            }
        });
    }
}
