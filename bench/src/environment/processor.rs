//! The processor and how it may change its speed.

use std::fs;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{number, text};

/// Those that the broker's checksums, copies and clocks use.
const FLAGS: [&str; 12] = [
    "sse4_2",
    "pclmulqdq",
    "vpclmulqdq",
    "avx2",
    "avx512f",
    "erms",
    "fsrm",
    "constant_tsc",
    "nonstop_tsc",
    "crc32",
    "pmull",
    "asimd",
];

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Processor {
    pub microcode: Option<String>,
    /// Of the instructions that matter here, those it has.
    pub flags: Vec<String>,
    /// Lists as the kernel writes them: `0-3,8`.
    pub cores_online: Option<String>,
    pub numa_nodes: Option<String>,
    pub governor: Option<String>,
    /// Whether it may run faster than its nominal speed.
    pub boost: Option<bool>,
    pub threads_per_core_on: Option<bool>,
    /// Of /sys/devices/system/cpu/vulnerabilities, where it is affected.
    pub mitigations: Vec<String>,
}

impl Processor {
    pub fn of(cpuinfo: &str) -> Processor {
        let cpu = "/sys/devices/system/cpu";
        let boost = number(format!("{cpu}/cpufreq/boost")).map(|it| it == 1);
        let no_turbo = number(format!("{cpu}/intel_pstate/no_turbo")).map(|it| it == 0);
        Processor {
            microcode: field(cpuinfo, "microcode"),
            flags: FLAGS
                .into_iter()
                .filter(|known| flags(cpuinfo).any(|flag| flag == *known))
                .map(str::to_string)
                .collect(),
            cores_online: text(format!("{cpu}/online")),
            numa_nodes: text("/sys/devices/system/node/online"),
            governor: text(format!("{cpu}/cpu0/cpufreq/scaling_governor")),
            boost: boost.or(no_turbo),
            threads_per_core_on: number(format!("{cpu}/smt/active")).map(|it| it == 1),
            mitigations: mitigations(&format!("{cpu}/vulnerabilities")),
        }
    }
}

/// Of the first core.
pub fn field(cpuinfo: &str, name: &str) -> Option<String> {
    let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(field, _)| field.trim_end() == name)?;
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_string())
}

/// Arm calls them features.
pub fn flags(cpuinfo: &str) -> impl Iterator<Item = String> {
    let flags = field(cpuinfo, "flags").or_else(|| field(cpuinfo, "Features"));
    let flags = flags.unwrap_or_default();
    let flags: Vec<String> = flags.split(' ').map(str::to_string).collect();
    flags.into_iter()
}

fn mitigations(folder: &str) -> Vec<String> {
    let Ok(files) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found: Vec<String> = files
        .flatten()
        .filter_map(|file| {
            let state = text(file.path())?;
            let name = file.file_name().to_string_lossy().into_owned();
            (state != "Not affected").then(|| format!("{name}: {state}"))
        })
        .collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_first_core_are_found() {
        let cpuinfo = "processor\t: 0\nmodel name\t: A: B\nmicrocode\t:\nflags\t\t: fpu avx2 hypervisor\n\nmodel name: C\n";
        assert_eq!(field(cpuinfo, "model name").as_deref(), Some("A: B"));
        assert_eq!(field(cpuinfo, "model"), None);
        assert_eq!(field(cpuinfo, "microcode"), None);
        assert_eq!(Processor::of(cpuinfo).flags, ["avx2"]);
        assert!(flags(cpuinfo).any(|flag| flag == "hypervisor"));
        assert!(flags("Features : crc32").any(|flag| flag == "crc32"));
        assert_eq!(field("", "flags"), None);
    }
}
