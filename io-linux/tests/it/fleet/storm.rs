//! A reconnect storm: 5,000 clients lose their backend at once, and come back at once.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};

use crate::support::farm::Reserved;
use crate::support::peers::try_connect;
use crate::support::stream::frame;
use crate::support::tlb::Tlb;
use crate::support::{PATIENCE, proc};

const CLIENTS: usize = 5000;
const THREADS: usize = 20;
const RATE: usize = 2500;
const BURST: usize = 100;
const FRAME: usize = 40;

/// A backend of one thread that answers each frame with its own name; dropped, it is dead.
struct Backend {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// When each connection came.
    came: Arc<Mutex<Vec<Instant>>>,
}

impl Backend {
    fn start(name: u8, listener: std::net::TcpListener) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let came = Arc::new(Mutex::new(Vec::new()));
        let (stopped, times) = (Arc::clone(&stop), Arc::clone(&came));
        let thread = thread::spawn(move || serve(name, listener, &stopped, &times));
        Self {
            stop,
            thread: Some(thread),
            came,
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(name: u8, listener: std::net::TcpListener, stop: &AtomicBool, came: &Mutex<Vec<Instant>>) {
    const LISTENER: Token = Token(0);
    listener.set_nonblocking(true).expect("a socket");
    let mut listener = TcpListener::from_std(listener);
    let mut poll = Poll::new().expect("a poll");
    let mut events = Events::with_capacity(1024);
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)
        .expect("it registers");
    let mut streams = HashMap::new();
    let mut next = 1;
    while !stop.load(Ordering::Relaxed) {
        let _ = poll.poll(&mut events, Some(Duration::from_millis(20)));
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    came.lock().expect("no panic").push(Instant::now());
                    let registry = poll.registry();
                    registry
                        .register(&mut stream, Token(next), Interest::READABLE)
                        .expect("it registers");
                    streams.insert(next, stream);
                    next += 1;
                }
                continue;
            }
            let Some(stream) = streams.get_mut(&event.token().0) else {
                continue;
            };
            let mut bytes = [0; 256];
            loop {
                match stream.read(&mut bytes) {
                    Ok(1..) => drop(stream.write(&[name])),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    _ => {
                        streams.remove(&event.token().0);
                        break;
                    }
                }
            }
        }
    }
    // First of all: a client that returned while the others are told would be taken, and reset.
    drop(listener);
}

/// A client's session, and which backend it has. Whoever is accepted and dropped fails.
struct Client {
    key: u32,
    stream: TcpStream,
    owner: u8,
}

fn come(to: SocketAddr, key: u32) -> Client {
    let mut stream = try_connect(to).unwrap_or_else(|error| panic!("client {key}: {error}"));
    stream
        .set_read_timeout(Some(PATIENCE * 2))
        .expect("a socket");
    stream
        .write_all(&frame(key, FRAME))
        .expect("the client sends");
    let mut answer = [0];
    if let Err(error) = stream.read_exact(&mut answer) {
        panic!("client {key} was turned away: {error}");
    }
    let [owner] = answer;
    Client { key, stream, owner }
}

/// Does something with every client, in many threads.
fn all<T: Send + 'static>(
    clients: Vec<T>,
    each: impl Fn(T) -> Client + Copy + Send + 'static,
) -> Vec<Client> {
    let mut parts: Vec<Vec<T>> = (0..THREADS).map(|_| Vec::new()).collect();
    for (place, client) in clients.into_iter().enumerate() {
        parts[place % THREADS].push(client);
    }
    let threads: Vec<_> = parts
        .into_iter()
        .map(|part| thread::spawn(move || part.into_iter().map(each).collect::<Vec<_>>()))
        .collect();
    let done = threads.into_iter();
    done.flat_map(|thread| thread.join().expect("no client failed"))
        .collect()
}

fn front(addresses: [SocketAddr; 2]) -> Tlb {
    let [heavy, light] = addresses;
    Tlb::start_text(
        &format!(
            r#"
workers = 2
[[listener]]
name = "devices"
bind = "127.0.0.1:0"
unpack = "station"
pool = "stations"
admission = {{ rate = {RATE}, burst = {BURST} }}
[unpack.station]
kind = "length-field"
magic = "2a"
length = {{ offset = 1, width = 4, adjust = 2 }}
key = {{ offset = 19, length = 4 }}
[[pool]]
name = "stations"
points = 64
backends = [
  {{ id = "heavy", address = "{heavy}", weight = 500 }},
  {{ id = "light", address = "{light}" }},
]
"#
        ),
        &[],
    )
}

#[test]
fn everybody_is_let_in_at_the_rate() {
    let reserved = [Reserved::new(40), Reserved::new(41)];
    let addresses = [reserved[0].address(), reserved[1].address()];
    let [heavy, light] = reserved;
    let heavy = Backend::start(b'h', heavy.listen(4096));
    let light = Backend::start(b'l', light.listen(4096));
    let tlb = front(addresses);
    let to = tlb.address();
    let keys: Vec<u32> = (0..CLIENTS).map(|key| key as u32).collect();
    let clients = all(keys, move |key| come(to, key));
    let spared = light.came.lock().expect("no panic").len();
    assert!(
        spared < CLIENTS / 10,
        "{spared} clients of the second backend"
    );

    let before = proc::resident(tlb.pid());
    let killed = Instant::now();
    drop(heavy);
    let clients = all(clients, move |mut client| {
        if client.owner == b'l' {
            return client;
        }
        // It is told by the end of its backend, and returns at once.
        let told = client.stream.read(&mut [0]);
        assert!(!matches!(told, Ok(1..)), "client {}", client.key);
        come(to, client.key)
    });
    let took = killed.elapsed();
    let after = proc::resident(tlb.pid());

    assert!(clients.iter().all(|client| client.owner == b'l'));
    let came = light.came.lock().expect("no panic").clone();
    let returned = came.len() - spared;
    assert_eq!(returned, CLIENTS - spared, "each came back once");
    let least = Duration::from_secs_f64((returned - BURST) as f64 / RATE as f64 * 0.95);
    assert!(took >= least, "{returned} sessions in {took:?}");
    // Half a second's worth takes half a second, but for the burst and what this machine delays.
    for window in came[spared..].windows(RATE / 2) {
        let lasted = window[window.len() - 1] - window[0];
        assert!(
            lasted > Duration::from_millis(250),
            "{} sessions in {lasted:?}",
            RATE / 2
        );
    }
    let grown = after.saturating_sub(before);
    assert!(grown < 48 << 20, "memory grew by {grown} bytes");
}
