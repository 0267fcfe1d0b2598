//! What a run leaves behind: `result.json` in a folder of its own, with the series, histograms and report that are made of it.
//!
//! `run` has the types of `result.json` (its schema is `bench/result.schema.json`), `folder` writes and reads them.

pub mod folder;
mod rounds;
pub mod run;
mod spread;

pub use rounds::{Report, Round};
pub use spread::Spread;
