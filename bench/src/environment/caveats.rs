//! What a reader must know before they believe a figure, or put it beside another.

use super::Environment;

/// Load of the last minute that a quiet machine stays below.
const LOAD_MAX: f64 = 0.5;

impl Environment {
    /// The caveats as lines of a verdict.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        let caveats = self.caveats().into_iter();
        caveats.map(|caveat| format!("note: {caveat}"))
    }

    /// One sentence each; none of them makes a run invalid.
    pub fn caveats(&self) -> Vec<String> {
        let mut caveats = Vec::new();
        let mut say = |when: bool, sentence: &str| {
            if when {
                caveats.push(sentence.to_string());
            }
        };
        say(
            self.profile == "debug",
            "this is a debug build: its client is many times slower than a release build",
        );
        say(
            self.virtual_machine,
            "this is a virtual machine: figures do not compare with those of other hosts",
        );
        let governor = self.processor.governor.as_deref();
        say(
            governor.is_some_and(|it| it != "performance"),
            &format!(
                "the CPU governor is {}, not performance: speed changes with load",
                governor.unwrap_or_default()
            ),
        );
        let load = self.at_start.load.unwrap_or(0.0);
        say(
            load > LOAD_MAX,
            &format!("the machine was not idle before: its load was {load:.2}"),
        );
        say(
            self.memory.swap_bytes.is_some_and(|bytes| bytes > 0),
            "swap is on: memory that is swapped out shows as latency",
        );
        let kind = self.file_system.as_deref().unwrap_or_default();
        say(
            kind.starts_with("tmpfs ") || kind.starts_with("ramfs "),
            "the files are in memory (tmpfs): nothing was durable, and no disk was measured",
        );
        caveats
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::{AtStart, MemorySettings, Processor};

    #[test]
    fn each_caveat_has_its_cause() {
        let check = |environment: &Environment, expected: &str| {
            let caveats = environment.caveats();
            assert_eq!(caveats.len(), usize::from(!expected.is_empty()));
            assert!(caveats.concat().contains(expected), "{caveats:?}");
        };
        let quiet = || Environment {
            profile: "release".to_string(),
            ..Environment::default()
        };
        check(&quiet(), "");
        let mut it = quiet();
        it.profile = "debug".to_string();
        check(&it, "debug build");
        it = quiet();
        it.virtual_machine = true;
        check(&it, "virtual machine");
        for (governor, expected) in [("powersave", "powersave"), ("performance", "")] {
            it = quiet();
            it.processor = Processor {
                governor: Some(governor.to_string()),
                ..Processor::default()
            };
            check(&it, expected);
        }
        it = quiet();
        it.at_start = AtStart {
            load: Some(1.25),
            ..AtStart::default()
        };
        check(&it, "1.25");
        it = quiet();
        it.memory = MemorySettings {
            swap_bytes: Some(1),
            ..MemorySettings::default()
        };
        check(&it, "swap");
        for (kind, expected) in [("tmpfs (rw)", "tmpfs"), ("ext4 (rw)", "")] {
            it = quiet();
            it.file_system = Some(kind.to_string());
            check(&it, expected);
        }
    }
}
