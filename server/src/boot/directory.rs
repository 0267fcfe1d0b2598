//! The data directory before any shard runs: whose it is, that nobody else uses it, and whether the last stop was clean.
//!
//! Plain blocking file access: nothing else runs yet, or any more.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use forebay_engine::TopicId;

use super::failure::StartFailure;
use crate::meta;

/// Kafka's name and format; `forebay.format` is ours, so that a directory of Apache Kafka is told from one of our own.
const PROPERTIES: &str = "meta.properties";
const LOCK: &str = ".lock";
/// Holds the epoch of the broker's start that ended with everything on disk.
const CLEAN_SHUTDOWN: &str = ".clean-shutdown";
const FORMAT: &str = "1";

/// A data directory that is ours, and ours alone until this is dropped.
pub struct DataDir {
    pub path: PathBuf,
    pub identity: Identity,
    /// Of the start that ended cleanly, if the last one did.
    pub clean_epoch: Option<i64>,
    pub is_new: bool,
    _lock: File,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cluster_id: String,
    pub directory_id: String,
}

impl DataDir {
    /// Creates the directory, or takes over what an earlier start left. Whoever goes on to append must first consume the marker of a
    /// clean shutdown; a start that fails before leaves it for the next.
    pub fn open(path: &Path, node_id: i32) -> Result<DataDir, StartFailure> {
        let failed = |error| StartFailure::DataDir {
            path: path.to_owned(),
            error,
        };
        fs::create_dir_all(path).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        refuse_foreign(&path)?;
        let lock = File::create(path.join(LOCK)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(StartFailure::InUse { path }),
            Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        let properties = path.join(PROPERTIES);
        let is_new = !properties.exists();
        let identity = if is_new {
            create_identity(&path, node_id).map_err(failed)?
        } else {
            read_identity(&path, node_id)?
        };
        let clean_epoch = read_marker(&path).map_err(failed)?;
        Ok(DataDir {
            path,
            identity,
            clean_epoch,
            is_new,
            _lock: lock,
        })
    }

    /// Whether a file of this name beside the logs is the broker's own.
    pub fn is_own(name: &str) -> bool {
        let name = name.strip_suffix(".tmp").unwrap_or(name);
        [PROPERTIES, LOCK, CLEAN_SHUTDOWN, meta::BALLOT_FILE].contains(&name)
    }

    /// From here on a crash is a crash: the marker is gone from the disk when this returns.
    pub fn consume_marker(&self) -> io::Result<()> {
        match fs::remove_file(self.path.join(CLEAN_SHUTDOWN)) {
            Ok(()) => File::open(&self.path)?.sync_all(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Notes that everything is on disk. To be called when all engines are closed.
    pub fn mark_clean(&self, broker_epoch: i64) -> io::Result<()> {
        replace(&self.path, CLEAN_SHUTDOWN, &format!("{broker_epoch}\n"))
    }
}

/// A directory without our properties must be empty, but for what file systems put there.
fn refuse_foreign(path: &Path) -> Result<(), StartFailure> {
    if path.join(PROPERTIES).exists() {
        return Ok(());
    }
    let entries = fs::read_dir(path).map_err(|error| StartFailure::DataDir {
        path: path.to_owned(),
        error,
    })?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !matches!(name.as_str(), "lost+found" | LOCK) {
            return Err(StartFailure::ForeignDataDir {
                path: path.to_owned(),
                found: format!("it has no {PROPERTIES} but holds {name}"),
            });
        }
    }
    Ok(())
}

fn create_identity(path: &Path, node_id: i32) -> io::Result<Identity> {
    let identity = Identity {
        cluster_id: random_id(),
        directory_id: random_id(),
    };
    let text = format!(
        "version=1\ncluster.id={}\nnode.id={node_id}\ndirectory.id={}\nforebay.format={FORMAT}\n",
        identity.cluster_id, identity.directory_id
    );
    replace(path, PROPERTIES, &text)?;
    Ok(identity)
}

fn read_identity(path: &Path, node_id: i32) -> Result<Identity, StartFailure> {
    let foreign = |found: String| StartFailure::ForeignDataDir {
        path: path.to_owned(),
        found,
    };
    let text =
        fs::read_to_string(path.join(PROPERTIES)).map_err(|error| StartFailure::DataDir {
            path: path.to_owned(),
            error,
        })?;
    let properties = parse_properties(&text);
    let value = |key: &str| properties.get(key).copied();
    match value("forebay.format") {
        Some(FORMAT) => {}
        Some(other) => return Err(foreign(format!("its format is {other}, not {FORMAT}"))),
        None => {
            return Err(foreign(format!(
                "its {PROPERTIES} was written by Apache Kafka"
            )));
        }
    }
    let found = value("node.id").unwrap_or("(none)");
    if found != node_id.to_string() {
        return Err(StartFailure::OtherNode {
            path: path.to_owned(),
            found: found.to_owned(),
            wanted: node_id,
        });
    }
    match (value("cluster.id"), value("directory.id")) {
        (Some(cluster_id), Some(directory_id)) => Ok(Identity {
            cluster_id: cluster_id.to_owned(),
            directory_id: directory_id.to_owned(),
        }),
        _ => Err(foreign(format!("its {PROPERTIES} is incomplete"))),
    }
}

fn parse_properties(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim(), value.trim()))
        .collect()
}

/// A marker that does not parse counts as absent.
fn read_marker(path: &Path) -> io::Result<Option<i64>> {
    match fs::read_to_string(path.join(CLEAN_SHUTDOWN)) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn replace(path: &Path, name: &str, text: &str) -> io::Result<()> {
    let temporary = path.join(format!("{name}.tmp"));
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path.join(name))?;
    File::open(path)?.sync_all()
}

/// An id as Kafka writes them. One that begins with a dash would look like a flag to Kafka's tools.
fn random_id() -> String {
    loop {
        let id = TopicId(*uuid::Uuid::new_v4().as_bytes()).to_string();
        if !id.starts_with('-') {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Scratch {
            let name = format!("forebay-directory-{}", uuid::Uuid::new_v4());
            Scratch(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_identity_stays_and_the_marker_is_consumed() {
        let scratch = Scratch::new();
        let first = DataDir::open(&scratch.0, 1).unwrap();
        assert!(first.is_new);
        assert_eq!(first.clean_epoch, None);
        let identity = first.identity.clone();
        first.mark_clean(77).unwrap();
        drop(first);
        let second = DataDir::open(&scratch.0, 1).unwrap();
        assert_eq!((second.is_new, second.clean_epoch), (false, Some(77)));
        assert_eq!(second.identity, identity);
        drop(second);
        let third = DataDir::open(&scratch.0, 1).unwrap();
        assert_eq!(third.clean_epoch, Some(77), "the second start never began");
        third.consume_marker().unwrap();
        third.consume_marker().unwrap();
        drop(third);
        let fourth = DataDir::open(&scratch.0, 1).unwrap();
        assert_eq!(fourth.clean_epoch, None, "a crash after this is not clean");
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let scratch = Scratch::new();
        fs::create_dir_all(&scratch.0).unwrap();
        let code = |node| {
            DataDir::open(&scratch.0, node)
                .err()
                .map(|failure| failure.exit_code())
        };
        fs::write(scratch.0.join("somebody.txt"), "x").unwrap();
        assert_eq!(code(1), Some(5));
        fs::remove_file(scratch.0.join("somebody.txt")).unwrap();
        let kafkas = "version=1\ncluster.id=abc\nnode.id=1\ndirectory.id=def\n";
        fs::write(scratch.0.join(PROPERTIES), kafkas).unwrap();
        assert_eq!(code(1), Some(5));
        fs::remove_file(scratch.0.join(PROPERTIES)).unwrap();
        assert_eq!(code(1), None);
        assert_eq!(code(2), Some(6));
        let held = DataDir::open(&scratch.0, 1).unwrap();
        assert_eq!(code(1), Some(7));
        drop(held);
        assert_eq!(code(1), None);
    }
}
