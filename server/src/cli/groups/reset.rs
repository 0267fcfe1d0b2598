//! `--reset-offsets`: where a group goes on reading.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use kafka_protocol::ResponseError;

use super::{GroupsArgs, Scope, table};
use crate::cli::{
    client::{AutoCreate, Client, Target, TopicPartition, offsets::OffsetSpec},
    outcome::CliError,
};

const FILE_BYTES_MAX: u64 = 16 << 20;

/// What to do, checked before the first request.
pub struct Plan {
    scenario: Scenario,
    /// `None`: all topics that the group has offsets for.
    scope: Option<Scope>,
    executes: bool,
    exports: bool,
}

enum Scenario {
    Spec(OffsetSpec),
    Current,
    Offset(i64),
    ShiftBy(i64),
    File(BTreeMap<TopicPartition, i64>),
}

impl Plan {
    pub fn new(args: &GroupsArgs) -> Result<Plan, CliError> {
        let scenario = if args.to_earliest {
            Scenario::Spec(OffsetSpec::Earliest)
        } else if args.to_latest {
            Scenario::Spec(OffsetSpec::Latest)
        } else if let Some(offset) = args.to_offset {
            Scenario::Offset(offset)
        } else if let Some(count) = args.shift_by {
            Scenario::ShiftBy(count)
        } else if let Some(text) = &args.to_datetime {
            let bad = || CliError::failed(format!("'{text}' is no time"));
            Scenario::Spec(OffsetSpec::Timestamp(parse_datetime(text).ok_or_else(bad)?))
        } else if let Some(text) = &args.by_duration {
            let bad = || CliError::failed(format!("'{text}' is no ISO 8601 duration"));
            let millis = parse_duration(text).ok_or_else(bad)?;
            Scenario::Spec(OffsetSpec::Timestamp((now_ms() - millis).max(0)))
        } else if let Some(path) = &args.from_file {
            Scenario::File(read_file(path)?)
        } else if args.to_current || args.export {
            Scenario::Current
        } else {
            return Err(CliError::failed(
                "--reset-offsets needs to know where to: one of --to-earliest, --to-latest, --to-current, --to-offset, \
                 --shift-by, --to-datetime, --by-duration, --from-file",
            ));
        };
        let is_file = matches!(scenario, Scenario::File(_));
        if args.topic.is_empty() && !args.all_topics && !is_file {
            return Err(CliError::failed(
                "--reset-offsets needs --topic or --all-topics",
            ));
        }
        if !args.execute && !args.dry_run && !args.export {
            eprintln!("Nothing is changed without --execute; this is what it would do.");
        }
        Ok(Plan {
            scenario,
            scope: match args.topic.is_empty() {
                true => None,
                false => Some(Scope::parse(&args.topic)?),
            },
            executes: args.execute,
            exports: args.export,
        })
    }
}

pub fn run(
    plan: &Plan,
    groups: &[String],
    client: &mut Client,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let mut rows = vec![
        ["GROUP", "TOPIC", "PARTITION", "NEW-OFFSET"]
            .map(String::from)
            .to_vec(),
    ];
    for group in groups {
        let state = match client.describe_group(group) {
            Ok(description) => description.state,
            // A group that does not exist yet may be given offsets.
            Err(error) if error.code() == Some(ResponseError::GroupIdNotFound) => {
                "Dead".to_string()
            }
            Err(error) => return Err(error.into()),
        };
        if state != "Empty" && state != "Dead" {
            return Err(CliError::failed(format!(
                "Error: Assignments can only be reset if the group '{group}' is inactive, but the current state is {state}."
            )));
        }
        let offsets = new_offsets(plan, group, client)?;
        if plan.executes {
            let coordinator = client.coordinator(group)?;
            client.commit_offsets(Target::Broker(coordinator), group, &offsets, |_, _| {})?;
        }
        for ((topic, partition), offset) in offsets {
            if plan.exports {
                match groups.len() {
                    1 => writeln!(out, "{topic},{partition},{offset}")?,
                    _ => writeln!(out, "{group},{topic},{partition},{offset}")?,
                }
            }
            rows.push(vec![
                group.clone(),
                topic,
                partition.to_string(),
                offset.to_string(),
            ]);
        }
    }
    if !plan.exports {
        writeln!(out)?;
        table::print(out, &[15, 15, 10, 0], &rows)?;
    }
    Ok(())
}

