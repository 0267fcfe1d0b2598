//! What differs between two sides, figure by figure.

use serde::Serialize;

use super::sides::{Sides, values};
use crate::{
    result::run::Better,
    statistics::{holm, mann_whitney, median, ratio_interval},
};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judged {
    pub name: String,
    pub unit: String,
    /// Counts for the exit code.
    pub headline: bool,
    pub median_a: f64,
    pub median_b: f64,
    /// B over A, of the medians.
    pub ratio: f64,
    pub ratio_low: f64,
    pub ratio_high: f64,
    /// Mann-Whitney; of the headline figures after Holm's correction.
    pub p: f64,
    pub word: Word,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    Better,
    Worse,
    NoChange,
}

impl Word {
    pub fn text(self) -> &'static str {
        match self {
            Word::Better => "better",
            Word::Worse => "WORSE",
            Word::NoChange => "no change",
        }
    }
}

/// In the order of the first run. What one side does not have is left out.
pub fn judge(sides: &Sides, effect_min: f64, alpha: f64) -> Vec<Judged> {
    let first = &sides.a[0];
    let mut judged: Vec<(Judged, Better)> = Vec::new();
    for metric in &first.metrics {
        let (a, b) = (
            values(&sides.a, &metric.name),
            values(&sides.b, &metric.name),
        );
        if a.is_empty() || b.is_empty() {
            continue;
        }
        let (median_a, median_b) = (median(&a), median(&b));
        let (ratio_low, ratio_high) = ratio_interval(&a, &b, 1);
        let one = Judged {
            name: metric.name.clone(),
            unit: metric.unit.clone(),
            headline: metric.headline,
            median_a,
            median_b,
            ratio: median_b / median_a,
            ratio_low,
            ratio_high,
            p: mann_whitney(&a, &b),
            word: Word::NoChange,
        };
        judged.push((one, metric.better));
    }
    let headline: Vec<usize> = (0..judged.len())
        .filter(|at| judged[*at].0.headline)
        .collect();
    let ps: Vec<f64> = headline.iter().map(|at| judged[*at].0.p).collect();
    for (at, p) in headline.into_iter().zip(holm(&ps)) {
        judged[at].0.p = p;
    }
    let judged = judged.into_iter().map(|(mut one, better)| {
        one.word = word(&one, better, effect_min, alpha);
        one
    });
    judged.collect()
}

fn word(judged: &Judged, better: Better, effect_min: f64, alpha: f64) -> Word {
    let effect = judged.ratio - 1.0;
    // Of zero to zero nothing is known, and nothing has changed.
    if effect.is_nan() || effect.abs() < effect_min || judged.p >= alpha {
        return Word::NoChange;
    }
    match (effect > 0.0) == (better == Better::Higher) {
        true => Word::Better,
        false => Word::Worse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// About normal: the sum of twelve.
    fn noise(random: &mut Random) -> f64 {
        (0..12).map(|_| random.unit()).sum::<f64>() - 6.0
    }

    /// How often, of 1,000 comparisons of five figures with 3% of noise of which the first is slower, one was called different.
    fn called_different(repeats: usize, slower: f64) -> f64 {
        let mut random = Random(17);
        let mut called = 0;
        for _ in 0..1_000 {
            let figures: Vec<(Vec<f64>, Vec<f64>)> = (0..5)
                .map(|figure| {
                    let slower = if figure == 0 { slower } else { 0.0 };
                    let mut side = |mean: f64| {
                        (0..repeats)
                            .map(|_| mean * (1.0 + 0.03 * noise(&mut random)))
                            .collect()
                    };
                    (side(100.0), side(100.0 * (1.0 - slower)))
                })
                .collect();
            let ps: Vec<f64> = figures.iter().map(|(a, b)| mann_whitney(a, b)).collect();
            let different = figures.iter().zip(holm(&ps)).any(|((a, b), p)| {
                let effect = (median(b) / median(a) - 1.0).abs();
                p < 0.05 && effect >= 0.05
            });
            called += usize::from(different);
        }
        called as f64 / 1_000.0
    }

    #[test]
    fn the_same_is_seldom_called_different_and_a_tenth_less_nearly_always() {
        for repeats in [5, 7, 10] {
            let (false_alarms, found) = (
                called_different(repeats, 0.0),
                called_different(repeats, 0.10),
            );
            println!("{repeats} repeats: false alarms {false_alarms}, a tenth less found {found}");
            assert!(false_alarms <= 0.05, "{repeats}: {false_alarms}");
            // Five against five that do not overlap at all have p = 0.0079, times five figures 0.04: just enough, and one overlap is too many.
            let least = if repeats == 5 { 0.75 } else { 0.93 };
            assert!(found >= least, "{repeats}: {found}");
        }
    }

    #[test]
    fn the_direction_is_the_figure_s() {
        let judged = |ratio: f64, p: f64| Judged {
            name: String::new(),
            unit: String::new(),
            headline: true,
            median_a: 1.0,
            median_b: ratio,
            ratio,
            ratio_low: ratio,
            ratio_high: ratio,
            p,
            word: Word::NoChange,
        };
        let check = |ratio: f64, p: f64, better: Better, expected: Word| {
            assert_eq!(
                word(&judged(ratio, p), better, 0.05, 0.05),
                expected,
                "{ratio} {p} {better:?}"
            );
        };
        check(1.2, 0.01, Better::Higher, Word::Better);
        check(1.2, 0.01, Better::Lower, Word::Worse);
        check(0.8, 0.01, Better::Higher, Word::Worse);
        check(0.8, 0.01, Better::Lower, Word::Better);
        check(1.2, 0.2, Better::Lower, Word::NoChange);
        check(1.04, 0.001, Better::Lower, Word::NoChange);
        check(f64::NAN, 0.001, Better::Lower, Word::NoChange);
    }
}
