//! Charts as SVG: lines over time, a heat map, a percentile curve. Colours are CSS variables of the page; there is no script in them.

use std::{collections::BTreeMap, fmt::Write};

use crate::{latency::heat_start, result::Spread};

/// Of the drawing, in its own units; the page scales it to what there is.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 30.0;

/// Of a heat map: the page has a colour for each.
const SHADES: usize = 8;

/// Points of a line at most: more cannot be told apart on a screen.
const POINTS_MAX: usize = 600;

/// One line of a chart. A gap in the points is one in the line.
pub struct Line {
    pub name: String,
    /// Which of the page's colours, from 1.
    pub colour: u8,
    pub points: Vec<(f64, Option<f64>)>,
}

/// What is shaded behind the lines.
pub struct Span {
    pub name: String,
    pub start: f64,
    pub end: f64,
}

/// How numbers of an axis are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// With k, M, G.
    Count,
    Bytes,
    Micros,
    Seconds,
    /// Seconds that may be a small part of one.
    Duration,
    Part,
}

impl Unit {
    pub fn text(self, value: f64) -> String {
        let scaled = |steps: &[(f64, &str)]| {
            let step = steps.iter().find(|(least, _)| value.abs() >= *least);
            let (least, unit) = step.or(steps.last()).copied().unwrap_or((1.0, ""));
            format!("{}{unit}", plain(value / least))
        };
        match self {
            Unit::Count => scaled(&[(1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")]),
            Unit::Bytes => scaled(&[(1e9, " GB"), (1e6, " MB"), (1e3, " kB"), (1.0, " B")]),
            Unit::Micros => scaled(&[(1e6, " s"), (1e3, " ms"), (1.0, " us")]),
            Unit::Duration => scaled(&[(1.0, " s"), (1e-3, " ms"), (1e-6, " us")]),
            Unit::Seconds => format!("{} s", plain(value)),
            Unit::Part => format!("{}%", plain(value * 100.0)),
        }
    }
}

/// Three digits, and no zeros behind the point.
fn plain(value: f64) -> String {
    let digits = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    }
}

/// Text of others, safe between tags and in attributes.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // Control characters are not allowed in XML.
            character if character.is_control() && !"\n\t".contains(character) => {
                safe.push('\u{fffd}')
            }
            character => safe.push(character),
        }
    }
    safe
}

/// From a value of the data to a place in the drawing.
#[derive(Clone, Copy)]
struct Axis {
    from: f64,
    to: f64,
    /// Places.
    begin: f64,
    end: f64,
    log: bool,
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        let part = match self.log {
            true => (value.max(self.from) / self.from).ln() / (self.to / self.from).ln(),
            false => (value - self.from) / (self.to - self.from),
        };
        self.begin + part.clamp(0.0, 1.0) * (self.end - self.begin)
    }

    /// Round numbers, about `count` of them.
    fn ticks(&self, count: f64) -> Vec<f64> {
        if self.log {
            let (first, last) = (
                self.from.log10().ceil() as i32,
                self.to.log10().floor() as i32,
            );
            return (first..=last).map(|power| 10_f64.powi(power)).collect();
        }
        let rough = (self.to - self.from) / count;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|it| it * power)
            .find(|step| *step >= rough);
        let step = step.unwrap_or(rough);
        let first = (self.from / step).ceil() as i64;
        let last = (self.to / step + 1e-9).floor() as i64;
        (first..=last).map(|at| at as f64 * step).collect()
    }
}

fn across(from: f64, to: f64) -> Axis {
    Axis {
        from,
        to: if to > from { to } else { from + 1.0 },
        begin: LEFT,
        end: WIDTH - RIGHT,
        log: false,
    }
}

fn upward(from: f64, to: f64, log: bool) -> Axis {
    Axis {
        from,
        to: if to > from { to } else { from + 1.0 },
        begin: HEIGHT - BOTTOM,
        end: TOP,
        log,
    }
}

fn open(title: &str, description: &str) -> String {
    let (title, description) = (escape(title), escape(description));
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title><desc>{description}</desc>"
    )
}

fn draw_axes(svg: &mut String, x: Axis, y: Axis, x_text: impl Fn(f64) -> String, y_unit: Unit) {
    for tick in y.ticks(5.0) {
        let at = y.place(tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x.end,
            LEFT - 6.0,
            at + 4.0,
            escape(&y_unit.text(tick)),
        );
    }
    for tick in x.ticks(8.0) {
        let _ = write!(
            svg,
            "<text class=\"tick\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x.place(tick),
            HEIGHT - 10.0,
            escape(&x_text(tick)),
        );
    }
    let _ = write!(
        svg,
        "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
        x.end, y.begin, y.begin
    );
}

