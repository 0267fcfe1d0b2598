//! What a load came to: its phases, whether its figures mean what they say, and the metrics that are compared.

use std::time::Duration;

use super::{Found, Load, When};
use crate::{
    exit::Exit,
    latency::{Latencies, Latency},
    result::run::{Better, Curve, Flow, Metric, Phase, Safety, Verdict},
    run::{PhaseTotals, collector::Collected},
};

/// Part of the planned records that must have been sent for the run to say anything about the plan, besides what chance leaves out.
const OFFERED_LEAST: f64 = 0.99;

pub struct Outcome {
    pub phases: Vec<Phase>,
    /// Over all measured phases.
    pub produced: Option<Flow>,
    pub consumed: Option<Flow>,
    pub curves: Vec<Curve>,
    /// What the curves are of.
    pub latencies: Vec<(String, Latencies)>,
    pub collected: Collected,
    pub seconds: f64,
    pub verdict: Verdict,
    broker_lost: bool,
}

impl Outcome {
    pub fn new(load: &Load, found: Found) -> Outcome {
        let until = found.ran_for.as_secs_f64();
        let produced = found.produced.as_ref().map(|produced| &produced.totals);
        // What was read back to be checked was not measured.
        let measures = load
            .consume
            .as_ref()
            .is_some_and(|it| it.when != When::AfterProducers);
        let consumed = found.consumed.iter().map(|consumer| &consumer.totals);
        let consumed = sum(consumed).filter(|_| measures);
        let consumed = consumed.as_ref();
        let phases = phases(load, produced, consumed, until);
        let (produced, consumed) = (
            produced.map(|it| measured(load, it, until)),
            consumed.map(|it| measured(load, it, until)),
        );
        let (mut curves, mut all) = (Vec::new(), Vec::new());
        for (way, totals) in [("produced", &produced), ("consumed", &consumed)] {
            if let Some((_, totals)) = totals {
                for (kind, latencies) in
                    [("planned", &totals.planned), ("service", &totals.service)]
                {
                    let name = format!("{way}, {kind}");
                    curves.push(Curve {
                        name: name.clone(),
                        points: latencies.curve(),
                    });
                    all.push((name, latencies.clone()));
                }
            }
        }
        let flow_of = |measured: Option<(Flow, PhaseTotals)>| measured.map(|(flow, _)| flow);
        let (produced, consumed) = (flow_of(produced), flow_of(consumed));
        let verdict = verdict(load, produced.as_ref(), &found);
        Outcome {
            broker_lost: found.lost.is_some(),
            phases,
            produced,
            consumed,
            curves,
            latencies: all,
            collected: found.collected,
            seconds: found.seconds,
            verdict,
        }
    }

    pub fn exit(&self) -> Exit {
        self.verdict.exit()
    }

    /// The broker did not answer when all had been sent.
    pub fn is_broker_lost(&self) -> bool {
        self.broker_lost
    }

    /// Something about the run that its user has to know, and that makes its figures doubtful.
    pub fn refuse(&mut self, reason: String) {
        self.verdict.refuse(reason);
    }

    /// Of the flows and of the processes.
    pub fn metrics(&self) -> Vec<Metric> {
        let mut metrics = Vec::new();
        if let Some(flow) = &self.produced {
            flow_metrics("produce", flow, &mut metrics);
        }
        if let Some(flow) = &self.consumed {
            flow_metrics("consume", flow, &mut metrics);
        }
        let spans: Vec<&Phase> = self.phases.iter().filter(|phase| phase.measured).collect();
        let within = |second: u64| {
            let at = second as f64;
            spans
                .iter()
                .any(|phase| phase.start_s <= at && at + 1.0 <= phase.end_s + 1e-9)
        };
        let machine = self.collected.series.iter().filter(|it| within(it.second));
        let (mut client, mut broker, mut memory, mut peak, mut bytes) = (0.0, 0.0, 0, 0, 0);
        for second in machine {
            client += second.machine.client_cores;
            broker += second.machine.broker_cores.unwrap_or(0.0);
            memory = memory.max(second.machine.broker_memory_bytes.unwrap_or(0));
            peak = peak.max(second.machine.broker_memory_peak_bytes.unwrap_or(0));
            bytes += second.produced.bytes + second.consumed.bytes;
        }
        let gigabytes = bytes as f64 / 1e9;
        if gigabytes > 0.0 {
            metrics.push(metric(
                "client_cpu_seconds_per_gb",
                "s/GB",
                Better::Lower,
                client / gigabytes,
            ));
            if memory > 0 {
                metrics.push(metric(
                    "broker_cpu_seconds_per_gb",
                    "s/GB",
                    Better::Lower,
                    broker / gigabytes,
                ));
            }
        }
        if memory > 0 {
            metrics.push(metric(
                "broker_memory_bytes_max",
                "bytes",
                Better::Lower,
                memory as f64,
            ));
        }
        if peak > 0 {
            // Since the broker began, which may be long before this run.
            metrics.push(metric(
                "broker_memory_bytes_peak",
                "bytes",
                Better::Lower,
                peak as f64,
            ));
        }
        metrics
    }
}

