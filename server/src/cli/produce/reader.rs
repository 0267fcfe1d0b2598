//! From lines of text to records: what `kafka-console-producer` calls the line reader.

use std::io::{self, BufRead, Read};

use super::super::{outcome::CliError, properties::Properties};

/// A longer line is no line of text but a file without line ends.
const LINE_BYTES_MAX: u64 = 100 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineRecord {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// The names of `--reader-property`.
pub const PROPERTIES: [&str; 9] = [
    "topic",
    "parse.key",
    "key.separator",
    "parse.headers",
    "headers.delimiter",
    "headers.separator",
    "headers.key.separator",
    "ignore.error",
    "null.marker",
];

/// How a line is taken apart: `headers <delimiter> key <separator> value`, each part optional.
#[derive(Clone, Debug)]
pub struct LineParser {
    key_separator: Option<Vec<u8>>,
    headers: Option<HeaderSyntax>,
    ignore_error: bool,
    null_marker: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
struct HeaderSyntax {
    delimiter: Vec<u8>,
    separator: Vec<u8>,
    key_separator: Vec<u8>,
}

impl LineParser {
    pub fn new(properties: &Properties) -> Result<LineParser, CliError> {
        for name in properties.names().filter(|name| !PROPERTIES.contains(name)) {
            eprintln!("reader property {name} has no effect and is ignored");
        }
        let text = |name: &str, default: &str| -> Result<Vec<u8>, CliError> {
            match properties.get(name).unwrap_or(default) {
                "" => Err(CliError::failed(format!(
                    "reader property {name} must not be empty"
                ))),
                text => Ok(text.as_bytes().to_vec()),
            }
        };
        let headers = if properties.flag("parse.headers", false) {
            let syntax = HeaderSyntax {
                delimiter: text("headers.delimiter", "\t")?,
                separator: text("headers.separator", ",")?,
                key_separator: text("headers.key.separator", ":")?,
            };
            if syntax.delimiter == syntax.separator
                || syntax.delimiter == syntax.key_separator
                || syntax.separator == syntax.key_separator
            {
                return Err(CliError::failed(
                    "headers.delimiter, headers.separator and headers.key.separator must differ",
                ));
            }
            Some(syntax)
        } else {
            None
        };
        let parse_key = properties.flag("parse.key", false);
        Ok(LineParser {
            key_separator: parse_key.then(|| text("key.separator", "\t")).transpose()?,
            headers,
            ignore_error: properties.flag("ignore.error", false),
            null_marker: properties.get("null.marker").map(|m| m.as_bytes().to_vec()),
        })
    }

    /// `number` is the line's own, for the message.
    pub fn parse(&self, line: &[u8], number: u64) -> Result<LineRecord, CliError> {
        let mut record = LineRecord::default();
        let mut rest = line;
        if let Some(syntax) = &self.headers
            && let Some((headers, after)) =
                self.cut(rest, &syntax.delimiter, "headers delimiter", number)?
        {
            rest = after;
            if !self.is_null(headers) {
                record.headers = self.parse_headers(syntax, headers, number)?;
            }
        }
        if let Some(separator) = &self.key_separator
            && let Some((key, after)) = self.cut(rest, separator, "key separator", number)?
        {
            record.key = self.value(key);
            rest = after;
        }
        record.value = self.value(rest);
        Ok(record)
    }

    /// Splits at the first `separator`. Where there is none: an error, or with `ignore.error` nothing to split.
    fn cut<'a>(
        &self,
        text: &'a [u8],
        separator: &[u8],
        what: &str,
        number: u64,
    ) -> Result<Option<(&'a [u8], &'a [u8])>, CliError> {
        match find(text, separator) {
            Some(at) => Ok(Some((&text[..at], &text[at + separator.len()..]))),
            None if self.ignore_error => Ok(None),
            None => Err(CliError::failed(format!(
                "No {what} found on line number {number}: '{}'",
                String::from_utf8_lossy(text)
            ))),
        }
    }

    fn parse_headers(
        &self,
        syntax: &HeaderSyntax,
        text: &[u8],
        number: u64,
    ) -> Result<Vec<(Vec<u8>, Option<Vec<u8>>)>, CliError> {
        let mut headers = Vec::new();
        let mut rest = Some(text);
        while let Some(text) = rest {
            let (pair, after) = match find(text, &syntax.separator) {
                Some(at) => (&text[..at], Some(&text[at + syntax.separator.len()..])),
                None => (text, None),
            };
            rest = after;
            match self.cut(pair, &syntax.key_separator, "header key separator", number)? {
                Some((key, _)) if self.is_null(key) => {
                    return Err(CliError::failed(format!(
                        "Header keys should not be equal to the null marker, on line number {number}"
                    )));
                }
                Some((key, value)) => headers.push((key.to_vec(), self.value(value))),
                None => headers.push((pair.to_vec(), None)),
            }
        }
        Ok(headers)
    }

    fn is_null(&self, text: &[u8]) -> bool {
        self.null_marker.as_deref() == Some(text)
    }

    fn value(&self, text: &[u8]) -> Option<Vec<u8>> {
        (!self.is_null(text)).then(|| text.to_vec())
    }
}

/// The next line without its end (`\n` or `\r\n`); `None` at the end of the input.
pub fn read_line(input: &mut dyn BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let count = input.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if count == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    } else if line.len() as u64 == LINE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "a line is longer than {LINE_BYTES_MAX} bytes"
        )));
    }
    Ok(Some(line))
}

