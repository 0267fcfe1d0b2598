//! Makes the binary answer to the names of Kafka's tools: one symbolic link per name.

use std::{env, fs, io::Write, os::unix::fs::symlink, path::PathBuf};

use clap::Parser;

use super::{TOOLS, outcome::CliError};

/// Links the names of Kafka's tools to this binary
#[derive(Parser, Debug)]
#[command(after_help = "Example:\n  forebay install-links /usr/local/bin")]
pub struct InstallLinksArgs {
    /// Directory for the links; it is created if it is missing.
    dir: PathBuf,

    /// Name the links kafka-topics.sh and so on, as Kafka's own distribution does.
    #[arg(long)]
    sh: bool,
}

pub fn run(args: &InstallLinksArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let binary = env::current_exe()
        .map_err(|error| CliError::failed(format!("cannot find this binary: {error}")))?;
    let dir = args.dir.display();
    fs::create_dir_all(&args.dir).map_err(|error| CliError::failed(format!("{dir}: {error}")))?;
    let suffix = if args.sh { ".sh" } else { "" };
    for (tool, _) in TOOLS {
        let link = args.dir.join(format!("{tool}{suffix}"));
        // A link of an earlier run is replaced; a real file (Kafka's own tool, say) is left alone.
        if fs::symlink_metadata(&link).is_ok_and(|found| found.is_symlink()) {
            fs::remove_file(&link)
                .map_err(|error| CliError::failed(format!("{}: {error}", link.display())))?;
        }
        symlink(&binary, &link)
            .map_err(|error| CliError::failed(format!("{}: {error}", link.display())))?;
        writeln!(out, "{} -> {}", link.display(), binary.display())?;
    }
    Ok(())
}
