//! The folder of a run: `result.json`, `series.csv`, HDR logs and percentile curves, `report.html`.
//!
//! Everything is written under a temporary name and renamed when it is whole, so that what has its name can be trusted.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    report,
    run::{RunResult, SCHEMA_VERSION},
    series,
};

/// Largest `result.json` that is read: a day of seconds is far below.
const RESULT_BYTES_MAX: u64 = 256 << 20;

pub const RESULT_FILE: &str = "result.json";

pub const REPORT_FILE: &str = "report.html";

/// A folder that results go to, made before the run begins: a run whose result could not be written is not begun.
#[derive(Clone, Debug)]
pub struct ResultFolder {
    dir: PathBuf,
    /// Made for this run.
    is_new: bool,
}

impl ResultFolder {
    /// New, or empty of results: nothing is overwritten.
    pub fn create(dir: &Path) -> Result<ResultFolder, String> {
        let said = |error: io::Error| format!("--out {}: {error}", dir.display());
        let is_new = !dir.exists();
        fs::create_dir_all(dir).map_err(said)?;
        if dir.join(RESULT_FILE).exists() {
            return Err(format!(
                "--out {}: there is a {RESULT_FILE} of another run",
                dir.display()
            ));
        }
        Ok(ResultFolder {
            dir: dir.to_path_buf(),
            is_new,
        })
    }

    /// Of a run that is over.
    pub fn existing(dir: &Path) -> ResultFolder {
        ResultFolder {
            dir: dir.to_path_buf(),
            is_new: false,
        }
    }

    /// Of a run that failed: what was made for it and is empty goes.
    pub fn abandon(&self) {
        if self.is_new {
            let _ = fs::remove_dir(&self.dir);
        }
    }

    /// Writes a whole file, or none.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf, String> {
        let path = self.dir.join(name);
        let partial = self.dir.join(format!(".{name}.partial"));
        let written = fs::write(&partial, content).and_then(|()| fs::rename(&partial, &path));
        if let Err(error) = written {
            let _ = fs::remove_file(&partial);
            return Err(format!("{}: {error}", path.display()));
        }
        Ok(path)
    }

    /// All that a run leaves behind. The result comes last: a folder with a result has all of it.
    pub fn write_run(
        &self,
        result: &RunResult,
        histograms: Vec<(String, Vec<u8>)>,
    ) -> Result<(), String> {
        for (name, content) in histograms {
            self.write(&name, &content)?;
        }
        self.write("series.csv", series::csv(&result.series).as_bytes())?;
        self.write(REPORT_FILE, report::render(result).as_bytes())?;
        let text = serde_json::to_string_pretty(result).map_err(|error| error.to_string())?;
        self.write(RESULT_FILE, (text + "\n").as_bytes())?;
        eprintln!("written: {}", self.dir.join(REPORT_FILE).display());
        Ok(())
    }
}

/// Reads the result in a folder, or a file of any name.
pub fn read(path: &Path) -> Result<RunResult, String> {
    let file = match path.is_dir() {
        true => path.join(RESULT_FILE),
        false => path.to_path_buf(),
    };
    let said = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let bytes = fs::metadata(&file).map_err(|error| said(&error))?.len();
    if bytes > RESULT_BYTES_MAX {
        return Err(said(&format!("{bytes} bytes are too many for a result")));
    }
    let text = fs::read_to_string(&file).map_err(|error| said(&error))?;
    parse(&text).map_err(|error| said(&error))
}

fn parse(text: &str) -> Result<RunResult, String> {
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    match value["schema_version"].as_u64() {
        Some(version) if version == u64::from(SCHEMA_VERSION) => {}
        Some(version) => {
            return Err(format!(
                "a result of version {version}; this forebay-bench reads version {SCHEMA_VERSION}"
            ));
        }
        None => return Err("not a result of forebay-bench: no schema_version".to_string()),
    }
    serde_json::from_value(value).map_err(|error| format!("not a whole result: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_result_of_this_version_is_refused() {
        let check = |text: &str, expected: &str| {
            let error = parse(text).expect_err("not a result");
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("", "not JSON");
        check("[]", "no schema_version");
        check(r#"{"schema_version":"2"}"#, "no schema_version");
        check(r#"{"schema_version":1}"#, "a result of version 1");
        check(r#"{"schema_version":99}"#, "a result of version 99");
        check(r#"{"schema_version":2}"#, "not a whole result");
    }

    #[test]
    fn no_result_is_overwritten_and_nothing_partial_stays() {
        let dir = std::env::temp_dir().join(format!("forebay-bench-out-{}", std::process::id()));
        let folder = ResultFolder::create(&dir).expect("new");
        ResultFolder::create(&dir).expect("it is empty");
        folder.write(RESULT_FILE, b"{}").expect("written");
        let refused = ResultFolder::create(&dir).expect_err("there is one");
        assert!(refused.contains("of another run"), "{refused}");
        let names = fs::read_dir(&dir).expect("a folder").count();
        assert_eq!(names, 1);
        folder.abandon();
        assert!(dir.exists(), "it is not empty");
        fs::remove_dir_all(&dir).expect("it is ours");
        ResultFolder::create(&dir).expect("new").abandon();
        assert!(!dir.exists());
    }
}
