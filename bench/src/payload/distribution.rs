//! How large values are, and which keys records have.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

use super::HEADER_LEN;
use crate::random::Random;

/// Largest value, as librdkafka can be told to send.
const VALUE_BYTES_MAX: usize = 1_000_000_000;

/// Keys of `zipf`: their shares are held in memory.
const ZIPF_KEYS_MAX: u64 = 1_000_000;

/// Choices of `choice`.
const CHOICES_MAX: usize = 1_000;

/// Of values, in bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum SizeDistribution {
    Fixed(usize),
    /// From the least to the most, each as often.
    Uniform(usize, usize),
    /// Sizes with their weights.
    Choice(Vec<(usize, u32)>),
}

impl SizeDistribution {
    pub fn mean(&self) -> f64 {
        match self {
            SizeDistribution::Fixed(bytes) => *bytes as f64,
            SizeDistribution::Uniform(least, most) => (*least + *most) as f64 / 2.0,
            SizeDistribution::Choice(choices) => {
                let weighted = choices
                    .iter()
                    .map(|(bytes, weight)| *bytes as f64 * f64::from(*weight));
                let weights = choices.iter().map(|(_, weight)| f64::from(*weight));
                weighted.sum::<f64>() / weights.sum::<f64>()
            }
        }
    }

    pub fn sizes(&self, seed: u64) -> Sizes {
        Sizes {
            distribution: self.clone(),
            random: Random(seed ^ 0x5151),
        }
    }
}

/// One size after the other, the same for a seed.
pub struct Sizes {
    distribution: SizeDistribution,
    random: Random,
}

impl Sizes {
    pub fn next_bytes(&mut self) -> usize {
        match &self.distribution {
            SizeDistribution::Fixed(bytes) => *bytes,
            SizeDistribution::Uniform(least, most) => {
                let span = (most - least) as u64 + 1;
                least + (self.random.next_u64() % span) as usize
            }
            SizeDistribution::Choice(choices) => {
                let weights: u64 = choices.iter().map(|(_, weight)| u64::from(*weight)).sum();
                let mut drawn = self.random.next_u64() % weights;
                for (bytes, weight) in choices {
                    match drawn.checked_sub(u64::from(*weight)) {
                        Some(left) => drawn = left,
                        None => return *bytes,
                    }
                }
                unreachable!("what was drawn lies below the sum of the weights")
            }
        }
    }
}

impl FromStr for SizeDistribution {
    type Err = String;

    fn from_str(text: &str) -> Result<SizeDistribution, String> {
        let (kind, rest) = text.split_once(':').unwrap_or(("fixed", text));
        let size = |text: &str| {
            let bytes: usize = text
                .parse()
                .map_err(|_| format!("{text:?} is not a number of bytes"))?;
            if (HEADER_LEN..=VALUE_BYTES_MAX).contains(&bytes) {
                return Ok(bytes);
            }
            Err(format!(
                "{bytes} bytes: a value has {HEADER_LEN} to {VALUE_BYTES_MAX}, since it carries who wrote it, when, and a check"
            ))
        };
        match kind {
            "fixed" => Ok(SizeDistribution::Fixed(size(rest)?)),
            "uniform" => {
                let (least, most) = rest
                    .split_once('-')
                    .ok_or("uniform:LEAST-MOST has two sizes")?;
                let (least, most) = (size(least)?, size(most)?);
                match least <= most {
                    true => Ok(SizeDistribution::Uniform(least, most)),
                    false => Err(format!("uniform:{least}-{most}: the least comes first")),
                }
            }
            "choice" => {
                let choices: Vec<&str> = rest.split(',').collect();
                if choices.len() > CHOICES_MAX {
                    return Err(format!("more than {CHOICES_MAX} choices"));
                }
                let choice = |choice: &str| {
                    let (bytes, weight) =
                        choice.split_once('x').ok_or("a choice is BYTESxWEIGHT")?;
                    let weight: u32 = weight
                        .parse()
                        .map_err(|_| format!("{weight:?} is not a weight"))?;
                    match weight {
                        0 => Err("a weight is at least 1".to_string()),
                        weight => Ok((size(bytes)?, weight)),
                    }
                };
                let choices: Result<Vec<_>, String> = choices.into_iter().map(choice).collect();
                Ok(SizeDistribution::Choice(choices?))
            }
            other => Err(format!(
                "{other:?}: sizes are fixed:BYTES, uniform:LEAST-MOST or choice:BYTESxWEIGHT,..."
            )),
        }
    }
}

impl fmt::Display for SizeDistribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SizeDistribution::Fixed(bytes) => write!(f, "fixed:{bytes}"),
            SizeDistribution::Uniform(least, most) => write!(f, "uniform:{least}-{most}"),
            SizeDistribution::Choice(choices) => {
                let choices: Vec<String> = choices
                    .iter()
                    .map(|(bytes, weight)| format!("{bytes}x{weight}"))
                    .collect();
                write!(f, "choice:{}", choices.join(","))
            }
        }
    }
}

