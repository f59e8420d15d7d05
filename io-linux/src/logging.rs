//! Logs: one line each on standard error.

use std::env;
use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Sets up the process's logs, unless the program that uses this library has done so.
///
/// `level` is the most detailed level shown. Without one, the environment variable `RUST_LOG` says
/// what is shown, per module if wanted, as in `tlb=debug`; without that, it is `info`. Lines are
/// coloured on a terminal, if `NO_COLOR` is not set.
pub(crate) fn init(level: Option<LevelFilter>) {
    let (filter, refused) = filter(level, env::var("RUST_LOG").ok().as_deref());
    let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let set_up = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && !no_color)
        .try_init();
    if let (Ok(()), Some(error)) = (set_up, refused) {
        tracing::warn!("RUST_LOG is not understood, and info is used instead: {error}");
    }
}

/// What is shown, and what is wrong with `variable`, if it is not.
fn filter(level: Option<LevelFilter>, variable: Option<&str>) -> (EnvFilter, Option<String>) {
    let plain = |level: LevelFilter| EnvFilter::default().add_directive(level.into());
    match (level, variable) {
        (Some(level), _) => (plain(level), None),
        (None, None | Some("")) => (plain(LevelFilter::INFO), None),
        (None, Some(variable)) => match EnvFilter::builder().parse(variable) {
            Ok(filter) => (filter, None),
            Err(error) => (plain(LevelFilter::INFO), Some(error.to_string())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_argument_wins_over_the_variable_and_that_over_the_default() {
        let shown = |level, variable| {
            let (filter, refused) = filter(level, variable);
            (filter.to_string(), refused.is_some())
        };
        assert_eq!(shown(None, None), ("info".to_owned(), false));
        assert_eq!(shown(None, Some("")), ("info".to_owned(), false));
        assert_eq!(
            shown(None, Some("tlb=debug")),
            ("tlb=debug".to_owned(), false)
        );
        assert_eq!(shown(None, Some("tlb=loud")), ("info".to_owned(), true));
        assert_eq!(
            shown(Some(LevelFilter::OFF), Some("debug")),
            ("off".to_owned(), false)
        );
    }
}
