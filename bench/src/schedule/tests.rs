//! What schedules promise, held against random ones. A failure names its seed; `FOREBAY_SEED` replays it.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;

use super::*;
use crate::random::Random;

const SECOND: Duration = Duration::from_secs(1);

fn schedule(text: &str) -> Schedule {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn all(schedule: &Schedule) -> Arrivals {
    schedule.arrivals(1, Share::ALL)
}

fn millis(schedule: &Schedule, count: usize) -> Vec<f64> {
    let ms = |at: Duration| at.as_nanos() as f64 / 1e6;
    all(schedule).take(count).map(ms).collect()
}

/// Another seed at each run, which `run` is to name when it fails.
fn with_seeds(count: u64, run: impl Fn(u64)) {
    let seeds = match std::env::var("FOREBAY_SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().expect("FOREBAY_SEED is a number");
            seed..seed + 1
        }
        Err(_) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let seed = now.expect("after 1970").as_nanos() as u64 >> 8;
            seed..seed + count
        }
    };
    for seed in seeds {
        println!("FOREBAY_SEED={seed}");
        run(seed);
    }
}

fn between(random: &mut Random, least: f64, most: f64) -> f64 {
    least + random.unit() * (most - least)
}

/// Of any kind but a closed loop, with at most some 100,000 arrivals in ten seconds.
fn any_schedule(random: &mut Random) -> String {
    let rate = |random: &mut Random| between(random, 0.5, 5_000.0);
    let ms = |random: &mut Random| between(random, 100.0, 4_000.0) as u64;
    match random.next_u64() % 7 {
        0 => format!("constant:{}", rate(random)),
        1 => format!("poisson:{}", rate(random)),
        2 => {
            let pause = between(random, 0.0, 5.0) as usize;
            let mut rates: Vec<String> = (0..6).map(|_| rate(random).to_string()).collect();
            rates[pause] = "0".to_owned();
            format!("step:{}@{}ms", rates.join(","), ms(random))
        }
        3 => format!("ramp:{}-{}@{}ms", rate(random), rate(random), ms(random)),
        4 => {
            let mean = rate(random);
            let amplitude = match random.next_u64() % 3 {
                0 => mean,
                _ => between(random, 0.01, mean.max(0.02)).min(mean),
            };
            format!("sine:{mean},{amplitude}@{}ms", ms(random))
        }
        5 => {
            let (base, on, off) = (rate(random), ms(random), ms(random));
            let times = between(random, 1.0, 9.0);
            format!("burst:{base},{times},{on}ms,{off}ms")
        }
        _ => match random.next_u64() % 2 {
            0 => format!("ramp:0-{}@{}ms", rate(random), ms(random)),
            _ => format!("ramp:{}-0@{}ms", rate(random), ms(random)),
        },
    }
}

#[test]
fn times_are_even() {
    let check = |text, expected: &[f64]| {
        let found = millis(&schedule(text), expected.len());
        assert_eq!(found, expected, "{text}");
    };
    check("constant:1k", &[0.0, 1.0, 2.0, 3.0]);
    check("constant:0.5", &[0.0, 2_000.0, 4_000.0]);
    check("step:2,4@1s", &[0.0, 500.0, 1_000.0, 1_250.0, 1_500.0]);
    check("step:2,0,4@1s", &[0.0, 500.0, 2_000.0, 2_250.0]);
    check("step:0,1@1s", &[1_000.0, 2_000.0]);
    check("ramp:0-2@2s", &[0.0, 1_414.213562, 2_000.0, 2_500.0]);
    check(
        "burst:1,4,1s,2s",
        &[
            0.0, 1_000.0, 2_000.0, 2_250.0, 2_500.0, 2_750.0, 3_000.0, 4_000.0, 5_000.0, 5_250.0,
        ],
    );
    check("sine:4,0@1s", &[0.0, 250.0, 500.0, 750.0, 1_000.0]);
}

#[test]
fn what_ends_in_a_pause_ends() {
    let check = |text, expected: &[f64]| {
        let found = millis(&schedule(text), expected.len() + 1);
        assert_eq!(found, expected, "{text}");
    };
    check("step:2,0@1s", &[0.0, 500.0]);
    check("ramp:2-0@2s", &[0.0, 585.786438]);
    check("closed:5", &[]);
}

