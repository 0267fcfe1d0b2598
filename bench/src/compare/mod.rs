//! `forebay-bench compare A B`: whether B is better or worse than A, as far as the runs can tell.
//!
//! A and B are folders with the results of repeated runs, taken in turns. `sides` reads them and refuses what does not compare, `judge` says what
//! differs.

mod judge;
mod sides;

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::{exit::Exit, limits::within, result::short};
use judge::{Judged, Word};
use sides::Sides;

#[derive(Clone, Debug, Args)]
pub struct Plan {
    /// Folder with the runs of one side: a result.json in it, or in folders in it
    a: PathBuf,
    /// The other side
    b: PathBuf,
    /// Smallest part by which a median must differ to count
    #[arg(long, default_value_t = 0.05, value_name = "PART")]
    effect_min: f64,
    /// Probability of calling the same different, over all figures that decide
    #[arg(long, default_value_t = 0.05)]
    alpha: f64,
    /// Compare runs that were not taken in turns, or are too few to tell anything; what has another plan is refused all the same
    #[arg(long)]
    force: bool,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub fn run(plan: &Plan) -> Result<Exit, String> {
    within("--effect-min", plan.effect_min, 0.0..=1.0)?;
    within("--alpha", plan.alpha, 1e-6..=0.5)?;
    let refused = |why: String| {
        eprintln!("forebay-bench: refused: {why}");
        Ok(Exit::Refused)
    };
    let sides = match Sides::read(&plan.a, &plan.b, plan.alpha) {
        Ok(sides) => sides,
        Err(why) => return refused(why),
    };
    if let Some(why) = sides.refusal(plan.force) {
        return refused(why);
    }
    for warning in sides.warnings() {
        eprintln!("forebay-bench: FORCED, what follows proves nothing: {warning}");
    }
    let judged = judge::judge(&sides, plan.effect_min, plan.alpha);
    match plan.format {
        Format::Json => {
            let json = serde_json::json!({
                "a": sides.name_a(), "b": sides.name_b(), "differences": sides.differences(), "warnings": sides.warnings(), "metrics": judged,
            });
            println!("{json}");
        }
        Format::Text => print(&sides, &judged),
    }
    let worse = judged
        .iter()
        .any(|metric| metric.headline && metric.word == Word::Worse);
    Ok(if worse { Exit::Regression } else { Exit::Done })
}

fn print(sides: &Sides, judged: &[Judged]) {
    println!("A: {}", sides.name_a());
    println!("B: {}", sides.name_b());
    for line in sides.differences() {
        println!("  {line}");
    }
    let wide = judged
        .iter()
        .map(|metric| metric.name.len())
        .max()
        .unwrap_or(0);
    println!(
        "{:wide$}  {:>9}  {:>9}  {:>6}  {:^11}  {:>6}",
        "", "median A", "median B", "B to A", "95%", "p"
    );
    for metric in judged {
        println!(
            "{:wide$}  {:>9}  {:>9}  {:>6.3}  {:>5.3}-{:<5.3}  {:>6.4}  {}{}",
            metric.name,
            short(metric.median_a),
            short(metric.median_b),
            metric.ratio,
            metric.ratio_low,
            metric.ratio_high,
            metric.p,
            metric.word.text(),
            if metric.headline { "" } else { " *" },
        );
    }
    println!("* explains, and does not decide");
}
