//! Charts and tables of a run whose sides took turns: ratios, rates and latencies by round or by case, and what each side took.

use std::fmt::Write;

use super::chart::{self, Steps, Unit, escape};
use crate::{
    latency::Latency,
    result::{
        Spread,
        run::{Curve, Metric, RunResult},
        turns::{Figure, Rounds, Side, Turn},
    },
};

/// Curves of one chart: the page has as many colours.
const CURVES_MAX: usize = 6;

/// With fewer points a percentile curve says nothing that a table does not.
const CURVE_POINTS_MIN: usize = 5;

/// The figures that decide, for the top of the page: value, and what it is.
pub fn tiles(result: &RunResult) -> Vec<(String, String)> {
    let figures = result.rounds.iter().flat_map(|rounds| &rounds.figures);
    let decides = |figure: &&Figure| {
        let metric = metric(result, figure);
        metric.is_some_and(|metric| metric.headline)
    };
    let tile = |figure: &Figure| {
        let unit = unit(&figure.unit);
        let text = format!(
            "{} ({} to {})",
            full_name(figure),
            unit.text(figure.spread.min),
            unit.text(figure.spread.max)
        );
        (unit.text(figure.spread.median), text)
    };
    figures.filter(decides).map(tile).collect()
}

fn metric<'a>(result: &'a RunResult, figure: &Figure) -> Option<&'a Metric> {
    let metrics = result.metrics.iter();
    metrics.into_iter().find(|it| it.name == figure.metric)
}

fn unit(name: &str) -> Unit {
    match name {
        "bytes" | "bytes/s" => Unit::Bytes,
        "us" => Unit::Micros,
        "s" => Unit::Duration,
        "part" => Unit::Part,
        _ => Unit::Count,
    }
}

/// A name of `result.json` for the eye.
fn words(name: &str) -> String {
    name.replace('_', " ")
}

fn full_name(figure: &Figure) -> String {
    let case = figure.case.iter().map(|case| format!(", {case}"));
    words(&figure.name) + &case.collect::<String>()
}

pub fn charts(result: &RunResult, rounds: &Rounds) -> String {
    let mut charts = String::new();
    charts.push_str(&figures(result, rounds, "ratio", "Ratios", "Of ours to theirs within the same round: 1 is as good. Bars are from the least to the most of all rounds."));
    charts.push_str(&figures(
        result,
        rounds,
        "s",
        "Seconds",
        "Median, and from the least to the most of all rounds.",
    ));
    let rate = |turn: &Turn| Some(turn.bytes_per_second);
    charts.push_str(&sides(
        rounds,
        "Throughput of each side",
        Unit::Bytes,
        &rate,
    ));
    let p99 = |turn: &Turn| turn.latency.map(|it| it.p99_us as f64);
    charts.push_str(&sides(rounds, "p99 of each side", Unit::Micros, &p99));
    charts.push_str(&percentiles(&result.curves));
    charts
}

/// Figures with one unit: those of several cases by case, the others by round.
fn figures(
    result: &RunResult,
    rounds: &Rounds,
    unit_name: &str,
    title: &str,
    caption: &str,
) -> String {
    let of_unit = |it: &&Figure| it.unit == unit_name;
    let figures: Vec<&Figure> = rounds.figures.iter().filter(of_unit).collect();
    let cases = distinct(figures.iter().filter_map(|it| it.case.clone()));
    let names = distinct(figures.iter().map(|it| it.name.clone()));
    let count = |figure: &&Figure| metric(result, figure).map_or(0, |it| it.values.len());
    let turns = figures.iter().map(count).max().unwrap_or(0);
    let by_case = |name: &String| {
        let of = |case: &String| {
            let same = |it: &&&Figure| it.name == *name && it.case.as_ref() == Some(case);
            figures.iter().find(same).map(|it| it.spread)
        };
        (words(name), cases.iter().map(of).collect())
    };
    let by_round = |name: &String| {
        let figure = figures.iter().find(|it| it.name == *name);
        let values = figure.and_then(|it| metric(result, it));
        let values = values.map_or(&[][..], |it| &it.values);
        let one = |round| values.get(round).map(|value| Spread::of([*value]));
        (words(name), (0..turns).map(one).collect())
    };
    match cases.is_empty() {
        // What was looked at only once is in the table of figures.
        true if turns < 2 => String::new(),
        true => stepped(
            title,
            caption,
            unit(unit_name),
            &labels_of_rounds(turns),
            names.iter().map(by_round).collect(),
        ),
        false => stepped(
            title,
            caption,
            unit(unit_name),
            &cases,
            names.iter().map(by_case).collect(),
        ),
    }
}

