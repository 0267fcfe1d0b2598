//! Findings for people, and for programs.

use std::fmt::Write;

use serde_json::json;

use crate::check::{Finding, Severity};

/// One block per finding; what is well takes one line.
pub fn text(findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        let mark = match finding.severity {
            Severity::Ok => "ok     ",
            Severity::Unknown => "unknown",
            Severity::Warn => "WARN   ",
            Severity::Fatal => "FATAL  ",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{mark}  {:<16} {}", finding.id, finding.current);
        if finding.severity > Severity::Unknown {
            let _ = writeln!(out, "         wanted:  {}", finding.wanted);
            let _ = writeln!(out, "         why:     {}", finding.why);
            let _ = writeln!(out, "         remedy:  {}", finding.remedy);
        }
    }
    let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
    let _ = writeln!(
        out,
        "{} ok, {} unknown, {} warnings, {} fatal",
        count(Severity::Ok),
        count(Severity::Unknown),
        count(Severity::Warn),
        count(Severity::Fatal)
    );
    out
}

pub fn json(findings: &[Finding]) -> String {
    let document = json!({ "schema_version": 1, "findings": findings });
    format!("{document:#}\n")
}

/// 0 nothing to do, 1 warnings, 2 fatal. (3, could not run, is the caller's.)
pub fn exit_code(findings: &[Finding]) -> u8 {
    match findings.iter().map(|finding| finding.severity).max() {
        Some(Severity::Fatal) => 2,
        Some(Severity::Warn) => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity) -> Finding {
        Finding {
            id: "some.check",
            severity,
            current: "as it is".to_string(),
            wanted: "as it should be".to_string(),
            why: "because",
            remedy: "do this".to_string(),
        }
    }

    #[test]
    fn the_worst_finding_decides_the_exit_code() {
        let check = |severities: &[Severity], code| {
            let findings: Vec<Finding> = severities.iter().map(|s| finding(*s)).collect();
            assert_eq!(exit_code(&findings), code);
        };
        check(&[], 0);
        check(&[Severity::Ok, Severity::Unknown], 0);
        check(&[Severity::Warn, Severity::Ok], 1);
        check(&[Severity::Warn, Severity::Fatal, Severity::Ok], 2);
    }

    #[test]
    fn text_explains_only_what_is_wrong() {
        let text = text(&[finding(Severity::Ok), finding(Severity::Fatal)]);
        assert_eq!(text.matches("remedy:  do this").count(), 1);
        assert!(
            text.ends_with("1 ok, 0 unknown, 0 warnings, 1 fatal\n"),
            "{text}"
        );
    }

    #[test]
    fn json_parses_and_names_severities_in_lower_case() {
        let value: serde_json::Value =
            serde_json::from_str(&json(&[finding(Severity::Warn)])).expect("it is JSON");
        assert_eq!(value["findings"][0]["severity"], "warn");
        assert_eq!(value["schema_version"], 1);
    }
}
