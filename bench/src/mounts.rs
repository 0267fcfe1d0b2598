//! Which mount a path is on, from /proc/self/mountinfo (proc_pid_mountinfo(5)).

use std::{
    fs,
    path::{Path, PathBuf},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub point: PathBuf,
    pub file_system: String,
    /// A device, or a word of the file system.
    pub source: String,
    /// Of the mount and of its file system.
    pub options: String,
}

impl Mount {
    /// The one that holds `path`: of the deepest the last, which hides those before it.
    pub fn of(path: &Path) -> Option<Mount> {
        let path = path.canonicalize().ok()?;
        holding(&fs::read_to_string("/proc/self/mountinfo").ok()?, &path)
    }
}

fn holding(mountinfo: &str, path: &Path) -> Option<Mount> {
    let mounts = mountinfo.lines().filter_map(parse);
    mounts
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.components().count())
}

/// `36 35 98:0 /root /point options [optional fields] - type source super-options`
fn parse(line: &str) -> Option<Mount> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(4);
    let (point, own) = (mount.next()?, mount.next()?);
    let mut file_system = file_system.split(' ');
    let (kind, source) = (file_system.next()?, file_system.next()?);
    let mut options: Vec<&str> = own.split(',').collect();
    for option in file_system.next().unwrap_or_default().split(',') {
        if !option.is_empty() && !options.contains(&option) {
            options.push(option);
        }
    }
    Some(Mount {
        point: PathBuf::from(plain(point)),
        file_system: kind.to_string(),
        source: plain(source),
        options: options.join(","),
    })
}

/// The kernel writes spaces, tabs, line ends and backslashes as `\` with three octal digits.
fn plain(text: &str) -> String {
    let escapes = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    escapes
        .iter()
        .fold(text.to_string(), |text, (escape, plain)| {
            text.replace(escape, plain)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
30 27 0:27 / /data rw,noatime shared:1 master:2 - tmpfs tmpfs rw,size=64k
31 27 0:28 / /data rw - btrfs /dev/sdb1 rw
32 27 0:29 / /my\\040disk rw - xfs /dev/sdc rw
odd
33 27 0:30 / - ext4
";

    #[test]
    fn the_deepest_and_last_mount_holds_a_path() {
        let check = |path: &str, kind: &str, source: &str, options: &str| {
            let mount = holding(MOUNTS, Path::new(path)).expect(path);
            let found = (&*mount.file_system, &*mount.source, &*mount.options);
            assert_eq!(found, (kind, source, options), "{path}");
        };
        check("/", "ext4", "/dev/vda", "rw,relatime,discard");
        check("/database", "ext4", "/dev/vda", "rw,relatime,discard");
        check("/data/log", "btrfs", "/dev/sdb1", "rw");
        check("/my disk/log", "xfs", "/dev/sdc", "rw");
        assert_eq!(holding("", Path::new("/")), None);
        assert!(Mount::of(&std::env::temp_dir()).is_some());
        assert_eq!(Mount::of(Path::new("/not/there")), None);
    }
}
