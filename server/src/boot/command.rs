//! `forebay start`: flags, file and environment become the configuration; signals become a flag; failures become exit codes.

use std::{
    io,
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};

use signal_hook::{consts, flag};

use super::{Broker, EXIT_ON_SECOND_SIGNAL, StartFailure};
use crate::{
    cli::StartArgs,
    config::{Config, ConfigError, Host, Origin, RawConfig},
};

/// Runs until a signal says otherwise.
pub fn start(args: &StartArgs) -> ExitCode {
    let run = || {
        let config = configure(args)?;
        let stop = stop_on_signals().map_err(StartFailure::Executors)?;
        let broker = Broker::start(config, stop)?;
        println!("{}", broker.report);
        broker.join()
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("forebay: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn configure(args: &StartArgs) -> Result<Config, StartFailure> {
    let invalid = |errors: Vec<ConfigError>| {
        StartFailure::Config(errors.iter().map(ToString::to_string).collect())
    };
    let mut raw = RawConfig::default();
    if let Some(file) = &args.config {
        raw.load_file(file).map_err(|error| invalid(vec![error]))?;
    }
    raw.add_environment(std::env::vars());
    let mut flag = |key: &str, name: &str, text: Option<String>| {
        if let Some(text) = text {
            raw.set(key.to_owned(), text, Origin::Flag(name.to_owned()));
        }
    };
    let data_dir = args.data_dir.as_ref();
    let data_dir = data_dir.map(|path| path.to_string_lossy().into_owned());
    flag("log.dirs", "--data-dir", data_dir);
    let listener = |address: &String| format!("PLAINTEXT://{address}");
    flag("listeners", "--listen", args.listen.as_ref().map(listener));
    let shards = args.shards.map(|shards| shards.to_string());
    flag("forebay.shards", "--shards", shards);
    for text in &args.overrides {
        raw.add_override(text)
            .map_err(|error| invalid(vec![error]))?;
    }
    let config = Config::check(raw, &Host::probe()).map_err(invalid)?;
    for (key, why) in config.ignored() {
        tracing::warn!(key, "setting has no effect: {why}");
    }
    Ok(config)
}

/// The first signal sets the flag; the second ends the process at once.
fn stop_on_signals() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [consts::SIGTERM, consts::SIGINT] {
        // In this order: at the first signal the flag is not yet set.
        flag::register_conditional_shutdown(signal, EXIT_ON_SECOND_SIGNAL, stop.clone())?;
        flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}
