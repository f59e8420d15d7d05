//! The admin API: HTTP/1.1 over a unix socket or TCP, served on the control thread.
//!
//! Its clients are trusted to administer tlb once they have shown the token (or reached the socket), and not trusted
//! to be quick or to be few: every connection and every request is bounded by [`Limits`].

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time;

use self::gate::Gate;
pub(crate) use self::listener::AdminListener;
use self::listener::Stream;
pub(crate) use self::problem::Problem;
pub(crate) use self::routes::SESSIONS_MAX;
use super::command::Handle;

mod gate;
mod listener;
mod problem;
mod routes;
#[cfg(test)]
mod tests;

/// Most bytes of a request's head: the request line and its headers. Beyond it hyper answers 431.
const HEAD_MAX: usize = 16 << 10;
/// How long accepting rests after it failed: descriptors may have run out, and come back with time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the server grants its clients.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Most connections at a time: those beyond it wait in the kernel's queue.
    connections: usize,
    /// How long a client may take for a request's head, and rest between requests. Then its connection is closed.
    head: Duration,
    /// How long a client may take for a request's body. Then it gets 408.
    body: Duration,
    /// Most bytes of a request's body. No request needs one; beyond it there is 413.
    body_bytes: usize,
    /// How long an answer may take to be made. Then there is 503.
    answer: Duration,
    /// How long a connection takes new requests. This also bounds a client that does not read its answers.
    lifetime: Duration,
    /// How long a connection's last answer may take after that.
    farewell: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            body_bytes: 64 << 10,
            answer: Duration::from_secs(30),
            lifetime: Duration::from_secs(300),
            farewell: Duration::from_secs(30),
        }
    }
}

/// Serves until the future is dropped: then its connections end with it, and the unix socket's file is removed.
///
/// Needs a tokio runtime with I/O and time.
///
/// # Errors
/// The listener cannot be made part of the runtime.
pub(crate) async fn serve(listener: AdminListener, handle: Handle) -> std::io::Result<Infallible> {
    serve_within(listener, handle, Limits::default()).await
}

/// [`serve`], with limits.
async fn serve_within(
    mut listener: AdminListener,
    handle: Handle,
    limits: Limits,
) -> std::io::Result<Infallible> {
    let gate = Gate::new(listener.token(), limits);
    let app = routes::router(handle, gate);
    let listener = listener.start()?;
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        let place = places.clone().acquire_owned().await;
        match listener.accept().await {
            Ok(stream) => {
                let app = app.clone();
                connections.spawn(async move {
                    let _place = place;
                    match stream {
                        Stream::Unix(stream) => converse(stream, app, limits).await,
                        Stream::Tcp(stream) => converse(stream, app, limits).await,
                    }
                });
            }
            Err(error) => {
                tracing::warn!("the admin API cannot accept: {error}");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
        // What has ended is not kept.
        while connections.try_join_next().is_some() {}
    }
}

/// Serves one connection to its end.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    app: Router,
    limits: Limits,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    tokio::pin!(connection);
    // How a client leaves is its own affair: an error here concerns nobody else.
    if time::timeout(limits.lifetime, connection.as_mut())
        .await
        .is_err()
    {
        connection.as_mut().graceful_shutdown();
        let _ = time::timeout(limits.farewell, connection).await;
    }
}
