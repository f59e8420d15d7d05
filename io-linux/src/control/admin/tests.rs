use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use serde_json::Value;
use tlb_engine::fleet::Admin;
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::config_file::{AdminBind, AdminSettings};
use crate::control::command::{Command, Refusal};
use crate::control::view::{
    BackendView, ListenerView, Metrics, PoolView, ReloadView, SessionFilter, SessionView,
    SessionsView,
};

const PATIENCE: Duration = Duration::from_secs(20);
const TOKEN: &str = "0123456789abcdef";

/// What the control thread of the tests knows.
#[derive(Debug, Default)]
struct World {
    admin: BTreeMap<String, Admin>,
    stopping: bool,
    /// Why a reload is refused.
    refusal: Option<Refusal>,
    /// Questions are taken and never answered.
    stuck: bool,
}

impl World {
    fn pools(&self) -> Vec<PoolView> {
        let backend = |id: &str| BackendView {
            id: id.to_owned(),
            address: Some("127.0.0.11:7001".to_owned()),
            weight: 1,
            state: match self.admin.get(id) {
                None | Some(Admin::Ready) => "up",
                Some(Admin::Drain) => "drain",
                Some(Admin::Maint) => "maint",
            }
            .to_owned(),
            state_seconds: 5,
            admin: "ready".to_owned(),
            sessions: 1,
            sessions_total: 2,
            bytes_forward: 3,
            bytes_return: 4,
            probes_passed: 5,
            probes_failed: 6,
            last_probe: None,
        };
        vec![PoolView {
            name: "stations / 1".to_owned(),
            policy: "hash-ring".to_owned(),
            panic: false,
            backends: vec![backend("a"), backend("b")],
        }]
    }

    fn sessions(filter: &SessionFilter) -> SessionsView {
        // What was asked comes back, to be looked at.
        let echo = SessionView {
            id: "0.1".to_owned(),
            listener: filter.listener.clone().unwrap_or_default(),
            client: "127.0.0.1:5".to_owned(),
            pool: filter.pool.clone().unwrap_or_default(),
            backend: filter.backend.clone(),
            key: None,
            phase: "relaying".to_owned(),
            bytes_forward: 1,
            bytes_return: 2,
            age_seconds: 3,
            idle_seconds: 4,
        };
        SessionsView {
            sessions: vec![echo],
            total: filter.limit as u64,
        }
    }

    fn set(&mut self, pool: &str, backend: &str, admin: Admin) -> Result<(), Refusal> {
        let pools = self.pools();
        let Some(found) = pools.iter().find(|one| one.name == pool) else {
            return Err(Refusal::UnknownPool(pool.to_owned()));
        };
        if !found.backends.iter().any(|one| one.id == backend) {
            let (pool, backend) = (pool.to_owned(), backend.to_owned());
            return Err(Refusal::UnknownBackend(pool, backend));
        }
        self.admin.insert(backend.to_owned(), admin);
        Ok(())
    }

    /// Answers. Nobody may wait for it any more.
    fn answer(&mut self, command: Command) {
        match command {
            Command::Pools(reply) => drop(reply.send(self.pools())),
            Command::Listeners(reply) => drop(reply.send(vec![ListenerView {
                name: "devices".to_owned(),
                address: "127.0.0.1:8011".to_owned(),
                pool: "stations / 1".to_owned(),
                sessions: 1,
                sessions_total: 2,
                max_sessions: 3,
            }])),
            Command::Sessions(filter, reply) => drop(reply.send(Self::sessions(&filter))),
            Command::Set {
                pool,
                backend,
                admin,
                reply,
            } => drop(reply.send(self.set(&pool, &backend, admin))),
            Command::Reload(reply) => drop(reply.send(match &self.refusal {
                Some(refusal) => Err(refusal.clone()),
                None => Ok(ReloadView {
                    generation: 2,
                    ..ReloadView::default()
                }),
            })),
            Command::Metrics(reply) => drop(reply.send(Metrics::default())),
            Command::Ready(reply) => drop(reply.send(!self.stopping)),
        }
    }
}

