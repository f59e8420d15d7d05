//! What the command line may say.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};
use tracing_subscriber::filter::LevelFilter;

use super::ctl::Target;
use crate::control::admin::SESSIONS_MAX;

const EXIT_CODES: &str = "\
Exit codes:
   0  it did what was asked
   1  it failed while it ran
   2  the command line is wrong
  69  it cannot listen where the configuration says, or gets no answer from a tlb (ctl)
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
    /// shutdown-timeout, idle ones first; a second one closes them at once. SIGHUP reads the
    /// configuration anew: sessions go on as they began, and a wrong one changes nothing.
    #[command(after_help = EXIT_CODES)]
    Run(Run),

    /// Check a configuration: read it, and try whether its listeners can listen.
    ///
    /// Nothing is served. Each listener's port is opened for a moment, so that one that is taken
    /// (for example by a running tlb) or not permitted is found.
    #[command(after_help = EXIT_CODES)]
    Check(Check),

    /// Ask a running tlb, or tell it something, over its admin API.
    ///
    /// The API is there if the configuration has an [admin] table.
    #[command(after_help = EXIT_CODES, subcommand_required = true, arg_required_else_help = true)]
    Ctl(Ctl),

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

/// Arguments of `tlb ctl`.
#[derive(Debug, Args)]
pub(super) struct Ctl {
    /// Where the API is: unix:/path, or http://host:port.
    #[arg(long, global = true, value_name = "ADDRESS", env = "TLB_ADMIN", default_value = DEFAULT_ADMIN)]
    pub(super) admin: Target,

    /// File that holds the API's token; wins over the token in TLB_ADMIN_TOKEN.
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,

    /// Print the API's answer as it is, in JSON.
    #[arg(long, global = true)]
    pub(super) json: bool,

    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// Where `tlb run` offers the API if its [admin] table does not say.
const DEFAULT_ADMIN: &str = "unix:/run/tlb/admin.sock";

/// What a running tlb is asked or told.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Show the pools.
    Pools,
    /// Show the backends of one pool or of all.
    Backends {
        /// The pool's name.
        pool: Option<String>,
    },
    /// Show the listeners.
    Listeners,
    /// Show live sessions.
    Sessions(SessionsArgs),
    /// Give a backend no new sessions; it keeps those it has.
    ///
    /// Holds until tlb ends or is told otherwise, also over reloads.
    Drain(BackendArgs),
    /// Let a backend serve again.
    Ready(BackendArgs),
    /// Take a backend out of service: no new sessions, no probes, and its sessions end as the
    /// pool's on-down says.
    ///
    /// Holds until tlb ends or is told otherwise, also over reloads.
    Maint(BackendArgs),
    /// Read the configuration anew, as SIGHUP does: all of it is put to work, or nothing.
    Reload,
}

/// Which sessions.
#[derive(Debug, Args)]
pub(super) struct SessionsArgs {
    /// Only those of this listener.
    #[arg(long, value_name = "NAME")]
    pub(super) listener: Option<String>,
    /// Only those to this pool.
    #[arg(long, value_name = "NAME")]
    pub(super) pool: Option<String>,
    /// Only those to backends with this id.
    #[arg(long, value_name = "ID")]
    pub(super) backend: Option<String>,
    /// At most so many, 1 to 10000. [default: 1000]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=i64::from(SESSIONS_MAX)))]
    pub(super) limit: Option<u32>,
}

/// Which backend.
#[derive(Debug, Args)]
pub(super) struct BackendArgs {
    /// The pool's name.
    pub(super) pool: String,
    /// The backend's id.
    pub(super) backend: String,
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
    fn questions_to_a_running_tlb_are_read() {
        let cli = parse("tlb ctl drain stations a --json --admin http://localhost:16061");
        let Command::Ctl(ctl) = cli.expect("fine").command else {
            panic!("another command")
        };
        assert!(ctl.json);
        assert_eq!(ctl.admin.to_string(), "http://localhost:16061");
        let Verb::Drain(args) = ctl.verb else {
            panic!("{:?}", ctl.verb)
        };
        assert_eq!((&*args.pool, &*args.backend), ("stations", "a"));

        let cli = parse("tlb ctl --admin unix:/a/b sessions --limit 10000 --pool p");
        let Command::Ctl(ctl) = cli.expect("fine").command else {
            panic!("another command")
        };
        assert_eq!(ctl.admin.to_string(), "unix:/a/b");
        let Verb::Sessions(args) = ctl.verb else {
            panic!("{:?}", ctl.verb)
        };
        assert_eq!(
            (args.limit, args.pool.as_deref()),
            (Some(10_000), Some("p"))
        );
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
            "tlb ctl",
            "tlb ctl drain stations",
            "tlb ctl drain",
            "tlb ctl reload now",
            "tlb ctl sessions --limit 0",
            "tlb ctl sessions --limit 10001",
            "tlb ctl pools --admin ftp://host:1",
            "tlb ctl pools --admin unix:",
            "tlb ctl pools --admin http://host",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        assert_eq!(parse("tlb --version").expect_err("shown").exit_code(), 0);
        assert_eq!(parse("tlb -V").expect_err("shown").exit_code(), 0);
        assert_eq!(parse("tlb run --help").expect_err("shown").exit_code(), 0);
    }
}
