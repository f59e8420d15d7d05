//! `tlb ctl`: asks a running tlb over its admin API, and shows what it says.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use serde::de::DeserializeOwned;

use super::args::{Ctl, SessionsArgs, Verb};
use super::{EXIT_UNAVAILABLE, complain};

pub(super) use self::client::Target;
use self::client::{Answer, Method, Request, Unreachable};

mod client;
mod show;

/// Holds the token, where no file is named.
const TOKEN: &str = "TLB_ADMIN_TOKEN";

/// Why it did not do what it was asked.
#[derive(Debug, thiserror::Error)]
enum CtlError {
    /// No answer came.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// tlb says no.
    #[error("{text}{}", help.as_ref().map(|help| format!("\n  = help: {help}")).unwrap_or_default())]
    Refused {
        /// What it says.
        text: String,
        /// What may be done about it.
        help: Option<String>,
    },
    /// What came is not the API's.
    #[error(
        "{0} does not answer as tlb's admin API does: {1}\n  = help: does --admin name a tlb of this version?"
    )]
    Strange(Target, String),
    /// The token cannot be had.
    #[error(
        "cannot read the token file {0}: {1}\n  = help: let the user that runs tlb ctl read it, or set {TOKEN}"
    )]
    TokenFile(String, io::Error),
    /// The token cannot be sent.
    #[error(
        "the token has characters that cannot be sent in a header\n  = help: is this the file that holds it?"
    )]
    TokenText,
    /// The answer cannot be shown.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

impl CtlError {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Unreachable(_) => ExitCode::from(EXIT_UNAVAILABLE),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Does what the command line says.
pub(super) fn main(asked: &Ctl) -> ExitCode {
    match run(asked) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("error: {error}"));
            error.exit_code()
        }
    }
}

fn run(asked: &Ctl) -> Result<(), CtlError> {
    let request = request(&asked.verb, token(asked.token_file.as_deref())?);
    let answer = client::ask(&asked.admin, &request)?;
    let body = succeeded(&asked.admin, &request, &answer)?;
    let text = if asked.json {
        format!("{}\n", body.trim_end_matches('\n'))
    } else {
        table(&asked.verb, body).map_err(|error| strange(&asked.admin, error))?
    };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => Ok(()),
        // Whoever reads has seen enough, as `head` has.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(CtlError::Output(error)),
    }
}

/// The token to present, if there is one.
fn token(file: Option<&Path>) -> Result<Option<String>, CtlError> {
    let token = match file {
        Some(path) => Some(
            fs::read_to_string(path)
                .map_err(|error| CtlError::TokenFile(path.display().to_string(), error))?,
        ),
        None => env::var(TOKEN).ok(),
    };
    let token = token.map(|text| text.trim().to_owned());
    let token = token.filter(|text| !text.is_empty());
    if token
        .as_ref()
        .is_some_and(|text| !text.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        return Err(CtlError::TokenText);
    }
    Ok(token)
}

fn request(verb: &Verb, token: Option<String>) -> Request {
    let backend = |args: &super::args::BackendArgs, verb| {
        let pool = client::encode(&args.pool);
        let backend = client::encode(&args.backend);
        let path = format!("/v1/pools/{pool}/backends/{backend}/{verb}");
        (Method::Post, path)
    };
    let (method, path) = match verb {
        Verb::Pools | Verb::Backends { pool: None } => (Method::Get, "/v1/pools".to_owned()),
        Verb::Backends { pool: Some(pool) } => {
            let path = format!("/v1/pools/{}", client::encode(pool));
            (Method::Get, path)
        }
        Verb::Listeners => (Method::Get, "/v1/listeners".to_owned()),
        Verb::Sessions(args) => (Method::Get, sessions_path(args)),
        Verb::Drain(args) => backend(args, "drain"),
        Verb::Ready(args) => backend(args, "ready"),
        Verb::Maint(args) => backend(args, "maint"),
        Verb::Reload => (Method::Post, "/v1/config/reload".to_owned()),
    };
    Request {
        method,
        path,
        token,
    }
}

fn sessions_path(args: &SessionsArgs) -> String {
    let limit = args.limit.map(|limit| limit.to_string());
    let parts = [
        ("listener", &args.listener),
        ("pool", &args.pool),
        ("backend", &args.backend),
        ("limit", &limit),
    ];
    let mut path = "/v1/sessions".to_owned();
    let mut before = '?';
    for (name, value) in parts {
        if let Some(value) = value {
            path.push(before);
            path.push_str(name);
            path.push('=');
            path.push_str(&client::encode(value));
            before = '&';
        }
    }
    path
}

/// The body of an answer that is a success.
fn succeeded<'a>(
    target: &Target,
    request: &Request,
    answer: &'a Answer,
) -> Result<&'a str, CtlError> {
    let body = std::str::from_utf8(&answer.body).map_err(|error| strange(target, error))?;
    if answer.status == 200 {
        return Ok(body);
    }
    let problem: crate::control::admin::Problem = serde_json::from_str(body)
        .map_err(|_| strange(target, format_args!("status {}", answer.status)))?;
    let help = match answer.status {
        401 if request.token.is_none() => Some(format!(
            "name the file that holds the token with --token-file, or set {TOKEN}"
        )),
        401 => Some("compare it with `token` or `token-file` of tlb's [admin] table".to_owned()),
        404 => Some("see what there is with: tlb ctl backends".to_owned()),
        _ => None,
    };
    let text = problem.error;
    Err(CtlError::Refused { text, help })
}

fn strange(target: &Target, why: impl ToString) -> CtlError {
    CtlError::Strange(target.clone(), why.to_string())
}

/// An answer for people.
fn table(verb: &Verb, body: &str) -> serde_json::Result<String> {
    Ok(match verb {
        Verb::Pools => show::pools(&read::<Vec<_>>(body)?),
        Verb::Backends { pool: None } => show::backends(&read::<Vec<_>>(body)?),
        Verb::Backends { pool: Some(_) } => show::backends(&[read(body)?]),
        Verb::Listeners => show::listeners(&read::<Vec<_>>(body)?),
        Verb::Sessions(_) => show::sessions(&read(body)?),
        Verb::Drain(args) | Verb::Ready(args) | Verb::Maint(args) => {
            show::backend(&args.pool, &read(body)?)
        }
        Verb::Reload => show::reload(&read(body)?),
    })
}

fn read<T: DeserializeOwned>(body: &str) -> serde_json::Result<T> {
    serde_json::from_str(body)
}