fn new_offsets(
    plan: &Plan,
    group: &str,
    client: &mut Client,
) -> Result<BTreeMap<TopicPartition, i64>, CliError> {
    let committed = client.committed_offsets(group, None)?;
    let partitions: Vec<TopicPartition> = match (&plan.scope, &plan.scenario) {
        (Some(scope), _) => scope.partitions(client)?,
        (None, Scenario::File(offsets)) => offsets.keys().cloned().collect(),
        (None, _) => committed.keys().cloned().collect(),
    };
    let mut topics: Vec<String> = partitions.iter().map(|(topic, _)| topic.clone()).collect();
    topics.dedup();
    let metadata = client.metadata(Some(&topics), AutoCreate::Forbid)?;
    let at = |client: &mut Client, spec| {
        let wanted: Vec<(TopicPartition, OffsetSpec)> =
            partitions.iter().map(|p| (p.clone(), spec)).collect();
        client.list_offsets(&metadata, &wanted, false)
    };
    let earliest = at(client, OffsetSpec::Earliest)?;
    let latest = at(client, OffsetSpec::Latest)?;
    let named = match plan.scenario {
        Scenario::Spec(spec) => at(client, spec)?,
        _ => BTreeMap::new(),
    };
    let mut offsets = BTreeMap::new();
    for partition in &partitions {
        let get =
            |map: &BTreeMap<TopicPartition, Option<i64>>| map.get(partition).copied().flatten();
        let (Some(low), Some(high)) = (get(&earliest), get(&latest)) else {
            return Err(CliError::failed(format!(
                "{}-{} has no offsets",
                partition.0, partition.1
            )));
        };
        let current = committed.get(partition).copied();
        let wanted = match &plan.scenario {
            // No record at or after that time: everything was read.
            Scenario::Spec(_) => get(&named).unwrap_or(high),
            Scenario::Current => current.unwrap_or(high),
            Scenario::Offset(offset) => *offset,
            Scenario::ShiftBy(count) => match current {
                Some(current) => current.saturating_add(*count),
                None => {
                    return Err(CliError::failed(format!(
                        "Cannot shift offset for partition {}-{} since there is no current committed offset",
                        partition.0, partition.1
                    )));
                }
            },
            Scenario::File(given) => match given.get(partition) {
                Some(offset) => *offset,
                None => continue,
            },
        };
        offsets.insert(partition.clone(), within(partition, wanted, low, high));
    }
    Ok(offsets)
}

/// The nearest offset that exists.
fn within(partition: &TopicPartition, wanted: i64, low: i64, high: i64) -> i64 {
    let taken = wanted.max(low).min(high.max(low));
    if taken != wanted {
        eprintln!(
            "offset {wanted} of {}-{} lies outside of {low} to {high}; {taken} is taken",
            partition.0, partition.1
        );
    }
    taken
}

