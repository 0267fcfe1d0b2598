//! Rates and durations as a person writes them: `1.5k`, `2M`, `250ms`, `10s`.
//!
//! Promises that what is printed reads back as the same value, and that nothing negative, endless or not a
//! number comes through.

use std::time::Duration;

use super::error::{NumberError, ScheduleError};

/// Operations per second no generator of ours comes near.
pub const RATE_MAX: f64 = 1e8;

/// One operation in 1,000 seconds.
pub const RATE_MIN: f64 = 1e-3;

/// Longest part of a schedule: 1,000 hours.
pub const DURATION_MAX: Duration = Duration::from_secs(1000 * 3600);

pub const DURATION_MIN: Duration = Duration::from_millis(1);

const UNITS: [(&str, u64); 4] = [
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// A rate, or zero for a pause.
pub fn rate_or_pause(text: &str) -> Result<f64, ScheduleError> {
    let rate = scaled_number(text).map_err(|error| ScheduleError::rate(text, error))?;
    check_rate(rate).map_err(|error| ScheduleError::rate(text, error))?;
    Ok(rate)
}

/// A rate that is not zero.
pub fn rate(text: &str) -> Result<f64, ScheduleError> {
    match rate_or_pause(text)? {
        0.0 => Err(ScheduleError::rate(text, NumberError::Zero)),
        rate => Ok(rate),
    }
}

/// Zero is in bounds.
pub fn check_rate(rate: f64) -> Result<(), NumberError> {
    if rate == 0.0 || (RATE_MIN..=RATE_MAX).contains(&rate) {
        Ok(())
    } else {
        Err(NumberError::RateBounds)
    }
}

fn scaled_number(text: &str) -> Result<f64, NumberError> {
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1e3),
        Some(b'M') => (&text[..text.len() - 1], 1e6),
        _ => (text, 1.0),
    };
    Ok(number(digits)? * factor)
}

/// Digits, a point, a power of ten: neither signs nor the words that `f64` also takes.
pub fn number(text: &str) -> Result<f64, NumberError> {
    let plain = |byte: u8| byte.is_ascii_digit() || byte == b'.' || byte == b'e';
    if !text.bytes().all(plain) {
        return Err(NumberError::NotANumber);
    }
    let number: f64 = text.parse().map_err(|_| NumberError::NotANumber)?;
    if !number.is_finite() {
        return Err(NumberError::TooLarge);
    }
    Ok(number)
}

pub fn duration(text: &str) -> Result<Duration, ScheduleError> {
    let refused = |error| ScheduleError::duration(text, error);
    let unit_at = text
        .find(|c: char| c.is_ascii_alphabetic() && c != 'e')
        .ok_or_else(|| refused(NumberError::NoUnit))?;
    let (digits, unit) = text.split_at(unit_at);
    let (_, unit_ns) = UNITS
        .into_iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(|| refused(NumberError::NoUnit))?;
    let number = number(digits).map_err(refused)?;
    let ns = (number * unit_ns as f64).round();
    let bounds = DURATION_MIN.as_nanos() as f64..=DURATION_MAX.as_nanos() as f64;
    if !bounds.contains(&ns) {
        return Err(refused(NumberError::DurationBounds));
    }
    Ok(Duration::from_nanos(ns as u64))
}

/// In the largest unit of which the duration is a whole number, or in milliseconds.
pub fn print_duration(duration: Duration) -> String {
    let ns = duration.as_nanos();
    let whole = |(_, unit_ns): &&(&str, u64)| ns.is_multiple_of(u128::from(*unit_ns));
    match UNITS.iter().rev().find(whole) {
        Some((name, unit_ns)) => format!("{}{name}", ns / u128::from(*unit_ns)),
        None => format!("{}ms", ns as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_suffixes() {
        let check = |text, expected| assert_eq!(rate(text), Ok(expected), "{text}");
        check("1", 1.0);
        check("1000", 1_000.0);
        check("1.5k", 1_500.0);
        check("2K", 2_000.0);
        check("2M", 2e6);
        check("1e6", 1e6);
        check("0.001", 0.001);
        check("100M", RATE_MAX);
    }

    #[test]
    fn rates_that_are_none() {
        let check = |text: &str, expected: &str| {
            let refused = rate(text).expect_err(text).to_string();
            assert_eq!(refused, expected, "{text}");
        };
        check("", "rate ``: not a number");
        check("k", "rate `k`: not a number");
        check("ten", "rate `ten`: not a number");
        check("-5", "rate `-5`: not a number");
        check("inf", "rate `inf`: not a number");
        check("NaN", "rate `NaN`: not a number");
        check("5m", "rate `5m`: not a number");
        check("1e999", "rate `1e999`: too large");
        let bounds = "must be between 0.001 and 100M operations per second";
        check("101M", &format!("rate `101M`: {bounds}"));
        check("0.0001", &format!("rate `0.0001`: {bounds}"));
        check("0", "rate `0`: must be more than zero");
    }

    #[test]
    fn a_pause_is_a_rate_of_zero() {
        assert_eq!(rate_or_pause("0"), Ok(0.0));
    }

    #[test]
    fn durations_have_units() {
        let check = |text, ms, printed| {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
            assert_eq!(print_duration(Duration::from_millis(ms)), printed);
        };
        check("1ms", 1, "1ms");
        check("1500ms", 1_500, "1500ms");
        check("1.5s", 1_500, "1500ms");
        check("10s", 10_000, "10s");
        check("60s", 60_000, "1m");
        check("90m", 5_400_000, "90m");
        check("2h", 7_200_000, "2h");
        check("1e3s", 1_000_000, "1000s");
    }

    #[test]
    fn fractions_of_a_millisecond_read_back() {
        for ns in [1_000_001, 1_500_000, 123_456_789, 3_599_999_999_999_999] {
            let printed = print_duration(Duration::from_nanos(ns));
            assert_eq!(
                duration(&printed),
                Ok(Duration::from_nanos(ns)),
                "{printed}"
            );
        }
    }

    #[test]
    fn durations_that_are_none() {
        let check = |text: &str, expected: &str| {
            let refused = duration(text).expect_err(text).to_string();
            assert_eq!(refused, expected, "{text}");
        };
        let unit = "needs a unit: ms, s, m or h";
        check("", &format!("duration ``: {unit}"));
        check("10", &format!("duration `10`: {unit}"));
        check("10d", &format!("duration `10d`: {unit}"));
        check("s", "duration `s`: not a number");
        check("-1s", "duration `-1s`: not a number");
        check("1 s", "duration `1 s`: not a number");
        let bounds = "must be between 1 ms and 1000 h";
        check("0s", &format!("duration `0s`: {bounds}"));
        check("0.1ms", &format!("duration `0.1ms`: {bounds}"));
        check("1001h", &format!("duration `1001h`: {bounds}"));
    }
}