impl Verdict {
    fn refuse(&mut self, reason: String) {
        self.valid = false;
        self.reasons.push(reason);
    }
}

/// What decides whether one side is better; the rest explains it.
const HEADLINE: [&str; 9] = [
    "produce_bytes_per_second",
    "consume_bytes_per_second",
    "produce_latency_planned_p50_us",
    "produce_latency_planned_p99_us",
    "consume_latency_planned_p50_us",
    "consume_latency_planned_p99_us",
    "broker_cpu_seconds_per_gb",
    "peak_ingest_fidelity",
    "peak_burst_latency_planned_p99_us",
];

pub fn metric(name: &str, unit: &str, better: Better, value: f64) -> Metric {
    Metric {
        name: name.to_string(),
        unit: unit.to_string(),
        better,
        values: vec![value],
        headline: HEADLINE.contains(&name),
    }
}

fn flow_metrics(way: &str, flow: &Flow, metrics: &mut Vec<Metric>) {
    let mut add = |name: &str, unit: &str, better, value| {
        metrics.push(metric(&format!("{way}_{name}"), unit, better, value));
    };
    add(
        "bytes_per_second",
        "bytes/s",
        Better::Higher,
        flow.bytes_per_second,
    );
    add(
        "records_per_second",
        "records/s",
        Better::Higher,
        flow.records_per_second,
    );
    let mut latency = |name: &str, latency: &Option<Latency>| {
        if let Some(latency) = latency {
            let each = [
                ("p50", latency.p50_us),
                ("p99", latency.p99_us),
                ("p999", latency.p999_us),
            ];
            for (percentile, micros) in each {
                add(
                    &format!("{name}_{percentile}_us"),
                    "us",
                    Better::Lower,
                    micros as f64,
                );
            }
        }
    };
    latency("latency_planned", &flow.latency_planned);
    latency("latency_service", &flow.latency_service);
}

fn sum<'a>(totals: impl Iterator<Item = &'a Vec<PhaseTotals>>) -> Option<Vec<PhaseTotals>> {
    totals.fold(None, |sum: Option<Vec<PhaseTotals>>, totals| match sum {
        None => Some(totals.clone()),
        Some(mut sum) => {
            for (sum, totals) in sum.iter_mut().zip(totals) {
                sum.add(totals);
            }
            Some(sum)
        }
    })
}

fn phases(
    load: &Load,
    produced: Option<&Vec<PhaseTotals>>,
    consumed: Option<&Vec<PhaseTotals>>,
    until: f64,
) -> Vec<Phase> {
    let of = |totals: Option<&Vec<PhaseTotals>>, index: usize, seconds: f64| {
        totals.map(|totals| flow(&totals[index], seconds))
    };
    let spans = load.phases.iter().enumerate();
    spans
        .map(|(index, span)| {
            let (start, end) = (span.start.as_secs_f64(), span.end.as_secs_f64().min(until));
            Phase {
                name: span.name.clone(),
                start_s: start,
                end_s: end.max(start),
                measured: span.measured,
                produced: of(produced, index, end - start),
                consumed: of(consumed, index, end - start),
            }
        })
        .collect()
}

fn measured(load: &Load, totals: &[PhaseTotals], until: f64) -> (Flow, PhaseTotals) {
    let mut all = PhaseTotals::default();
    let mut seconds = 0.0;
    for (span, totals) in load
        .phases
        .iter()
        .zip(totals)
        .filter(|(span, _)| span.measured)
    {
        all.add(totals);
        seconds += (span.end.as_secs_f64().min(until) - span.start.as_secs_f64()).max(0.0);
    }
    (flow(&all, seconds), all)
}

