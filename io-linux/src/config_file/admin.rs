//! `[admin]` and `[session-log]`: what tlb shows of itself.

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::diagnostic::quote;
use super::reader;
use super::report::Report;
use super::table::{ADMIN, SESSION_LOG, Table, nearest};
use super::tree::Node;
use super::values::{self, Problem};
use super::{
    AdminBind, AdminSettings, ListenerSettings, SessionLogFormat, SessionLogSettings,
    SessionLogTarget, listeners,
};

/// Default of `admin.bind`.
pub(super) const SOCKET: &str = "/run/tlb/admin.sock";
/// Default of `admin.mode`.
pub(super) const MODE: u32 = 0o660;
/// Least and most bytes of a token.
const TOKEN: (usize, usize) = (16, 1024);
/// Most bytes of the path of a unix socket: what `sun_path` holds, less its end.
const SOCKET_PATH_MAX: usize = 107;

/// `bind` before `mode` is known.
enum Bind {
    Unix(Box<Path>),
    Tcp(SocketAddr),
}

/// Reads `[admin]`. It must not be where a listener is.
pub(super) fn read(
    node: &Node,
    listeners: &[ListenerSettings],
    report: &mut Report<'_>,
) -> Option<AdminSettings> {
    let table = Table::of(&ADMIN, node, report)?;
    let bind_node = table.take("bind");
    let bind = match bind_node {
        Some(node) => reader::parsed(node, "\"127.0.0.1:16061\"", bind, report),
        None => Some(Bind::Unix(Path::new(SOCKET).into())),
    };
    let mode_node = table.take("mode");
    let mode = mode_node.map_or(Some(MODE), |node| {
        reader::parsed(node, "\"0660\"", mode, report)
    });
    let token = token(&table, report);
    let bind_span = table.span_of("bind");
    table.finish(report);
    let (bind, mode, token) = (bind?, mode?, token.ok()?);
    let bind = match bind {
        Bind::Unix(path) => {
            if let (Some(node), true, None) = (mode_node, mode & 0o002 != 0, &token) {
                report
                    .warning(&node.span, "every user of this host may drain backends")
                    .help("set mode = \"0660\", or a token");
            }
            AdminBind::Unix { path, mode }
        }
        Bind::Tcp(address) => {
            if let Some(node) = mode_node {
                report
                    .error(&node.span, "a mode, which only a unix socket has")
                    .help("remove `mode`, or set bind = \"unix:/run/tlb/admin.sock\"");
            }
            if token.is_none() && !address.ip().to_canonical().is_loopback() {
                report
                    .error(
                        &bind_span,
                        format!("anyone who reaches {address} could command tlb"),
                    )
                    .help("add a `token` or `token-file`, or bind to \"127.0.0.1:16061\"");
            }
            let taken = |other: &&ListenerSettings| listeners::overlap(other.bind, address);
            if let Some(other) = listeners.iter().find(taken) {
                let name = quote(&other.engine.name);
                report
                    .error(
                        &bind_span,
                        format!("the listener {name} is on {} already", other.bind),
                    )
                    .help("give one of the two another port");
            }
            AdminBind::Tcp(address)
        }
    };
    Some(AdminSettings { bind, token })
}

/// Reads where the API listens.
fn bind(text: &str) -> Result<Bind, Problem> {
    const WHAT: &str = "not a place for the admin API";
    let problem = |help: &str| Problem {
        message: WHAT.to_owned(),
        help: help.to_owned(),
    };
    let Some(path) = text.strip_prefix("unix:") else {
        if text.starts_with('/') {
            return Err(problem(&format!(
                "for a unix socket, write \"unix:{text}\""
            )));
        }
        return values::bind(text).map(Bind::Tcp).map_err(|found| Problem {
            message: WHAT.to_owned(),
            help: format!("{}; or a path, as in \"unix:{SOCKET}\"", found.help),
        });
    };
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        return Err(problem(
            "write an absolute path, as in \"unix:/run/tlb/admin.sock\"",
        ));
    }
    if path.len() > SOCKET_PATH_MAX {
        return Err(problem("the kernel takes paths of up to 107 bytes"));
    }
    Ok(Bind::Unix(Path::new(path).into()))
}

