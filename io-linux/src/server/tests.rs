//! Whole servers on loopback.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use tlb_engine::unpack::{Status, Unpack};

use super::*;
use crate::registry::UnpackRegistry;

const PATIENCE: Duration = Duration::from_secs(10);

/// One listener on a free port, first line as the key, and these backends.
fn settings(top: &str, backends: &[(&str, String)]) -> Settings {
    let backends: Vec<_> = backends
        .iter()
        .map(|(id, address)| format!("{{ id = \"{id}\", address = \"{address}\" }}"))
        .collect();
    let text = format!(
        "{top}
        [[listener]]
        name = \"lines\"
        bind = \"127.0.0.1:0\"
        unpack = \"line\"
        pool = \"all\"
        [unpack.line]
        kind = \"delimited\"
        delimiter = \"0a\"
        key = {{ offset = 0, length = 4 }}
        [[pool]]
        name = \"all\"
        backends = [{}]",
        backends.join(",")
    );
    Settings::parse("test.toml", &text, &UnpackRegistry::new()).unwrap()
}

/// A backend that says its name, then echoes until the client's stream ends. It ends with its
/// listener's process.
fn echo(name: &'static str) -> (&'static str, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let mut stream = stream.unwrap();
                stream.write_all(name.as_bytes()).unwrap();
                // A client may well leave without a farewell.
                let _ = io::copy(&mut stream.try_clone().unwrap(), &mut stream);
            });
        }
    });
    (name, address)
}

fn client(running: &Running) -> TcpStream {
    let client = TcpStream::connect(running.address("lines").unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    client
}

/// Sends, ends its stream, and gets all that comes back.
fn exchange(mut client: TcpStream, bytes: &[u8]) -> Vec<u8> {
    let mut sender = client.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            sender.write_all(bytes).unwrap();
            sender.shutdown(Shutdown::Write).unwrap();
        });
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        got
    })
}

fn message(key: u32, bytes: usize) -> Vec<u8> {
    let mut message = format!("{key:04}\n").into_bytes();
    message.extend((0..bytes).map(|at| (at * 7 + at / 253) as u8));
    message
}

#[test]
fn every_byte_comes_back_from_the_keys_own_backend() {
    for relay in ["copy", "splice", "auto"] {
        let top = format!("workers = 3\nrelay = \"{relay}\"");
        let running = Server::new(settings(&top, &[echo("a"), echo("b"), echo("c")]))
            .start()
            .unwrap();
        let mut names = Vec::new();
        for key in 0..12 {
            // The second connection of a key comes from another port, and so to any of the workers.
            let message = message(key, 300_000);
            let [first, second] = [0, 1].map(|_| exchange(client(&running), &message));
            assert!(first[1..] == message, "{relay}");
            assert!(first == second, "{relay}: one backend for one key");
            names.push(first[0]);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names, *b"abc", "{relay}: the keys are spread");
        running.stop();
        running.join().unwrap();
    }
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let running = Server::new(settings("", &[echo("a")])).start().unwrap();
    let address = running.address("lines").unwrap();
    let mut second = settings("", &[echo("a")]);
    second.listeners[0].bind = address;
    let error = Server::new(second).start().unwrap_err();
    assert_eq!(error.exit_code(), 69);
    let text = error.to_string();
    assert!(
        text.contains("lines") && text.contains(&address.to_string()),
        "{text}"
    );
    assert_eq!(
        exchange(client(&running), b"0001\n"),
        b"a0001\n",
        "the first one goes on"
    );
}

#[test]
fn stopping_lets_sessions_end_in_their_own_way() {
    let running = Server::new(settings("workers = 2", &[echo("a")]))
        .start()
        .unwrap();
    let mut inside = client(&running);
    inside.write_all(b"0001\n").unwrap();
    inside.read_exact(&mut [0; 6]).unwrap();
    let address = running.address("lines").unwrap();
    running.stop();
    let deadline = Instant::now() + PATIENCE;
    let refused = loop {
        match TcpStream::connect(address) {
            // It came in the moment between the last look at the queue and the close: Linux resets it.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => break error,
            Ok(_) => {}
        }
        assert!(Instant::now() < deadline, "it still listens");
    };
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(exchange(inside, b"and more"), b"and more");
    running.join().unwrap();
}

