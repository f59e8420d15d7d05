//! The paths of the API, and its OpenAPI document.

use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde::{Deserialize, Serialize};
use tlb_engine::fleet::Admin;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, SecurityRequirement};
use utoipa::{OpenApi, ToSchema};

use super::super::command::{Command, Handle, Refusal};
use super::super::metrics;
use super::super::view::{
    BackendView, ListenerView, PoolView, ReloadView, SessionFilter, SessionsView,
};
use super::gate::{self, Gate};
use super::problem::{Always, Failure, Problem};

/// Most sessions that one answer lists.
pub(crate) const SESSIONS_MAX: u32 = 10_000;
/// How many it lists if not told otherwise.
const SESSIONS_DEFAULT: u32 = 1_000;

/// What handlers need.
#[derive(Clone, Debug)]
struct Api {
    handle: Handle,
    /// The OpenAPI document.
    document: Bytes,
}

/// The document; its paths are those of [`router`].
#[derive(OpenApi)]
#[openapi(
    info(
        title = "tlb admin API",
        description = "What a tlb process does, and what an operator may tell it."
    ),
    paths(
        pools,
        pool,
        backends,
        backend,
        drain,
        ready,
        maint,
        listeners,
        sessions,
        reload,
        metrics_text,
        healthz,
        readyz,
        openapi
    )
)]
struct Document;

/// The whole API.
pub(super) fn router(handle: Handle, gate: Gate) -> Router {
    let document = Bytes::from(document(gate.needs_token()));
    Router::new()
        .route("/v1/pools", get(pools))
        .route("/v1/pools/{pool}", get(pool))
        .route("/v1/pools/{pool}/backends", get(backends))
        .route("/v1/pools/{pool}/backends/{backend}", get(backend))
        .route("/v1/pools/{pool}/backends/{backend}/drain", post(drain))
        .route("/v1/pools/{pool}/backends/{backend}/ready", post(ready))
        .route("/v1/pools/{pool}/backends/{backend}/maint", post(maint))
        .route("/v1/listeners", get(listeners))
        .route("/v1/sessions", get(sessions))
        .route("/v1/config/reload", post(reload))
        .route("/v1/openapi.json", get(openapi))
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn_with_state(gate, gate::pass))
        .with_state(Api { handle, document })
}

/// The OpenAPI document, in JSON. It speaks of a token only where one is needed.
fn document(needs_token: bool) -> String {
    let mut document = Document::openapi();
    if needs_token {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let components = document.components.take().unwrap_or_default();
        let components = ComponentsBuilder::from(components).security_scheme("token", scheme);
        document.components = Some(components.build());
        document.security = Some(vec![SecurityRequirement::new(
            "token",
            Vec::<String>::new(),
        )]);
    }
    document
        .to_json()
        .expect("what derives from types has a JSON form")
}

async fn unknown() -> Failure {
    Failure::new(
        StatusCode::NOT_FOUND,
        "there is nothing at this path: see /v1/openapi.json",
    )
}

/// axum adds `Allow`.
async fn not_allowed() -> Failure {
    Failure::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path does not take that method",
    )
}

/// A path's parts, where they are text.
fn parts<T>(path: Result<Path<T>, PathRejection>) -> Result<T, Failure> {
    match path {
        Ok(Path(parts)) => Ok(parts),
        Err(rejection) => Err(Failure::new(StatusCode::BAD_REQUEST, rejection.body_text())),
    }
}

impl Api {
    async fn pool(&self, name: String) -> Result<PoolView, Failure> {
        let pools = self.handle.ask(Command::Pools).await?;
        let found = pools.into_iter().find(|pool| pool.name == name);
        Ok(found.ok_or(Refusal::UnknownPool(name))?)
    }

    async fn backend(&self, pool: String, id: String) -> Result<BackendView, Failure> {
        let mut backends = self.pool(pool.clone()).await?.backends.into_iter();
        let found = backends.find(|backend| backend.id == id);
        Ok(found.ok_or(Refusal::UnknownBackend(pool, id))?)
    }

