//! Starting and stopping.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::eventually;
use crate::support::farm::{BACKENDS, Farm, greet_and_echo};
use crate::support::peers::{connect, owner};
use crate::support::setup::Setup;
use crate::support::site::{Site, Through};
use crate::support::stream::{Stream, frame, rest};
use crate::support::tlb::{Tlb, closed_with};

#[test]
fn stopping_closes_idle_sessions_spread_over_the_shutdown_timeout() {
    const TIMEOUT: Duration = Duration::from_secs(2);
    const SESSIONS: usize = 40;
    let mut site = Site::with(Through::Copy, |setup| {
        setup.workers(2).top("shutdown-timeout = \"2s\"")
    });
    let sessions: Vec<(TcpStream, TcpStream)> = (0..SESSIONS).map(|_| site.session()).collect();
    let entry = site.entry();
    let mut tlb = site.tlb.take().expect("a site with tlb");
    let stopped = Instant::now();
    tlb.signal(Signal::SIGTERM);
    eventually("new connections are refused", || {
        let refused = TcpStream::connect(entry).err()?;
        (refused.kind() == ErrorKind::ConnectionRefused).then_some(())
    });
    let mut ends: Vec<Duration> = thread::scope(|scope| {
        let watch = |client: &TcpStream| {
            let (bytes, _) = rest(client);
            assert_eq!(bytes, b"", "bytes that nobody sent");
            stopped.elapsed()
        };
        let watchers: Vec<_> = sessions
            .iter()
            .map(|(client, _)| scope.spawn(move || watch(client)))
            .collect();
        let joined = watchers.into_iter().map(thread::ScopedJoinHandle::join);
        joined.map(|end| end.expect("an end")).collect()
    });
    let status = tlb.await_exit();
    assert_eq!(status.code(), Some(0), "tlb's exit: {status}");
    ends.sort_unstable();
    assert!(
        ends[SESSIONS - 1] <= TIMEOUT + Duration::from_secs(1),
        "the last session ended too late: {ends:?}"
    );
    // Evenly spread, a quarter of the time takes a quarter of the sessions; three are a storm.
    let storm = ends
        .windows(SESSIONS * 3 / 4)
        .any(|window| window[window.len() - 1] - window[0] < TIMEOUT / 4);
    assert!(!storm, "most sessions were closed at once: {ends:?}");
    // The reader of the log may be behind the exit.
    eventually("every session is in the log", || {
        let closed = tlb.log().lines(|line| closed_with(line, "shutdown"));
        (closed.len() == SESSIONS).then_some(())
    });
}

#[test]
fn stopping_without_sessions_is_at_once() {
    let serving = Farm::new(1).serve(greet_and_echo);
    let mut tlb = Tlb::start(&Setup::new(serving.addresses()).workers(2));
    assert_eq!(owner(tlb.address(), 1), 0);
    let stopped = Instant::now();
    tlb.signal(Signal::SIGTERM);
    let status = tlb.await_exit();
    assert_eq!(status.code(), Some(0), "tlb's exit: {status}");
    assert!(
        stopped.elapsed() < Duration::from_secs(5),
        "{:?}",
        stopped.elapsed()
    );
}

#[test]
fn sessions_end_in_their_own_way_while_tlb_stops() {
    let mut site = Site::with(Through::Copy, |setup| {
        setup.top("shutdown-timeout = \"10s\"")
    });
    let (mut client, mut backend) = site.session();
    let mut tlb = site.tlb.take().expect("a site with tlb");
    tlb.signal(Signal::SIGTERM);
    // A busy session, after the signal: bytes still pass both ways.
    for _ in 0..20 {
        client.write_all(b"ping").expect("the client sends");
        Stream::after(b"ping".to_vec(), 0, 0).expect_from(&backend);
        backend.write_all(b"pong").expect("the backend sends");
        Stream::after(b"pong".to_vec(), 0, 0).expect_from(&client);
    }
    drop((client, backend));
    let stopped = Instant::now();
    let status = tlb.await_exit();
    assert_eq!(status.code(), Some(0), "tlb's exit: {status}");
    assert!(
        stopped.elapsed() < Duration::from_secs(8),
        "tlb waits for a session that has ended: {:?}",
        stopped.elapsed()
    );
}

#[test]
fn a_second_signal_ends_tlb_at_once() {
    let mut site = Site::with(Through::Copy, |setup| {
        setup.top("shutdown-timeout = \"600s\"")
    });
    let _session = site.session();
    let entry = site.entry();
    let mut tlb = site.tlb.take().expect("a site with tlb");
    tlb.signal(Signal::SIGTERM);
    // The first signal has been understood when nobody listens any more.
    eventually("new connections are refused", || {
        let refused = TcpStream::connect(entry).err()?;
        (refused.kind() == ErrorKind::ConnectionRefused).then_some(())
    });
    assert!(tlb.is_running(), "tlb left a session at the first signal");
    tlb.signal(Signal::SIGTERM);
    tlb.await_exit();
}

