//! One HTTP request to the admin API.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::{runtime, time};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the whole answer may take. The server's own limit is shorter.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes of an answer. The longest is the list of sessions.
const ANSWER_MAX: usize = 64 << 20;

/// Where an admin API is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Target {
    /// A unix socket.
    Unix(PathBuf),
    /// A host, by name or address, and a port, as in `host:port`.
    Tcp(String),
}

impl FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err("unix: is followed by the socket's path")
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let Some(authority) = text.strip_prefix("http://") else {
            return Err("expected unix:/path or http://host:port");
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = authority.rsplit_once(':').ok_or("the port is missing")?;
        if port.parse::<u16>().is_err() {
            return Err("the port is to be a number up to 65535");
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        if host.is_empty() || !host.bytes().all(plain) {
            return Err("the host is to be a name or an address, an IPv6 one in brackets");
        }
        Ok(Self::Tcp(authority.to_owned()))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(authority) => write!(f, "http://{authority}"),
        }
    }
}

/// How a request is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// It changes nothing.
    Get,
    /// It changes something.
    Post,
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    /// Encoded, with its query.
    pub(super) path: String,
    /// ASCII without white space.
    pub(super) token: Option<String>,
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

/// No answer came.
#[derive(Debug, thiserror::Error)]
#[error("{what} {target}: {cause}\n  = help: {help}", help = self.help())]
pub(super) struct Unreachable {
    what: &'static str,
    target: Target,
    cause: io::Error,
}

impl Unreachable {
    /// What may be done about it.
    fn help(&self) -> String {
        let place = match &self.target {
            Target::Unix(_) => "its path",
            Target::Tcp(_) => "its address",
        };
        match self.cause.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => format!(
                "does tlb run, with an [admin] table in its configuration? name {place} with --admin, or set TLB_ADMIN"
            ),
            io::ErrorKind::PermissionDenied => {
                "join the group that owns the socket, or become root: see `mode` of the [admin] table".to_owned()
            }
            io::ErrorKind::TimedOut => "see tlb's log, and whether its process is stopped".to_owned(),
            _ => format!("does --admin name {place}?"),
        }
    }
}

/// Sends a request and waits for the answer.
pub(super) fn ask(target: &Target, request: &Request) -> Result<Answer, Unreachable> {
    ask_within(ANSWER_TIMEOUT, target, request)
}

/// [`ask`], with a limit for the answer.
fn ask_within(limit: Duration, target: &Target, request: &Request) -> Result<Answer, Unreachable> {
    let unreachable = |what, cause| Unreachable {
        what,
        target: target.clone(),
        cause,
    };
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| unreachable("cannot begin to connect to", error))?;
    let no_connection = |error| unreachable("cannot connect to", error);
    let answer = runtime.block_on(async {
        Ok(match target {
            Target::Unix(path) => {
                let connect = UnixStream::connect(path);
                let stream = within(CONNECT_TIMEOUT, connect)
                    .await
                    .map_err(no_connection)?;
                within(limit, converse(stream, "localhost", request)).await
            }
            Target::Tcp(authority) => {
                let connect = TcpStream::connect(authority);
                let stream = within(CONNECT_TIMEOUT, connect)
                    .await
                    .map_err(no_connection)?;
                within(limit, converse(stream, authority, request)).await
            }
        })
    })?;
    answer.map_err(|error| unreachable("no answer from", error))
}

/// A future's result, or that it took too long.
async fn within<T>(limit: Duration, future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| {
        let text = format!("nothing within {limit:?}");
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    };
    time::timeout(limit, future).await.unwrap_or_else(late)
}

/// One request and its answer.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    host: &str,
    request: &Request,
) -> io::Result<Answer> {
    let (mut sender, connection) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(cause)?;
    let method = match request.method {
        Method::Get => hyper::Method::GET,
        Method::Post => hyper::Method::POST,
    };
    let mut head = hyper::Request::builder()
        .method(method)
        .uri(&request.path)
        .header(header::HOST, host);
    if let Some(token) = &request.token {
        head = head.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = head.body(Empty::new()).map_err(io::Error::other)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(cause)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_MAX);
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Answer { status, body })
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // It ends when the answer is complete, too: what there is of it decides.
        _ = connection => exchange.await,
    }
}

/// What an error of hyper stems from, which says more than it does.
fn cause(error: hyper::Error) -> io::Error {
    match error
        .source()
        .and_then(|cause| cause.downcast_ref::<io::Error>())
    {
        Some(cause) => io::Error::new(cause.kind(), cause.to_string()),
        None => io::Error::other(error),
    }
}

/// A part of a path or of a query, encoded.
pub(super) fn encode(part: &str) -> String {
    let mut encoded = String::with_capacity(part.len());
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read() {
        for (text, shown) in [
            ("unix:/run/tlb/admin.sock", "unix:/run/tlb/admin.sock"),
            ("unix:relative", "unix:relative"),
            ("http://127.0.0.1:16061", "http://127.0.0.1:16061"),
            ("http://localhost:1/", "http://localhost:1"),
            ("http://[::1]:16061", "http://[::1]:16061"),
        ] {
            let target: Target = text.parse().expect(text);
            assert_eq!(target.to_string(), shown);
        }
        for text in [
            "",
            "/run/tlb/admin.sock",
            "unix:",
            "https://127.0.0.1:1",
            "http://",
            "http://:1",
            "http://a",
            "http://a:",
            "http://a:65536",
            "http://a:1/path",
            "http://a b:1",
            "http://a\r\nX: y:1",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn who_does_not_answer_is_not_waited_for() {
        // The kernel takes connections for it, and that is all.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = silent.local_addr().expect("bound");
        let request = Request {
            method: Method::Get,
            path: "/v1/pools".to_owned(),
            token: None,
        };
        let target = Target::Tcp(address.to_string());
        let limit = Duration::from_millis(50);
        let error = ask_within(limit, &target, &request).expect_err("nobody answers");
        assert_eq!(error.cause.kind(), io::ErrorKind::TimedOut);
        let text = error.to_string();
        let expected = format!("no answer from http://{address}: nothing within 50ms");
        assert!(text.starts_with(&expected), "{text}");
        assert!(text.contains("help: see tlb's log"), "{text}");
    }

    #[test]
    fn parts_are_encoded() {
        assert_eq!(encode("a-b._~Z9"), "a-b._~Z9");
        assert_eq!(encode("a/b ?&=%\u{e4}"), "a%2Fb%20%3F%26%3D%25%C3%A4");
    }
}