/// A value of each turn: by case when there are cases, else by round.
fn sides(rounds: &Rounds, title: &str, unit: Unit, of: &dyn Fn(&Turn) -> Option<f64>) -> String {
    let cases = distinct(rounds.sides.iter().filter_map(|it| it.case.clone()));
    let names = distinct(rounds.sides.iter().map(|it| it.name.clone()));
    let turns = rounds.sides.iter().map(|it| it.turns.len()).max();
    let spread = |side: &Side| {
        let values: Vec<f64> = side.turns.iter().filter_map(of).collect();
        (!values.is_empty()).then(|| Spread::of(values))
    };
    let by_case = |name: &String| {
        let of = |case: &String| {
            let same = |it: &&Side| it.name == *name && it.case.as_ref() == Some(case);
            rounds.sides.iter().find(same).and_then(spread)
        };
        (name.clone(), cases.iter().map(of).collect())
    };
    let by_round = |name: &String| {
        let side = rounds.sides.iter().find(|it| it.name == *name);
        let turns = side.map_or(&[][..], |it| &it.turns);
        let value = |turn| of(turn).map(|value| Spread::of([value]));
        (name.clone(), turns.iter().map(value).collect())
    };
    let (labels, lines) = match cases.is_empty() {
        true => (
            labels_of_rounds(turns.unwrap_or(0)),
            names.iter().map(by_round).collect(),
        ),
        false => (cases.clone(), names.iter().map(by_case).collect()),
    };
    let caption = match cases.is_empty() {
        true => "One after the other within each round.",
        false => "Median, and from the least to the most of all rounds.",
    };
    stepped(title, caption, unit, &labels, lines)
}

fn labels_of_rounds(count: usize) -> Vec<String> {
    (1..=count).map(|round| format!("round {round}")).collect()
}