/// Clients that wait in the accept queue when tlb is told to stop.
fn waiting_clients_are_served(workers: usize) {
    const CLIENTS: usize = 24;
    let serving = Farm::new(BACKENDS).serve(greet_and_echo);
    let setup = Setup::new(serving.addresses())
        .workers(workers)
        .top("shutdown-timeout = \"5s\"");
    let mut tlb = Tlb::start(&setup);
    tlb.freeze();
    let first = frame(9, 32);
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(tlb.address())).collect();
    for client in &mut clients {
        client.write_all(&first).expect("the client sends");
    }
    tlb.signal(Signal::SIGTERM);
    tlb.thaw();
    let echo = Stream::after(first, 0, 0);
    for client in &mut clients {
        let mut greeting = [0];
        Read::read_exact(client, &mut greeting).expect("a waiting client is served");
        echo.expect_from(client);
    }
    drop(clients);
    let status = tlb.await_exit();
    assert_eq!(status.code(), Some(0), "tlb's exit: {status}");
}

#[test]
fn clients_in_the_accept_queue_are_served_before_tlb_stops() {
    waiting_clients_are_served(1);
}

#[test]
fn clients_in_the_accept_queues_of_four_workers_are_served_before_tlb_stops() {
    waiting_clients_are_served(4);
}

#[test]
fn a_second_tlb_on_the_same_port_is_refused() {
    let serving = Farm::new(2).serve(greet_and_echo);
    let setup = Setup::new(serving.addresses()).workers(2);
    let tlb = Tlb::start(&setup);
    let expected = owner(tlb.address(), 1);
    let (status, said) = Tlb::run_to_end(&setup.bind(tlb.address().to_string()));
    assert_eq!(status.code(), Some(69), "the second tlb said:\n{said}");
    assert!(
        said.contains(&tlb.address().to_string()),
        "the second tlb does not say which address is taken:\n{said}"
    );
    for _ in 0..20 {
        assert_eq!(owner(tlb.address(), 1), expected, "the first one goes on");
    }
}

/// The CPUs that a thread may use, as the kernel lists them.
fn allowed(task: &Path) -> String {
    let status = fs::read_to_string(task.join("status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.unwrap_or_default().trim().to_owned()
}

#[test]
fn workers_are_kept_to_their_cpus() {
    let here = allowed(Path::new("/proc/thread-self"));
    let first = here.split([',', '-']).next().expect("a CPU");
    let site = Site::with(Through::Copy, |setup| {
        let cpus = format!("cpus = [{first}]");
        setup.workers(2).top(&cpus).top("incoming-cpu = true")
    });
    let pid = site.tlb.as_ref().expect("a site with tlb").pid();
    eventually("both workers are kept to the CPU", || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
        let kept = tasks.flatten().map(|task| task.path()).filter(|task| {
            let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
            name.starts_with("tlb-worker-") && allowed(task) == first
        });
        (kept.count() == 2).then_some(())
    });
    for _ in 0..8 {
        drop(site.session());
    }
}

#[test]
fn a_cpu_that_there_is_not_is_refused() {
    let serving = Farm::new(2).serve(greet_and_echo);
    let setup = Setup::new(serving.addresses()).top("cpus = [1023]");
    let (status, said) = Tlb::run_to_end(&setup);
    assert_eq!(status.code(), Some(1), "tlb said:\n{said}");
    assert!(said.contains("may not use CPU 1023"), "tlb said:\n{said}");
}

/// CPU time that tlb has had.
fn cpu(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    let of = |task: io::Result<fs::DirEntry>| -> Option<u64> {
        let stat = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse().ok()
    };
    Duration::from_nanos(tasks.filter_map(of).sum())
}

#[test]
fn a_worker_that_looks_for_events_sleeps_when_there_are_none() {
    let site = Site::with(Through::Copy, |setup| setup.top("spin-us = 1000"));
    let (mut client, mut backend) = site.session();
    for _ in 0..100 {
        client.write_all(b"ping").expect("a relay");
        let mut got = [0; 4];
        backend.read_exact(&mut got).expect("a relay");
        assert_eq!(&got, b"ping");
        backend.write_all(b"pong").expect("a relay");
        client.read_exact(&mut got).expect("a relay");
        assert_eq!(&got, b"pong");
    }
    let pid = site.tlb.as_ref().expect("a site with tlb").pid();
    eventually("tlb sleeps", || {
        let window = Duration::from_millis(100);
        let before = cpu(pid);
        thread::sleep(window);
        (cpu(pid) - before < window / 10).then_some(())
    });
}
