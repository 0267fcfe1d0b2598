//! What a figure depends on besides the code: captured into every result.
//!
//! What a machine does not tell is left out. What changes by itself is in `at_start`, so that two runs on one machine are the same elsewhere.

mod caveats;
mod limits;
mod processor;
mod storage;

use std::{fs, path::Path};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use limits::Limits;
use processor::Processor;
use storage::Storage;

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Environment {
    pub kernel: Option<String>,
    pub kernel_command_line: Option<String>,
    /// Model.
    pub cpu: Option<String>,
    pub processor: Processor,
    /// Those that this process may use.
    pub cores: Option<usize>,
    pub memory_bytes: Option<u64>,
    pub memory: MemorySettings,
    /// `hypervisor` of /proc/cpuinfo: figures of a virtual machine do not compare with those of another host.
    pub virtual_machine: bool,
    /// What the firmware calls the machine; of a virtual one it is the hypervisor's name.
    pub product: Option<String>,
    pub clock_source: Option<String>,
    pub limits: Limits,
    /// Type and mount options.
    pub file_system: Option<String>,
    /// Of the disk that is written to, when that is on this host.
    pub storage: Option<Storage>,
    pub at_start: AtStart,
    pub version: String,
    pub profile: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MemorySettings {
    /// `always`, `madvise` or `never`.
    pub transparent_huge_pages: Option<String>,
    pub swap_bytes: Option<u64>,
    /// vm.swappiness
    pub swappiness: Option<u64>,
    /// vm.dirty_ratio and the like; those in bytes are 0 when the ratios count.
    pub dirty_ratio: Option<u64>,
    pub dirty_background_ratio: Option<u64>,
    pub dirty_bytes: Option<u64>,
    pub dirty_background_bytes: Option<u64>,
    pub dirty_expire_centisecs: Option<u64>,
    pub dirty_writeback_centisecs: Option<u64>,
}

/// What is another at every run.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AtStart {
    /// Of the last minute, in tasks that run or wait for a disk.
    pub load: Option<f64>,
    pub memory_available_bytes: Option<u64>,
    pub file_system_used_percent: Option<f64>,
}

impl Environment {
    /// Once it is known where files are written; `None` is elsewhere.
    pub fn with_disk(mut self, dir: Option<&Path>) -> Environment {
        if let Some(dir) = dir {
            let (file_system, used_percent) = storage::file_system(dir);
            self.file_system = file_system;
            self.storage = Storage::of(dir);
            self.at_start.file_system_used_percent = used_percent;
        }
        self
    }

    /// Of a run that writes to no disk here.
    pub fn machine() -> Environment {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Environment {
            kernel: text("/proc/sys/kernel/osrelease"),
            kernel_command_line: text("/proc/cmdline"),
            cpu: processor::field(&cpuinfo, "model name"),
            processor: Processor::of(&cpuinfo),
            cores: std::thread::available_parallelism().ok().map(usize::from),
            memory_bytes: kib_of(&meminfo, "MemTotal"),
            memory: MemorySettings::now(&meminfo),
            virtual_machine: processor::flags(&cpuinfo).any(|flag| flag == "hypervisor"),
            product: product(),
            clock_source: text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            limits: Limits::now(),
            file_system: None,
            storage: None,
            at_start: AtStart {
                load: text("/proc/loadavg").and_then(|it| it.split(' ').next()?.parse().ok()),
                memory_available_bytes: kib_of(&meminfo, "MemAvailable"),
                file_system_used_percent: None,
            },
            version: env!("CARGO_PKG_VERSION").to_string(),
            profile: if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            }
            .to_string(),
        }
    }
}

impl MemorySettings {
    fn now(meminfo: &str) -> MemorySettings {
        let vm = |name: &str| number(format!("/proc/sys/vm/{name}"));
        MemorySettings {
            transparent_huge_pages: text("/sys/kernel/mm/transparent_hugepage/enabled")
                .and_then(|it| chosen(&it)),
            swap_bytes: kib_of(meminfo, "SwapTotal"),
            swappiness: vm("swappiness"),
            dirty_ratio: vm("dirty_ratio"),
            dirty_background_ratio: vm("dirty_background_ratio"),
            dirty_bytes: vm("dirty_bytes"),
            dirty_background_bytes: vm("dirty_background_bytes"),
            dirty_expire_centisecs: vm("dirty_expire_centisecs"),
            dirty_writeback_centisecs: vm("dirty_writeback_centisecs"),
        }
    }
}

/// Content of a small file without space around it; None when it is missing or says nothing.
fn text(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_string())
}

fn number(path: impl AsRef<Path>) -> Option<u64> {
    text(path)?.parse().ok()
}

/// The kernel puts the one of several words that counts into brackets; a word alone counts.
fn chosen(words: &str) -> Option<String> {
    let bracketed = words
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    let word = match bracketed {
        Some((word, _)) => word,
        None if words.contains(char::is_whitespace) => return None,
        None => words,
    };
    (!word.is_empty()).then(|| word.to_string())
}

fn kib_of(meminfo: &str, name: &str) -> Option<u64> {
    let mut fields = meminfo.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(field, _)| *field == name)?;
    let kib: u64 = value.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn product() -> Option<String> {
    let dmi = |name: &str| text(format!("/sys/class/dmi/id/{name}"));
    let names: Vec<String> = [dmi("sys_vendor"), dmi("product_name")]
        .into_iter()
        .flatten()
        .collect();
    if names.is_empty() {
        return text("/sys/hypervisor/type");
    }
    Some(names.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_captured_and_comes_back() {
        let captured = Environment::machine().with_disk(Some(&std::env::temp_dir()));
        assert!(captured.kernel.is_some());
        assert!(captured.memory_bytes.is_some_and(|bytes| bytes > 0));
        assert!(captured.at_start.load.is_some());
        assert!(captured.file_system.is_some());
        let json = serde_json::to_string(&captured).expect("JSON");
        assert!(!json.contains("\"unknown\""), "{json}");
        let back: Environment = serde_json::from_str(&json).expect("an environment");
        assert_eq!(serde_json::to_string(&back).expect("JSON"), json);
    }

    #[test]
    fn what_is_missing_is_none() {
        let empty: Environment = serde_json::from_str("{}").expect("an environment");
        assert_eq!((empty.kernel, empty.memory_bytes), (None, None));
        assert_eq!(text("/not/there"), None);
        for (meminfo, expected) in [
            ("MemTotal:   2 kB\n", Some(2048)),
            ("SwapTotal: 0 kB\nMemTotal:2 kB", Some(2048)),
            ("MemTotalX: 2 kB", None),
            ("MemTotal: 2 MB", None),
            ("MemTotal: 99999999999999999999 kB", None),
            ("", None),
        ] {
            assert_eq!(kib_of(meminfo, "MemTotal"), expected, "{meminfo}");
        }
    }

    #[test]
    fn the_word_in_brackets_counts() {
        for (words, expected) in [
            ("always [madvise] never", Some("madvise")),
            ("[none] kyber", Some("none")),
            ("none", Some("none")),
            ("a b", None),
            ("[]", None),
            ("", None),
        ] {
            assert_eq!(chosen(words).as_deref(), expected, "{words}");
        }
    }
}
