//! Three backends, each a process, and 300 clients that stay connected.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::farm::{Farm, Serving, greet_and_echo};
use crate::support::peers::{connect, try_connect};
use crate::support::programs::{free_address, installed};
use crate::support::stream::frame;
use crate::support::tlb::Tlb;
use crate::support::{PATIENCE, eventually};

const CLIENTS: u32 = 300;
/// `interval * fall + timeout` of the probes below, and each session's turn at 1000 a second with
/// its jitter: what a client may have to wait until it is told.
const TOLD_WITHIN: Duration = Duration::from_millis(200 * 2 * 11 / 10 + 200 + 300 + 2);
/// What a machine that is busy with other tests may add.
const SLACK: Duration = Duration::from_secs(3);

/// A process that greets and echoes as `behind` does: a `tlb` that knows no frames.
fn backend(at: SocketAddr, behind: SocketAddr, wrapper: &[&str]) -> Tlb {
    let text = format!(
        "workers = 1\nshutdown-timeout = \"0ms\"\n[[listener]]\nname = \"in\"\nbind = \"{at}\"\npool = \"out\"\n\
         [[pool]]\nname = \"out\"\npolicy = \"p2c\"\nbackends = [{{ id = \"behind\", address = \"{behind}\" }}]\n"
    );
    Tlb::start_text(&text, wrapper)
}

/// The `tlb` under test, in front of three backends.
fn front(addresses: &[SocketAddr], health: &str) -> Tlb {
    let backends: Vec<String> = addresses
        .iter()
        .enumerate()
        .map(|(index, address)| format!("{{ id = \"{index}\", address = \"{address}\" }}"))
        .collect();
    let text = format!(
        r#"
workers = 2
[[listener]]
name = "devices"
bind = "127.0.0.1:0"
unpack = "station"
pool = "stations"
[unpack.station]
kind = "length-field"
magic = "2a"
length = {{ offset = 1, width = 4, adjust = 2 }}
key = {{ offset = 19, length = 4 }}
[[pool]]
name = "stations"
policy = "hash-ring"
connect-timeout = "300ms"
backends = [ {} ]
health = {{ {health}, interval = "200ms", timeout = "200ms", rise = 2, fall = 2 }}
on-down = {{ sessions = "close", rate = 1000 }}
"#,
        backends.join(", ")
    );
    Tlb::start_text(&text, &[])
}

/// A client that stays.
struct Client {
    key: u32,
    stream: TcpStream,
    owner: u8,
}

impl Client {
    fn come(to: SocketAddr, key: u32) -> Self {
        let stream = connect(to);
        Self::greeted(stream, key).unwrap_or_else(|| panic!("key {key} is not served"))
    }

    /// `None` if nobody serves it.
    fn greeted(mut stream: TcpStream, key: u32) -> Option<Self> {
        let frame = frame(key, 40);
        stream.write_all(&frame).ok()?;
        let mut greeting = vec![0; 1 + frame.len()];
        stream.read_exact(&mut greeting).ok()?;
        assert_eq!(greeting[1..], frame, "key {key}: its own bytes");
        Some(Self {
            key,
            stream,
            owner: greeting[0],
        })
    }

    /// Whether its session still passes bytes both ways.
    fn lives(&mut self) -> bool {
        let mut byte = [0];
        self.stream.write_all(b"?").is_ok()
            && self.stream.read_exact(&mut byte).is_ok()
            && byte == *b"?"
    }

    /// Waits until it is told that its session is over.
    fn await_end(&mut self) {
        let mut rest = [0; 64];
        while matches!(self.stream.read(&mut rest), Ok(1..)) {}
    }
}

/// All clients, each with a session.
fn crowd(tlb: &Tlb) -> Vec<Client> {
    (0..CLIENTS)
        .map(|key| Client::come(tlb.address(), key))
        .collect()
}

/// Backend 1 is gone from now on, in whatever way: its clients are told in time and served by their
/// next owners, and the others notice nothing.
fn expect_outage(tlb: &Tlb, clients: Vec<Client>, began: Instant) -> Vec<Client> {
    let (mut lost, mut kept): (Vec<_>, Vec<_>) =
        clients.into_iter().partition(|client| client.owner == 1);
    assert!(lost.len() > 30, "backend 1 had {} clients", lost.len());
    for client in &mut lost {
        client.await_end();
    }
    let told = began.elapsed();
    assert!(
        told < TOLD_WITHIN + SLACK,
        "the last was told after {told:?}"
    );
    for client in &mut kept {
        assert!(client.lives(), "client {} noticed", client.key);
    }
    for client in lost {
        let back = Client::come(tlb.address(), client.key);
        assert_ne!(back.owner, 1, "key {} is served elsewhere", client.key);
        kept.push(back);
    }
    kept
}

/// Backend 1 is back: new connections of its keys go home, those that live on stay where they are.
fn expect_home(tlb: &Tlb, homes: &[u8], clients: &mut [Client]) {
    eventually("the keys go home", || {
        let owner = |key: usize| {
            let stream = try_connect(tlb.address()).ok()?;
            Some(Client::greeted(stream, key as u32)?.owner)
        };
        let home = (0..homes.len()).all(|key| owner(key) == Some(homes[key]));
        home.then_some(())
    });
    for client in clients {
        assert!(client.lives(), "client {} noticed", client.key);
    }
}

/// Of each key, the owner when all are well.
fn homes(clients: &[Client]) -> Vec<u8> {
    let mut homes = vec![0; clients.len()];
    for client in clients {
        homes[client.key as usize] = client.owner;
    }
    homes
}

fn farm() -> Serving {
    Farm::new(3).serve(greet_and_echo)
}