fn draw_spans(svg: &mut String, x: Axis, spans: &[Span]) {
    for (index, span) in spans.iter().enumerate() {
        let (from, to) = (x.place(span.start), x.place(span.end));
        let _ = write!(
            svg,
            "<rect class=\"span{}\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}</title></rect>",
            index % 2,
            (to - from).max(0.0),
            HEIGHT - BOTTOM - TOP,
            escape(&span.name),
        );
    }
}

/// Lines over the seconds of a run. `log` for latencies.
pub fn lines(title: &str, unit: Unit, log: bool, lines: &[Line], spans: &[Span]) -> String {
    let values = || {
        lines
            .iter()
            .flat_map(|line| line.points.iter().filter_map(|(_, value)| *value))
    };
    let most = values().fold(0.0_f64, f64::max);
    let least = values()
        .filter(|value| *value > 0.0)
        .fold(f64::INFINITY, f64::min);
    let last = lines
        .iter()
        .flat_map(|line| line.points.last())
        .map(|(at, _)| *at)
        .fold(0.0, f64::max);
    let x = across(0.0, last.max(spans.last().map_or(0.0, |span| span.end)));
    let y = match log {
        true => {
            let from = 10_f64.powf(least.min(most).max(1.0).log10().floor());
            upward(
                from,
                10_f64.powf(most.max(from * 10.0).log10().ceil()),
                true,
            )
        }
        false => upward(0.0, most * 1.05, false),
    };
    let names: Vec<&str> = lines.iter().map(|line| line.name.as_str()).collect();
    let mut svg = open(
        title,
        &format!("{} over the seconds of the run", names.join(", ")),
    );
    draw_spans(&mut svg, x, spans);
    draw_axes(&mut svg, x, y, |at| Unit::Seconds.text(at), unit);
    for line in lines {
        let mut path = String::new();
        let mut pen = 'M';
        for (at, value) in thin(&line.points) {
            match value {
                Some(value) => {
                    let _ = write!(path, "{pen}{:.1} {:.1}", x.place(at), y.place(value));
                    pen = 'L';
                }
                None => pen = 'M',
            }
        }
        let _ = write!(svg, "<path class=\"line c{}\" d=\"{path}\"/>", line.colour);
    }
    svg.push_str("</svg>");
    svg + &legend(lines.iter().map(|line| (line.name.as_str(), line.colour)))
}

pub fn legend<'a>(names: impl Iterator<Item = (&'a str, u8)>) -> String {
    let keys = names
        .map(|(name, colour)| format!("<li><i class=\"key c{colour}\"></i>{}</li>", escape(name)));
    format!("<ul class=\"legend\">{}</ul>", keys.collect::<String>())
}

/// Values of one side at a few steps, such as rounds, each with its spread.
pub struct Steps {
    pub name: String,
    /// Which of the page's colours, from 1.
    pub colour: u8,
    pub values: Vec<Option<Spread>>,
}

/// Lines over steps that have names. Values that lie far apart get a scale of powers.
pub fn steps(title: &str, unit: Unit, labels: &[String], lines: &[Steps]) -> String {
    /// The most over the least, from which on the small ones would not be seen.
    const FAR_APART: f64 = 10.0;
    let spreads = || lines.iter().flat_map(|line| line.values.iter().flatten());
    let most = spreads().map(|it| it.max).fold(0.0, f64::max);
    let positive = spreads().map(|it| it.min).filter(|value| *value > 0.0);
    let least = positive.fold(f64::INFINITY, f64::min).min(most);
    let y = match most > least * FAR_APART {
        true => {
            let power = |value: f64| 10_f64.powf(value);
            upward(
                power(least.log10().floor()),
                power(most.log10().ceil()),
                true,
            )
        }
        false => Axis {
            to: most * 1.05,
            ..upward(0.0, 1.0, false)
        },
    };
    let x = across(0.0, labels.len() as f64);
    let names: Vec<&str> = lines.iter().map(|line| line.name.as_str()).collect();
    let mut svg = open(
        title,
        &format!("{} at each of: {}", names.join(", "), labels.join(", ")),
    );
    // The steps have names, and stand between the ticks.
    draw_axes(&mut svg, x, y, |_| String::new(), unit);
    for (index, label) in labels.iter().enumerate() {
        let _ = write!(
            svg,
            "<text class=\"tick\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x.place(index as f64 + 0.5),
            HEIGHT - 10.0,
            escape(label),
        );
    }
    for (number, line) in lines.iter().enumerate() {
        draw_steps(&mut svg, x, y, line, aside(number, lines.len()));
    }
    svg.push_str("</svg>");
    svg + &legend(lines.iter().map(|line| (line.name.as_str(), line.colour)))
}

/// How far a line stands from the middle of its step, so that the bars of several do not cover each other.
fn aside(number: usize, of: usize) -> f64 {
    0.5 + (number as f64 - (of as f64 - 1.0) / 2.0) * 0.06
}

