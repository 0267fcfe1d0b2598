//! What the turns of a run found, and the figures that follow from several of them.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    latency::Latencies,
    result::{
        Spread,
        run::{Better, Metric},
        turns::{self, Cost, Turn},
    },
};

/// One measurement of one side.
#[derive(Clone, Default)]
pub struct Measured {
    /// Times of the run.
    pub start: Duration,
    pub end: Duration,
    pub operations: u64,
    pub bytes: u64,
    /// From the planned time, when there was a plan.
    pub latency: Latencies,
    /// From the time of sending; empty without a plan.
    pub service: Latencies,
    /// Of arrivals behind their plan.
    pub lateness: Latencies,
    pub costs: Vec<Cost>,
}

impl Measured {
    pub fn seconds(&self) -> f64 {
        self.end.saturating_sub(self.start).as_secs_f64()
    }

    pub fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.seconds()
    }

    pub fn operations_per_second(&self) -> f64 {
        self.operations as f64 / self.seconds()
    }

    pub fn p99_us(&self) -> f64 {
        self.latency.percentiles().p99_us as f64
    }

    pub fn cost(&self, name: &str) -> Option<f64> {
        let cost = self.costs.iter().find(|cost| cost.name == name)?;
        Some(cost.value)
    }

    /// What another thread did at the same time for the same side.
    pub fn add(&mut self, other: Measured) {
        self.start = self.start.min(other.start);
        self.end = self.end.max(other.end);
        self.operations += other.operations;
        self.bytes += other.bytes;
        self.latency += other.latency;
        self.service += other.service;
        self.lateness += other.lateness;
    }
}

/// One measurement with its place in the run.
#[derive(Clone)]
pub struct Taken {
    /// From 0.
    pub round: u32,
    /// What else was measured in the same round: `16384 bytes`, `100 partitions`.
    pub case: Option<String>,
    pub side: &'static str,
    pub measured: Measured,
}

impl Taken {
    pub fn new(round: u32, side: &'static str, measured: Measured) -> Taken {
        Taken {
            round,
            case: None,
            side,
            measured,
        }
    }

    pub fn in_case(self, case: String) -> Taken {
        Taken {
            case: Some(case),
            ..self
        }
    }

    /// Case and side, for the eye and for the name of a file.
    pub fn name(&self) -> String {
        match &self.case {
            Some(case) => format!("{case}, {}", self.side),
            None => self.side.to_string(),
        }
    }

    /// For the eye, when it is over.
    pub fn line(&self) -> String {
        let it = &self.measured;
        let mut line = format!(
            "round {} {:<30} {:>9.1} MB/s {:>9.0} ops/s",
            self.round + 1,
            self.name(),
            it.bytes_per_second() / 1e6,
            it.operations_per_second(),
        );
        if it.latency.count() > 0 {
            let latency = it.latency.percentiles();
            line.push_str(&format!(
                "  p50 {:>6} us  p99 {:>7} us  p99.9 {:>7} us",
                latency.p50_us, latency.p99_us, latency.p999_us
            ));
        }
        line
    }

    pub fn result(&self) -> Turn {
        let it = &self.measured;
        let some = |latencies: &Latencies| (latencies.count() > 0).then(|| latencies.percentiles());
        Turn {
            round: self.round + 1,
            start_s: it.start.as_secs_f64(),
            end_s: it.end.as_secs_f64(),
            operations: it.operations,
            bytes: it.bytes,
            operations_per_second: it.operations_per_second(),
            bytes_per_second: it.bytes_per_second(),
            latency: some(&it.latency),
            latency_service: some(&it.service),
            costs: it.costs.clone(),
        }
    }
}

/// A value of each round that has one.
pub type ByRound = BTreeMap<u32, f64>;

/// In the order in which they were taken.
#[derive(Clone, Default)]
pub struct Turns(pub Vec<Taken>);

impl Turns {
    pub fn values(
        &self,
        case: Option<&str>,
        side: &str,
        of: impl Fn(&Measured) -> Option<f64>,
    ) -> ByRound {
        let of_side = |it: &&Taken| it.case.as_deref() == case && it.side == side;
        let value = |it: &Taken| Some((it.round, of(&it.measured)?));
        self.0.iter().filter(of_side).filter_map(value).collect()
    }
}

