//! What every request passes before it is answered: its origin, its token, its body.

use std::error::Error;

use axum::body::{self, Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http_body_util::LengthLimitError;
use subtle::ConstantTimeEq as _;
use tokio::time;

use super::Limits;
use super::problem::Failure;

/// Paths that need no token: what asks there is often unable to present one, and learns nothing but yes or no.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

/// Decides which requests get through.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    token: Option<Box<str>>,
    limits: Limits,
}

impl Gate {
    pub(super) const fn new(token: Option<Box<str>>, limits: Limits) -> Self {
        Self { token, limits }
    }

    /// Whether clients must present a token.
    pub(super) const fn needs_token(&self) -> bool {
        self.token.is_some()
    }

    /// What the request gets if it may not be answered.
    fn refusal(&self, path: &str, headers: &HeaderMap) -> Option<Response> {
        // Browsers set it, programs do not. Without this, any web page that an operator opens could command a tlb on
        // the operator's loopback.
        if headers.contains_key(header::ORIGIN) {
            let text = "requests of web pages are not answered";
            return Some(Failure::new(StatusCode::FORBIDDEN, text).into_response());
        }
        let token = self.token.as_ref().filter(|_| !OPEN.contains(&path))?;
        let (text, challenge) = match presented(headers) {
            Some(shown) if bool::from(shown.as_bytes().ct_eq(token.as_bytes())) => return None,
            Some(_) => (
                "this is not the token",
                r#"Bearer realm="tlb", error="invalid_token""#,
            ),
            None => (
                "a token is needed: Authorization: Bearer ...",
                r#"Bearer realm="tlb""#,
            ),
        };
        let mut response = Failure::new(StatusCode::UNAUTHORIZED, text).into_response();
        let challenge = HeaderValue::from_static(challenge);
        let headers = response.headers_mut();
        headers.insert(header::WWW_AUTHENTICATE, challenge);
        Some(response)
    }

    /// Reads the body and throws it away: nothing needs one, and a connection can be used again only when it is read.
    async fn swallow(&self, body: Body) -> Result<(), Failure> {
        let most = self.limits.body_bytes;
        let too_large = || {
            let text = format!("the request's body has more than {most} bytes");
            Failure::new(StatusCode::PAYLOAD_TOO_LARGE, text)
        };
        // What announces its size is refused before it comes.
        if body.size_hint().lower() > most as u64 {
            return Err(too_large());
        }
        match time::timeout(self.limits.body, body::to_bytes(body, most)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if is_length(&error) => Err(too_large()),
            Ok(Err(_)) => Err(Failure::new(
                StatusCode::BAD_REQUEST,
                "the request's body is malformed",
            )),
            Err(_) => Err(Failure::new(
                StatusCode::REQUEST_TIMEOUT,
                "the request's body did not come in time",
            )),
        }
    }
}

/// Lets a request through, or answers it.
pub(super) async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let refused = match gate.refusal(parts.uri.path(), &parts.headers) {
        None => gate.swallow(body).await.err().map(Failure::into_response),
        refusal => refusal,
    };
    if let Some(mut response) = refused {
        // There may be a body that nobody is going to read.
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
        return response;
    }
    let request = Request::from_parts(parts, Body::empty());
    match time::timeout(gate.limits.answer, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let text = "tlb is too busy to answer";
            Failure::new(StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

/// The bearer token of a request.
fn presented(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_matches(' '))
}

/// Whether reading a body ended because it is too long.
fn is_length(error: &axum::Error) -> bool {
    error
        .source()
        .is_some_and(<dyn Error>::is::<LengthLimitError>)
}
