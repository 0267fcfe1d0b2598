//! From the seconds of a run to lines of text, without a terminal.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    result::run::{FlowSecond, Second},
    run::PhaseSpan,
};

/// Seconds that the small charts hold.
const HISTORY_SECONDS: usize = 60;
/// Lateness of the generator at p99 that is shown as a warning.
const LATENESS_WARNING_US: u64 = 10_000;
/// A run that may take so long is one that ends by itself: how far it has come is not known.
const UNBOUNDED_SECONDS: f64 = 86_400.0;
const BLOCKS: [char; 8] = [
    '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}',
];
/// Where only ASCII can be shown.
const MARKS: [char; 8] = ['_', '.', ':', '-', '=', '+', '*', '#'];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Strong,
    Warning,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub text: String,
    pub tone: Tone,
}

/// What is known so far.
pub struct View {
    phases: Vec<PhaseSpan>,
    marks: [char; 8],
    last: Second,
    /// Of the last seconds: records completed, and p99 in microseconds.
    history: VecDeque<(u64, u64)>,
    /// Planned latencies of the phase that goes on, by the upper bounds of their buckets.
    heat: BTreeMap<u64, u64>,
    phase: Option<usize>,
}

impl View {
    pub fn new(phases: Vec<PhaseSpan>, blocks: bool) -> View {
        View {
            phases,
            marks: if blocks { BLOCKS } else { MARKS },
            last: Second::default(),
            history: VecDeque::new(),
            heat: BTreeMap::new(),
            phase: None,
        }
    }

    pub fn add(&mut self, second: &Second) {
        let phase = self.phase_at(second.second);
        if phase != self.phase {
            self.heat.clear();
            self.phase = phase;
        }
        let flow = flow(second);
        for (bound, count) in &flow.heat {
            *self.heat.entry(*bound).or_default() += count;
        }
        let p99 = flow.planned.map_or(0, |it| it.p99_us);
        if self.history.len() == HISTORY_SECONDS {
            self.history.pop_front();
        }
        self.history.push_back((flow.completed, p99));
        self.last = second.clone();
    }

    /// The one of several that holds most of a second; None after the last.
    fn phase_at(&self, second: u64) -> Option<usize> {
        let middle = second as f64 + 0.5;
        self.phases
            .iter()
            .position(|it| (it.start.as_secs_f64()..it.end.as_secs_f64()).contains(&middle))
    }

    /// None is longer than `columns`.
    pub fn lines(&self, columns: usize) -> Vec<Line> {
        let flow = flow(&self.last);
        let mut lines = vec![self.progress(columns)];
        let mut say = |tone: Tone, name: &str, parts: &[String]| {
            lines.push(Line {
                text: fitted(name, parts, columns),
                tone,
            });
        };
        let failed = (flow.failed > 0).then(|| format!("{} failed", count(flow.failed)));
        let mut rate = vec![format!("{}/s done", count(flow.completed))];
        rate.extend(failed);
        rate.push(format!("of {} offered", count(flow.offered)));
        rate.push(format!("{:.1} MB/s", flow.bytes as f64 / 1e6));
        let tone = if flow.failed > 0 {
            Tone::Warning
        } else {
            Tone::Plain
        };
        say(tone, "rate", &rate);
        if let Some(it) = flow.planned {
            let parts = [
                format!("p50 {}", micros(it.p50_us)),
                format!("p99 {}", micros(it.p99_us)),
                format!("phase p50 {}", micros(self.quantile(0.5))),
                format!("p99 {}", micros(self.quantile(0.99))),
            ];
            say(Tone::Plain, "latency", &parts);
        }
        if let Some(it) = flow.lateness {
            let late = it.p99_us > LATENESS_WARNING_US;
            let tone = if late { Tone::Warning } else { Tone::Plain };
            say(tone, "late by", &[format!("p99 {}", micros(it.p99_us))]);
        }
        if let Some(it) = self.last.backlog {
            let parts = [
                format!("{} records", count(it.records)),
                format!("{:.1} s behind", it.seconds_behind),
                format!("{:.1} MB", it.bytes as f64 / 1e6),
                format!("{}/s consumed", count(self.last.consumed.completed)),
            ];
            say(Tone::Plain, "backlog", &parts);
        }
        let machine = &self.last.machine;
        let mut cores = vec![format!("client {:.2} cores", machine.client_cores)];
        cores.extend(machine.broker_cores.map(|it| format!("broker {it:.2}")));
        say(Tone::Plain, "CPU", &cores);
        let room = columns.saturating_sub(10);
        let rates = self.sparkline(room, |it| it.0);
        say(Tone::Plain, "rate", &[rates]);
        say(Tone::Plain, "p99", &[self.sparkline(room, |it| it.1)]);
        lines
    }

