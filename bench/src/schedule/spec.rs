//! What a schedule is made of, read from text and printed as text that reads back as the same.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    error::ScheduleError,
    trace::{self, Row},
    units::{self, print_duration},
};

const IN_FLIGHT_MAX: u32 = 1_000_000;

/// So that the phases of an hour can be counted, and seen in figures by the second.
const BURST_PART_MIN: Duration = Duration::from_millis(100);

#[derive(Clone, Debug, PartialEq)]
pub enum Spec {
    Closed {
        in_flight: u32,
    },
    Constant {
        rate: f64,
    },
    Poisson {
        rate: f64,
    },
    Step {
        rates: Arc<[f64]>,
        each: Duration,
    },
    Ramp {
        from: f64,
        to: f64,
        over: Duration,
    },
    Sine {
        mean: f64,
        amplitude: f64,
        period: Duration,
    },
    Burst {
        base: f64,
        times: f64,
        on: Duration,
        off: Duration,
    },
    /// The rates are those of the file times `factor`.
    Trace {
        path: PathBuf,
        factor: f64,
        rows: Arc<[Row]>,
    },
}

/// How one kind is written: for messages, and checked against the parser.
#[derive(Debug)]
pub struct Form {
    pub kind: &'static str,
    pub shape: &'static str,
    pub example: &'static str,
    parse: fn(&str) -> Option<Result<Spec, ScheduleError>>,
}

/// A `parse` that returns `None` did not find its parts.
pub const FORMS: [Form; 8] = [
    Form {
        kind: "closed",
        shape: "closed:N",
        example: "closed:64",
        parse: |text| Some(closed(text)),
    },
    Form {
        kind: "constant",
        shape: "constant:RATE",
        example: "constant:50k",
        parse: |text| Some(units::rate(text).map(|rate| Spec::Constant { rate })),
    },
    Form {
        kind: "poisson",
        shape: "poisson:RATE",
        example: "poisson:50k",
        parse: |text| Some(units::rate(text).map(|rate| Spec::Poisson { rate })),
    },
    Form {
        kind: "step",
        shape: "step:RATE,RATE,...@DURATION",
        example: "step:10k,20k,40k@30s",
        parse: |text| {
            let (rates, each) = text.split_once('@')?;
            Some(step(rates, each))
        },
    },
    Form {
        kind: "ramp",
        shape: "ramp:FROM-TO@DURATION",
        example: "ramp:1k-100k@5m",
        parse: |text| {
            let (rates, over) = text.split_once('@')?;
            let (from, to) = rates.split_once('-')?;
            Some(ramp(from, to, over))
        },
    },
    Form {
        kind: "sine",
        shape: "sine:MEAN,AMPLITUDE@PERIOD",
        example: "sine:50k,30k@10m",
        parse: |text| {
            let (rates, period) = text.split_once('@')?;
            let (mean, amplitude) = rates.split_once(',')?;
            Some(sine(mean, amplitude, period))
        },
    },
    Form {
        kind: "burst",
        shape: "burst:BASE,TIMES,ON,OFF",
        example: "burst:1000,5,10s,30s",
        parse: |text| {
            let parts: Vec<&str> = text.split(',').collect();
            let [base, times, on, off] = parts.try_into().ok()?;
            Some(burst(base, times, on, off))
        },
    },
    Form {
        kind: "trace",
        shape: "trace:FILE.csv",
        example: "trace:tuesday.csv",
        parse: |text| (!text.is_empty()).then(|| trace(text)),
    },
];