fn draw_steps(svg: &mut String, x: Axis, y: Axis, line: &Steps, aside: f64) {
    let (mut path, mut marks, mut pen) = (String::new(), String::new(), 'M');
    for (index, value) in line.values.iter().enumerate() {
        let Some(value) = value else {
            pen = 'M';
            continue;
        };
        let (at, middle) = (x.place(index as f64 + aside), y.place(value.median));
        let _ = write!(path, "{pen}{at:.1} {middle:.1}");
        pen = 'L';
        let _ = write!(
            marks,
            "<path class=\"line c{0}\" d=\"M{at:.1} {1:.1}L{at:.1} {2:.1}\"/><circle class=\"c{0}\" cx=\"{at:.1}\" cy=\"{middle:.1}\" r=\"4\"/>",
            line.colour,
            y.place(value.min),
            y.place(value.max),
        );
    }
    let _ = write!(
        svg,
        "<path class=\"line thin c{}\" d=\"{path}\"/>{marks}",
        line.colour
    );
}

/// Of each stretch of points the least and the most stay, so that no peak is lost.
fn thin(points: &[(f64, Option<f64>)]) -> Vec<(f64, Option<f64>)> {
    if points.len() <= POINTS_MAX {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil(POINTS_MAX / 2);
    let thinned = points.chunks(stretch).flat_map(|chunk| {
        let by = |one: &&(f64, Option<f64>), other: &&(f64, Option<f64>)| {
            one.1.unwrap_or(0.0).total_cmp(&other.1.unwrap_or(0.0))
        };
        let (least, most) = (chunk.iter().min_by(by), chunk.iter().max_by(by));
        let mut both: Vec<(f64, Option<f64>)> = least.into_iter().chain(most).copied().collect();
        both.sort_by(|one, other| one.0.total_cmp(&other.0));
        both
    });
    thinned.collect()
}

/// One second of a heat map: upper bound of each bucket, and how many fell into it.
pub type HeatColumn = (f64, Vec<(u64, u64)>);

/// How often which latency came, second by second. Colours go with the logarithm of the count, so that one slow record in a million is seen.
pub fn heat(title: &str, columns: &[HeatColumn]) -> String {
    // Columns of a long run are joined: a cell narrower than a pixel is not seen.
    let joined = columns.len().div_ceil(POINTS_MAX / 2).max(1);
    let columns: Vec<(f64, f64, BTreeMap<u64, u64>)> = columns
        .chunks(joined)
        .map(|chunk| {
            let mut sums = BTreeMap::new();
            for (bound, count) in chunk.iter().flat_map(|(_, cells)| cells) {
                *sums.entry(*bound).or_default() += count;
            }
            (chunk[0].0, chunk[chunk.len() - 1].0 + 1.0, sums)
        })
        .collect();
    let cells = || columns.iter().flat_map(|(_, _, cells)| cells);
    let most = cells().map(|(_, count)| *count).max().unwrap_or(1);
    let slowest = cells().map(|(bound, _)| *bound).max().unwrap_or(10) as f64;
    let fastest = cells()
        .map(|(bound, _)| heat_start(*bound))
        .min()
        .unwrap_or(1) as f64;
    let last = columns.last().map_or(1.0, |(_, to, _)| *to);
    let x = across(0.0, last);
    let y = upward(fastest.max(1.0), slowest, true);
    let mut svg = open(
        title,
        "Each cell counts the records of one second with one latency; darker is more.",
    );
    for (from, to, cells) in &columns {
        let (from, to) = (x.place(*from), x.place(*to));
        for (bound, count) in cells {
            let part = (*count as f64).ln_1p() / (most as f64).ln_1p();
            let shade = 1 + (part * SHADES as f64) as usize;
            let (top, bottom) = (y.place(*bound as f64), y.place(heat_start(*bound) as f64));
            let _ = write!(
                svg,
                "<rect class=\"h{}\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                shade.min(SHADES),
                (to - from).max(0.5),
                bottom - top,
            );
        }
    }
    draw_axes(&mut svg, x, y, |at| Unit::Seconds.text(at), Unit::Micros);
    svg + "</svg>"
}

/// A part of all operations, and the latency that it stays within, in microseconds.
pub type Quantile = (f64, u64);

/// Latency over the share of operations, with each further nine as far apart as the one before.
pub fn percentiles(title: &str, curves: &[(&str, u8, &[Quantile])]) -> String {
    let nines = |part: f64| -(1.0 - part).max(1e-6).log10();
    let all = || curves.iter().flat_map(|(_, _, points)| points.iter());
    let most = all().map(|(_, micros)| *micros).max().unwrap_or(10) as f64;
    let least = all()
        .map(|(_, micros)| *micros)
        .filter(|micros| *micros > 0)
        .min()
        .unwrap_or(1) as f64;
    let farthest = all().map(|(part, _)| nines(*part)).fold(3.0_f64, f64::max);
    let x = across(0.0, farthest);
    let from = 10_f64.powf(least.log10().floor());
    let y = upward(
        from,
        10_f64.powf(most.max(from * 10.0).log10().ceil()),
        true,
    );
    let mut svg = open(
        title,
        "Latency that this part of all operations stays within.",
    );
    let label = |at: f64| match at.round() as u32 {
        // Between two nines.
        _ if at.fract() != 0.0 => String::new(),
        0 => "0".to_string(),
        1 => "90%".to_string(),
        2 => "99%".to_string(),
        more => format!("99.{}%", "9".repeat(more as usize - 2)),
    };
    draw_axes(&mut svg, x, y, label, Unit::Micros);
    for (_, colour, points) in curves {
        let places = points.iter().enumerate().map(|(index, (part, micros))| {
            let pen = if index == 0 { 'M' } else { 'L' };
            format!(
                "{pen}{:.1} {:.1}",
                x.place(nines(*part)),
                y.place(*micros as f64)
            )
        });
        let _ = write!(
            svg,
            "<path class=\"line c{colour}\" d=\"{}\"/>",
            places.collect::<String>()
        );
    }
    svg.push_str("</svg>");
    svg + &legend(curves.iter().map(|(name, colour, _)| (*name, *colour)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let check = |unit: Unit, value: f64, expected: &str| assert_eq!(unit.text(value), expected);
        check(Unit::Count, 0.0, "0");
        check(Unit::Count, 1_500.0, "1.5k");
        check(Unit::Bytes, 2.0e8, "200 MB");
        check(Unit::Micros, 999.0, "999 us");
        check(Unit::Micros, 25_300.0, "25.3 ms");
        check(Unit::Micros, 2e6, "2 s");
        check(Unit::Part, 0.25, "25%");
        check(Unit::Duration, 0.0655, "65.5 ms");
        check(Unit::Duration, 3.0, "3 s");
        check(Unit::Duration, 0.0, "0 us");
    }

    #[test]
    fn ticks_are_round_and_within() {
        let check = |axis: Axis, expected: &[f64]| assert_eq!(axis.ticks(5.0), expected);
        check(upward(0.0, 105.0, false), &[0.0, 50.0, 100.0]);
        check(upward(0.0, 4.2, false), &[0.0, 1.0, 2.0, 3.0, 4.0]);
        check(upward(10.0, 1e4, true), &[10.0, 100.0, 1_000.0, 10_000.0]);
    }

    #[test]
    fn steps_have_a_mark_each_and_a_scale_that_shows_them() {
        let line = |values: &[f64]| Steps {
            name: "a < b".to_string(),
            colour: 1,
            values: values.iter().map(|it| Some(Spread::of([*it]))).collect(),
        };
        let labels = ["round 1", "round 2"].map(str::to_string);
        let svg = steps("steps", Unit::Count, &labels, &[line(&[0.5, 0.6])]);
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains("round 2") && svg.contains("a &lt; b"));
        assert!(svg.contains(">0.2<") && !svg.contains(">0.01<"), "{svg}");
        let far = steps("steps", Unit::Count, &labels, &[line(&[0.02, 11.0])]);
        assert!(far.contains(">0.01<") && far.contains(">100<"), "{far}");
    }

    #[test]
    fn thinning_keeps_the_peaks() {
        let mut points: Vec<(f64, Option<f64>)> =
            (0..10_000).map(|at| (f64::from(at), Some(1.0))).collect();
        points[5_555].1 = Some(99.0);
        points[7_777].1 = Some(0.5);
        let thinned = thin(&points);
        assert!(thinned.len() <= POINTS_MAX);
        assert!(
            thinned.contains(&(5_555.0, Some(99.0))) && thinned.contains(&(7_777.0, Some(0.5)))
        );
        assert!(thinned.is_sorted_by(|one, other| one.0 <= other.0));
    }

    #[test]
    fn text_of_others_is_text() {
        assert_eq!(
            escape("<script>\"a\" & 'b'\u{1}"),
            "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;\u{fffd}"
        );
    }

    #[test]
    fn a_long_heat_map_has_only_shades_that_there_are() {
        let columns: Vec<HeatColumn> = (0..7_200)
            .map(|at| (f64::from(at), vec![(1_024, 1_000), (2_048, 3)]))
            .collect();
        let svg = heat("heat", &columns);
        assert!(svg.matches("<rect").count() <= POINTS_MAX);
        assert!(svg.contains("\"h8\"") && !svg.contains("\"h9\"") && !svg.contains("\"h10\""));
    }
}