/// Reads `topic,partition,offset` lines, as `--export` prints them.
fn read_file(path: &Path) -> Result<BTreeMap<TopicPartition, i64>, CliError> {
    let fail = |what: String| CliError::failed(format!("{}: {what}", path.display()));
    let length = fs::metadata(path).map_err(|e| fail(e.to_string()))?.len();
    if length > FILE_BYTES_MAX {
        return Err(fail(format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    let text = fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
    let mut offsets = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let parsed = parse_line(line);
        let (partition, offset) =
            parsed.ok_or_else(|| fail(format!("'{line}' is not topic,partition,offset")))?;
        offsets.insert(partition, offset);
    }
    Ok(offsets)
}

fn parse_line(line: &str) -> Option<(TopicPartition, i64)> {
    let mut fields = line.split(',').map(|field| field.trim().trim_matches('"'));
    let topic = fields.next()?.to_string();
    let partition = fields.next()?.parse().ok()?;
    let offset = fields.next()?.parse().ok()?;
    fields
        .next()
        .is_none()
        .then_some(((topic, partition), offset))
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// `2026-01-31T12:30:00[.000][Z|+hh:mm|-hh:mm]` in ms since the epoch.
fn parse_datetime(text: &str) -> Option<i64> {
    let (date, time) = text.split_once('T')?;
    let mut date = date.split('-');
    let year: i64 = date.next()?.parse().ok()?;
    let month: i64 = date.next()?.parse().ok()?;
    let day: i64 = date.next()?.parse().ok()?;
    if date.next().is_some() || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (time, zone_minutes) = match time.find(['Z', '+', '-']) {
        None => (time, 0),
        Some(at) => (&time[..at], parse_zone(&time[at..])?),
    };
    let mut parts = time.split(':');
    let hour: i64 = parts.next()?.parse().ok()?;
    let minute: i64 = parts.next()?.parse().ok()?;
    let second: f64 = parts.next().unwrap_or("0").parse().ok()?;
    let in_range = (0..24).contains(&hour) && (0..60).contains(&minute);
    if parts.next().is_some() || !in_range || !(0.0..60.0).contains(&second) {
        return None;
    }
    let minutes = (days_since_epoch(year, month, day) * 24 + hour) * 60 + minute - zone_minutes;
    Some(minutes * 60_000 + (second * 1000.0).round() as i64)
}

fn parse_zone(text: &str) -> Option<i64> {
    if text == "Z" {
        return Some(0);
    }
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = text[1..].split_once(':')?;
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    ((0..=18).contains(&hours) && (0..60).contains(&minutes))
        .then_some(sign * (hours * 60 + minutes))
}

/// Days of the Gregorian calendar, counted in years that begin in March so that the leap day comes last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    const MARCH_0000_TO_1970: i64 = 719_468;
    year * 365 + leap_days + day_of_year - MARCH_0000_TO_1970
}

/// `P1DT2H30M5.5S` in ms.
fn parse_duration(text: &str) -> Option<i64> {
    let text = text.strip_prefix('P')?;
    let (days, time) = text.split_once('T').unwrap_or((text, ""));
    if days.is_empty() && time.is_empty() {
        return None;
    }
    let days = parse_units(days, &[('D', 86_400_000.0)])?;
    let units = [('H', 3_600_000.0), ('M', 60_000.0), ('S', 1000.0)];
    Some((days + parse_units(time, &units)?).round() as i64)
}

/// Numbers each followed by its unit, in the order of the units.
fn parse_units(mut text: &str, units: &[(char, f64)]) -> Option<f64> {
    let mut total = 0.0;
    for (unit, millis) in units {
        if let Some(at) = text.find(*unit) {
            let number: f64 = text[..at].parse().ok()?;
            total += number * millis;
            text = &text[at + 1..];
        }
    }
    (text.is_empty() && total >= 0.0).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let check = |text: &str, want: Option<i64>| {
            assert_eq!(parse_datetime(text), want, "{text}");
        };
        check("1970-01-01T00:00:00.000", Some(0));
        check("1970-01-01T00:00:00", Some(0));
        check("2000-02-29T12:00:00.250", Some(951_825_600_250));
        check("2000-03-01T00:00:00Z", Some(951_868_800_000));
        check("2026-01-31T12:00:00+02:00", Some(1_769_853_600_000));
        check("2026-01-31T12:00:00-02:00", Some(1_769_868_000_000));
        check("1969-12-31T23:59:59", Some(-1000));
        check("2026-13-01T00:00:00", None);
        check("2026-01-31", None);
        check("2026-01-31T25:00:00", None);
    }

    #[test]
    fn durations_are_read() {
        let check = |text: &str, want: Option<i64>| {
            assert_eq!(parse_duration(text), want, "{text}");
        };
        check("P1D", Some(86_400_000));
        check("PT1H", Some(3_600_000));
        check("P1DT2H30M5.5S", Some(95_405_500));
        check("P", None);
        check("PT5", None);
        check("5M", None);
        check("PT5M2H", None);
    }

    #[test]
    fn exported_lines_are_read_back() {
        assert_eq!(parse_line("t,0,5"), Some((("t".to_string(), 0), 5)));
        assert_eq!(parse_line("\"t\",1,7"), Some((("t".to_string(), 1), 7)));
        assert_eq!(parse_line("g,t,0,5"), None);
        assert_eq!(parse_line("t,0"), None);
    }

    #[test]
    fn offsets_are_kept_within_the_log() {
        let partition = ("t".to_string(), 0);
        assert_eq!(within(&partition, 5, 2, 9), 5);
        assert_eq!(within(&partition, 1, 2, 9), 2);
        assert_eq!(within(&partition, 10, 2, 9), 9);
    }
}