async fn control(mut world: World, mut commands: mpsc::Receiver<Command>) {
    let mut unanswered = Vec::new();
    while let Some(command) = commands.recv().await {
        if world.stuck {
            unanswered.push(command);
        } else {
            world.answer(command);
        }
    }
}

/// A served API, on a thread of its own until it is dropped.
struct Served {
    address: String,
    end: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Served {
    fn start(settings: AdminSettings, world: World, limits: Limits) -> Self {
        let listener = AdminListener::bind(&settings).expect("listening");
        let address = listener.to_string();
        let (end, ended) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let (handle, commands) = Handle::new();
            runtime.block_on(async {
                tokio::select! {
                    served = serve_within(listener, handle, limits) => panic!("{served:?}"),
                    () = control(world, commands) => {}
                    _ = ended => {}
                }
            });
        });
        Self {
            address,
            end: Some(end),
            thread: Some(thread),
        }
    }

    fn open() -> Self {
        Self::start(tcp(None), World::default(), Limits::default())
    }

    fn connect(&self) -> TcpStream {
        let address = self.address.strip_prefix("http://").expect("TCP");
        let stream = TcpStream::connect(address).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    /// One request on a connection of its own.
    fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: tlb\r\nConnection: close\r\n");
        self.send(&format!("{head}{headers}\r\n"))
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "")
    }

    fn send(&self, request: &str) -> Answer {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).expect("sent");
        Answer::read(stream)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.end.take());
        let ended = self.thread.take().map(thread::JoinHandle::join);
        if !thread::panicking() {
            ended.expect("once").expect("the server does not panic");
        }
    }
}