#[test]
fn dropping_it_ends_it_at_once() {
    let running = Server::new(settings("workers = 2", &[echo("a")]))
        .start()
        .unwrap();
    let mut inside = client(&running);
    inside.write_all(b"0001\n").unwrap();
    inside.read_exact(&mut [0; 6]).unwrap();
    let address = running.address("lines").unwrap();
    drop(running);
    assert_eq!(
        inside.read(&mut [0]).unwrap_or(0),
        0,
        "its socket is closed"
    );
    // Nothing of it listens any more.
    drop(TcpListener::bind(address).unwrap());
}

/// Breaks the worker that runs it: unlike what comes from the registry, nothing catches its panic.
#[derive(Debug)]
struct Broken;

impl Unpack for Broken {
    fn unpack(&self, _prefix: &[u8], _scanned: usize, _eof: bool) -> Status {
        panic!("as this test wants it")
    }
}

#[test]
fn a_panic_of_a_worker_ends_the_server() {
    let mut settings = settings("workers = 3", &[echo("a")]);
    settings.listeners[0].engine.unpack = Some(Arc::new(Broken));
    let running = Server::new(settings).start().unwrap();
    let mut client = client(&running);
    client.write_all(b"0001\n").unwrap();
    let error = running.join().unwrap_err();
    assert!(matches!(error, Error::Panicked { .. }), "{error}");
    assert_eq!(error.exit_code(), 1);
}

#[test]
fn a_name_that_does_not_resolve_is_a_backend_that_is_down() {
    let backends = [echo("a"), ("b", "nowhere.invalid:7001".to_owned())];
    let running = Server::new(settings("workers = 1", &backends))
        .start()
        .unwrap();
    for key in 0..20 {
        let message = message(key, 10);
        assert_eq!(exchange(client(&running), &message)[0], b'a', "key {key}");
    }
    running.stop();
    running.join().unwrap();
}

#[test]
fn a_name_that_resolves_is_as_good_as_an_address() {
    let (id, address) = echo("a");
    let by_name = address.replace("127.0.0.1", "localhost");
    let running = Server::new(settings("workers = 1", &[(id, by_name)]))
        .start()
        .unwrap();
    assert_eq!(exchange(client(&running), b"0001\n"), b"a0001\n");
}

/// Holds up the worker that runs it for the first time, until the other end of `open` is hung up.
#[derive(Debug)]
struct Gate {
    reached: Sender<()>,
    open: Mutex<Receiver<()>>,
    then: Arc<dyn Unpack>,
}

impl Unpack for Gate {
    fn unpack(&self, prefix: &[u8], scanned: usize, eof: bool) -> Status {
        let _ = self.reached.send(());
        let _ = self.open.lock().unwrap().recv_timeout(PATIENCE);
        self.then.unpack(prefix, scanned, eof)
    }
}

#[test]
fn clients_that_wait_while_the_worker_is_busy_are_all_served() {
    let ((reached, at_gate), (open, opened)) = (mpsc::channel(), mpsc::channel());
    let mut settings = settings("workers = 1", &[echo("a")]);
    let unpack = &mut settings.listeners[0].engine.unpack;
    let then = unpack.take().unwrap();
    *unpack = Some(Arc::new(Gate {
        reached,
        open: Mutex::new(opened),
        then,
    }));
    let running = Server::new(settings).start().unwrap();
    let mut first = client(&running);
    first.write_all(b"0000\n").unwrap();
    at_gate.recv_timeout(PATIENCE).unwrap();

    // More than a turn accepts, and only one event for all of them.
    let clients: Vec<_> = (0..100).map(|_| client(&running)).collect();
    drop(open);
    for client in clients {
        assert_eq!(exchange(client, b"0001\n"), b"a0001\n");
    }
}
