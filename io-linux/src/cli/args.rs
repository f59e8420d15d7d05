//! What the command line may say.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};
use tracing_subscriber::filter::LevelFilter;

const EXIT_CODES: &str = "\
Exit codes:
   0  it did what was asked
   1  it failed while it ran
   2  the command line is wrong
  69  it cannot listen where the configuration says
  78  the configuration is wrong or cannot be read";

/// Content-aware TCP load balancer: a client's first bytes pick its backend.
#[derive(Debug, Parser)]
#[command(name = "tlb", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(super) struct Cli {
    /// Least important messages to log; without it, what RUST_LOG says, or info.
    #[arg(long, global = true, value_enum, value_name = "LEVEL")]
    pub(super) log_level: Option<LogLevel>,

    #[command(subcommand)]
    pub(super) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Serve.
    ///
    /// SIGTERM or SIGINT stops accepting and closes live sessions, spread over the configured
    /// shutdown-timeout, idle ones first; a second one closes them at once.
    #[command(after_help = EXIT_CODES)]
    Run(Run),

    /// Check a configuration: read it, and try whether its listeners can listen.
    ///
    /// Nothing is served. Each listener's port is opened for a moment, so that one that is taken
    /// (for example by a running tlb) or not permitted is found.
    #[command(after_help = EXIT_CODES)]
    Check(Check),

    /// Show tlb at work, in this process and on loopback alone: clients, backends, and one backend
    /// that dies.
    ///
    /// Ends by itself, with exit code 1 if a byte was lost or a key went astray.
    #[command(after_help = EXIT_CODES)]
    Demo,
}

/// Arguments of `tlb run`.
#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) config: ConfigFile,

    /// Threads that serve sessions, 1 to 1024; wins over the configuration's `workers`. [default:
    /// one per CPU]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=1024))]
    pub(super) workers: Option<u16>,
}

/// Arguments of `tlb check`.
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    pub(super) config: ConfigFile,
}

/// Which file.
#[derive(Debug, Args)]
pub(super) struct ConfigFile {
    /// The configuration: TOML, or JSON if the name ends in `.json`.
    #[arg(short = 'c', long = "config", value_name = "FILE", env = "TLB_CONFIG")]
    pub(super) path: PathBuf,
}

/// A level of log messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogLevel {
    /// Nothing.
    Off,
    /// What needs somebody to act.
    Error,
    /// And what may need it.
    Warn,
    /// And what happens to tlb and its backends.
    Info,
    /// And what happens to each session.
    Debug,
    /// And every step.
    Trace,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => Self::OFF,
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_declarations_fit_together() {
        Cli::command().debug_assert();
    }

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn arguments_are_read() {
        let cli = parse("tlb --log-level debug run -c a.toml --workers 4").expect("fine");
        assert_eq!(cli.log_level, Some(LogLevel::Debug));
        let Command::Run(run) = cli.command else {
            panic!("{cli:?}")
        };
        assert_eq!(run.workers, Some(4));
        assert_eq!(run.config.path, PathBuf::from("a.toml"));

        let cli = parse("tlb check --config b.json --log-level off").expect("fine");
        assert_eq!(cli.log_level, Some(LogLevel::Off));
        let Command::Check(check) = cli.command else {
            panic!("{cli:?}")
        };
        assert_eq!(check.config.path, PathBuf::from("b.json"));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for line in [
            "tlb",
            "tlb serve",
            "tlb run -c a --workers 0",
            "tlb run -c a --workers 1025",
            "tlb check -c a --workers 1",
            "tlb run -c",
            "tlb demo -c a",
            "tlb --log-level loud demo",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        assert_eq!(parse("tlb --version").expect_err("shown").exit_code(), 0);
        assert_eq!(parse("tlb -V").expect_err("shown").exit_code(), 0);
        assert_eq!(parse("tlb run --help").expect_err("shown").exit_code(), 0);
    }
}
