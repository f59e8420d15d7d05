//! The command line: arguments in, exit code out.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::filter::LevelFilter;

use self::args::{Cli, Command};
use crate::config_file::Settings;
use crate::demo;
use crate::logging;
use crate::registry::UnpackRegistry;
use crate::server::{self, Server};

mod args;
mod check;
mod ctl;

/// It cannot listen where the configuration says, or `tlb ctl` gets no answer from a tlb: `EX_UNAVAILABLE` of
/// sysexits.h.
pub const EXIT_UNAVAILABLE: u8 = 69;
/// The configuration is wrong or cannot be read: `EX_CONFIG` of sysexits.h.
pub const EXIT_CONFIG: u8 = 78;

/// Runs `tlb` with this process's arguments.
pub fn main() -> ExitCode {
    main_with(&UnpackRegistry::new())
}

/// Runs `tlb` with this process's arguments and with unpacks of one's own, which a configuration's
/// listeners may name.
///
/// This is all that a program needs that brings its own [`Unpack`](tlb_engine::unpack::Unpack).
pub fn main_with(registered: &UnpackRegistry) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(shown) => {
            // Nothing can be done about a closed terminal.
            let _ = shown.print();
            return ExitCode::from(u8::try_from(shown.exit_code()).unwrap_or(2));
        }
    };
    // The demo speaks for itself.
    let quiet = matches!(cli.command, Command::Demo).then_some(LevelFilter::ERROR);
    logging::init(cli.log_level.map(Into::into).or(quiet));
    match cli.command {
        Command::Run(run) => match load(&run.config.path, registered) {
            Ok(mut settings) => {
                if let Some(workers) = run.workers {
                    settings.workers = Some(usize::from(workers));
                }
                serve(Server::new(settings).with_file(&run.config.path, registered))
            }
            Err(code) => code,
        },
        Command::Check(check) => match load(&check.config.path, registered) {
            Ok(settings) => checked(&check.config.path, &settings),
            Err(code) => code,
        },
        Command::Ctl(asked) => ctl::main(&asked),
        Command::Demo => demo::main(),
    }
}

/// Serves until a signal ends it.
fn serve(server: Server) -> ExitCode {
    match server.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// The settings of a file, whose warnings and errors go to standard error.
fn load(path: &Path, registered: &UnpackRegistry) -> Result<Settings, ExitCode> {
    let settings = Settings::load(path, registered).map_err(|errors| {
        complain(&errors.to_string());
        ExitCode::from(EXIT_CONFIG)
    })?;
    for warning in &settings.warnings {
        complain(&format!("{warning}\n"));
    }
    Ok(settings)
}

/// The end of `tlb check`.
fn checked(path: &Path, settings: &Settings) -> ExitCode {
    let refused = check::probe(&settings.listeners);
    for error in &refused {
        complain(&format!("error: {error}"));
    }
    if !refused.is_empty() {
        return ExitCode::from(EXIT_UNAVAILABLE);
    }
    if let Err(error) = server::forwarding(settings) {
        complain(&format!("error: {error}"));
        return ExitCode::from(error.exit_code());
    }
    let line = format!("{}: ok ({})\n", path.display(), check::summary(settings));
    match io::stdout().write_all(line.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("error: cannot write to standard output: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Writes to standard error. Where that is closed, nobody can be told.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
