//! The runs of both sides, and why they may not be compared.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{
    result::{
        folder::{self, RESULT_FILE},
        run::{RunResult, Setting},
    },
    statistics::{mann_whitney, median},
};

/// Runs of each side at least, whatever the figures.
pub const REPEATS_MIN: usize = 5;

/// Folders that are looked into.
const RUNS_MAX: usize = 1_000;

/// Runs of one side between two of the other.
const BLOCK_MAX: usize = 2;

pub struct Sides {
    pub a: Vec<RunResult>,
    pub b: Vec<RunResult>,
    names: (String, String),
    alpha: f64,
}

impl Sides {
    pub fn read(a: &Path, b: &Path, alpha: f64) -> Result<Sides, String> {
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
            alpha,
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
        if let Some((name, side)) = self.missing() {
            return Some(format!(
                "{name} decides, and a run of {side} does not have it"
            ));
        }
        self.warnings().into_iter().next().filter(|_| !force)
    }

    /// A figure that decides and that not every run has, and on which side.
    fn missing(&self) -> Option<(String, &'static str)> {
        let names = self.headline();
        let lacks = |runs: &[RunResult], name: &str| {
            let has = |run: &RunResult| {
                run.metrics
                    .iter()
                    .any(|metric| metric.name == name && !metric.values.is_empty())
            };
            !runs.iter().all(has)
        };
        let sides = [(&self.a, "A"), (&self.b, "B")];
        names.into_iter().find_map(|name| {
            let (_, side) = sides.iter().find(|(runs, _)| lacks(runs, &name))?;
            Some((name, *side))
        })
    }

    /// Names of the figures that decide, in any run.
    fn headline(&self) -> Vec<String> {
        let metrics = self.all().flat_map(|run| &run.metrics);
        let mut names: Vec<String> = metrics
            .filter(|metric| metric.headline)
            .map(|metric| metric.name.clone())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// What makes a comparison worth less.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let (fewest, figures) = (self.repeats(), self.headline().len());
        let needed = repeats_needed(figures, self.alpha);
        if fewest < needed {
            warnings.push(format!(
                "{fewest} repeats of a side: with {figures} figures that decide, nothing can be told from chance with fewer than {needed}"
            ));
        }
        let block = self.longest_block();
        if block > BLOCK_MAX {
            warnings.push(format!(
                "not in turns: {block} runs of one side without one of the other, so that a machine that became slower looks like a difference"
            ));
        }
        warnings
    }

    /// Of the figure and the side that have fewest; a single run may have many values.
    fn repeats(&self) -> usize {
        let names = self.headline();
        let of = |runs: &[RunResult], name: &str| values(runs, name).len();
        let counts = names
            .iter()
            .map(|name| of(&self.a, name).min(of(&self.b, name)));
        counts.min().unwrap_or(0)
    }

    /// In the order in which the runs began; the rounds of a side's only run are a block.
    fn longest_block(&self) -> usize {
        let rounds = |run: &RunResult| {
            run.metrics
                .iter()
                .map(|metric| metric.values.len())
                .max()
                .unwrap_or(0)
        };
        if self.a.len() == 1 || self.b.len() == 1 {
            return self.all().map(rounds).max().unwrap_or(0);
        }
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
            .unwrap_or(0)
    }

    /// What else was not the same in all runs, in words.
    pub fn differences(&self) -> Vec<String> {
        let of = |run: &RunResult| {
            let mut environment = serde_json::to_value(&run.environment).unwrap_or_default();
            // Another at every run.
            if let Some(fields) = environment.as_object_mut() {
                fields.remove("at_start");
            }
            let settings = |settings: &[Setting]| {
                let pairs = settings
                    .iter()
                    .map(|it| (it.name.clone(), Value::from(it.value.clone())));
                Value::Object(pairs.collect())
            };
            [
                ("environment", environment),
                ("tool", serde_json::to_value(&run.tool).unwrap_or_default()),
                ("broker", settings(&run.target.broker_config)),
                ("topic", settings(&run.target.topic_config)),
                ("engine", settings(engine_config(run))),
            ]
        };
        let first = of(&self.a[0]);
        let mut differences: Vec<String> = Vec::new();
        for run in self.all().skip(1) {
            for ((name, one), (_, other)) in first.iter().zip(of(run)) {
                differences.extend(differing(name, one, &other));
            }
        }
        differences.sort_unstable();
        differences.dedup();
        differences
    }
}