#[test]
fn a_closed_loop_plans_nothing() {
    let closed = schedule("closed:64");
    assert_eq!(closed.is_closed(), Some(64));
    assert_eq!(closed.offered(Duration::ZERO, SECOND), 0.0);
    assert_eq!(closed.rate_at(SECOND), 0.0);
    assert_eq!(schedule("constant:1").is_closed(), None);
}

#[test]
fn shares_are_the_whole() {
    with_seeds(40, |seed| {
        let mut random = Random(seed);
        let text = any_schedule(&mut random);
        let schedule = schedule(&text);
        let of = 1 + (random.next_u64() % 9) as u32;
        let mut shares: Vec<Arrivals> = (0..of)
            .map(|index| schedule.arrivals(seed, Share { index, of }))
            .collect();
        let whole = schedule.arrivals(seed, Share::ALL);
        for (at, planned) in whole.take(20_000).enumerate() {
            let share = shares[at % of as usize].next();
            assert_eq!(share, Some(planned), "{text}, arrival {at} of {of} shares");
        }
    });
}

#[test]
fn as_many_come_as_are_offered() {
    with_seeds(60, |seed| {
        let mut random = Random(seed);
        let text = any_schedule(&mut random);
        let schedule = schedule(&text);
        let mut arrivals = schedule.arrivals(seed, Share::ALL).peekable();
        let mut count = 0;
        let mut offered = 0.0;
        for tenth in 0..100 {
            let (from, to) = (SECOND * tenth / 10, SECOND * (tenth + 1) / 10);
            offered += schedule.offered(from, to);
            while let Some(at) = arrivals.next_if(|at| *at < to) {
                assert!(from <= at, "{text}: {at:?} comes after {from:?}");
                count += 1;
            }
            let allowed = match text.starts_with("poisson") {
                true => 5.0 * offered.sqrt() + 5.0,
                false => 1.0,
            };
            let off = f64::from(count) - offered;
            assert!(off.abs() <= allowed, "{text}: {off} of {offered} at {to:?}");
        }
    });
}

#[test]
fn the_integral_is_that_of_the_rate() {
    with_seeds(60, |seed| {
        let text = any_schedule(&mut Random(seed));
        let schedule = schedule(&text);
        let step = Duration::from_micros(100);
        let middles = (0..50_000).map(|index| schedule.rate_at(step * index + step / 2));
        let sum = middles.sum::<f64>() * step.as_secs_f64();
        let offered = schedule.offered(Duration::ZERO, SECOND * 5);
        // A jump of the rate can be within a step.
        let allowed = 1e-6 * offered + 20.0 * 50_000.0 * step.as_secs_f64();
        assert!(
            (sum - offered).abs() <= allowed,
            "{text}: {sum} and {offered}"
        );
    });
}

#[test]
fn an_hour_at_a_million_a_second_does_not_drift() {
    let check = |text: &str| {
        let schedule = schedule(text);
        let offered = schedule.offered(Duration::ZERO, SECOND * 3600);
        // One of many shares gets there with fewer steps, and by the promise of shares it is at the same times.
        let of = 10_000;
        let share = Share { index: 0, of };
        let arrivals = schedule.arrivals(1, share);
        let (mut before, mut count) = (Duration::ZERO, 0.0);
        for at in arrivals.take_while(|at| *at < SECOND * 3600) {
            let due = schedule.offered(Duration::ZERO, at);
            assert!((due - count).abs() < 0.5, "{text}: {count} at {at:?}");
            (before, count) = (at, count + f64::from(of));
        }
        assert!(before < SECOND * 3600);
        assert!(
            count - f64::from(of) < offered && offered <= count,
            "{text}: {count}, {offered}"
        );
    };
    check("constant:1M");
    check("constant:999999.7");
    check("burst:700k,3,1.7s,9.1s");
    check("sine:1M,1M@1h");
    check("sine:1M,1M@7s");
    check("sine:1M,400k@33s");
    check("ramp:0-2M@1h");
    check("step:1k,2M,333333@11m");
}