    async fn set(&self, path: BackendPath, admin: Admin) -> Result<Json<BackendView>, Failure> {
        let (pool, backend) = parts(path)?;
        let set = |reply| Command::Set {
            pool: pool.clone(),
            backend: backend.clone(),
            admin,
            reply,
        };
        self.handle.ask(set).await??;
        self.backend(pool, backend).await.map(Json)
    }
}

type PoolPath = Result<Path<String>, PathRejection>;
type BackendPath = Result<Path<(String, String)>, PathRejection>;

/// All pools and their backends.
#[utoipa::path(get, path = "/v1/pools", responses((status = 200, body = Vec<PoolView>), Always))]
async fn pools(State(api): State<Api>) -> Result<Json<Vec<PoolView>>, Failure> {
    Ok(Json(api.handle.ask(Command::Pools).await?))
}

/// A pool and its backends.
#[utoipa::path(
    get, path = "/v1/pools/{pool}",
    params(("pool" = String, Path, description = "The pool's name")),
    responses(
        (status = 200, body = PoolView),
        (status = 404, description = "There is no such pool", body = Problem),
        Always
    )
)]
async fn pool(State(api): State<Api>, path: PoolPath) -> Result<Json<PoolView>, Failure> {
    api.pool(parts(path)?).await.map(Json)
}

/// The backends of a pool.
#[utoipa::path(
    get, path = "/v1/pools/{pool}/backends",
    params(("pool" = String, Path, description = "The pool's name")),
    responses(
        (status = 200, body = Vec<BackendView>),
        (status = 404, description = "There is no such pool", body = Problem),
        Always
    )
)]
async fn backends(
    State(api): State<Api>,
    path: PoolPath,
) -> Result<Json<Vec<BackendView>>, Failure> {
    let pool = api.pool(parts(path)?).await?;
    Ok(Json(pool.backends))
}

/// A backend.
#[utoipa::path(
    get, path = "/v1/pools/{pool}/backends/{backend}",
    params(
        ("pool" = String, Path, description = "The pool's name"),
        ("backend" = String, Path, description = "The backend's id")
    ),
    responses(
        (status = 200, body = BackendView),
        (status = 404, description = "There is no such pool or backend", body = Problem),
        Always
    )
)]
async fn backend(State(api): State<Api>, path: BackendPath) -> Result<Json<BackendView>, Failure> {
    let (pool, backend) = parts(path)?;
    api.backend(pool, backend).await.map(Json)
}

/// Gives a backend no new sessions; it keeps those it has. Holds until the process ends or another word.
#[utoipa::path(
    post, path = "/v1/pools/{pool}/backends/{backend}/drain",
    params(
        ("pool" = String, Path, description = "The pool's name"),
        ("backend" = String, Path, description = "The backend's id")
    ),
    responses(
        (status = 200, description = "The backend as it is now", body = BackendView),
        (status = 404, description = "There is no such pool or backend", body = Problem),
        Always
    )
)]
async fn drain(State(api): State<Api>, path: BackendPath) -> Result<Json<BackendView>, Failure> {
    api.set(path, Admin::Drain).await
}

/// Lets a backend serve again.
#[utoipa::path(
    post, path = "/v1/pools/{pool}/backends/{backend}/ready",
    params(
        ("pool" = String, Path, description = "The pool's name"),
        ("backend" = String, Path, description = "The backend's id")
    ),
    responses(
        (status = 200, description = "The backend as it is now", body = BackendView),
        (status = 404, description = "There is no such pool or backend", body = Problem),
        Always
    )
)]
async fn ready(State(api): State<Api>, path: BackendPath) -> Result<Json<BackendView>, Failure> {
    api.set(path, Admin::Ready).await
}