/// Reads the permissions of a socket, as `chmod` takes them.
fn mode(text: &str) -> Result<u32, Problem> {
    let octal =
        (3..=4).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let mode = u32::from_str_radix(text, 8).ok().filter(|_| octal);
    mode.filter(|mode| *mode <= 0o777).ok_or_else(|| Problem {
        message: "not the mode of a socket".to_owned(),
        help: "write three octal digits after a zero, as in \"0660\"".to_owned(),
    })
}

/// The token, from the file itself or from the one that it names. `Err` if it is wrong, which is
/// noted.
fn token(table: &Table<'_>, report: &mut Report<'_>) -> Result<Option<Box<str>>, ()> {
    let given = table.take("token");
    if let Some(node) = given {
        report.hide(&node.span);
    }
    let (node, text) = match (given, table.take("token-file")) {
        (None, None) => return Ok(None),
        (Some(first), Some(second)) => {
            report
                .error(
                    &second.span,
                    "a `token-file` where there is a `token` already",
                )
                .help("remove one of the two: a file can be kept from other users' eyes")
                .see("the token", &first.span);
            return Err(());
        }
        (Some(node), None) => {
            let text = reader::string(node, "\"a long secret word\"", report).ok_or(())?;
            (node, text.to_owned())
        }
        (None, Some(node)) => (node, read_token(node, report).ok_or(())?),
    };
    let message = if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        "a token with blanks or other than printable ASCII"
    } else if text.len() < TOKEN.0 {
        "a token that is too short"
    } else if text.len() > TOKEN.1 {
        "a token that is too long"
    } else {
        return Ok(Some(text.into()));
    };
    report.error(&node.span, message).help(
        "a token has 16 to 1024 bytes of printable ASCII without blanks: openssl rand -hex 32",
    );
    Err(())
}

/// What is in the file that a `token-file` names, without the newline at its end.
fn read_token(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let path = reader::string(node, "\"/etc/tlb/token\"", report)?;
    let read = || -> io::Result<(String, u32)> {
        let file = File::open(path)?;
        let mode = file.metadata()?.permissions().mode();
        let mut text = String::new();
        // One byte and a line's end over what is allowed, so that it is seen to be too long.
        file.take(TOKEN.1 as u64 + 3).read_to_string(&mut text)?;
        Ok((text, mode))
    };
    match read() {
        Ok((text, mode)) => {
            if mode & 0o004 != 0 {
                report
                    .warning(&node.span, "every user of this host can read the token")
                    .help(format!("chmod o-r {path}"));
            }
            let text = text.strip_suffix('\n').unwrap_or(&text);
            Some(text.strip_suffix('\r').unwrap_or(text).to_owned())
        }
        Err(error) => {
            report
                .error(&node.span, format!("cannot read {}: {error}", quote(path)))
                .help("let the user that runs tlb read it; openssl rand -hex 32 makes a token");
            None
        }
    }
}

/// Reads `[session-log]`.
pub(super) fn session_log(node: &Node, report: &mut Report<'_>) -> Option<SessionLogSettings> {
    let table = Table::of(&SESSION_LOG, node, report)?;
    let formats = [
        ("json", SessionLogFormat::Json),
        ("haproxy", SessionLogFormat::Haproxy),
    ];
    let format = table.get("format", formats[0].1, report, |node, report| {
        reader::word(node, &formats, report)
    });
    let to = table.get("to", SessionLogTarget::Stdout, report, |node, report| {
        reader::parsed(node, "\"stdout\"", target, report)
    });
    table.finish(report);
    Some(SessionLogSettings { format, to })
}

/// Reads where the session log goes. A path has a slash, so that a misspelt word is none.
fn target(text: &str) -> Result<SessionLogTarget, Problem> {
    if text == "stdout" {
        return Ok(SessionLogTarget::Stdout);
    }
    if text.contains('/') && !text.ends_with('/') && !text.contains('\0') {
        return Ok(SessionLogTarget::File(Path::new(text).into()));
    }
    let help = if nearest(text, ["stdout"]).is_some() {
        "did you mean \"stdout\"?"
    } else {
        "write \"stdout\" or a path with a `/`, as in \"/var/log/tlb/sessions.log\""
    };
    Err(Problem {
        message: "not a place for a log".to_owned(),
        help: help.to_owned(),
    })
}