#[test]
fn random_numbers_are_those_of_splitmix64() {
    let mut random = Random(1_234_567);
    let found = [random.next_u64(), random.next_u64()];
    assert_eq!(
        found,
        [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]
    );
}

#[test]
fn random_gaps_are_exponential() {
    with_seeds(10, |seed| {
        let rate = 1_000.0;
        let arrivals = schedule("poisson:1k").arrivals(seed, Share::ALL);
        let mut before = Duration::ZERO;
        let mut gaps: Vec<f64> = Vec::new();
        for at in arrivals.take(20_000) {
            gaps.push((at - before).as_secs_f64());
            before = at;
        }
        gaps.sort_by(f64::total_cmp);
        let count = gaps.len() as f64;
        let distance = gaps.iter().enumerate().map(|(index, gap)| {
            let expected = 1.0 - (-rate * gap).exp();
            let (below, above) = (index as f64 / count, (index + 1) as f64 / count);
            (expected - below).abs().max((expected - above).abs())
        });
        // Kolmogorov and Smirnov: more than this in one of 10^8 runs.
        let distance = distance.fold(0.0, f64::max);
        assert!(distance < 3.1 / count.sqrt(), "{distance}");
    });
}

#[test]
fn a_seed_is_a_sequence() {
    let poisson = schedule("poisson:1k");
    let first = |seed| {
        let arrivals = poisson.arrivals(seed, Share::ALL);
        arrivals.take(100).collect::<Vec<_>>()
    };
    assert_eq!(first(7), first(7));
    assert_ne!(first(7), first(8));
    let ns = |at: &Duration| at.as_nanos();
    let pinned: Vec<_> = first(1).iter().take(3).map(ns).collect();
    assert_eq!(
        pinned,
        [568_170, 861_492, 890_918],
        "results of before could not be repeated"
    );
}

#[test]
fn printed_schedules_read_back() {
    with_seeds(200, |seed| {
        let mut random = Random(seed);
        let text = any_schedule(&mut random);
        let once = schedule(&text);
        assert_eq!(schedule(&once.to_string()), once, "{text}");
        let scaled = once.scaled(between(&mut random, 0.5, 1.5));
        let scaled = scaled.expect("far within bounds");
        assert_eq!(schedule(&scaled.to_string()), scaled, "{text}");
    });
}

#[test]
fn schedules_are_printed_as_they_are_written() {
    let check = |text, expected| assert_eq!(schedule(text).to_string(), expected);
    check("closed:64", "closed:64");
    check("constant:50k", "constant:50000");
    check("poisson:1.5M", "poisson:1500000");
    check("step:1k,0,2k@90s", "step:1000,0,2000@90s");
    check("ramp:0-1k@60s", "ramp:0-1000@1m");
    check("sine:50k,30k@10m", "sine:50000,30000@10m");
    check("burst:1000,5,10s,30s", "burst:1000,5,10s,30s");
    let json = serde_json::to_string(&schedule("poisson:2.5")).expect("a string");
    assert_eq!(json, "\"poisson:2.5\"");
}