impl Spec {
    pub fn parse(text: &str) -> Result<Spec, ScheduleError> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let form = FORMS.iter().find(|form| form.kind == kind);
        let form = form.ok_or_else(|| ScheduleError::Kind(text.to_owned()))?;
        let kind = form.kind;
        if rest.is_empty() {
            return Err(ScheduleError::Form { kind });
        }
        let spec = (form.parse)(rest).unwrap_or(Err(ScheduleError::Form { kind }))?;
        spec.check()?;
        Ok(spec)
    }

    /// What no single number shows.
    fn check(&self) -> Result<(), ScheduleError> {
        let together = |right, why| {
            if right {
                Ok(())
            } else {
                Err(ScheduleError::Together(why))
            }
        };
        match self {
            Spec::Closed { .. } | Spec::Constant { .. } | Spec::Poisson { .. } => Ok(()),
            Spec::Trace { factor, rows, .. } => together(
                rows.iter()
                    .all(|row| units::check_rate(row.rate * factor).is_ok()),
                "trace: rates times the factor must be 0, or between 0.001 and 100M",
            ),
            Spec::Step { rates, .. } => together(
                rates.iter().any(|rate| *rate > 0.0),
                "step: one of the rates must be more than zero",
            ),
            Spec::Ramp { from, to, .. } => together(
                from.max(*to) > 0.0,
                "ramp: one of the rates must be more than zero",
            ),
            Spec::Sine {
                mean, amplitude, ..
            } => {
                let why = "sine: the amplitude must not be more than the mean";
                together(amplitude <= mean, why)?;
                let why = "sine: mean and amplitude together must not be more than 100M";
                together(mean + amplitude <= units::RATE_MAX, why)
            }
            Spec::Burst {
                base,
                times,
                on,
                off,
            } => {
                together(*times >= 1.0, "burst: TIMES must be at least 1")?;
                let why = "burst: TIMES x BASE must not be more than 100M";
                together(base * times <= units::RATE_MAX, why)?;
                let why = "burst: ON and OFF must be at least 100 ms";
                together(*on.min(off) >= BURST_PART_MIN, why)
            }
        }
    }

    /// With each rate multiplied.
    pub fn scaled(&self, factor: f64) -> Result<Spec, ScheduleError> {
        let times = |rate: &f64| -> Result<f64, ScheduleError> {
            let scaled = rate * factor;
            units::check_rate(scaled)
                .map_err(|error| ScheduleError::rate(&scaled.to_string(), error))?;
            Ok(scaled)
        };
        if !(factor.is_finite() && factor > 0.0) {
            let why = "a schedule is scaled by a number above zero";
            return Err(ScheduleError::Together(why));
        }
        let spec = match self {
            Spec::Closed { .. } => self.clone(),
            Spec::Constant { rate } => Spec::Constant { rate: times(rate)? },
            Spec::Poisson { rate } => Spec::Poisson { rate: times(rate)? },
            Spec::Step { rates, each } => Spec::Step {
                rates: rates.iter().map(times).collect::<Result<_, _>>()?,
                each: *each,
            },
            Spec::Ramp { from, to, over } => Spec::Ramp {
                from: times(from)?,
                to: times(to)?,
                over: *over,
            },
            Spec::Sine {
                mean,
                amplitude,
                period,
            } => Spec::Sine {
                mean: times(mean)?,
                amplitude: times(amplitude)?,
                period: *period,
            },
            Spec::Burst {
                base,
                times: k,
                on,
                off,
            } => Spec::Burst {
                base: times(base)?,
                times: *k,
                on: *on,
                off: *off,
            },
            Spec::Trace {
                path,
                factor: before,
                rows,
            } => Spec::Trace {
                path: path.clone(),
                factor: before * factor,
                rows: rows.clone(),
            },
        };
        spec.check()?;
        Ok(spec)
    }
}

fn closed(text: &str) -> Result<Spec, ScheduleError> {
    match text.parse() {
        Ok(in_flight @ 1..=IN_FLIGHT_MAX) if !text.starts_with('+') => {
            Ok(Spec::Closed { in_flight })
        }
        _ => Err(ScheduleError::InFlight(text.to_owned())),
    }
}

fn step(rates: &str, each: &str) -> Result<Spec, ScheduleError> {
    let rates = rates.split(',').map(units::rate_or_pause);
    Ok(Spec::Step {
        rates: rates.collect::<Result<_, _>>()?,
        each: units::duration(each)?,
    })
}

fn ramp(from: &str, to: &str, over: &str) -> Result<Spec, ScheduleError> {
    Ok(Spec::Ramp {
        from: units::rate_or_pause(from)?,
        to: units::rate_or_pause(to)?,
        over: units::duration(over)?,
    })
}

fn sine(mean: &str, amplitude: &str, period: &str) -> Result<Spec, ScheduleError> {
    Ok(Spec::Sine {
        mean: units::rate(mean)?,
        amplitude: units::rate_or_pause(amplitude)?,
        period: units::duration(period)?,
    })
}

fn burst(base: &str, times: &str, on: &str, off: &str) -> Result<Spec, ScheduleError> {
    Ok(Spec::Burst {
        base: units::rate(base)?,
        times: units::number(times).map_err(|error| ScheduleError::rate(times, error))?,
        on: units::duration(on)?,
        off: units::duration(off)?,
    })
}

/// A file name may be followed by `*` and a factor: that is how a scaled trace is printed.
fn trace(text: &str) -> Result<Spec, ScheduleError> {
    let factor = |text: &str| units::number(text).ok().filter(|factor| *factor > 0.0);
    let scaled = text.rsplit_once('*');
    let (path, factor) = scaled
        .and_then(|(path, text)| Some((path, factor(text)?)))
        .filter(|(path, _)| !path.is_empty())
        .unwrap_or((text, 1.0));
    let rows = trace::read(Path::new(path))?;
    let path = path.into();
    Ok(Spec::Trace { path, factor, rows })
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Spec::Closed { in_flight } => write!(f, "closed:{in_flight}"),
            Spec::Constant { rate } => write!(f, "constant:{rate}"),
            Spec::Poisson { rate } => write!(f, "poisson:{rate}"),
            Spec::Step { rates, each } => {
                let rates: Vec<String> = rates.iter().map(f64::to_string).collect();
                write!(f, "step:{}@{}", rates.join(","), print_duration(*each))
            }
            Spec::Ramp { from, to, over } => {
                write!(f, "ramp:{from}-{to}@{}", print_duration(*over))
            }
            Spec::Sine {
                mean,
                amplitude,
                period,
            } => write!(f, "sine:{mean},{amplitude}@{}", print_duration(*period)),
            Spec::Burst {
                base,
                times,
                on,
                off,
            } => {
                let (on, off) = (print_duration(*on), print_duration(*off));
                write!(f, "burst:{base},{times},{on},{off}")
            }
            // A name that itself ends like a factor is printed with one.
            Spec::Trace { path, factor, .. } => match path.display().to_string() {
                path if *factor == 1.0 && !path.contains('*') => write!(f, "trace:{path}"),
                path => write!(f, "trace:{path}*{factor}"),
            },
        }
    }
}