impl Serialize for SizeDistribution {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Keys are numbers, eight bytes each.
#[derive(Clone, Debug, PartialEq)]
pub enum KeyDistribution {
    None,
    /// One after the other.
    RoundRobin(u64),
    Uniform(u64),
    /// The first key most often: shares fall with the rank to this power.
    Zipf(u64, f64),
}

impl KeyDistribution {
    pub fn keys(&self, seed: u64) -> Keys {
        let shares = match self {
            KeyDistribution::Zipf(keys, exponent) => {
                let mut sum = 0.0;
                let shares = (1..=*keys).map(|rank| {
                    sum += (rank as f64).powf(-exponent);
                    sum
                });
                shares.collect()
            }
            _ => Vec::new(),
        };
        Keys {
            distribution: self.clone(),
            random: Random(seed ^ 0x4b4b),
            next: 0,
            shares,
        }
    }
}

/// One key after the other, the same for a seed.
pub struct Keys {
    distribution: KeyDistribution,
    random: Random,
    next: u64,
    /// Sums of the shares up to each key.
    shares: Vec<f64>,
}

impl Keys {
    pub fn next_key(&mut self) -> Option<u64> {
        match self.distribution {
            KeyDistribution::None => None,
            KeyDistribution::RoundRobin(keys) => {
                let key = self.next;
                self.next = (key + 1) % keys;
                Some(key)
            }
            KeyDistribution::Uniform(keys) => Some(self.random.next_u64() % keys),
            KeyDistribution::Zipf(keys, _) => {
                let drawn = self.random.unit() * self.shares[self.shares.len() - 1];
                let key = self.shares.partition_point(|share| *share < drawn) as u64;
                Some(key.min(keys - 1))
            }
        }
    }
}

impl FromStr for KeyDistribution {
    type Err = String;

    fn from_str(text: &str) -> Result<KeyDistribution, String> {
        let count = |text: &str, most: u64| match text.parse::<u64>() {
            Ok(keys) if (1..=most).contains(&keys) => Ok(keys),
            _ => Err(format!("{text:?} is not a number of keys from 1 to {most}")),
        };
        match text.split_once(':') {
            None if text == "none" => Ok(KeyDistribution::None),
            Some(("round-robin", keys)) => Ok(KeyDistribution::RoundRobin(count(keys, u64::MAX)?)),
            Some(("uniform", keys)) => Ok(KeyDistribution::Uniform(count(keys, u64::MAX)?)),
            Some(("zipf", rest)) => {
                let (keys, exponent) = rest
                    .split_once(',')
                    .ok_or("zipf:N,EXPONENT has two numbers")?;
                match exponent.parse::<f64>() {
                    Ok(power) if (0.0..=10.0).contains(&power) => {
                        Ok(KeyDistribution::Zipf(count(keys, ZIPF_KEYS_MAX)?, power))
                    }
                    _ => Err(format!("{exponent:?} is not an exponent from 0 to 10")),
                }
            }
            _ => Err(format!(
                "{text:?}: keys are none, round-robin:N, uniform:N or zipf:N,EXPONENT"
            )),
        }
    }
}

impl fmt::Display for KeyDistribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyDistribution::None => f.write_str("none"),
            KeyDistribution::RoundRobin(keys) => write!(f, "round-robin:{keys}"),
            KeyDistribution::Uniform(keys) => write!(f, "uniform:{keys}"),
            KeyDistribution::Zipf(keys, exponent) => write!(f, "zipf:{keys},{exponent}"),
        }
    }
}

impl Serialize for KeyDistribution {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_they_print() {
        let check = |text: &str, mean: f64| {
            let sizes: SizeDistribution = text.parse().expect(text);
            assert_eq!(sizes.to_string(), text);
            assert_eq!(sizes.mean(), mean, "{text}");
            let mut drawn = sizes.sizes(3);
            let sum: usize = (0..10_000).map(|_| drawn.next_bytes()).sum();
            let drawn = sum as f64 / 10_000.0;
            assert!((drawn / mean - 1.0).abs() < 0.05, "{text}: {drawn}");
        };
        check("fixed:1024", 1024.0);
        check("uniform:100-300", 200.0);
        check("choice:100x3,1000x1", 325.0);
        assert_eq!("512".parse(), Ok(SizeDistribution::Fixed(512)));
    }

    #[test]
    fn keys_read_as_they_print() {
        let check = |text: &str, most_often: f64| {
            let keys: KeyDistribution = text.parse().expect(text);
            assert_eq!(keys.to_string(), text);
            let mut drawn = keys.keys(5);
            let zeros = (0..10_000).filter(|_| drawn.next_key() == Some(0)).count();
            assert!(
                (zeros as f64 / 10_000.0 - most_often).abs() < 0.02,
                "{text}: {zeros}"
            );
        };
        check("none", 0.0);
        check("round-robin:4", 0.25);
        check("uniform:10", 0.1);
        // The first of 1, 1/2, 1/4 by ranks 1, 2, 4: harmonic number of 4 is 25/12.
        check("zipf:4,1", 12.0 / 25.0);
    }

    #[test]
    fn nonsense_is_refused() {
        let sizes = |text: &str| text.parse::<SizeDistribution>().expect_err(text);
        for text in [
            "",
            "fixed:",
            "fixed:39",
            "fixed:-1",
            "uniform:100",
            "uniform:200-100",
            "choice:",
            "choice:100x0",
            "normal:3",
            "fixed:99999999999",
        ] {
            assert!(!sizes(text).is_empty());
        }
        let keys = |text: &str| text.parse::<KeyDistribution>().expect_err(text);
        for text in [
            "",
            "none:1",
            "uniform:0",
            "uniform:x",
            "zipf:10",
            "zipf:10,-1",
            "zipf:99999999,1",
            "zipf:10,NaN",
        ] {
            assert!(!keys(text).is_empty());
        }
    }
}