fn tcp(token: Option<&str>) -> AdminSettings {
    AdminSettings {
        bind: AdminBind::Tcp("127.0.0.1:0".parse().expect("an address")),
        token: token.map(Into::into),
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn read(mut stream: impl Read) -> Self {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("an answer");
        let text = String::from_utf8(bytes).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).expect("a status");
        Self {
            status: status.parse().expect("a number"),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    fn json(&self) -> Value {
        assert!(self.head.contains("content-type: application/json"));
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    fn is_problem(&self, status: u16, text: &str) {
        assert_eq!(self.status, status, "{self:?}");
        let problem: Problem = serde_json::from_value(self.json()).expect("a problem");
        assert!(problem.error.contains(text), "{problem:?}");
    }
}

const POOL: &str = "/v1/pools/stations%20%2F%201";

#[test]
fn what_there_is_is_shown() {
    let api = Served::open();
    assert_eq!(api.get("/v1/pools").json()[0]["name"], "stations / 1");
    assert_eq!(api.get(POOL).json()["backends"][1]["id"], "b");
    let backends = api.get(&format!("{POOL}/backends")).json();
    assert_eq!(backends[0]["id"], "a");
    let backend = api.get(&format!("{POOL}/backends/b")).json();
    assert_eq!(backend["state"], "up");
    assert_eq!(api.get("/v1/listeners").json()[0]["name"], "devices");
    assert_eq!(api.get("/healthz").json()["status"], "ok");
    assert_eq!(api.get("/readyz").json()["status"], "ok");
    let metrics = api.get("/metrics");
    assert_eq!(metrics.status, 200);
    assert!(
        metrics
            .head
            .contains("content-type: text/plain; version=0.0.4")
    );
    assert!(metrics.body.contains("\ntlb_workers 0\n"), "{metrics:?}");
}

#[test]
fn sessions_are_filtered_and_limited() {
    let api = Served::open();
    let asked = api.get("/v1/sessions?listener=devices&pool=p+q&backend=a&limit=7");
    let sessions: SessionsView = serde_json::from_value(asked.json()).expect("sessions");
    assert_eq!(sessions.total, 7);
    assert_eq!(sessions.sessions[0].listener, "devices");
    assert_eq!(sessions.sessions[0].pool, "p q");
    assert_eq!(sessions.sessions[0].backend.as_deref(), Some("a"));
    let asked = api.get("/v1/sessions");
    assert_eq!(asked.json()["total"], 1_000);
    assert_eq!(api.get("/v1/sessions?limit=10000").status, 200);
    assert_eq!(api.get("/v1/sessions?limit=1").status, 200);
}

#[test]
fn a_bad_query_is_refused() {
    let api = Served::open();
    for (query, text) in [
        ("limit=0", "1 to 10000"),
        ("limit=10001", "1 to 10000"),
        ("limit=-1", "limit"),
        ("limit=", "limit"),
        ("limit=many", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("limit=1&limit=2", "duplicate field"),
        ("color=red", "unknown field `color`"),
    ] {
        let path = format!("/v1/sessions?{query}");
        api.get(&path).is_problem(400, text);
    }
}

#[test]
fn an_operators_word_is_taken() {
    let api = Served::open();
    for (verb, state) in [("drain", "drain"), ("maint", "maint"), ("ready", "up")] {
        let answer = api.ask("POST", &format!("{POOL}/backends/a/{verb}"), "");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["state"], state);
    }
}

#[test]
fn what_is_not_there_is_not_found() {
    let api = Served::open();
    for path in [
        "/v1/pools/x",
        "/v1/pools/x/backends",
        "/v1/pools/x/backends/a",
    ] {
        api.get(path).is_problem(404, r#"there is no pool "x""#);
    }
    let path = format!("{POOL}/backends/c");
    api.get(&path)
        .is_problem(404, r#"pool "stations / 1" has no backend "c""#);
    for verb in ["drain", "ready", "maint"] {
        api.ask("POST", &format!("/v1/pools/x/backends/a/{verb}"), "")
            .is_problem(404, "no pool");
        api.ask("POST", &format!("{POOL}/backends/c/{verb}"), "")
            .is_problem(404, "no backend");
    }
    for path in ["/", "/v1", "/v1/pools/", "/v1/pools/x/y", "/v2/pools"] {
        api.get(path).is_problem(404, "nothing at this path");
    }
}

#[test]
fn a_path_that_is_not_text_is_refused() {
    let api = Served::open();
    api.get("/v1/pools/%ff").is_problem(400, "UTF-8");
    api.ask("POST", "/v1/pools/%ff/backends/%fe/drain", "")
        .is_problem(400, "UTF-8");
}

#[test]
fn a_wrong_method_is_told_the_right_one() {
    let api = Served::open();
    for (method, path, allowed) in [
        ("POST", "/v1/pools", "allow: get,head"),
        ("DELETE", POOL, "allow: get,head"),
        ("GET", "/v1/config/reload", "allow: post"),
        ("PATCH", "/metrics", "allow: get,head"),
    ] {
        let answer = api.ask(method, path, "");
        answer.is_problem(405, "method");
        assert!(answer.head.contains(allowed), "{answer:?}");
    }
    let head = api.ask("HEAD", "/v1/pools", "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[test]
fn a_token_is_needed_where_one_is_configured() {
    let api = Served::start(tcp(Some(TOKEN)), World::default(), Limits::default());
    for path in ["/v1/pools", "/metrics", "/v1/openapi.json", "/nowhere"] {
        let answer = api.get(path);
        answer.is_problem(401, "a token is needed");
        assert!(answer.head.contains("www-authenticate: bearer"));
    }
    for wrong in [
        "0123456789abcdeg",
        "0123456789abcde",
        "0123456789abcdef0",
        "0",
        "",
    ] {
        let header = format!("Authorization: Bearer {wrong}\r\n");
        let answer = api.ask("POST", "/v1/config/reload", &header);
        assert_eq!(answer.status, 401, "{answer:?}");
        assert!(answer.head.contains("www-authenticate: bearer"));
    }
    let basic = format!("Authorization: Basic {TOKEN}\r\n");
    assert_eq!(api.ask("GET", "/v1/pools", &basic).status, 401);
    for scheme in ["Bearer", "bearer"] {
        let header = format!("Authorization: {scheme} {TOKEN}\r\n");
        assert_eq!(api.ask("GET", "/v1/pools", &header).status, 200);
        assert_eq!(api.ask("GET", "/nowhere", &header).status, 404);
    }
    assert_eq!(api.get("/healthz").status, 200);
    assert_eq!(api.get("/readyz").status, 200);
}

#[test]
fn web_pages_are_not_answered() {
    let api = Served::open();
    let origin = "Origin: http://example.com\r\n";
    api.ask("POST", &format!("{POOL}/backends/a/maint"), origin)
        .is_problem(403, "web pages");
    let backend = api.get(&format!("{POOL}/backends/a")).json();
    assert_eq!(backend["state"], "up");
}

#[test]
fn a_large_body_is_refused_and_a_small_one_ignored() {
    let api = Served::open();
    let most = 64 << 10;
    let post = |headers: &str, body: &str| {
        let head = "POST /v1/config/reload HTTP/1.1\r\nHost: tlb\r\nConnection: close\r\n";
        api.send(&format!("{head}{headers}\r\n\r\n{body}"))
    };
    let body = "x".repeat(most);
    let length = format!("Content-Length: {most}");
    assert_eq!(post(&length, &body).status, 200);
    // Refused by what it announces, before it comes.
    let length = format!("Content-Length: {}", most + 1);
    post(&length, "").is_problem(413, "more than 65536 bytes");
    // Does not say how long it is going to be.
    let chunked = format!("{:x}\r\n{body}x\r\n", most + 1);
    post("Transfer-Encoding: chunked", &chunked).is_problem(413, "more than 65536 bytes");
    post("Transfer-Encoding: chunked", "zz\r\n\r\n").is_problem(400, "malformed");
}

#[test]
fn a_head_that_is_no_http_or_too_long_is_refused() {
    let api = Served::open();
    assert_eq!(api.send("nonsense\r\n\r\n").status, 400);
    let long = format!("X-Long: {}\r\n", "x".repeat(HEAD_MAX));
    assert_eq!(api.ask("GET", "/v1/pools", &long).status, 431);
}

/// Limits that a test can wait for.
fn hasty() -> Limits {
    Limits {
        head: Duration::from_millis(100),
        body: Duration::from_millis(100),
        answer: Duration::from_millis(100),
        ..Limits::default()
    }
}

#[test]
fn a_slow_head_ends_the_connection() {
    let api = Served::start(tcp(None), World::default(), hasty());
    let mut stream = api.connect();
    let pause = Duration::from_millis(10);
    stream.set_read_timeout(Some(pause)).expect("a timeout");
    let begin = Instant::now();
    // A byte at a time, faster than the limit: each one is progress, and all of them are too late.
    let mut drip = b"GET /v1/pools HTTP/1.1\r\nX-Slow: "
        .iter()
        .chain([&b'x'; 10_000]);
    loop {
        assert!(begin.elapsed() < PATIENCE, "it is still open");
        let byte = *drip.next().expect("enough bytes");
        if stream.write_all(&[byte]).is_err() {
            break;
        }
        match stream.read(&mut [0; 64]) {
            // Closed, perhaps after a 408.
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    assert!(begin.elapsed() >= Duration::from_millis(100));
    // Others are served.
    assert_eq!(api.get("/healthz").status, 200);
}

#[test]
fn a_connection_without_a_request_ends() {
    let api = Served::start(tcp(None), World::default(), hasty());
    let mut stream = api.connect();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("closed by the server");
}

#[test]
fn a_slow_body_is_told_so() {
    let api = Served::start(tcp(None), World::default(), hasty());
    let head = "POST /v1/config/reload HTTP/1.1\r\nHost: tlb\r\nContent-Length: 10\r\n\r\n";
    api.send(&format!("{head}12345")).is_problem(408, "in time");
}

#[test]
fn no_answer_of_the_control_thread_in_time_is_unavailable() {
    let world = World {
        stuck: true,
        ..World::default()
    };
    let api = Served::start(tcp(None), world, hasty());
    api.get("/v1/pools").is_problem(503, "too busy");
}

#[test]
fn connections_beyond_the_limit_wait() {
    let limits = Limits {
        connections: 2,
        ..Limits::default()
    };
    let api = Served::start(tcp(None), World::default(), limits);
    let request = b"GET /healthz HTTP/1.1\r\nHost: tlb\r\n\r\n";
    // Two that stay, each answered once so that it is known to be accepted.
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut stream = api.connect();
        stream.write_all(request).expect("sent");
        let mut begin = [0; 15];
        stream.read_exact(&mut begin).expect("an answer");
        assert_eq!(&begin, b"HTTP/1.1 200 OK");
        kept.push(stream);
    }
    let mut third = api.connect();
    third.write_all(request).expect("sent");
    let short = Duration::from_millis(100);
    third.set_read_timeout(Some(short)).expect("a timeout");
    let error = third.read(&mut [0; 1]).expect_err("it has to wait");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    kept.pop();
    third.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut begin = [0; 15];
    third.read_exact(&mut begin).expect("its turn has come");
    assert_eq!(&begin, b"HTTP/1.1 200 OK");
}

#[test]
fn an_old_connection_is_ended_after_its_answer() {
    let limits = Limits {
        lifetime: Duration::from_millis(100),
        ..Limits::default()
    };
    let api = Served::start(tcp(None), World::default(), limits);
    let mut stream = api.connect();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: tlb\r\n\r\n")
        .expect("sent");
    assert_eq!(Answer::read(stream).status, 200);
}

#[test]
fn a_refused_reload_says_why() {
    let refused = |refusal| World {
        refusal: Some(refusal),
        ..World::default()
    };
    let start = |world| Served::start(tcp(None), world, Limits::default());
    let text = "error: no pool\n  --> tlb.toml:3:1".to_owned();
    let api = start(refused(Refusal::Config(text.clone())));
    api.ask("POST", "/v1/config/reload", "")
        .is_problem(409, &text);
    let api = start(refused(Refusal::NotNow("there is no file")));
    api.ask("POST", "/v1/config/reload", "")
        .is_problem(409, "no file");
    let api = Served::open();
    let answer = api.ask("POST", "/v1/config/reload", "");
    assert_eq!(answer.json()["generation"], 2);
}

#[test]
fn who_stops_is_alive_and_not_ready() {
    let world = World {
        stopping: true,
        ..World::default()
    };
    let api = Served::start(tcp(None), world, Limits::default());
    api.get("/readyz").is_problem(503, "stopping");
    assert_eq!(api.get("/healthz").status, 200);
}

#[test]
fn without_a_control_thread_all_but_life_is_unavailable() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (handle, commands) = Handle::new();
    drop(commands);
    let error = runtime
        .block_on(handle.ask(Command::Pools))
        .expect_err("nobody answers");
    let response = axum::response::IntoResponse::into_response(problem::Failure::from(error));
    assert_eq!(response.status(), 503);
}

#[test]
fn the_document_and_the_routes_agree() {
    let api = Served::open();
    let document = api.get("/v1/openapi.json").json();
    assert!(document["components"]["securitySchemes"].is_null());
    let paths = document["paths"].as_object().expect("paths");
    let mut known = BTreeSet::new();
    for (template, item) in paths {
        let path = template
            .replace("{pool}", "stations%20%2F%201")
            .replace("{backend}", "a");
        for (method, operation) in item.as_object().expect("operations") {
            let answer = api.ask(&method.to_ascii_uppercase(), &path, "");
            assert_eq!(answer.status, 200, "{method} {template}");
            let kinds = operation["responses"]["200"]["content"].as_object();
            let kind = kinds.and_then(|kinds| kinds.keys().next()).expect("a type");
            assert!(answer.head.contains(kind.as_str()), "{answer:?}");
            for status in ["400", "401", "403", "408", "413", "503"] {
                let response = &operation["responses"][status];
                assert!(response.is_object(), "{method} {template} {status}");
            }
            known.insert(format!("{method} {template}"));
        }
    }
    assert_eq!(known.len(), 14, "{known:?}");
}

#[test]
fn the_document_speaks_of_a_token_where_one_is_needed() {
    let api = Served::start(tcp(Some(TOKEN)), World::default(), Limits::default());
    let header = format!("Authorization: Bearer {TOKEN}\r\n");
    let document = api.ask("GET", "/v1/openapi.json", &header).json();
    let scheme = &document["components"]["securitySchemes"]["token"];
    assert_eq!(scheme["scheme"], "bearer");
    assert!(document["security"][0]["token"].is_array());
    let open = &document["paths"]["/healthz"]["get"]["security"];
    assert_eq!(open.to_string(), "[{}]");
}

/// A directory of a test's own, gone when it ends. Short, as a socket's path has to be.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let name = format!("tlb-admin-{test}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // Left over from a run that was killed, or not there.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("admin.sock")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn unix(path: &Path, mode: u32) -> AdminSettings {
    AdminSettings {
        bind: AdminBind::Unix {
            path: path.into(),
            mode,
        },
        token: None,
    }
}

fn mode(path: &Path) -> u32 {
    let metadata = fs::symlink_metadata(path).expect("it is there");
    metadata.permissions().mode() & 0o7777
}

#[test]
fn a_unix_socket_has_its_mode_serves_and_goes() {
    let scratch = Scratch::new("serves");
    let path = scratch.socket();
    for wanted in [0o660, 0o600, 0o666] {
        let api = Served::start(unix(&path, wanted), World::default(), Limits::default());
        assert_eq!(api.address, format!("unix:{}", path.display()));
        assert_eq!(mode(&path), wanted);
        let mut stream = UnixStream::connect(&path).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: tlb\r\nConnection: close\r\n\r\n")
            .expect("sent");
        assert_eq!(Answer::read(stream).status, 200);
        drop(api);
        assert!(!path.exists(), "its file is left");
    }
}

#[test]
fn a_listener_that_never_served_removes_its_file_too() {
    let scratch = Scratch::new("unserved");
    let path = scratch.socket();
    drop(AdminListener::bind(&unix(&path, 0o660)).expect("listening"));
    assert!(!path.exists());
}

#[test]
fn a_stale_socket_is_replaced() {
    let scratch = Scratch::new("stale");
    let path = scratch.socket();
    // Its file stays when it is closed.
    drop(UnixListener::bind(&path).expect("listening"));
    assert!(path.exists());
    let listener = AdminListener::bind(&unix(&path, 0o600)).expect("replaced");
    assert_eq!(mode(&path), 0o600);
    UnixStream::connect(&path).expect("connected");
    drop(listener);
}

#[test]
fn a_socket_that_answers_is_left_alone() {
    let scratch = Scratch::new("answers");
    let path = scratch.socket();
    let _other = UnixListener::bind(&path).expect("listening");
    let error = AdminListener::bind(&unix(&path, 0o600)).expect_err("in use");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    let text = error.to_string();
    assert!(text.contains("another process answers there"), "{text}");
    assert!(text.contains(&format!("unix:{}", path.display())), "{text}");
    UnixStream::connect(&path).expect("it is still there");
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let scratch = Scratch::new("file");
    let path = scratch.socket();
    fs::write(&path, "precious").expect("a file");
    let error = AdminListener::bind(&unix(&path, 0o600)).expect_err("in the way");
    assert!(error.to_string().contains("not a socket"), "{error}");
    assert_eq!(fs::read(&path).expect("still there"), b"precious");
}

#[test]
fn anothers_socket_is_not_removed_at_the_end() {
    let scratch = Scratch::new("another");
    let path = scratch.socket();
    let listener = AdminListener::bind(&unix(&path, 0o600)).expect("listening");
    // The other one exists before this one's file goes, or it might get the same inode.
    let moved = scratch.0.join("other.sock");
    let _other = UnixListener::bind(&moved).expect("listening");
    fs::rename(&moved, &path).expect("replaced");
    drop(listener);
    UnixStream::connect(&path).expect("it is still there");
}

#[test]
fn a_taken_port_is_named() {
    let first = AdminListener::bind(&tcp(None)).expect("listening");
    let address = first.to_string();
    let address = address.strip_prefix("http://").expect("TCP");
    let settings = AdminSettings {
        bind: AdminBind::Tcp(address.parse().expect("an address")),
        token: None,
    };
    let error = AdminListener::bind(&settings).expect_err("taken");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains(address), "{error}");
}
