//! What this process may use: cores, memory, files. Of nested control groups the narrowest limit counts (cgroups(7), both versions).

use std::{
    fs,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text;

/// What version 1 writes for no limit is near the largest number.
const MEMORY_MAX: u64 = 1 << 60;

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Limits {
    /// Affinity, as the kernel writes it: `0-3,8`.
    pub cores_allowed: Option<String>,
    /// Cores' worth of time that a control group grants.
    pub cgroup_cores: Option<f64>,
    pub cgroup_memory_bytes: Option<u64>,
    /// Soft limits; a number or `unlimited`.
    pub open_files: Option<String>,
    pub locked_memory_bytes: Option<String>,
}

impl Limits {
    pub fn now() -> Limits {
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let allowed = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        Limits {
            cores_allowed: allowed.map(|it| it.trim().to_string()),
            cgroup_cores: folders("cpu").filter_map(|it| cores(&it)).reduce(f64::min),
            cgroup_memory_bytes: folders("memory").filter_map(|it| memory(&it)).min(),
            open_files: soft(&limits, "Max open files"),
            locked_memory_bytes: soft(&limits, "Max locked memory"),
        }
    }
}

/// The group of this process for a controller, and those above it.
fn folders(controller: &str) -> impl Iterator<Item = PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut folders = Vec::new();
    for (root, group) in paths(&groups, controller) {
        let group = Path::new(group.trim_start_matches('/'));
        folders.extend(group.ancestors().map(|above| Path::new(&root).join(above)));
    }
    folders.into_iter()
}

/// `0::/group` in version 2, `4:cpu,cpuacct:/group` in version 1.
fn paths(groups: &str, controller: &str) -> Vec<(String, String)> {
    let root = "/sys/fs/cgroup";
    let mut paths = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else {
            continue;
        };
        if controllers.is_empty() {
            paths.push((root.to_string(), group.to_string()));
        } else if controllers.split(',').any(|it| it == controller) {
            paths.push((format!("{root}/{controllers}"), group.to_string()));
        }
    }
    paths
}

fn cores(group: &Path) -> Option<f64> {
    if let Some(max) = text(group.join("cpu.max")) {
        return parse_cores(&max);
    }
    let quota = text(group.join("cpu.cfs_quota_us"))?;
    let period = text(group.join("cpu.cfs_period_us"))?;
    parse_cores(&format!("{quota} {period}"))
}

/// Microseconds granted, `max` or -1 for any, of so many.
fn parse_cores(max: &str) -> Option<f64> {
    let (quota, period) = max.split_once(' ')?;
    let (quota, period) = (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?);
    (period > 0).then(|| quota as f64 / period as f64)
}

fn memory(group: &Path) -> Option<u64> {
    let max = text(group.join("memory.max")).or_else(|| text(group.join("memory.limit_in_bytes")));
    max?.parse().ok().filter(|bytes| *bytes < MEMORY_MAX)
}

fn soft(limits: &str, name: &str) -> Option<String> {
    let rest = limits.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_ascii_whitespace().next().map(str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_odd_ones_are_none() {
        for (max, expected) in [
            ("150000 100000", Some(1.5)),
            ("max 100000", None),
            ("-1 100000", None),
            ("1 0", None),
            ("1", None),
            ("", None),
        ] {
            assert_eq!(parse_cores(max), expected, "{max}");
        }
        let limits = "Limit  Soft Limit Hard Limit Units\nMax open files   1024  4096 files\nMax locked memory unlimited unlimited bytes\n";
        assert_eq!(soft(limits, "Max open files").as_deref(), Some("1024"));
        assert_eq!(
            soft(limits, "Max locked memory").as_deref(),
            Some("unlimited")
        );
        assert_eq!(soft("Max open files", "Max open files"), None);
        assert!(Limits::now().cores_allowed.is_some());
    }

    #[test]
    fn both_versions_of_control_groups_are_known() {
        let check = |groups: &str, expected: &[(&str, &str)]| {
            let found = paths(groups, "cpu");
            let found: Vec<_> = found.iter().map(|it| (&*it.0, &*it.1)).collect();
            assert_eq!(found, expected);
        };
        check("0::/a/b\n", &[("/sys/fs/cgroup", "/a/b")]);
        check(
            "4:memory:/m\n3:cpu,cpuacct:/c\n",
            &[("/sys/fs/cgroup/cpu,cpuacct", "/c")],
        );
        check("odd\n1:cpu\n", &[]);
    }
}
