//! The runs of both sides, and why they may not be compared.

use std::{fs, path::Path};

use serde_json::Value;

use crate::result::{
    folder::{self, RESULT_FILE},
    run::RunResult,
};

/// Runs of each side: with fewer, no difference of ranks is unlikely enough.
pub const REPEATS_MIN: usize = 5;

/// Folders that are looked into.
const RUNS_MAX: usize = 1_000;

/// Runs of one side between two of the other.
const BLOCK_MAX: usize = 2;

pub struct Sides {
    pub a: Vec<RunResult>,
    pub b: Vec<RunResult>,
    names: (String, String),
}

impl Sides {
    pub fn read(a: &Path, b: &Path) -> Result<Sides, String> {
        let (runs_a, runs_b) = (read(a)?, read(b)?);
        let name = |path: &Path, runs: &[RunResult]| {
            let label = runs.iter().find_map(|run| run.label.clone());
            label.map_or_else(
                || path.display().to_string(),
                |label| format!("{label} ({})", path.display()),
            )
        };
        Ok(Sides {
            names: (name(a, &runs_a), name(b, &runs_b)),
            a: runs_a,
            b: runs_b,
        })
    }

    pub fn name_a(&self) -> &str {
        &self.names.0
    }

    pub fn name_b(&self) -> &str {
        &self.names.1
    }

    fn all(&self) -> impl Iterator<Item = &RunResult> {
        self.a.iter().chain(&self.b)
    }

    /// Why these runs do not compare. What `force` can pass over becomes a warning instead.
    pub fn refusal(&self, force: bool) -> Option<String> {
        let first = &self.a[0];
        for run in self.all() {
            if run.command != first.command {
                return Some(format!(
                    "one ran {:?}, another {:?}",
                    first.command, run.command
                ));
            }
            let differing = differing("plan", &first.plan, &run.plan);
            if !differing.is_empty() {
                return Some(format!("the plans differ: {}", differing.join("; ")));
            }
            if run.verdict.interrupted || !run.verdict.valid {
                return Some(format!(
                    "run {} is not valid: {}",
                    run.run_id,
                    run.verdict.reasons.join("; ")
                ));
            }
            if run.verdict.safety.is_some_and(|safety| !safety.is_clean()) {
                return Some(format!(
                    "run {} lost, repeated or damaged records",
                    run.run_id
                ));
            }
        }
        self.warnings().into_iter().next().filter(|_| !force)
    }

    /// What makes a comparison worth less.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let fewest = self.repeats();
        if fewest < REPEATS_MIN {
            warnings.push(format!(
                "{fewest} runs of a side are fewer than {REPEATS_MIN}: repeat them"
            ));
        }
        if let Some(block) = self.longest_block().filter(|block| *block > BLOCK_MAX) {
            warnings.push(format!(
                "not in turns: {block} runs of one side without one of the other, so that a machine that became slower looks like a difference"
            ));
        }
        warnings
    }

    /// Of the side that has fewer; a single run may have many values.
    fn repeats(&self) -> usize {
        let of = |runs: &[RunResult]| {
            let values = |run: &RunResult| {
                run.metrics
                    .iter()
                    .map(|metric| metric.values.len())
                    .max()
                    .unwrap_or(0)
            };
            runs.iter().map(values).sum::<usize>()
        };
        of(&self.a).min(of(&self.b))
    }

    /// In the order in which the runs began. None when a side has one run, whose rounds nobody can take in turns.
    fn longest_block(&self) -> Option<usize> {
        let mut starts: Vec<(&str, bool)> = self
            .a
            .iter()
            .map(|run| (run.started_at.as_str(), true))
            .collect();
        starts.extend(self.b.iter().map(|run| (run.started_at.as_str(), false)));
        // RFC 3339 in UTC sorts as text.
        starts.sort_unstable();
        let sides: Vec<bool> = starts.into_iter().map(|(_, side)| side).collect();
        sides
            .chunk_by(|one, other| one == other)
            .map(<[bool]>::len)
            .max()
    }

    /// What else was not the same, in words.
    pub fn differences(&self) -> Vec<String> {
        let of = |run: &RunResult| {
            let mut environment = serde_json::to_value(&run.environment).unwrap_or_default();
            // Another at every run.
            if let Some(fields) = environment.as_object_mut() {
                fields.remove("at_start");
            }
            let tool = serde_json::to_value(&run.tool).unwrap_or_default();
            (environment, tool)
        };
        let (first, other) = (of(&self.a[0]), of(&self.b[0]));
        let mut differences = differing("environment", &first.0, &other.0);
        differences.extend(differing("tool", &first.1, &other.1));
        differences
    }
}

