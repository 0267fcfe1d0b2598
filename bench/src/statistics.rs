//! Whether two sets of figures differ: medians, bootstrap intervals, the Mann-Whitney U test and Holm's correction.
//!
//! No distribution is assumed. Sources: Mann and Whitney 1947 (exact distribution of U by counting), Lehmann, Nonparametrics (normal
//! approximation with correction for ties and continuity), Efron and Tibshirani (percentile bootstrap), Holm 1979.

use crate::random::Random;

/// Resamples of a bootstrap.
const RESAMPLES: usize = 10_000;

/// Beyond this many values of both sides together the normal approximation is as good as counting.
const EXACT_MAX: usize = 40;

/// The middle of the sorted values, or the mean of the two there are. Panics on none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    median_of_sorted(&sorted)
}

fn median_of_sorted(sorted: &[f64]) -> f64 {
    assert!(!sorted.is_empty(), "a median of nothing");
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

/// Where the ratio of the medians, `b` over `a`, lies with a probability of 95%.
pub fn ratio_interval(a: &[f64], b: &[f64], seed: u64) -> (f64, f64) {
    let mut random = Random(seed);
    let mut resample = |values: &[f64]| {
        let drawn =
            (0..values.len()).map(|_| values[(random.next_u64() % values.len() as u64) as usize]);
        median(&drawn.collect::<Vec<f64>>())
    };
    let mut ratios: Vec<f64> = (0..RESAMPLES).map(|_| resample(b) / resample(a)).collect();
    ratios.sort_by(f64::total_cmp);
    let at = |part: f64| ratios[((RESAMPLES - 1) as f64 * part).round() as usize];
    (at(0.025), at(0.975))
}

/// How likely values as far apart as these are, or farther, if both sides are the same. Two-sided. 1 for an empty side.
pub fn mann_whitney(a: &[f64], b: &[f64]) -> f64 {
    if a.is_empty() || b.is_empty() {
        return 1.0;
    }
    let (ranks, ties) = ranks(a, b);
    let of_a: f64 = ranks[..a.len()].iter().sum();
    let (n, m) = (a.len() as f64, b.len() as f64);
    let u = of_a - n * (n + 1.0) / 2.0;
    let u = u.min(n * m - u);
    match ties.is_empty() && a.len() + b.len() <= EXACT_MAX {
        true => exact(a.len(), b.len(), u as usize),
        false => approximate(n, m, u, &ties),
    }
}

/// Of the values of both sides, in their order, from 1 on; equal ones share the mean of their ranks. And how many were equal, for each such group.
fn ranks(a: &[f64], b: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let all: Vec<f64> = a.iter().chain(b).copied().collect();
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by(|one, other| all[*one].total_cmp(&all[*other]));
    let mut ranks = vec![0.0; all.len()];
    let mut ties = Vec::new();
    let mut from = 0;
    while from < order.len() {
        let equal = order[from..]
            .iter()
            .take_while(|at| all[**at] == all[order[from]])
            .count();
        for at in &order[from..from + equal] {
            ranks[*at] = (2 * from + equal + 1) as f64 / 2.0;
        }
        if equal > 1 {
            ties.push(equal as f64);
        }
        from += equal;
    }
    (ranks, ties)
}

/// By counting the ways to choose `n` of `n + m` ranks whose U is not above.
fn exact(n: usize, m: usize, u: usize) -> f64 {
    // ways[k][s]: subsets of k of the ranks so far whose U is s.
    let most = n * m;
    let mut ways = vec![vec![0.0_f64; most + 1]; n + 1];
    ways[0][0] = 1.0;
    for rank in 1..=n + m {
        for chosen in (1..=n.min(rank)).rev() {
            // The rank adds what lies below it and is not chosen.
            let adds = rank - chosen;
            for sum in (adds..=most).rev() {
                ways[chosen][sum] += ways[chosen - 1][sum - adds];
            }
        }
    }
    let all: f64 = ways[n].iter().sum();
    let not_above: f64 = ways[n][..=u.min(most)].iter().sum();
    (2.0 * not_above / all).min(1.0)
}

fn approximate(n: f64, m: f64, u: f64, ties: &[f64]) -> f64 {
    let all = n + m;
    let tied: f64 = ties.iter().map(|equal| equal.powi(3) - equal).sum();
    let variance = n * m / 12.0 * (all + 1.0 - tied / (all * (all - 1.0)));
    if variance <= 0.0 {
        return 1.0;
    }
    let z = ((n * m / 2.0 - u).abs() - 0.5).max(0.0) / variance.sqrt();
    (2.0 * upper_tail(z)).min(1.0)
}

/// Of the standard normal distribution, from z on: Abramowitz and Stegun 26.2.17, to seven digits.
fn upper_tail(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let density = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let series = [
        0.319_381_530,
        -0.356_563_782,
        1.781_477_937,
        -1.821_255_978,
        1.330_274_429,
    ];
    density
        * series
            .iter()
            .rev()
            .fold(0.0, |sum, coefficient| (sum + coefficient) * t)
}

/// Each p as it stands after so many tests were made, in the same order.
pub fn holm(ps: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..ps.len()).collect();
    order.sort_by(|one, other| ps[*one].total_cmp(&ps[*other]));
    let mut corrected = vec![1.0; ps.len()];
    let mut highest: f64 = 0.0;
    for (rank, at) in order.into_iter().enumerate() {
        highest = highest.max(ps[at] * (ps.len() - rank) as f64);
        corrected[at] = highest.min(1.0);
    }
    corrected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn u_has_the_published_probabilities() {
        let check = |a: &[f64], b: &[f64], expected: f64| {
            for (one, other) in [(a, b), (b, a)] {
                let p = mann_whitney(one, other);
                assert!((p - expected).abs() < 5e-5, "{one:?} {other:?}: {p}");
            }
        };
        // Five against five, all of one below all of the other: 2 of the 252 ways.
        check(
            &[1.0, 2.0, 3.0, 4.0, 5.0],
            &[6.0, 7.0, 8.0, 9.0, 10.0],
            2.0 / 252.0,
        );
        check(&[1.0], &[2.0], 1.0);
        check(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0], 0.1);
        // The example of scipy.stats.mannwhitneyu: exact, U = 17, p = 0.1111.
        check(
            &[19.0, 22.0, 16.0, 29.0, 24.0],
            &[20.0, 11.0, 17.0, 12.0],
            0.111_111,
        );
        // With ties: U = 1.5, variance 25/12 * (11 - 12/90), z = (11 - 0.5) / 4.758; scipy.stats.mannwhitneyu (asymptotic) has 0.027328.
        check(
            &[1.0, 2.0, 2.0, 3.0, 4.0],
            &[3.0, 5.0, 6.0, 7.0, 8.0],
            0.027_328,
        );
        check(&[1.0, 1.0], &[1.0, 1.0], 1.0);
        check(&[], &[1.0], 1.0);
    }

    #[test]
    fn counting_and_the_normal_curve_agree_on_many_values() {
        let mut random = Random(5);
        for shift in [0.0, 0.2, 0.4] {
            let a: Vec<f64> = (0..20).map(|_| random.unit()).collect();
            let b: Vec<f64> = (0..20).map(|_| random.unit() + shift).collect();
            let (ranks, _) = ranks(&a, &b);
            let u = ranks[..20].iter().sum::<f64>() - 210.0;
            let u = u.min(400.0 - u);
            let (exact, normal) = (exact(20, 20, u as usize), approximate(20.0, 20.0, u, &[]));
            assert!((exact - normal).abs() < 0.01, "{exact} {normal}");
        }
    }

    #[test]
    fn holm_multiplies_the_least_most() {
        let check = |ps: &[f64], expected: &[f64]| {
            let close = |(one, other): (&f64, &f64)| (one - other).abs() < 1e-12;
            assert!(
                holm(ps).iter().zip(expected).all(close),
                "{ps:?}: {:?}",
                holm(ps)
            );
        };
        check(&[], &[]);
        check(&[0.03], &[0.03]);
        check(&[0.01, 0.04, 0.03], &[0.03, 0.06, 0.06]);
        check(&[0.9, 0.5], &[1.0, 1.0]);
    }

    #[test]
    fn the_interval_holds_the_ratio_and_shrinks_with_the_noise() {
        let noisy = |noise: f64, mean: f64| {
            let mut random = Random(11);
            (0..9)
                .map(|_| mean * (1.0 + noise * (random.unit() - 0.5)))
                .collect::<Vec<f64>>()
        };
        let width = |noise: f64| {
            let (low, high) = ratio_interval(&noisy(noise, 100.0), &noisy(noise, 110.0), 3);
            assert!(low <= 1.1 && 1.1 <= high, "{low} {high}");
            high - low
        };
        assert!(width(0.01) < width(0.2));
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
    }
}
