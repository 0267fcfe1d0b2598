//! Where log lines go and how they look.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use super::LogFormat;

/// Sets up logging to stderr for the whole process: text for people, JSON for machines. The level comes from
/// `FOREBAY_LOG` (for example `info,forebay_server::net=debug`), and is `info` without it.
pub fn init(format: LogFormat) -> Result<(), String> {
    let filter = match std::env::var("FOREBAY_LOG") {
        Ok(text) => EnvFilter::try_new(&text).map_err(|error| format!("FOREBAY_LOG: {error}"))?,
        Err(_) => EnvFilter::new("info"),
    };
    let on_terminal = io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(on_terminal);
    let as_json = match format {
        LogFormat::Auto => !on_terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let outcome = if as_json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.compact().try_init()
    };
    outcome.map_err(|error| format!("logging: {error}"))
}