/// Paths at which two values differ, with both values.
fn differing(path: &str, one: &Value, other: &Value) -> Vec<String> {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let mut keys: Vec<&String> = one.keys().chain(other.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            let of = |map: &serde_json::Map<String, Value>, key: &str| {
                map.get(key).cloned().unwrap_or_default()
            };
            let each = keys.into_iter().flat_map(|key| {
                let path = format!("{path}.{key}");
                differing(&path, &of(one, key), &of(other, key))
            });
            each.collect()
        }
        (one, other) if one == other => Vec::new(),
        (one, other) => vec![format!("{path}: {one} and {other}")],
    }
}

/// All runs in a folder, or the one that it is.
fn read(path: &Path) -> Result<Vec<RunResult>, String> {
    if !path.is_dir() || path.join(RESULT_FILE).exists() {
        return Ok(vec![folder::read(path)?]);
    }
    let said = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut folders = Vec::new();
    for entry in fs::read_dir(path).map_err(said)?.take(RUNS_MAX) {
        let folder = entry.map_err(said)?.path();
        if folder.join(RESULT_FILE).exists() {
            folders.push(folder);
        }
    }
    folders.sort_unstable();
    let runs: Result<Vec<RunResult>, String> =
        folders.iter().map(|folder| folder::read(folder)).collect();
    match runs {
        Ok(runs) if runs.is_empty() => Err(format!(
            "{}: no {RESULT_FILE} in it or in its folders",
            path.display()
        )),
        runs => runs,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::result::run::{Better, Metric, sample};

    fn runs(starts: &[u32]) -> Vec<RunResult> {
        let metric = Metric {
            name: "produce_bytes_per_second".to_string(),
            unit: "bytes/s".to_string(),
            better: Better::Higher,
            values: vec![1.0],
            headline: true,
        };
        let run = |second: &u32| RunResult {
            metrics: vec![metric.clone()],
            started_at: format!("2026-01-01T00:00:{second:02}Z"),
            ..sample()
        };
        starts.iter().map(run).collect()
    }

    fn sides(a: Vec<RunResult>, b: Vec<RunResult>) -> Sides {
        Sides {
            a,
            b,
            names: ("a".to_string(), "b".to_string()),
        }
    }

    #[test]
    fn what_does_not_compare_is_refused() {
        let in_turns = || sides(runs(&[0, 3, 4, 7, 8]), runs(&[1, 2, 5, 6, 9]));
        assert_eq!(in_turns().refusal(false), None);
        let check = |break_it: fn(&mut Sides), expected: &str, force_helps: bool| {
            let mut sides = in_turns();
            break_it(&mut sides);
            let refusal = sides.refusal(false).expect("refused");
            assert!(refusal.contains(expected), "{refusal}");
            assert_eq!(sides.refusal(true).is_none(), force_helps, "{expected}");
        };
        check(|it| it.b[2].command = "peak".to_string(), "one ran", false);
        check(
            |it| it.b[2].plan = json!({ "producers": { "acks": "1" } }),
            "the plans differ: plan.producers",
            false,
        );
        check(|it| it.a[1].verdict.valid = false, "is not valid", false);
        check(
            |it| it.a[1].verdict.interrupted = true,
            "is not valid",
            false,
        );
        check(
            |it| it.a[1].verdict.safety.get_or_insert_default().lost = 1,
            "lost",
            false,
        );
        check(|it| it.b.truncate(4), "fewer than 5", true);
        check(
            |it| {
                for (second, run) in it.a.iter_mut().chain(&mut it.b).enumerate() {
                    run.started_at = format!("2026-01-01T00:00:{second:02}Z");
                }
            },
            "not in turns: 5",
            true,
        );
    }

    #[test]
    fn differences_have_names() {
        let check = |one: Value, other: Value, expected: &[&str]| {
            assert_eq!(differing("plan", &one, &other), expected);
        };
        check(
            json!({"a": 1, "b": {"c": 2}}),
            json!({"b": {"c": 2}, "a": 1}),
            &[],
        );
        check(json!({"a": 1}), json!({"a": 2}), &["plan.a: 1 and 2"]);
        check(
            json!({"b": {"c": 2}}),
            json!({"b": {}}),
            &["plan.b.c: 2 and null"],
        );
    }
}