#[test]
fn nonsense_is_refused() {
    let check = |text: &str, expected: &str| {
        let refused = text.parse::<Schedule>().expect_err(text).to_string();
        assert_eq!(refused, expected, "{text}");
    };
    let kinds =
        "is no schedule: one begins with closed, constant, poisson, step, ramp, sine, burst, trace";
    check("", &format!("`` {kinds}"));
    check("fast", &format!("`fast` {kinds}"));
    check("Constant:5", &format!("`Constant:5` {kinds}"));
    check("constant", "expected `constant:RATE`, as in `constant:50k`");
    let closed = "is no number of operations in flight: 1 to 1000000";
    check("closed:0", &format!("`0` {closed}"));
    check("closed:-1", &format!("`-1` {closed}"));
    check("closed:1000001", &format!("`1000001` {closed}"));
    check("closed:many", &format!("`many` {closed}"));
    check("poisson:0", "rate `0`: must be more than zero");
    check("poisson:1k/s", "rate `1k/s`: not a number");
    let step = "expected `step:RATE,RATE,...@DURATION`, as in `step:10k,20k,40k@30s`";
    check("step:1,2", step);
    check("step:1,,2@1s", "rate ``: not a number");
    check("step:1,2@", "duration ``: needs a unit: ms, s, m or h");
    check(
        "step:0,0@1s",
        "step: one of the rates must be more than zero",
    );
    let ramp = "expected `ramp:FROM-TO@DURATION`, as in `ramp:1k-100k@5m`";
    check("ramp:1@5s", ramp);
    check("ramp:1-2", ramp);
    check(
        "ramp:0-0@5s",
        "ramp: one of the rates must be more than zero",
    );
    check(
        "sine:5@1s",
        "expected `sine:MEAN,AMPLITUDE@PERIOD`, as in `sine:50k,30k@10m`",
    );
    check(
        "sine:5,6@1s",
        "sine: the amplitude must not be more than the mean",
    );
    check(
        "sine:60M,60M@1s",
        "sine: mean and amplitude together must not be more than 100M",
    );
    let burst = "expected `burst:BASE,TIMES,ON,OFF`, as in `burst:1000,5,10s,30s`";
    check("burst:1000,5,10s", burst);
    check("burst:1000,5,10s,30s,1s", burst);
    check("burst:1000,0.5,10s,30s", "burst: TIMES must be at least 1");
    check("burst:1000,five,10s,30s", "rate `five`: not a number");
    check(
        "burst:1M,101,10s,30s",
        "burst: TIMES x BASE must not be more than 100M",
    );
    check(
        "burst:1,5,10ms,30s",
        "burst: ON and OFF must be at least 100 ms",
    );
    check(
        "trace:",
        "expected `trace:FILE.csv`, as in `trace:tuesday.csv`",
    );
}

#[test]
fn phases_have_no_gaps() {
    let check = |text, total, expected: &[(&str, u64, u64)]| {
        let phases = schedule(text).phases(SECOND * total);
        let found: Vec<_> = phases
            .iter()
            .map(|phase| (&*phase.name, phase.start.as_secs(), phase.end.as_secs()))
            .collect();
        assert_eq!(found, expected, "{text}");
    };
    check("constant:5", 10, &[("run", 0, 10)]);
    check("closed:5", 10, &[("run", 0, 10)]);
    check(
        "step:1,2,3@5s",
        60,
        &[("step 1", 0, 5), ("step 2", 5, 10), ("step 3", 10, 60)],
    );
    check("step:1,2,3@5s", 7, &[("step 1", 0, 5), ("step 2", 5, 7)]);
    check(
        "burst:1,5,10s,30s",
        85,
        &[
            ("base", 0, 30),
            ("burst 1", 30, 40),
            ("base 1", 40, 70),
            ("burst 2", 70, 80),
            ("base 2", 80, 85),
        ],
    );
    check("burst:1,5,10s,30s", 20, &[("base", 0, 20)]);
}

#[test]
fn a_phase_has_the_rate_of_its_name() {
    let burst = schedule("burst:100,5,10s,30s");
    for phase in burst.phases(SECOND * 200) {
        let expected = if phase.name.starts_with("burst") {
            500.0
        } else {
            100.0
        };
        let middle = (phase.start + phase.end) / 2;
        for at in [phase.start, middle, phase.end - Duration::from_nanos(1)] {
            assert_eq!(burst.rate_at(at), expected, "{} at {at:?}", phase.name);
        }
        let seconds = (phase.end - phase.start).as_secs_f64();
        let offered = burst.offered(phase.start, phase.end);
        assert_eq!(offered, expected * seconds, "{}", phase.name);
    }
}