/// Takes a backend out of service: no new sessions, no probes, and its sessions end as the pool's `on-down` says. Holds
/// until the process ends or another word.
#[utoipa::path(
    post, path = "/v1/pools/{pool}/backends/{backend}/maint",
    params(
        ("pool" = String, Path, description = "The pool's name"),
        ("backend" = String, Path, description = "The backend's id")
    ),
    responses(
        (status = 200, description = "The backend as it is now", body = BackendView),
        (status = 404, description = "There is no such pool or backend", body = Problem),
        Always
    )
)]
async fn maint(State(api): State<Api>, path: BackendPath) -> Result<Json<BackendView>, Failure> {
    api.set(path, Admin::Maint).await
}

/// All listeners.
#[utoipa::path(get, path = "/v1/listeners", responses((status = 200, body = Vec<ListenerView>), Always))]
async fn listeners(State(api): State<Api>) -> Result<Json<Vec<ListenerView>>, Failure> {
    Ok(Json(api.handle.ask(Command::Listeners).await?))
}

/// Which sessions to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SessionsQuery {
    /// Only sessions of this listener.
    listener: Option<String>,
    /// Only sessions to this pool.
    pool: Option<String>,
    /// Only sessions to backends with this id.
    backend: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 10_000, default = 1_000)]
    limit: Option<u32>,
}

/// Live sessions.
#[utoipa::path(
    get, path = "/v1/sessions", params(SessionsQuery),
    responses((status = 200, body = SessionsView), Always)
)]
async fn sessions(
    State(api): State<Api>,
    query: Result<Query<SessionsQuery>, QueryRejection>,
) -> Result<Json<SessionsView>, Failure> {
    let refuse = |text: String| Failure::new(StatusCode::BAD_REQUEST, text);
    let Query(query) = query.map_err(|rejection| refuse(rejection.body_text()))?;
    let limit = query.limit.unwrap_or(SESSIONS_DEFAULT);
    if !(1..=SESSIONS_MAX).contains(&limit) {
        return Err(refuse(format!("limit is to be 1 to {SESSIONS_MAX}")));
    }
    let filter = SessionFilter {
        listener: query.listener,
        pool: query.pool,
        backend: query.backend,
        limit: limit as usize,
    };
    let ask = |reply| Command::Sessions(filter, reply);
    Ok(Json(api.handle.ask(ask).await?))
}

/// Reads the configuration anew, as SIGHUP does. All of it is put to work, or nothing.
#[utoipa::path(
    post, path = "/v1/config/reload",
    responses(
        (status = 200, description = "What it changed", body = ReloadView),
        (status = 409, description = "The configuration is wrong; the old one goes on", body = Problem),
        Always
    )
)]
async fn reload(State(api): State<Api>) -> Result<Json<ReloadView>, Failure> {
    Ok(Json(api.handle.ask(Command::Reload).await??))
}

/// Everything that is counted, for Prometheus.
#[utoipa::path(
    get, path = "/metrics",
    responses((status = 200, body = String, content_type = "text/plain"), Always)
)]
async fn metrics_text(State(api): State<Api>) -> Result<Response, Failure> {
    let metrics = api.handle.ask(Command::Metrics).await?;
    let kind = [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)];
    Ok((kind, metrics::render(&metrics)).into_response())
}

/// How the process stands.
#[derive(Debug, Serialize, ToSchema)]
struct Standing {
    /// `ok`.
    status: &'static str,
}

const OK: Json<Standing> = Json(Standing { status: "ok" });

/// Whether the process is alive. Needs no token.
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = Standing), Always), security(()))]
async fn healthz() -> Json<Standing> {
    OK
}

/// Whether the process takes sessions: 503 when it is stopping. Needs no token.
#[utoipa::path(get, path = "/readyz", responses((status = 200, body = Standing), Always), security(()))]
async fn readyz(State(api): State<Api>) -> Result<Json<Standing>, Failure> {
    if api.handle.ask(Command::Ready).await? {
        Ok(OK)
    } else {
        let text = "tlb is stopping, or does not listen yet";
        Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, text))
    }
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", responses((status = 200, body = Object), Always))]
async fn openapi(State(api): State<Api>) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, api.document).into_response()
}