fn find(text: &[u8], pattern: &[u8]) -> Option<usize> {
    text.windows(pattern.len())
        .position(|window| window == pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parser(flags: &[&str]) -> Result<LineParser, CliError> {
        let mut properties = Properties::default();
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        properties.add_all(&flags).unwrap();
        LineParser::new(&properties)
    }

    type Want<'a> = (
        Option<&'a str>,
        Option<&'a str>,
        &'a [(&'a str, Option<&'a str>)],
    );

    fn check(flags: &[&str], line: &str, want: Option<Want<'_>>) {
        let got = parser(flags).unwrap().parse(line.as_bytes(), 1).ok();
        let owned = |text: &str| text.as_bytes().to_vec();
        let want = want.map(|(key, value, headers)| LineRecord {
            key: key.map(owned),
            value: value.map(owned),
            headers: headers
                .iter()
                .map(|(key, value)| (owned(key), value.map(owned)))
                .collect(),
        });
        assert_eq!(got, want, "{flags:?} on {line:?}");
    }

    #[test]
    fn lines_become_records_as_the_properties_say() {
        let keyed = "parse.key=true";
        let headed = "parse.headers=true";
        let lenient = "ignore.error=true";
        let null = "null.marker=NULL";
        check(&[], "a\tb", Some((None, Some("a\tb"), &[])));
        check(&[], "", Some((None, Some(""), &[])));
        check(&[keyed], "k\tv\tw", Some((Some("k"), Some("v\tw"), &[])));
        check(
            &[keyed, "key.separator=::"],
            "k::v",
            Some((Some("k"), Some("v"), &[])),
        );
        check(&[keyed], "no key", None);
        check(
            &[keyed, lenient],
            "no key",
            Some((None, Some("no key"), &[])),
        );
        check(&[keyed], "\tv", Some((Some(""), Some("v"), &[])));
        check(&[null], "NULL", Some((None, None, &[])));
        check(&[keyed, null], "NULL\tNULL", Some((None, None, &[])));
        check(&[keyed, null], "k\tNULL", Some((Some("k"), None, &[])));
        let two: &[(&str, Option<&str>)] = &[("h", Some("1")), ("h", Some("2"))];
        check(&[headed], "h:1,h:2\tv", Some((None, Some("v"), two)));
        check(
            &[headed, keyed],
            "h:1,h:2\tk\tv",
            Some((Some("k"), Some("v"), two)),
        );
        check(&[headed], "h\tv", None);
        check(
            &[headed, lenient],
            "h\tv",
            Some((None, Some("v"), &[("h", None)])),
        );
        check(
            &[headed, null],
            "h:NULL\tv",
            Some((None, Some("v"), &[("h", None)])),
        );
        check(&[headed, null], "NULL\tv", Some((None, Some("v"), &[])));
        check(&[headed, null], "NULL:x\tv", None);
        check(&[headed], "v", None);
        check(&[headed, keyed, lenient], "v", Some((None, Some("v"), &[])));
        check(
            &[headed, keyed, lenient, "key.separator=;"],
            "k;v",
            Some((Some("k"), Some("v"), &[])),
        );
    }

    #[test]
    fn separators_that_cannot_work_are_refused() {
        assert!(parser(&["parse.headers=true", "headers.separator=:"]).is_err());
        assert!(parser(&["parse.key=true", "key.separator="]).is_err());
        assert!(parser(&["key.separator="]).is_ok(), "it is not used");
    }

    #[test]
    fn line_ends_of_both_worlds_are_cut() {
        let mut input = &b"a\r\n\nb\rc\nlast"[..];
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut input).unwrap() {
            lines.push(String::from_utf8(line).unwrap());
        }
        assert_eq!(lines, ["a", "", "b\rc", "last"]);
    }
}
