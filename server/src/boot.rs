//! Starts shards, joins them, stops them; says what it did.

use std::process::ExitCode;

use crate::cli::StartArgs;

/// Starts the broker and returns when it has stopped.
pub fn start(_args: &StartArgs) -> ExitCode {
    unimplemented!()
}