fn engine_config(run: &RunResult) -> &[Setting] {
    run.rounds.as_ref().map_or(&[], |it| &it.engine_config)
}

/// Of one figure: the median of each run, since the rounds of one run are not independent of each other. Of a side with a single run, its rounds.
pub fn values(runs: &[RunResult], name: &str) -> Vec<f64> {
    let metrics = runs.iter().flat_map(|run| &run.metrics);
    let named = metrics.filter(|metric| metric.name == name && !metric.values.is_empty());
    match runs.len() {
        1 => named.flat_map(|it| it.values.iter().copied()).collect(),
        _ => named.map(|it| median(&it.values)).collect(),
    }
}

/// The fewest repeats with which two sides that do not overlap at all are told from chance, however many figures are looked at: each side's
/// values can stand in so many orders.
pub fn repeats_needed(figures: usize, alpha: f64) -> usize {
    let enough = |repeats: &usize| {
        let low = vec![0.0; *repeats];
        let (a, b): (Vec<f64>, Vec<f64>) = low
            .iter()
            .enumerate()
            .map(|(at, _)| (at as f64, (at + repeats) as f64))
            .unzip();
        mann_whitney(&a, &b) * (figures as f64) < alpha
    };
    (REPEATS_MIN..REPEATS_MIN + 20)
        .find(enough)
        .unwrap_or(REPEATS_MIN + 20)
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
            alpha: 0.05,
        }
    }

    #[test]
    fn what_does_not_compare_is_refused() {
        let in_turns = || sides(runs(&[0, 3, 4, 7, 8]), runs(&[1, 2, 5, 6, 9]));
        assert_eq!(in_turns().refusal(false), None);
        let check = |break_it: fn(&mut Sides), expected: &str, force_helps: bool| {
            let mut sides = in_turns();
            break_it(&mut sides);
            let refusal = sides
                .refusal(false)
                .unwrap_or_else(|| panic!("not refused: {expected}"));
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
        check(
            |it| it.b[3].metrics.clear(),
            "decides, and a run of B",
            false,
        );
        check(|it| it.b.truncate(4), "fewer than 5", true);
        check(
            |it| {
                for (number, run) in it.a.iter_mut().chain(&mut it.b).enumerate() {
                    for figure in 0..7 {
                        let name = format!("figure {figure}");
                        run.metrics.push(Metric {
                            name,
                            values: vec![number as f64],
                            ..run.metrics[0].clone()
                        });
                    }
                }
            },
            "fewer than 6",
            true,
        );
        check(
            |it| {
                it.a.truncate(1);
                it.b.truncate(1);
                it.a[0].metrics[0].values = vec![1.0; 5];
                it.b[0].metrics[0].values = vec![1.0; 5];
            },
            "not in turns: 5",
            true,
        );
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
    fn a_run_has_one_vote_whatever_its_rounds() {
        let mut runs = runs(&[0, 1, 2]);
        for (number, run) in runs.iter_mut().enumerate() {
            run.metrics[0].values = vec![number as f64, 100.0, 50.0];
        }
        let name = runs[0].metrics[0].name.clone();
        assert_eq!(values(&runs, &name), [50.0; 3]);
        assert_eq!(values(&runs[2..], &name), [2.0, 100.0, 50.0]);
    }

    #[test]
    fn more_figures_need_more_repeats() {
        let check = |figures: usize, expected: usize| {
            assert_eq!(repeats_needed(figures, 0.05), expected, "{figures}")
        };
        check(1, 5);
        check(6, 5);
        check(7, 6);
        check(23, 6);
        check(24, 7);
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
