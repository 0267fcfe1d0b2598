//! A rate over time from a file of rows `seconds,rate`.
//!
//! Each rate holds from its second until the next row; the last one goes on, and a last rate of zero ends the
//! sequence. A heading `seconds,rate`, empty lines and lines that begin with `#` are passed over. Whatever is
//! wrong is said with the number of its line, and a file of any size is read with bounded memory.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    sync::Arc,
    time::Duration,
};

use super::{
    error::{LineFault, NumberError, ScheduleError, TraceError},
    units,
};

const LINES_MAX: usize = 1_000_000;
const LINE_BYTES_MAX: usize = 1_000;

/// The rate from a time on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    pub at: Duration,
    pub rate: f64,
}

pub fn read(path: &Path) -> Result<Arc<[Row]>, ScheduleError> {
    let rows = match File::open(path) {
        Ok(file) => parse(BufReader::new(file)),
        Err(error) => Err(TraceError::Read(error.to_string())),
    };
    let path = path.to_owned();
    rows.map_err(|error| ScheduleError::Trace { path, error })
}

fn parse(mut lines: impl BufRead) -> Result<Arc<[Row]>, TraceError> {
    let mut rows: Vec<Row> = Vec::new();
    let mut line = Vec::new();
    for number in 1.. {
        let fault = |fault| TraceError::Line { number, fault };
        line.clear();
        let read = read_line(&mut lines, &mut line);
        if read.map_err(|error| TraceError::Read(error.to_string()))? == 0 {
            break;
        }
        if number > LINES_MAX {
            return Err(fault(LineFault::TooMany));
        }
        if line.len() > LINE_BYTES_MAX {
            return Err(fault(LineFault::TooLong));
        }
        let text = str::from_utf8(&line).map_err(|_| fault(LineFault::NotText))?;
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') || is_heading(text, &rows) {
            continue;
        }
        let row = row(text).map_err(fault)?;
        check_order(row, rows.last()).map_err(fault)?;
        rows.push(row);
    }
    if rows.is_empty() {
        return Err(TraceError::Empty);
    }
    if rows.iter().all(|row| row.rate == 0.0) {
        return Err(TraceError::Silent);
    }
    Ok(rows.into())
}

/// At most one byte more than a line may have, so that a file without line ends cannot fill the memory.
fn read_line(lines: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    lines
        .take(LINE_BYTES_MAX as u64 + 1)
        .read_until(b'\n', line)
}

fn is_heading(text: &str, rows: &[Row]) -> bool {
    let mut columns = text.split(',').map(str::trim);
    rows.is_empty() && columns.next() == Some("seconds") && columns.next() == Some("rate")
}

fn row(text: &str) -> Result<Row, LineFault> {
    let (seconds, rate) = text.split_once(',').ok_or(LineFault::Columns)?;
    let seconds = units::number(seconds.trim()).map_err(LineFault::Seconds)?;
    let rate = units::number(rate.trim()).map_err(|error| match error {
        NumberError::NotANumber if rate.contains(',') => LineFault::Columns,
        error => LineFault::Rate(error),
    })?;
    units::check_rate(rate).map_err(LineFault::Rate)?;
    if seconds > units::DURATION_MAX.as_secs_f64() {
        return Err(LineFault::TooLate);
    }
    let at = Duration::from_nanos((seconds * 1e9).round() as u64);
    Ok(Row { at, rate })
}

fn check_order(row: Row, before: Option<&Row>) -> Result<(), LineFault> {
    match before {
        None if row.at.is_zero() => Ok(()),
        None => Err(LineFault::Start),
        Some(before) if before.at < row.at => Ok(()),
        Some(_) => Err(LineFault::NotLater),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_with_and_without_a_heading() {
        let check = |text: &str| {
            let rows = parse(text.as_bytes()).expect(text);
            let found: Vec<_> = rows.iter().map(|row| (row.at, row.rate)).collect();
            let ms = Duration::from_millis;
            assert_eq!(found, [(ms(0), 100.0), (ms(1500), 0.0), (ms(3000), 7.5)]);
        };
        check("0,100\n1.5,0\n3,7.5\n");
        check("seconds,rate\n0,100\n1.5,0\n3,7.5");
        check("seconds, rate\r\n0, 100\r\n1.5 ,0\r\n3,7.5\r\n");
        check("# of Tuesday\n\nseconds,rate,note\n0,100\n#\n1.5,0\n3,7.5\n\n");
    }

    #[test]
    fn a_fault_is_named_with_its_line() {
        let check = |text: &str, expected: &str| {
            let refused = parse(text.as_bytes()).expect_err(text).to_string();
            assert_eq!(refused, expected, "{text}");
        };
        check("", "has no rows of `seconds,rate`");
        check("seconds,rate\n", "has no rows of `seconds,rate`");
        check("0,0\n5,0\n", "has no rate above zero");
        check("0\n", "line 1: expected two columns, `seconds,rate`");
        check(
            "0,1\n1,2,3\n",
            "line 2: expected two columns, `seconds,rate`",
        );
        check("0,1\nx,2\n", "line 2: seconds: not a number");
        check("0,1\n-1,2\n", "line 2: seconds: not a number");
        check("0,1\n1,nan\n", "line 2: rate: not a number");
        check("0,1\n1,-2\n", "line 2: rate: not a number");
        check(
            "0,1\n1,2e8\n",
            "line 2: rate: must be between 0.001 and 100M operations per second",
        );
        check("1,5\n", "line 1: the first row must be at 0 seconds");
        check("0,1\n2,5\n2,6\n", "line 3: not later than the row before");
        check("0,1\n2,5\n1,6\n", "line 3: not later than the row before");
        check("0,1\n1e300,5\n", "line 2: later than 1000 h");
        check("0,1\nseconds,rate\n1,5\n", "line 2: seconds: not a number");
        let long = format!("0,1\n1,{}\n", "1".repeat(5_000));
        check(&long, "line 2: longer than 1000 bytes");
    }

    #[test]
    fn a_million_lines_are_read_and_one_more_is_refused() {
        let lines = |count: usize| -> String { (0..count).map(|at| format!("{at},1\n")).collect() };
        let rows = parse(lines(LINES_MAX).as_bytes()).expect("as many as allowed");
        assert_eq!(rows.len(), LINES_MAX);
        let refused = parse(lines(LINES_MAX + 1).as_bytes()).expect_err("one more");
        assert_eq!(refused.to_string(), "line 1000001: more than 1000000 lines");
    }

    #[test]
    fn bytes_that_are_no_text() {
        let refused = parse(&b"0,1\n\xff\xfe,2\n"[..]).expect_err("not UTF-8");
        assert_eq!(refused.to_string(), "line 2: not UTF-8 text");
    }

    #[test]
    fn a_file_that_is_not_there() {
        let path = std::env::temp_dir().join("forebay-no-such-trace.csv");
        let refused = read(&path).expect_err("no such file").to_string();
        assert!(
            refused.contains("forebay-no-such-trace.csv: cannot be read"),
            "{refused}"
        );
    }
}
