//! One probe of a backend: a connection, and perhaps a question and its answer.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tlb_engine::api::Fault;
use tlb_engine::fleet::ProbeOutcome;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config_file::{Expect, ProbeKind};
use crate::fault;

/// Most bytes of an answer that are looked at.
const ANSWER_MAX: usize = 64 << 10;
/// Most bytes of a status line.
const STATUS_MAX: usize = 8 << 10;
/// How much of an answer the log shows.
const SHOWN: usize = 32;

/// Asks a backend once. Takes as long as the backend does: whoever asks drops the future when the
/// time is over, which closes the connection.
///
/// The connection ends by a reset, as those of other load balancers' checks do: a probe every
/// second must leave no socket behind in `TIME_WAIT`.
pub(super) async fn probe(kind: &ProbeKind, to: SocketAddr) -> ProbeOutcome {
    match ask(kind, to).await {
        Ok(Ok(())) => ProbeOutcome::Passed,
        Ok(Err(what)) => ProbeOutcome::Failed(what.into()),
        Err(error) => {
            let fault = fault::of(&error);
            let text = match fault {
                Fault::Other(_) => error.to_string(),
                known => known.to_string(),
            };
            if fault.is_local() {
                ProbeOutcome::Inconclusive(text.into())
            } else {
                ProbeOutcome::Failed(text.into())
            }
        }
    }
}

/// What the network says, and what the answer says.
async fn ask(kind: &ProbeKind, to: SocketAddr) -> io::Result<Result<(), String>> {
    let mut stream = TcpStream::connect(to).await?;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    match kind {
        ProbeKind::Tcp => Ok(Ok(())),
        ProbeKind::Exchange { send, expect } => {
            // A backend that answers before it has read the question is not waited for.
            let (mut reader, mut writer) = stream.split();
            let answered = decide(&mut reader, ANSWER_MAX, |answer, ended| {
                judge(expect, answer, ended)
            });
            tokio::pin!(answered);
            tokio::select! {
                biased;
                decided = &mut answered => return decided,
                written = writer.write_all(send) => written?,
            }
            answered.await
        }
        ProbeKind::Http { path, host, status } => {
            let host = host
                .as_deref()
                .map_or_else(|| to.to_string(), str::to_owned);
            let question = format!(
                "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tlb\r\nAccept: */*\r\n\
                 Connection: close\r\n\r\n"
            );
            stream.write_all(question.as_bytes()).await?;
            decide(&mut stream, STATUS_MAX, |answer, ended| {
                judge_status(*status, answer, ended)
            })
            .await
        }
    }
}

/// Reads until `judge` has an opinion about what came, at the latest when the stream has ended or
/// `most` bytes have come.
async fn decide(
    stream: &mut (impl AsyncReadExt + Unpin),
    most: usize,
    judge: impl Fn(&[u8], bool) -> Option<Result<(), String>>,
) -> io::Result<Result<(), String>> {
    let mut answer = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let room = chunk.len().min(most - answer.len());
        let read = stream.read(&mut chunk[..room]).await?;
        answer.extend_from_slice(&chunk[..read]);
        let ended = read == 0 || answer.len() == most;
        if let Some(verdict) = judge(&answer, ended) {
            return Ok(verdict);
        }
        if ended {
            return Ok(Err("the answer is incomplete".to_owned()));
        }
    }
}

fn judge(expect: &Expect, answer: &[u8], ended: bool) -> Option<Result<(), String>> {
    match expect {
        Expect::Prefix(wanted) => {
            let seen = answer.len().min(wanted.len());
            if answer[..seen] != wanted[..seen] {
                let wanted = shown(wanted);
                return Some(Err(format!("expected {wanted}, got {}", shown(answer))));
            }
            if seen == wanted.len() {
                return Some(Ok(()));
            }
            ended.then(|| Err(format!("expected {}, got {}", shown(wanted), shown(answer))))
        }
        Expect::Regex(wanted) if wanted.is_match(answer) => Some(Ok(())),
        Expect::Regex(wanted) => {
            ended.then(|| Err(format!("expected /{wanted}/, got {}", shown(answer))))
        }
    }
}

/// The status line of HTTP/1 (RFC 9112, section 4).
fn judge_status(pass: (u16, u16), answer: &[u8], ended: bool) -> Option<Result<(), String>> {
    let line = answer
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();
    if line.len() == answer.len() && !ended {
        return None;
    }
    let refuse = || Some(Err(format!("expected HTTP, got {}", shown(answer))));
    let rest = line.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(1..));
    let code = rest.and_then(|rest| rest.strip_prefix(b" "));
    let Some(code) = code.and_then(|rest| rest.get(..3)) else {
        return refuse();
    };
    let code = std::str::from_utf8(code)
        .ok()
        .and_then(|code| code.parse::<u16>().ok());
    let Some(code) = code else {
        return refuse();
    };
    if (pass.0..=pass.1).contains(&code) {
        return Some(Ok(()));
    }
    Some(Err(format!("status {code}")))
}

/// The beginning of an answer, for the log.
fn shown(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "nothing".to_owned();
    }
    let more = if bytes.len() > SHOWN { "..." } else { "" };
    let start = &bytes[..bytes.len().min(SHOWN)];
    format!("\"{}\"{more}", start.escape_ascii())
}

#[cfg(test)]
mod tests;
