//! What a run leaves behind: `result.json` in a folder of its own, with the series, histograms and report that are made of it.
//!
//! `run` has the types of `result.json` (its schema is `bench/result.schema.json`), `folder` writes and reads them.

pub mod folder;
pub mod report;
pub mod run;
pub mod schema;
pub mod series;
mod spread;
pub mod turns;

pub use spread::{Spread, short};

/// Writes the report of a run anew.
pub fn render(dir: &std::path::Path) -> Result<(), String> {
    let result = folder::read(dir)?;
    let dir = match dir.is_dir() {
        true => dir,
        false => dir.parent().unwrap_or(dir),
    };
    let folder = folder::ResultFolder::existing(dir);
    let written = folder.write(folder::REPORT_FILE, report::render(&result).as_bytes())?;
    println!("written: {}", written.display());
    Ok(())
}