#[test]
fn a_backend_is_killed_and_comes_back() {
    let farm = farm();
    let addresses = [0, 1, 2].map(free_address);
    let start = |index: usize| backend(addresses[index], farm.addresses()[index], &[]);
    let mut backends = [0, 1, 2].map(start);
    let tlb = front(&addresses, "kind = \"tcp\"");
    let clients = crowd(&tlb);
    let homes = homes(&clients);

    let began = Instant::now();
    backends[1].signal(Signal::SIGKILL);
    let mut clients = expect_outage(&tlb, clients, began);
    tlb.log().await_line("the backend is down", |line| {
        line.contains("backend down") && line.contains("backend=1")
    });
    let _ = backends[1].await_exit();
    backends[1] = start(1);
    expect_home(&tlb, &homes, &mut clients);
}

#[test]
fn a_backend_hangs_and_goes_on() {
    let farm = farm();
    let addresses = [0, 1, 2].map(free_address);
    let backends = [0, 1, 2].map(|index| backend(addresses[index], farm.addresses()[index], &[]));
    // Each greets at once with a byte of its own.
    let tlb = front(
        &addresses,
        "kind = \"send-expect\", expect-regex = '(?s-u).'",
    );
    let clients = crowd(&tlb);
    let homes = homes(&clients);

    let began = Instant::now();
    backends[1].freeze();
    let mut clients = expect_outage(&tlb, clients, began);
    tlb.log().await_line("its sessions were told", |line| {
        line.contains("reason=backend-down")
    });
    backends[1].thaw();
    expect_home(&tlb, &homes, &mut clients);
}

/// A network namespace with a link to this one; removed when dropped.
struct Namespace {
    name: String,
    near: String,
    subnet: u8,
}

impl Namespace {
    /// `None`, and said so, where this process may not make one.
    fn new() -> Option<Self> {
        if !installed(&["ip"]) {
            return None;
        }
        let pid = std::process::id();
        let namespace = Self {
            name: format!("tlb-it-{pid}"),
            near: format!("tlbit{pid}"),
            subnet: (pid % 250) as u8,
        };
        if ip(&["netns", "add", &namespace.name]).is_err() {
            assert!(
                std::env::var_os("TLB_REQUIRE_PROGRAMS").is_none_or(|value| value != "1"),
                "no network namespace can be made here"
            );
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: no network namespace can be made here"
            );
            return None;
        }
        let far = "far0";
        let (near, name) = (namespace.near.clone(), namespace.name.clone());
        let steps: [&[&str]; 6] = [
            &[
                "link", "add", &near, "type", "veth", "peer", "name", far, "netns", &name,
            ],
            &[
                "addr",
                "add",
                &format!("{}/24", namespace.address(1)),
                "dev",
                &near,
            ],
            &["link", "set", &near, "up"],
            &[
                "-n",
                &name,
                "addr",
                "add",
                &format!("{}/24", namespace.address(2)),
                "dev",
                far,
            ],
            &["-n", &name, "link", "set", far, "up"],
            &["-n", &name, "link", "set", "lo", "up"],
        ];
        for step in steps {
            ip(step).unwrap_or_else(|error| panic!("ip {step:?}: {error}"));
        }
        Some(namespace)
    }

    /// Of this side, 1, and of that, 2.
    fn address(&self, host: u8) -> String {
        format!("10.231.{}.{host}", self.subnet)
    }

    fn link(&self, state: &str) {
        ip(&["-n", &self.name, "link", "set", "far0", state]).expect("the link is there");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // With the namespace goes the link, once no process is left in it.
        let _ = ip(&["link", "del", &self.near]);
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn a_backend_loses_its_link_and_gets_it_back() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    // The one behind the link has what it serves on its own side, so that the link is all it lacks.
    let here = farm();
    let over_there: SocketAddr = format!("{}:7001", namespace.address(2))
        .parse()
        .expect("an address");
    let inner: SocketAddr = "127.0.0.1:7002".parse().expect("an address");
    let wrapper = ["ip", "netns", "exec", &namespace.name];
    let mut echo = Command::new("ip");
    echo.args(["netns", "exec", &namespace.name, "python3", "-c", ECHO]);
    if !installed(&["python3"]) {
        return;
    }
    let mut echo = Killed(echo.spawn().expect("python3 starts"));
    let behind = backend(over_there, inner, &wrapper);
    let addresses = [free_address(0), over_there, free_address(2)];
    let others = [0, 2].map(|index| backend(addresses[index], here.addresses()[index], &[]));
    eventually("the echo serves", || {
        let mut stream = TcpStream::connect(over_there).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.read_exact(&mut [0]).ok()
    });
    let tlb = front(&addresses, "kind = \"tcp\"");
    let clients = crowd(&tlb);
    let homes = homes(&clients);

    let began = Instant::now();
    namespace.link("down");
    let mut clients = expect_outage(&tlb, clients, began);
    namespace.link("up");
    expect_home(&tlb, &homes, &mut clients);
    drop((tlb, others, behind));
    echo.end();
}

/// Greets with byte 1 and echoes, for as many connections as come.
const ECHO: &str = "
import socket, threading
def serve(c):
    try:
        c.sendall(b'\\x01')
        while True:
            b = c.recv(65536)
            if not b: break
            c.sendall(b)
    except OSError: pass
    c.close()
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('127.0.0.1', 7002))
s.listen(1024)
while True:
    c, _ = s.accept()
    threading.Thread(target=serve, args=(c,), daemon=True).start()
";

/// A child that does not outlive the test.
struct Killed(std::process::Child);

impl Killed {
    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.end();
    }
}