#[test]
fn scaling_multiplies_what_is_offered() {
    let check = |text, factor, expected: &str| {
        let (once, scaled) = (schedule(text), schedule(text).scaled(factor));
        let scaled = scaled.expect("within bounds");
        assert_eq!(scaled.to_string(), expected);
        let offered = |schedule: &Schedule| schedule.offered(Duration::ZERO, SECOND * 77);
        let ratio = offered(&scaled) / offered(&once);
        assert!((ratio - factor).abs() < 1e-9, "{text}: {ratio}");
    };
    check("constant:100", 2.5, "constant:250");
    check("poisson:100", 0.5, "poisson:50");
    check("step:1,0,3@5s", 2.0, "step:2,0,6@5s");
    check("ramp:0-10@5s", 3.0, "ramp:0-30@5s");
    check("sine:10,5@7s", 2.0, "sine:20,10@7s");
    check("burst:10,5,1s,3s", 2.0, "burst:20,5,1s,3s");
    let closed = schedule("closed:8");
    assert_eq!(closed.scaled(3.0), Ok(closed));
}

#[test]
fn scaling_out_of_bounds_is_refused() {
    let check = |text, factor, expected: &str| {
        let refused = schedule(text).scaled(factor).expect_err(text);
        assert_eq!(refused.to_string(), expected);
    };
    let bounds = "must be between 0.001 and 100M operations per second";
    check("constant:1M", 200.0, &format!("rate `200000000`: {bounds}"));
    check("constant:1", 1e-6, &format!("rate `0.000001`: {bounds}"));
    check(
        "burst:1M,90,1s,1s",
        2.0,
        "burst: TIMES x BASE must not be more than 100M",
    );
    let number = "a schedule is scaled by a number above zero";
    check("constant:1", 0.0, number);
    check("constant:1", -1.0, number);
    check("constant:1", f64::NAN, number);
    check("closed:1", f64::INFINITY, number);
}

#[test]
fn a_trace_is_read_and_scaled_and_read_back() {
    let name = format!("forebay-trace-{}.csv", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, "seconds,rate\n0,2\n1,0\n2,4\n3,0\n").expect("a file");
    let trace = schedule(&format!("trace:{}", path.display()));
    let scaled = trace.scaled(2.0).and_then(|trace| trace.scaled(1.1));
    let scaled = scaled.expect("within bounds");
    let again: Schedule = scaled.to_string().parse().expect("the same file");
    let starred = schedule(&format!("trace:{}*1", path.display()));
    let outside = format!("trace:{}*1e9", path.display()).parse::<Schedule>();
    std::fs::remove_file(&path).expect("the file");
    assert_eq!(
        millis(&trace, 100),
        [0.0, 500.0, 2_000.0, 2_250.0, 2_500.0, 2_750.0]
    );
    assert_eq!(starred, trace);
    assert!(scaled.to_string().ends_with(".csv*2.2"), "{scaled}");
    assert_eq!(again, scaled);
    assert_eq!(scaled.rate_at(Duration::ZERO), 4.4);
    assert_eq!(
        outside.expect_err("too fast").to_string(),
        "trace: rates times the factor must be 0, or between 0.001 and 100M"
    );
    let missing = trace.to_string().parse::<Schedule>().expect_err("no file");
    assert!(missing.to_string().contains("cannot be read"), "{missing}");
}

#[test]
fn a_command_line_takes_schedules() {
    #[derive(Debug, Parser)]
    struct Cli {
        #[arg(long, long_help = HELP)]
        schedule: Schedule,
    }
    let parsed = Cli::try_parse_from(["bench", "--schedule", "burst:1k,5,10s,30s"]);
    let parsed = parsed.expect("a schedule");
    assert_eq!(parsed.schedule, schedule("burst:1k,5,10s,30s"));
    let refused = Cli::try_parse_from(["bench", "--schedule", "constant:-1"]);
    let refused = refused.expect_err("no schedule").to_string();
    assert!(refused.contains("rate `-1`: not a number"), "{refused}");
}

#[test]
fn the_help_and_the_examples_are_right() {
    for form in spec::FORMS {
        let line = HELP.lines().find(|line| line.trim().starts_with(form.kind));
        let line = line.unwrap_or_else(|| panic!("{} is not in the help", form.kind));
        let written = line.split_whitespace().next().expect("a schedule");
        for text in [form.example, written] {
            assert!(text.starts_with(&format!("{}:", form.kind)), "{text}");
            if form.kind != "trace" {
                schedule(text);
            }
        }
    }
}
