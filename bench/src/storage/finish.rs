//! The end of a `storage` command: its result, in a folder and for the eye.

use serde::Serialize;
use serde_json::Value;

use super::{
    folder::RunOptions,
    measured::{Figure, Taken, Turns},
    probe::Gathered,
};
use crate::{
    exit::Exit,
    latency::Latencies,
    result::{
        folder::ResultFolder,
        run::{Curve, Phase, RunResult, SCHEMA_VERSION, Safety, Target, Tool, Verdict},
        series,
        turns::{Rounds, Side},
    },
    run::{Started, collector::Collected, started::run_id},
};

/// What a command makes of its turns.
#[derive(Default)]
pub struct Found {
    pub figures: Vec<Figure>,
    /// Why the figures do not mean what they say.
    pub invalid: Vec<String>,
    /// When it was looked for what a kill lost.
    pub safety: Option<Safety>,
}

impl From<Vec<Figure>> for Found {
    fn from(figures: Vec<Figure>) -> Found {
        Found {
            figures,
            ..Found::default()
        }
    }
}

/// All that a result is made of.
pub struct Ended {
    pub options: RunOptions,
    pub started: Started,
    pub seconds: f64,
    pub interrupted: bool,
    pub gathered: Gathered,
    pub collected: Collected,
    pub found: Found,
}

pub fn finish(
    command: &str,
    plan: &impl Serialize,
    out: Option<&ResultFolder>,
    ended: Ended,
) -> Result<Exit, String> {
    let Gathered {
        turns,
        engine_config,
    } = ended.gathered;
    let measured = latencies(&turns);
    let histograms = series::histograms(&ended.collected, &measured)?;
    let figures = ended.found.figures;
    let mut reasons = ended.found.invalid;
    if ended.interrupted {
        reasons.push(format!(
            "a signal ended the run after {} whole turns; nothing is counted of the one that was under way",
            turns.0.len()
        ));
    }
    let valid = reasons.is_empty();
    reasons.extend(ended.started.jump());
    let started_at = ended.started.at();
    let environment = ended.started.environment(Some(&ended.options.dir));
    reasons.extend(environment.notes());
    let result = RunResult {
        schema_version: SCHEMA_VERSION,
        tool: Tool::this(),
        command: command.to_string(),
        label: ended.options.label.clone(),
        run_id: format!("{:08x}", run_id()),
        started_at,
        seconds: ended.seconds,
        plan: serde_json::to_value(plan).map_err(|error| error.to_string())?,
        environment,
        target: Target {
            kind: "storage".to_string(),
            client: Some("the engine in this process".to_string()),
            address: Some(ended.options.dir.display().to_string()),
            ..Target::default()
        },
        phases: turns.0.iter().map(phase).collect(),
        series: ended.collected.series,
        curves: measured
            .iter()
            .map(|(name, latencies)| Curve {
                name: name.clone(),
                points: latencies.curve(),
            })
            .collect(),
        metrics: figures
            .iter()
            .filter(|figure| figure.spread().is_some())
            .map(Figure::metric)
            .collect(),
        rounds: Some(Rounds {
            engine_config,
            sides: sides(&turns),
            figures: figures.iter().filter_map(Figure::result).collect(),
        }),
        verdict: Verdict {
            valid,
            interrupted: ended.interrupted,
            reasons,
            safety: ended.found.safety,
        },
        details: Value::Null,
    };
    if let Some(folder) = out {
        folder.write_run(&result, histograms)?;
    }
    print(&result);
    Ok(result.verdict.exit())
}

/// For the charts over time.
fn phase(taken: &Taken) -> Phase {
    Phase {
        name: format!("round {}, {}", taken.round + 1, taken.name()),
        start_s: taken.measured.start.as_secs_f64(),
        end_s: taken.measured.end.as_secs_f64(),
        measured: true,
        produced: None,
        consumed: None,
    }
}

/// In the order in which they first came.
fn sides(turns: &Turns) -> Vec<Side> {
    let mut sides: Vec<Side> = Vec::new();
    for taken in &turns.0 {
        let same = |side: &&mut Side| side.case == taken.case && side.name == taken.side;
        match sides.iter_mut().find(same) {
            Some(side) => side.turns.push(taken.result()),
            None => sides.push(Side {
                case: taken.case.clone(),
                name: taken.side.to_string(),
                turns: vec![taken.result()],
            }),
        }
    }
    sides
}

/// Of each side over all rounds; with a plan, from the planned time and of service.
fn latencies(turns: &Turns) -> Vec<(String, Latencies)> {
    let mut all: Vec<(String, Latencies)> = Vec::new();
    let mut add = |name: String, latencies: &Latencies| {
        if latencies.count() == 0 {
            return;
        }
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += latencies,
            None => all.push((name, latencies.clone())),
        }
    };
    for taken in &turns.0 {
        let (name, it) = (taken.name(), &taken.measured);
        match it.service.count() {
            0 => add(name, &it.latency),
            _ => {
                add(format!("{name}, planned"), &it.latency);
                add(format!("{name}, service"), &it.service);
            }
        }
    }
    all
}

fn print(result: &RunResult) {
    let figures = result.rounds.iter().flat_map(|rounds| &rounds.figures);
    let wide = figures.clone().map(|it| it.metric.len()).max().unwrap_or(0);
    for figure in figures {
        println!("{:wide$}  {} {}", figure.metric, figure.spread, figure.unit);
    }
    result.verdict.print();
}