/// In the order in which they first come.
fn distinct(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut all = Vec::new();
    for name in names {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

fn stepped(
    title: &str,
    caption: &str,
    unit: Unit,
    labels: &[String],
    lines: Vec<(String, Vec<Option<Spread>>)>,
) -> String {
    let lines: Vec<Steps> = lines
        .into_iter()
        .filter(|(_, values)| values.iter().flatten().any(|it| it.median > 0.0))
        .zip(1..)
        .map(|((name, values), colour)| Steps {
            name,
            colour,
            values,
        })
        .take(CURVES_MAX)
        .collect();
    if lines.is_empty() {
        return String::new();
    }
    let heads = lines.iter().map(|it| escape(&it.name));
    let rows = labels.iter().enumerate().map(|(index, label)| {
        let cells = lines.iter().map(|line| {
            let value = line.values.get(index).copied().flatten();
            value.map_or(String::new(), |it| spread_text(unit, it))
        });
        row(&escape(label), cells)
    });
    format!(
        "<section><h2>{}</h2><p class=\"soft\">{}</p>{}<details><summary>Numbers</summary>{}</details></section>",
        escape(title),
        escape(caption),
        chart::steps(title, unit, labels, &lines),
        table("", heads, rows)
    )
}

fn spread_text(unit: Unit, spread: Spread) -> String {
    match spread.min == spread.max {
        true => unit.text(spread.median),
        false => format!(
            "{} ({} to {})",
            unit.text(spread.median),
            unit.text(spread.min),
            unit.text(spread.max)
        ),
    }
}

/// One chart for each case, and with a plan one for latencies from the planned time and one for those of service.
fn percentiles(curves: &[Curve]) -> String {
    let mut charts: Vec<(String, Vec<(&str, &Curve)>)> = Vec::new();
    for curve in curves {
        if curve.points.len() < CURVE_POINTS_MIN {
            continue;
        }
        let (of, side) = match curve.name.rsplit_once(", ") {
            Some((side, of @ ("planned" | "service"))) => (of, side),
            Some((case, side)) => (case, side),
            None => ("", curve.name.as_str()),
        };
        match charts.iter_mut().find(|(known, _)| known == of) {
            Some((_, curves)) => curves.push((side, curve)),
            None => charts.push((of.to_string(), vec![(side, curve)])),
        }
    }
    let chart = |(of, curves): (String, Vec<(&str, &Curve)>)| {
        let (title, caption) = match of.as_str() {
            "" => (
                "Percentiles".to_string(),
                "Latency of each side over all rounds.",
            ),
            "planned" => (
                "Percentiles from the planned time".to_string(),
                "A wait behind a stalled system counts.",
            ),
            "service" => (
                "Percentiles of service time".to_string(),
                "From the time of sending: it does not see a wait before it.",
            ),
            case => (
                format!("Percentiles, {case}"),
                "Latency of each side over all rounds.",
            ),
        };
        let drawn: Vec<(&str, u8, &[chart::Quantile])> = curves
            .iter()
            .zip(1..)
            .map(|((side, curve), colour)| (*side, colour, curve.points.as_slice()))
            .take(CURVES_MAX)
            .collect();
        super::panels::percentile_panel(&title, caption, &drawn)
    };
    // A side alone has nothing beside it, and is in the tables.
    let charts = charts.into_iter().filter(|(_, curves)| curves.len() > 1);
    charts.map(chart).collect()
}

/// The figures, what each side took besides time, and every turn.
pub fn tables(rounds: &Rounds) -> String {
    let mut tables = String::new();
    let rows = rounds.figures.iter().map(|it| {
        let unit_of = unit(&it.unit);
        let cells = [it.spread.median, it.spread.min, it.spread.max].map(|it| unit_of.text(it));
        row(
            &escape(&full_name(it)),
            cells.into_iter().chain([escape(&it.unit)]),
        )
    });
    let heads = ["median", "least", "most", "unit"].map(str::to_string);
    let _ = write!(
        tables,
        "<section><h2>Figures over all rounds</h2>{}</section>",
        table("figure", heads.into_iter(), rows)
    );
    tables.push_str(&costs(rounds));
    let rows = rounds
        .sides
        .iter()
        .flat_map(|side| side.turns.iter().map(|turn| turn_row(side, turn)));
    let heads = [
        "round",
        "from",
        "to",
        "operations",
        "operations/s",
        "bytes/s",
        "p50",
        "p99",
        "p99.9",
        "max",
        "service p99",
    ];
    let _ = write!(
        tables,
        "<section><h2>Turns</h2>{}</section>",
        table("side", heads.map(str::to_string).into_iter(), rows)
    );
    tables
}

fn turn_row(side: &Side, turn: &Turn) -> String {
    let micros = |latency: Option<Latency>, of: fn(&Latency) -> u64| {
        latency.map_or(String::new(), |it| Unit::Micros.text(of(&it) as f64))
    };
    let cells = [
        turn.round.to_string(),
        Unit::Seconds.text(turn.start_s),
        Unit::Seconds.text(turn.end_s),
        turn.operations.to_string(),
        Unit::Count.text(turn.operations_per_second),
        Unit::Bytes.text(turn.bytes_per_second),
        micros(turn.latency, |it| it.p50_us),
        micros(turn.latency, |it| it.p99_us),
        micros(turn.latency, |it| it.p999_us),
        micros(turn.latency, |it| it.max_us),
        micros(turn.latency_service, |it| it.p99_us),
    ];
    row(&escape(&name(side)), cells.into_iter())
}

fn name(side: &Side) -> String {
    match &side.case {
        Some(case) => format!("{case}, {}", side.name),
        None => side.name.clone(),
    }
}

/// Median over the rounds of what was counted beside each side.
fn costs(rounds: &Rounds) -> String {
    let counted: Vec<&Side> = rounds
        .sides
        .iter()
        .filter(|side| side.turns.iter().any(|turn| !turn.costs.is_empty()))
        .collect();
    let all = || {
        let turns = counted.iter().flat_map(|side| &side.turns);
        turns.flat_map(|turn| &turn.costs)
    };
    let names = distinct(all().map(|cost| cost.name.clone()));
    if names.is_empty() {
        return String::new();
    }
    let rows = names.iter().map(|name| {
        let unit_name = all()
            .find(|cost| cost.name == *name)
            .map(|cost| cost.unit.clone());
        let unit_name = unit_name.unwrap_or_default();
        let median = |side: &&Side| {
            let costs = side.turns.iter().flat_map(|turn| &turn.costs);
            let values: Vec<f64> = costs
                .filter(|it| it.name == *name)
                .map(|it| it.value)
                .collect();
            match values.is_empty() {
                true => String::new(),
                false => unit(&unit_name).text(Spread::of(values).median),
            }
        };
        let cells = counted.iter().map(median).chain([escape(&unit_name)]);
        row(&escape(&words(name)), cells)
    });
    let heads = counted.iter().map(|side| escape(&name(side)));
    let heads = heads.chain(["unit".to_string()]);
    format!(
        "<section><h2>What it took</h2><p class=\"soft\">Counted, not timed: median of all rounds.</p>{}</section>",
        table("", heads, rows)
    )
}

fn row(first: &str, cells: impl Iterator<Item = String>) -> String {
    let cells: String = cells.map(|cell| format!("<td>{cell}</td>")).collect();
    format!("<tr><td>{first}</td>{cells}</tr>")
}

fn table(
    first: &str,
    heads: impl Iterator<Item = String>,
    rows: impl Iterator<Item = String>,
) -> String {
    let heads: String = heads.map(|head| format!("<th>{head}</th>")).collect();
    format!(
        "<div class=\"scroll\"><table><thead><tr><th>{first}</th>{heads}</tr></thead><tbody>{}</tbody></table></div>",
        rows.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{
        run::{Better, sample},
        turns::Cost,
    };

    /// Two rounds of two sides.
    fn whole(case: Option<&str>) -> RunResult {
        let case = case.map(str::to_string);
        let turn = |round: u32, bytes_per_second: f64| Turn {
            round,
            start_s: 0.0,
            end_s: 1.0,
            operations: 10,
            bytes: 1_000,
            operations_per_second: 10.0,
            bytes_per_second,
            latency: None,
            latency_service: None,
            costs: vec![Cost::new("copies_per_batch", "per batch", 2.0)],
        };
        let side = |name: &str, factor: f64| Side {
            case: case.clone(),
            name: name.to_string(),
            turns: vec![turn(1, 1e6 * factor), turn(2, 2e6 * factor)],
        };
        let figure = Figure {
            name: "device_ratio".to_string(),
            case: case.clone(),
            metric: "device_ratio_of_it".to_string(),
            unit: "ratio".to_string(),
            spread: Spread::of([0.4, 0.6]),
        };
        let metric = Metric {
            name: figure.metric.clone(),
            unit: figure.unit.clone(),
            better: Better::Higher,
            values: vec![0.4, 0.6],
            headline: true,
        };
        RunResult {
            metrics: vec![metric],
            rounds: Some(Rounds {
                engine_config: Vec::new(),
                sides: vec![side("engine", 0.5), side("<device>", 1.0)],
                figures: vec![figure],
            }),
            ..sample()
        }
    }

    #[test]
    fn a_figure_is_drawn_by_round_or_by_case() {
        let check = |case: Option<&str>, marks: usize, labels: &[&str]| {
            let result = whole(case);
            let rounds = result.rounds.as_ref().expect("rounds");
            let charts = charts(&result, rounds);
            assert_eq!(charts.matches("<circle").count(), marks, "{charts}");
            for label in labels {
                assert!(charts.contains(&format!(">{label}<")), "{label}: {charts}");
            }
            assert!(!charts.contains("<device>"), "text of others is text");
            assert!(tables(rounds).contains("copies per batch"));
            let tile = &tiles(&result)[0];
            assert!(
                tile.0 == "0.5" && tile.1.contains("(0.4 to 0.6)"),
                "{tile:?}"
            );
        };
        // One ratio and two rates, in two rounds; or over both rounds of one case.
        check(None, 6, &["round 1", "round 2"]);
        check(Some("16 bytes"), 3, &["16 bytes"]);
    }

    #[test]
    fn nothing_was_measured() {
        let result = sample();
        let rounds = Rounds::default();
        assert_eq!(charts(&result, &rounds), "");
        assert_eq!(tiles(&result), Vec::new());
        assert!(tables(&rounds).contains("Turns"));
    }
}