    fn progress(&self, columns: usize) -> Line {
        let done = (self.last.second + 1) as f64;
        let end = self.phases.last().map_or(0.0, |it| it.end.as_secs_f64());
        if end >= UNBOUNDED_SECONDS {
            return Line {
                text: cut(&format!("{} so far", time(done)), columns),
                tone: Tone::Strong,
            };
        }
        let phase = self.phase.and_then(|at| self.phases.get(at));
        let name = phase.map_or("drain", |it| it.name.as_str());
        let words = match phase {
            Some(it) => format!(
                "{name}, {} left, {} in all",
                time(it.end.as_secs_f64() - done),
                time(end - done)
            ),
            None => name.to_string(),
        };
        let width = (columns / 4).clamp(6, 24);
        let part = if end > 0.0 {
            (done / end).min(1.0)
        } else {
            1.0
        };
        let full = (part * width as f64) as usize;
        let bar = format!("[{}{}]", "#".repeat(full), "-".repeat(width - full));
        Line {
            text: cut(&format!("{bar} {words}"), columns),
            tone: Tone::Strong,
        }
    }

    /// Upper bound of the bucket that holds so large a part of the phase.
    fn quantile(&self, part: f64) -> u64 {
        let all: u64 = self.heat.values().sum();
        let mut left = (all as f64 * part).ceil() as u64;
        for (bound, count) in &self.heat {
            if left <= *count {
                return *bound;
            }
            left -= count;
        }
        0
    }

    /// As many of the last seconds as there is room for, against the highest of them.
    fn sparkline(&self, room: usize, of: impl Fn(&(u64, u64)) -> u64) -> String {
        let skipped = self.history.len().saturating_sub(room);
        let values: Vec<u64> = self.history.iter().skip(skipped).map(of).collect();
        let most = values.iter().copied().max().unwrap_or(0).max(1);
        let steps = self.marks.len() as u128 - 1;
        let mark = |value: u64| self.marks[(u128::from(value) * steps / u128::from(most)) as usize];
        values.into_iter().map(mark).collect()
    }
}

/// What the command is about: a consumer alone has its own rate and latency.
fn flow(second: &Second) -> &FlowSecond {
    let produced = &second.produced;
    if produced.offered == 0 && produced.completed == 0 && second.consumed.completed > 0 {
        return &second.consumed;
    }
    produced
}

/// One line for a pipe.
pub fn plain(second: &Second) -> String {
    let flow = &second.produced;
    format!(
        "{:>5} s  offered {:>9}  completed {:>9}  {:>8.1} MB/s  p99 {:>8} us  consumed {:>9}",
        second.second,
        flow.offered,
        flow.completed,
        flow.bytes as f64 / 1e6,
        flow.planned.map_or(0, |latency| latency.p99_us),
        second.consumed.completed,
    )
}

/// As many parts as there is room for: the first matter most.
fn fitted(name: &str, parts: &[String], columns: usize) -> String {
    let mut text = format!("{name:<8}");
    for (number, part) in parts.iter().enumerate() {
        let gap = if number == 0 { "  " } else { ", " };
        if number > 0 && text.chars().count() + gap.len() + part.chars().count() > columns {
            break;
        }
        text.push_str(gap);
        text.push_str(part);
    }
    cut(&text, columns)
}

