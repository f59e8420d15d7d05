//! What the API says when it does not do as it was asked.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::super::command::Refusal;

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Problem {
    /// What is wrong, for people.
    pub(crate) error: String,
}

/// An answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    status: StatusCode,
    problem: Problem,
}

impl Failure {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        let problem = Problem {
            error: error.into(),
        };
        Self { status, problem }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(self.problem)).into_response()
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::UnknownPool(_) | Refusal::UnknownBackend(..) => StatusCode::NOT_FOUND,
            Refusal::Config(_) | Refusal::NotNow(_) => StatusCode::CONFLICT,
            Refusal::Gone => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, refusal.to_string())
    }
}

/// What any request may get instead of its answer, as the OpenAPI document says it.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "describes responses and is never made")]
pub(super) enum Always {
    /// The request is malformed.
    #[response(status = 400)]
    Malformed(Problem),
    /// No token, or a wrong one. Only if a token is configured.
    #[response(status = 401)]
    Unauthorized(Problem),
    /// The request was made by a web page: it has an `Origin` header.
    #[response(status = 403)]
    FromAPage(Problem),
    /// The request's body did not come in time.
    #[response(status = 408)]
    Slow(Problem),
    /// The request's body has more than 64 KiB.
    #[response(status = 413)]
    TooLarge(Problem),
    /// tlb is stopping, or too busy to answer.
    #[response(status = 503)]
    Unavailable(Problem),
}
