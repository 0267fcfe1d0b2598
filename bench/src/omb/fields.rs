//! The fields of a file, taken out one by one, so that what nobody asked for can be named.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive, path::PathBuf};

use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkloadError {
    Read {
        path: PathBuf,
        error: String,
    },
    TooLong,
    Yaml(String),
    Missing(&'static str),
    Field {
        field: &'static str,
        expected: String,
        found: String,
    },
    /// Each field is right by itself, and together they are not.
    Together(&'static str),
}

/// Takes what it knows out of a file; what stays is unknown.
pub struct Fields {
    values: BTreeMap<String, Value>,
    warnings: Vec<String>,
}

impl Fields {
    pub fn new(values: BTreeMap<String, Value>) -> Fields {
        Fields {
            values,
            warnings: Vec::new(),
        }
    }

    pub fn take(&mut self, field: &str) -> Option<Value> {
        self.values.remove(field).filter(|value| !value.is_null())
    }

    pub fn whole(
        &mut self,
        field: &'static str,
        allowed: RangeInclusive<u64>,
        default: Option<u64>,
    ) -> Result<u64, WorkloadError> {
        let Some(value) = self.take(field) else {
            return default.ok_or(WorkloadError::Missing(field));
        };
        match value.as_u64() {
            Some(number) if allowed.contains(&number) => Ok(number),
            _ => {
                let (least, most) = allowed.into_inner();
                let expected = format!("a whole number from {least} to {most}");
                Err(refused(field, expected, &value))
            }
        }
    }

    pub fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    pub fn ratio(&mut self, field: &'static str, default: f64) -> Result<f64, WorkloadError> {
        let Some(value) = self.take(field) else {
            return Ok(default);
        };
        match value.as_f64() {
            Some(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
            _ => Err(refused(field, "a number from 0 to 1", &value)),
        }
    }

    pub fn flag(&mut self, field: &'static str) -> Result<bool, WorkloadError> {
        match self.take(field) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(value) => Err(refused(field, "true or false", &value)),
        }
    }

    pub fn text(&mut self, field: &'static str) -> Result<Option<String>, WorkloadError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(value) => Err(refused(field, "text", &value)),
        }
    }

    pub fn finish(mut self) -> Vec<String> {
        for field in self.values.keys() {
            let warning = format!("{field} is no field of a workload and is passed over");
            self.warnings.push(warning);
        }
        self.warnings
    }
}

pub fn refused(field: &'static str, expected: impl Into<String>, found: &Value) -> WorkloadError {
    WorkloadError::Field {
        field,
        expected: expected.into(),
        found: found.to_string(),
    }
}

impl fmt::Display for WorkloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorkloadError::Read { path, error } => {
                write!(f, "{} cannot be read: {error}", path.display())
            }
            WorkloadError::TooLong => f.write_str("more than 64 KiB: this is no workload"),
            WorkloadError::Yaml(error) => write!(f, "no YAML of a workload: {error}"),
            WorkloadError::Missing(field) => write!(f, "{field} is missing"),
            WorkloadError::Field {
                field,
                expected,
                found,
            } => write!(f, "{field} must be {expected}, and is {found}"),
            WorkloadError::Together(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for WorkloadError {}