fn flow(totals: &PhaseTotals, seconds: f64) -> Flow {
    let counts = totals.counts;
    let some = |latencies: &Latencies| (latencies.count() > 0).then(|| latencies.percentiles());
    let per_second = |count: u64| {
        if seconds > 0.0 {
            count as f64 / seconds
        } else {
            0.0
        }
    };
    Flow {
        offered: counts.offered,
        completed: counts.completed,
        failed: counts.failed,
        bytes: counts.bytes,
        records_per_second: per_second(counts.completed),
        bytes_per_second: per_second(counts.bytes),
        latency_planned: some(&totals.planned),
        latency_service: some(&totals.service),
        lateness: some(&totals.lateness),
    }
}

/// A generator that was late, or that did not come to all it had planned, measured something else than what was asked for.
fn judge_generator(load: &Load, flow: &Flow, ran_for: Duration, verdict: &mut Verdict) {
    let Some(offer) = load
        .produce
        .as_ref()
        .map(|it| &it.offer)
        .filter(|it| it.schedule.is_closed().is_none())
    else {
        return;
    };
    let late = flow.lateness.map_or(0, |lateness| lateness.p99_us);
    let most = u64::try_from(load.lateness_max.as_micros()).unwrap_or(u64::MAX);
    if late > most {
        verdict.refuse(format!(
            "the generator was {late} us late at p99, more than {most} us: the client's side was too slow for the plan"
        ));
    }
    let span = load.ends().min(ran_for).saturating_sub(load.warm_up);
    let planned = offer.schedule.offered(Duration::ZERO, span);
    let stopped_early = verdict.interrupted || offer.megabytes.is_some();
    if !stopped_early && (flow.offered as f64) < planned * OFFERED_LEAST - 5.0 * planned.sqrt() {
        verdict.refuse(format!(
            "of {planned:.0} planned records only {} came to be sent",
            flow.offered
        ));
    }
}

fn verdict(load: &Load, produced: Option<&Flow>, found: &Found) -> Verdict {
    let mut verdict = Verdict {
        valid: true,
        interrupted: found.interrupted,
        ..Verdict::default()
    };
    let errors = found.produced.iter().flat_map(|it| &it.errors);
    for (error, count) in errors.chain(found.consumed.iter().flat_map(|it| &it.errors)) {
        verdict.reasons.push(format!("{count} times: {error}"));
    }
    if found.interrupted {
        verdict.refuse("a signal ended the run: the figures are those until then".to_string());
    }
    if let Some(flow) = produced {
        judge_generator(load, flow, found.ran_for, &mut verdict);
        if flow.completed == 0 {
            verdict.refuse("no record was acknowledged".to_string());
        }
    }
    if let Some(error) = &found.lost {
        verdict.refuse(format!("the broker was lost: {error}"));
    } else if load.consume.is_some() && found.unread > 0 && !found.interrupted {
        verdict.refuse(format!(
            "time was up with {} records still to read",
            found.unread
        ));
    } else {
        verdict.safety = safety(load, found, &mut verdict);
    }
    verdict
}

/// None when nobody looked, or when nobody could keep account.
fn safety(load: &Load, found: &Found, verdict: &mut Verdict) -> Option<Safety> {
    let mut ledgers = found
        .consumed
        .iter()
        .map(|consumer| consumer.ledger.clone());
    let mut ledger = ledgers.next()?;
    for other in ledgers {
        ledger.add(other);
    }
    if ledger.beyond() > 0 {
        verdict.refuse(format!(
            "{} records were not accounted for: they came with more gaps between them than can be kept",
            ledger.beyond()
        ));
        return None;
    }
    if ledger.foreign() > 0 {
        verdict
            .reasons
            .push(format!("{} records were not of this run", ledger.foreign()));
    }
    let safety = match &found.produced {
        Some(produced) => ledger.settle(load.run_id, &produced.acknowledged),
        None => ledger.seen(),
    };
    // A topic that another program filled.
    let is_ours = safety.checked > 0 || ledger.foreign() == 0;
    is_ours.then_some(safety)
}