fn cut(text: &str, columns: usize) -> String {
    text.chars().take(columns).collect()
}

fn count(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..10_000_000 => format!("{:.1} k", count as f64 / 1e3),
        _ => format!("{:.1} M", count as f64 / 1e6),
    }
}

fn micros(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{micros} us"),
        10_000..10_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.1} s", micros as f64 / 1e6),
    }
}

fn time(seconds: f64) -> String {
    let seconds = seconds.max(0.0).ceil() as u64;
    match seconds {
        0..120 => format!("{seconds} s"),
        _ => format!("{}:{:02} min", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{latency::Latencies, result::run::Backlog};

    fn span(name: &str, start: u64, end: u64) -> PhaseSpan {
        PhaseSpan {
            name: name.to_string(),
            start: Duration::from_secs(start),
            end: Duration::from_secs(end),
            measured: true,
        }
    }

    fn second(number: u64, completed: u64, micros: u64) -> Second {
        let mut latencies = Latencies::new();
        latencies.record_each(Duration::from_micros(micros), completed.max(1));
        let mut second = Second {
            second: number,
            backlog: Some(Backlog {
                records: 12_345,
                bytes: 5_000_000,
                seconds_behind: 1.5,
            }),
            ..Second::default()
        };
        second.produced = FlowSecond {
            offered: 20_000,
            completed,
            bytes: completed * 1_000,
            planned: Some(latencies.percentiles()),
            lateness: Some(latencies.percentiles()),
            heat: latencies.heat(),
            ..FlowSecond::default()
        };
        second.machine.broker_cores = Some(0.5);
        second
    }

    fn view() -> View {
        let mut view = View::new(vec![span("warm-up", 0, 2), span("burst 1", 2, 300)], false);
        for number in 0..4 {
            view.add(&second(number, 10_000 * number, 1_000 * (number + 1)));
        }
        view
    }

    #[test]
    fn lines_fit_any_width_and_say_what_matters_first() {
        for columns in [1, 20, 40, 80, 120] {
            let lines = view().lines(columns);
            for line in &lines {
                assert!(line.text.chars().count() <= columns, "{columns}: {line:?}");
            }
            assert_eq!(lines.len(), 8);
        }
        let text: Vec<String> = view().lines(80).into_iter().map(|it| it.text).collect();
        let expected = [
            "[--------------------] burst 1, 4:56 min left, 4:56 min in all",
            "rate      30.0 k/s done, of 20.0 k offered, 30.0 MB/s",
        ];
        assert_eq!(text[..2], expected);
        assert_eq!(
            text[4],
            "backlog   12.3 k records, 1.5 s behind, 5.0 MB, 0/s consumed"
        );
        assert_eq!(text[5], "CPU       client 0.00 cores, broker 0.50");
        assert_eq!(text[6], "rate      _:=#");
        assert_eq!(text[7], "p99       .-+#");
        let narrow = view().lines(40);
        assert_eq!(narrow[1].text, "rate      30.0 k/s done");
    }

    #[test]
    fn a_phase_has_its_own_percentiles() {
        let view = view();
        // Of the two seconds of the second phase only.
        assert!((3_000..3_500).contains(&view.quantile(0.1)));
        assert!((4_000..4_500).contains(&view.quantile(0.99)));
        assert_eq!(View::new(Vec::new(), true).quantile(0.5), 0);
    }

    #[test]
    fn after_the_phases_comes_the_drain() {
        let mut view = view();
        view.add(&second(301, 0, 10));
        assert_eq!(view.lines(80)[0].text, "[####################] drain");
        // Odd values and a full history.
        for number in 302..500 {
            view.add(&second(number, u64::from(u32::MAX), 1));
        }
        assert!(view.lines(80).iter().all(|it| it.text.len() <= 80));
        assert!(!View::new(Vec::new(), true).lines(80).is_empty());
        let unbounded = View::new(vec![span("run", 0, 86_400)], true);
        assert_eq!(unbounded.lines(80)[0].text, format!("{} so far", time(1.0)));
    }
}
