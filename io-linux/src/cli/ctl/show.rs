//! Answers of the admin API as tables for people.

use crate::control::view::{BackendView, ListenerView, PoolView, ReloadView, SessionsView};

/// What stands for something that is not there.
const NONE: &str = "-";
/// Between columns.
const GAP: &str = "  ";

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}
use Align::{Left, Right};

/// Rows under a heading.
struct Table<const N: usize> {
    heading: [(&'static str, Align); N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    const fn new(heading: [(&'static str, Align); N]) -> Self {
        Self {
            heading,
            rows: Vec::new(),
        }
    }

    /// The text: each column as wide as its widest cell.
    fn text(mut self) -> String {
        self.rows
            .insert(0, self.heading.map(|(name, _)| name.to_owned()));
        let mut widths = [0; N];
        for row in &mut self.rows {
            for (cell, width) in row.iter_mut().zip(&mut widths) {
                // Names and keys may hold anything; a terminal is not to obey them.
                *cell = cell.replace(char::is_control, "?");
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), (_, align)) in row.iter().zip(widths).zip(self.heading) {
                let padded = match align {
                    Left => format!("{cell:<width$}{GAP}"),
                    Right => format!("{cell:>width$}{GAP}"),
                };
                line.push_str(&padded);
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// One line for each pool.
pub(super) fn pools(pools: &[PoolView]) -> String {
    let mut table = Table::new([
        ("POOL", Left),
        ("POLICY", Left),
        ("UP", Right),
        ("BACKENDS", Right),
        ("SESSIONS", Right),
        ("PANIC", Left),
    ]);
    for pool in pools {
        let backends = pool.backends.iter();
        let up = backends.clone().filter(|backend| backend.state == "up");
        let sessions: u64 = backends.map(|backend| u64::from(backend.sessions)).sum();
        table.rows.push([
            pool.name.clone(),
            pool.policy.clone(),
            up.count().to_string(),
            pool.backends.len().to_string(),
            sessions.to_string(),
            if pool.panic { "yes" } else { "no" }.to_owned(),
        ]);
    }
    table.text()
}

/// One line for each backend of these pools.
pub(super) fn backends(pools: &[PoolView]) -> String {
    let mut table = backend_table();
    for pool in pools {
        let backends = pool.backends.iter();
        let rows = backends.map(|backend| backend_row(&pool.name, backend));
        table.rows.extend(rows);
    }
    table.text()
}

/// One backend.
pub(super) fn backend(pool: &str, backend: &BackendView) -> String {
    let mut table = backend_table();
    table.rows.push(backend_row(pool, backend));
    table.text()
}

const fn backend_table() -> Table<12> {
    Table::new([
        ("POOL", Left),
        ("BACKEND", Left),
        ("ADDRESS", Left),
        ("WEIGHT", Right),
        ("STATE", Left),
        ("FOR", Right),
        ("ADMIN", Left),
        ("SESSIONS", Right),
        ("TOTAL", Right),
        ("FORWARD", Right),
        ("RETURN", Right),
        ("LAST PROBE", Left),
    ])
}

fn backend_row(pool: &str, backend: &BackendView) -> [String; 12] {
    [
        pool.to_owned(),
        backend.id.clone(),
        or_none(backend.address.as_ref()),
        backend.weight.to_string(),
        backend.state.clone(),
        age(backend.state_seconds),
        backend.admin.clone(),
        backend.sessions.to_string(),
        backend.sessions_total.to_string(),
        size(backend.bytes_forward),
        size(backend.bytes_return),
        or_none(backend.last_probe.as_ref()),
    ]
}

/// One line for each listener.
pub(super) fn listeners(listeners: &[ListenerView]) -> String {
    let mut table = Table::new([
        ("LISTENER", Left),
        ("ADDRESS", Left),
        ("POOL", Left),
        ("SESSIONS", Right),
        ("MOST", Right),
        ("TOTAL", Right),
    ]);
    for listener in listeners {
        table.rows.push([
            listener.name.clone(),
            listener.address.clone(),
            listener.pool.clone(),
            listener.sessions.to_string(),
            listener.max_sessions.to_string(),
            listener.sessions_total.to_string(),
        ]);
    }
    table.text()
}

/// One line for each session, and how many there are if these are not all.
pub(super) fn sessions(view: &SessionsView) -> String {
    let mut table = Table::new([
        ("SESSION", Left),
        ("LISTENER", Left),
        ("CLIENT", Left),
        ("POOL", Left),
        ("BACKEND", Left),
        ("KEY", Left),
        ("PHASE", Left),
        ("FORWARD", Right),
        ("RETURN", Right),
        ("AGE", Right),
        ("IDLE", Right),
    ]);
    for session in &view.sessions {
        table.rows.push([
            session.id.clone(),
            session.listener.clone(),
            session.client.clone(),
            session.pool.clone(),
            or_none(session.backend.as_ref()),
            or_none(session.key.as_ref()),
            session.phase.clone(),
            size(session.bytes_forward),
            size(session.bytes_return),
            age(session.age_seconds),
            age(session.idle_seconds),
        ]);
    }
    let mut text = table.text();
    let shown = view.sessions.len();
    if view.total > shown as u64 {
        let note = format!("{shown} of {}; see more with --limit\n", view.total);
        text.push_str(&note);
    }
    text
}

/// What a reload changed, a line each.
pub(super) fn reload(view: &ReloadView) -> String {
    let mut text = format!("configuration {} is at work\n", view.generation);
    for (what, names) in [
        ("listeners added", &view.listeners_added),
        ("listeners removed", &view.listeners_removed),
        ("pools added", &view.pools_added),
        ("pools removed", &view.pools_removed),
        ("backends added", &view.backends_added),
        ("backends removed", &view.backends_removed),
    ] {
        if !names.is_empty() {
            let names = names.join(", ").replace(char::is_control, "?");
            text.push_str(&format!("{what}: {names}\n"));
        }
    }
    for warning in &view.warnings {
        text.push_str(&format!("{warning}\n"));
    }
    text
}

fn or_none(text: Option<&String>) -> String {
    text.map_or(NONE, String::as_str).to_owned()
}

/// Bytes in powers of 1024, cut to two digits or to whole units: `1023`, `9.8k`, `10M`.
fn size(bytes: u64) -> String {
    let mut unit = 1_u64;
    for name in ["", "k", "M", "G", "T"] {
        let next = unit << 10;
        if bytes < next {
            let (whole, tenths) = (bytes / unit, bytes % unit * 10 / unit);
            return if unit == 1 || whole >= 10 {
                format!("{whole}{name}")
            } else {
                format!("{whole}.{tenths}{name}")
            };
        }
        unit = next;
    }
    format!("{}P", bytes / unit)
}

/// Seconds, in their two largest units: `59s`, `1m0s`, `2h5m`, `3d4h`.
fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    if days > 0 {
        format!("{days}d{}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h{}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m{}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_are_short() {
        for (bytes, text) in [
            (0, "0"),
            (1_023, "1023"),
            (1_024, "1.0k"),
            (10_239, "9.9k"),
            (10_240, "10k"),
            (1_048_575, "1023k"),
            (1_048_576, "1.0M"),
            (5 << 40, "5.0T"),
            (u64::MAX, "16383P"),
        ] {
            assert_eq!(size(bytes), text);
        }
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m0s"),
            (3_599, "59m59s"),
            (7_500, "2h5m"),
            (273_600, "3d4h"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn columns_are_aligned_and_no_terminal_is_commanded() {
        let mut table = Table::new([("NAME", Left), ("N", Right), ("LAST", Left)]);
        let row = |name: &str, number: &str| [name, number, ""].map(str::to_owned);
        table.rows.push(row("a\u{1b}[2Jb", "7"));
        table.rows.push(row("\u{e4}", "1234"));
        assert_eq!(
            table.text(),
            "NAME       N  LAST\na?[2Jb     7\n\u{e4}       1234\n"
        );
    }
}