/// Ours over theirs within each round that has both: what drifts from one round to the next is in both.
pub fn ratios(ours: &ByRound, theirs: &ByRound) -> ByRound {
    let ratio = |(round, ours): (&u32, &f64)| {
        let theirs = theirs.get(round)?;
        (*theirs > 0.0).then_some((*round, ours / theirs))
    };
    ours.iter().filter_map(ratio).collect()
}

/// A figure of all rounds, for `compare` and for the eye.
#[derive(Clone, Debug)]
pub struct Figure {
    name: String,
    case: Option<String>,
    unit: &'static str,
    better: Better,
    decides: bool,
    values: Vec<f64>,
}

impl Figure {
    pub fn new(name: &str, unit: &'static str, better: Better, values: ByRound) -> Figure {
        Figure {
            name: name.to_string(),
            case: None,
            unit,
            better,
            decides: false,
            values: values.into_values().collect(),
        }
    }

    /// Of two sides of the same round.
    pub fn ratio(name: &str, better: Better, ours: &ByRound, theirs: &ByRound) -> Figure {
        Figure::new(name, "ratio", better, ratios(ours, theirs))
    }

    /// What is looked at only once.
    pub fn once(name: &str, unit: &'static str, better: Better, value: f64) -> Figure {
        Figure::new(name, unit, better, ByRound::from([(0, value)]))
    }

    /// `compare` goes by it.
    pub fn decides(self) -> Figure {
        Figure {
            decides: true,
            ..self
        }
    }

    pub fn in_case(self, case: Option<&str>) -> Figure {
        Figure {
            case: case.map(str::to_string),
            ..self
        }
    }

    /// None without any round.
    pub fn spread(&self) -> Option<Spread> {
        (!self.values.is_empty()).then(|| Spread::of(self.values.iter().copied()))
    }

    fn metric_name(&self) -> String {
        match &self.case {
            Some(case) => format!("{}_{}", self.name, case.to_lowercase().replace(' ', "_")),
            None => self.name.clone(),
        }
    }

    pub fn metric(&self) -> Metric {
        Metric {
            name: self.metric_name(),
            unit: self.unit.to_string(),
            better: self.better,
            values: self.values.clone(),
            headline: self.decides,
        }
    }

    pub fn result(&self) -> Option<turns::Figure> {
        Some(turns::Figure {
            name: self.name.clone(),
            case: self.case.clone(),
            metric: self.metric_name(),
            unit: self.unit.to_string(),
            spread: self.spread()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(round: u32, side: &'static str, bytes: u64) -> Taken {
        let measured = Measured {
            start: Duration::from_secs(1),
            end: Duration::from_secs(3),
            bytes,
            ..Measured::default()
        };
        Taken::new(round, side, measured)
    }

    #[test]
    fn ratios_are_of_rounds_that_both_sides_have() {
        let turns = Turns(vec![
            taken(0, "engine", 100),
            taken(0, "device", 200),
            taken(1, "device", 400),
            taken(1, "engine", 400),
            taken(2, "engine", 7),
            taken(2, "engine", 9).in_case("other".to_string()),
        ]);
        let of = |side| turns.values(None, side, |it| Some(it.bytes_per_second()));
        assert_eq!(
            of("engine").into_values().collect::<Vec<_>>(),
            [50.0, 200.0, 3.5]
        );
        let figure = Figure::ratio("device_ratio", Better::Higher, &of("engine"), &of("device"));
        assert_eq!(figure.spread(), Some(Spread::of([0.5, 1.0])));
        let none = Figure::ratio("nothing", Better::Higher, &of("engine"), &of("nobody"));
        assert_eq!((none.spread(), none.result()), (None, None));
    }

    #[test]
    fn a_figure_has_its_case_in_its_name() {
        let figure = Figure::once("gain", "ratio", Better::Higher, 2.0);
        assert_eq!(figure.metric().name, "gain");
        let figure = figure.in_case(Some("64 MiB dirty")).decides();
        let metric = figure.metric();
        assert_eq!(
            (metric.name.as_str(), metric.headline),
            ("gain_64_mib_dirty", true)
        );
        assert_eq!(figure.result().expect("a value").metric, metric.name);
    }

    #[test]
    fn rates_are_per_second() {
        let it = taken(0, "engine", 4_000).measured;
        assert_eq!((it.seconds(), it.bytes_per_second()), (2.0, 2_000.0));
    }
}
