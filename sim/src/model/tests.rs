//! Each behaviour that the model promises, alone.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use tlb_engine::api::{Close, Fault};
use tlb_engine::drive::{Accept, Connect, First, Io, Outcome, Readiness, Via};
use tlb_engine::ids::{Dir, ListenerId, SessionId, Side, SocketId};
use tlb_engine::rng::Rng;
use tlb_engine::time::Duration;

use super::io::{ModelIo, Scarcity};
use super::kernel::{Hatch, Kernel, Sock, Tuning};

const PLAIN: Tuning = Tuning {
    send_buffer: 1000,
    receive_buffer: 500,
    segment: 100,
    copy_buffer: 256,
    pipe_slots: 4,
    pipes: 1,
    backlog: 2,
    partial: 0,
    immediate: 0,
    user_timeout_ms: 50,
};
const BACKEND: usize = 0;
const CLIENTS: usize = 1;

fn backend_address() -> SocketAddr {
    SocketAddr::from(([10, 200, 0, 0], 7000))
}

fn client_address() -> SocketAddr {
    SocketAddr::from(([10, 1, 0, 0], 10_000))
}

fn name() -> SocketId {
    SocketId::backend(session(), 0)
}

fn session() -> SessionId {
    SessionId::new(0, 1)
}

fn kernel(tuning: Tuning) -> Kernel {
    let mut kernel = Kernel::new(tuning, 1, 3, Rng::new(1), Rng::new(2));
    kernel.set_address(BACKEND, backend_address());
    kernel.listen(0, ListenerId(0));
    kernel
}

/// Lets everything arrive that is on its way.
fn settle(kernel: &mut Kernel) {
    for _ in 0..1000 {
        kernel.advance();
        match kernel.next_due() {
            Some(at) => kernel.set_time(at),
            None => return,
        }
    }
    panic!("the kernel does not come to rest");
}

/// tlb's socket, registered, and the backend's.
fn pair(kernel: &mut Kernel) -> (Sock, Sock) {
    let (ours, progress) = kernel.connect(0, backend_address()).unwrap();
    assert_eq!(progress, Connect::InProgress);
    kernel.register(ours, 0, name());
    assert_eq!(
        events(kernel),
        [],
        "nothing is known of a socket that is connecting"
    );
    settle(kernel);
    assert_eq!(kernel.connected(ours), Ok(Connect::Established));
    let theirs = kernel.backend_accept(BACKEND, 0).unwrap();
    assert_eq!(events(kernel), [writable()]);
    (ours, theirs)
}

fn events(kernel: &mut Kernel) -> Vec<Readiness> {
    let mut events = Vec::new();
    kernel.take_events(0, &mut events);
    events.into_iter().map(|(_, hint)| hint).collect()
}

fn writable() -> Readiness {
    Readiness {
        writable: true,
        ..Readiness::default()
    }
}

fn write(kernel: &mut Kernel, sock: Sock, len: usize) -> Result<usize, Option<Fault>> {
    let mut from = VecDeque::from([Bytes::from(vec![7; len])]);
    kernel.write(sock, &mut from, false)
}

fn read(kernel: &mut Kernel, sock: Sock, most: usize) -> Result<usize, Option<Fault>> {
    kernel.read(sock, most, usize::MAX, false, &mut VecDeque::new())
}

#[test]
fn buffers_bound_what_is_under_way_and_room_is_told_once_it_was_missed() {
    let mut kernel = kernel(PLAIN);
    let (ours, theirs) = pair(&mut kernel);
    assert_eq!(write(&mut kernel, ours, 700), Ok(700));
    settle(&mut kernel);
    assert_eq!(
        kernel.unacknowledged(ours),
        200,
        "the peer's buffer holds 500"
    );
    assert_eq!(write(&mut kernel, ours, 2000), Ok(800), "a partial write");
    assert_eq!(write(&mut kernel, ours, 1), Err(None));
    assert_eq!(events(&mut kernel), [], "no room, no edge");

    assert_eq!(read(&mut kernel, theirs, 100), Ok(100), "a partial read");
    settle(&mut kernel);
    assert_eq!(
        events(&mut kernel),
        [],
        "less than a third of the buffer is free"
    );
    assert_eq!(read(&mut kernel, theirs, 1000), Ok(500));
    settle(&mut kernel);
    assert_eq!(events(&mut kernel), [writable()]);
    assert_eq!(read(&mut kernel, theirs, 1000), Ok(500));
    settle(&mut kernel);
    assert_eq!(events(&mut kernel), [], "nobody missed any room since then");
}

#[test]
fn an_edge_comes_with_everything_that_is_true_and_only_once() {
    let mut kernel = kernel(PLAIN);
    let (ours, theirs) = pair(&mut kernel);
    write(&mut kernel, theirs, 10).unwrap();
    write(&mut kernel, theirs, 10).unwrap();
    kernel.shutdown(theirs).unwrap();
    settle(&mut kernel);
    let all = Readiness {
        readable: true,
        writable: true,
        read_closed: true,
        ..Readiness::default()
    };
    assert_eq!(events(&mut kernel), [all], "data and the end in one");
    assert_eq!(events(&mut kernel), []);
    assert_eq!(read(&mut kernel, ours, 15), Ok(15));
    assert_eq!(events(&mut kernel), [], "what is left brings no edge");
}

#[test]
fn latency_delays_and_a_held_link_keeps_order() {
    let mut kernel = kernel(PLAIN);
    let (ours, theirs) = pair(&mut kernel);
    kernel.set_latency(BACKEND, Duration::from_millis(5), 0);
    write(&mut kernel, theirs, 3).unwrap();
    kernel.set_latency(BACKEND, Duration::from_millis(1), 0);
    write(&mut kernel, theirs, 4).unwrap();
    kernel.hold(BACKEND, true);
    settle(&mut kernel);
    assert_eq!(kernel.now().as_nanos(), 5_000_000);
    assert_eq!(read(&mut kernel, ours, 100), Err(None), "nothing passes");
    kernel.hold(BACKEND, false);
    settle(&mut kernel);
    let mut chunks = VecDeque::new();
    assert_eq!(
        kernel.read(ours, 100, usize::MAX, false, &mut chunks),
        Ok(7)
    );
    let lengths: Vec<_> = chunks.iter().map(Bytes::len).collect();
    assert_eq!(lengths, [3, 4], "a faster segment does not overtake");
}

#[test]
fn a_half_closed_connection_goes_on_the_other_way() {
    let mut kernel = kernel(PLAIN);
    let (ours, theirs) = pair(&mut kernel);
    write(&mut kernel, theirs, 10).unwrap();
    kernel.shutdown(theirs).unwrap();
    settle(&mut kernel);
    assert_eq!(read(&mut kernel, ours, 100), Ok(10));
    assert_eq!(read(&mut kernel, ours, 100), Ok(0));
    assert_eq!(write(&mut kernel, ours, 10), Ok(10));
    settle(&mut kernel);
    assert_eq!(read(&mut kernel, theirs, 100), Ok(10));
    kernel.shutdown(ours).unwrap();
    assert_eq!(
        kernel.unacknowledged(ours),
        1,
        "a FIN counts as a byte until acknowledged"
    );
    settle(&mut kernel);
    assert_eq!(kernel.unacknowledged(ours), 0);
    assert_eq!(
        write(&mut kernel, ours, 1),
        Err(Some(Fault::Reset)),
        "EPIPE"
    );
}

#[test]
fn a_reset_leaves_what_was_received_and_is_told_once() {
    // By whichever call comes first: a read, a write, or SO_ERROR.
    let calls: [fn(&mut Kernel, Sock) -> Option<Fault>; 3] = [
        |kernel, sock| read(kernel, sock, 100).unwrap_err(),
        |kernel, sock| write(kernel, sock, 1).unwrap_err(),
        Kernel::take_error,
    ];
    for (index, call) in calls.into_iter().enumerate() {
        let mut kernel = kernel(PLAIN);
        let (ours, theirs) = pair(&mut kernel);
        write(&mut kernel, theirs, 10).unwrap();
        kernel.close(theirs, Close::Reset);
        settle(&mut kernel);
        let hint = events(&mut kernel)[0];
        assert!(hint.error && hint.read_closed && hint.readable && hint.writable);
        if index == 0 {
            assert_eq!(
                read(&mut kernel, ours, 100),
                Ok(10),
                "queued bytes come first"
            );
        }
        assert_eq!(call(&mut kernel, ours), Some(Fault::Reset));
        if index > 0 {
            assert_eq!(read(&mut kernel, ours, 100), Ok(10), "and are not lost");
        }
        assert_eq!(
            read(&mut kernel, ours, 100),
            Ok(0),
            "then the end seems clean"
        );
        assert_eq!(
            write(&mut kernel, ours, 1),
            Err(Some(Fault::Reset)),
            "EPIPE stays"
        );
        assert_eq!(kernel.take_error(ours), None);
        assert_eq!(kernel.shutdown(ours), Err(Fault::Reset));
    }
}

#[test]
fn a_reset_loses_what_its_sender_had_not_sent() {
    let mut kernel = kernel(PLAIN);
    let (ours, theirs) = pair(&mut kernel);
    write(&mut kernel, theirs, 1000).unwrap();
    kernel.close(theirs, Close::Reset);
    settle(&mut kernel);
    assert_eq!(
        read(&mut kernel, ours, 2000),
        Ok(500),
        "as much as our window took"
    );
    assert_eq!(read(&mut kernel, ours, 2000), Err(Some(Fault::Reset)));
}

#[test]
fn a_close_flushes_unless_something_is_unread() {
    let mut kernel = kernel(PLAIN);
    let (ours, theirs) = pair(&mut kernel);
    write(&mut kernel, theirs, 1000).unwrap();
    kernel.close(theirs, Close::Fin);
    settle(&mut kernel);
    assert_eq!(read(&mut kernel, ours, 2000), Ok(500));
    settle(&mut kernel);
    assert_eq!(
        read(&mut kernel, ours, 2000),
        Ok(500),
        "sent on after the close"
    );
    settle(&mut kernel);
    assert_eq!(read(&mut kernel, ours, 2000), Ok(0));

    let (ours, theirs) = {
        let (ours, _) = kernel.connect(0, backend_address()).unwrap();
        settle(&mut kernel);
        (ours, kernel.backend_accept(BACKEND, 1).unwrap())
    };
    write(&mut kernel, ours, 1).unwrap();
    settle(&mut kernel);
    assert_eq!(kernel.unread(theirs), 1);
    kernel.close(theirs, Close::Fin);
    settle(&mut kernel);
    assert_eq!(read(&mut kernel, ours, 10), Err(Some(Fault::Reset)));
}

#[test]
fn data_for_a_closed_socket_is_answered_by_a_reset() {
    let mut kernel = kernel(PLAIN);
    let (ours, theirs) = pair(&mut kernel);
    kernel.close(theirs, Close::Fin);
    settle(&mut kernel);
    assert_eq!(read(&mut kernel, ours, 10), Ok(0));
    assert_eq!(write(&mut kernel, ours, 10), Ok(10), "nothing is known yet");
    settle(&mut kernel);
    assert_eq!(write(&mut kernel, ours, 10), Err(Some(Fault::Reset)));
}

#[test]
fn connects_are_refused_unreachable_or_hang() {
    for (hatch, fault) in [
        (Hatch::Refusing, Fault::Refused),
        (Hatch::Unreachable, Fault::Unreachable),
    ] {
        let mut kernel = kernel(PLAIN);
        kernel.set_hatch(BACKEND, hatch);
        let (ours, progress) = kernel.connect(0, backend_address()).unwrap();
        kernel.register(ours, 0, name());
        assert_eq!(progress, Connect::InProgress);
        settle(&mut kernel);
        assert!(events(&mut kernel)[0].error);
        assert_eq!(kernel.connected(ours), Err(fault));

        let mut at_once = self::kernel(Tuning {
            immediate: 255,
            ..PLAIN
        });
        at_once.set_hatch(BACKEND, hatch);
        let faults = (0..50).filter_map(|_| at_once.connect(0, backend_address()).err());
        let faults: Vec<_> = faults.collect();
        assert!(faults.len() > 40 && faults.iter().all(|known| *known == fault));
    }
    let mut kernel = kernel(PLAIN);
    kernel.set_hatch(BACKEND, Hatch::Hanging);
    let (ours, _) = kernel.connect(0, backend_address()).unwrap();
    for _ in 0..5 {
        kernel.advance();
        kernel.set_time(kernel.next_due().unwrap());
        assert_eq!(kernel.connected(ours), Ok(Connect::InProgress));
    }
    kernel.set_hatch(BACKEND, Hatch::Open);
    settle(&mut kernel);
    assert_eq!(
        kernel.connected(ours),
        Ok(Connect::Established),
        "the next SYN is heard"
    );
}

#[test]
fn a_connect_can_succeed_at_once() {
    let mut kernel = kernel(Tuning {
        immediate: 255,
        backlog: 100,
        ..PLAIN
    });
    let at_once = (0..50).filter(|_| {
        let (_, progress) = kernel.connect(0, backend_address()).unwrap();
        progress == Connect::Established
    });
    assert!(at_once.count() > 40);
}

#[test]
fn an_address_that_moved_refuses() {
    let mut kernel = kernel(PLAIN);
    kernel.drop_address(backend_address());
    let (ours, _) = kernel.connect(0, backend_address()).unwrap();
    settle(&mut kernel);
    assert_eq!(kernel.connected(ours), Err(Fault::Refused));
}

#[test]
fn a_full_accept_queue_drops_who_comes_and_hears_them_again() {
    let mut kernel = kernel(PLAIN);
    let socks: Vec<_> = (0..3)
        .map(|_| kernel.connect(0, backend_address()).unwrap().0)
        .collect();
    kernel.advance();
    assert_eq!(kernel.waiting(BACKEND), PLAIN.backlog);
    assert_eq!(kernel.connected(socks[2]), Ok(Connect::InProgress));
    kernel.backend_accept(BACKEND, 0).unwrap();
    settle(&mut kernel);
    assert_eq!(kernel.connected(socks[2]), Ok(Connect::Established));
}

#[test]
fn a_host_that_is_gone_times_out_or_comes_back_without_its_connections() {
    let mut kernel = kernel(PLAIN);
    let (ours, _) = pair(&mut kernel);
    kernel.hold(BACKEND, true);
    kernel.give_up(BACKEND);
    assert!(events(&mut kernel)[0].error);
    assert_eq!(read(&mut kernel, ours, 1), Err(Some(Fault::TimedOut)));

    kernel.hold(BACKEND, false);
    let (ours, theirs) = pair(&mut kernel);
    kernel.hold(BACKEND, true);
    kernel.reboot(BACKEND);
    kernel.hold(BACKEND, false);
    assert!(kernel.is_closed(theirs));
    let before = kernel.now();
    settle(&mut kernel);
    assert_eq!(
        kernel.now().since(before),
        Duration::from_millis(PLAIN.user_timeout_ms)
    );
    assert_eq!(
        read(&mut kernel, ours, 1),
        Err(Some(Fault::Reset)),
        "by a keepalive probe"
    );
}

#[test]
fn a_process_that_crashes_closes_its_sockets() {
    let mut kernel = kernel(PLAIN);
    let (ours, _) = pair(&mut kernel);
    kernel.crash(BACKEND);
    settle(&mut kernel);
    assert_eq!(read(&mut kernel, ours, 1), Ok(0));
}

#[test]
fn a_read_stops_at_the_urgent_mark_once_and_a_splice_for_good() {
    let mut kernel = kernel(PLAIN);
    let (ours, theirs) = pair(&mut kernel);
    let mut from = VecDeque::from([Bytes::from_static(b"before!")]);
    kernel.write(theirs, &mut from, true).unwrap();
    write(&mut kernel, theirs, 5).unwrap();
    settle(&mut kernel);
    assert!(events(&mut kernel)[0].priority);
    let splice = |kernel: &mut Kernel| kernel.read(ours, 100, 100, true, &mut VecDeque::new());
    assert_eq!(splice(&mut kernel), Ok(6));
    assert_eq!(splice(&mut kernel), Err(None), "the mark is next");
    assert!(kernel.is_at_mark(ours));
    assert_eq!(read(&mut kernel, ours, 100), Ok(6), "a read gets past it");

    let mut from = VecDeque::from([Bytes::from_static(b"again!")]);
    kernel.write(theirs, &mut from, true).unwrap();
    settle(&mut kernel);
    assert_eq!(read(&mut kernel, ours, 100), Ok(5));
    assert_eq!(read(&mut kernel, ours, 100), Ok(1));
}

#[test]
fn partial_reads_leave_an_edge_behind() {
    let mut kernel = kernel(Tuning {
        partial: 255,
        ..PLAIN
    });
    let (ours, theirs) = pair(&mut kernel);
    let mut sent = 0;
    for _ in 0..30 {
        sent += write(&mut kernel, theirs, 10).unwrap();
    }
    settle(&mut kernel);
    let (mut got, mut turns) = (0, 0);
    while !events(&mut kernel).is_empty() {
        got += read(&mut kernel, ours, 1000).unwrap();
        settle(&mut kernel);
        turns += 1;
    }
    assert_eq!(got, sent, "edges alone lead to every byte");
    assert!(turns > 2);
}

// ---- Through `Io`.

struct Setup {
    kernel: Rc<RefCell<Kernel>>,
    io: ModelIo,
    client: Sock,
    backend: Sock,
}

/// A session of which both sockets are connected.
fn setup(tuning: Tuning) -> Setup {
    let kernel = Rc::new(RefCell::new(kernel(tuning)));
    let mut io = ModelIo::new(Rc::clone(&kernel), 0, Scarcity::default());
    let client = connect_client(&kernel);
    let Accept::Conn(conn, peer) = io.accept(ListenerId(0)) else {
        panic!("a connection waits");
    };
    assert_eq!(peer, client_address());
    io.adopt(session(), conn).unwrap();
    io.connect(session(), 0, backend_address(), None, First::default())
        .unwrap();
    settle(&mut kernel.borrow_mut());
    let backend = kernel.borrow_mut().backend_accept(BACKEND, 1).unwrap();
    Setup {
        kernel,
        io,
        client,
        backend,
    }
}

fn connect_client(kernel: &Rc<RefCell<Kernel>>) -> Sock {
    let mut kernel = kernel.borrow_mut();
    let sock = kernel.client_connect(0, CLIENTS, 0, ListenerId(0), client_address());
    settle(&mut kernel);
    sock
}

const fn moved(bytes: usize, short: bool) -> Outcome {
    Outcome::Moved { bytes, short }
}

#[test]
fn bytes_pass_through_buffers_and_everything_is_given_back() {
    let mut it = setup(PLAIN);
    write(&mut it.kernel.borrow_mut(), it.client, 300).unwrap();
    settle(&mut it.kernel.borrow_mut());
    let id = session();
    assert_eq!(it.io.recv(id, &mut [0; 10]), moved(10, false));
    assert_eq!(it.io.fill(id, Dir::Forward, Via::Copy), moved(256, false));
    assert_eq!(it.io.drain(id, Dir::Forward), moved(256, false));
    assert_eq!(it.io.fill(id, Dir::Forward, Via::Copy), moved(34, true));
    assert_eq!(it.io.holdings(), (2, 34));
    it.io.close(id, Side::Backend, Close::Fin);
    it.io.close(id, Side::Client, Close::Fin);
    assert_eq!(it.io.holdings(), (0, 0));
    assert_eq!(it.kernel.borrow().ledger.descriptors, [0]);
    assert!(it.kernel.borrow().ledger.findings.is_empty());
}

#[test]
fn a_pipe_takes_one_segment_per_slot_and_its_eagain_is_ambiguous() {
    let mut it = setup(PLAIN);
    let id = session();
    for _ in 0..6 {
        write(&mut it.kernel.borrow_mut(), it.client, 5).unwrap();
    }
    settle(&mut it.kernel.borrow_mut());
    let fill = |it: &mut Setup| it.io.fill(id, Dir::Forward, Via::Splice);
    assert_eq!(fill(&mut it), moved(20, false), "four slots");
    assert_eq!(it.io.pipes(), 1);
    assert_eq!(
        fill(&mut it),
        Outcome::WouldBlock,
        "the pipe is full, the socket is not empty"
    );
    assert_eq!(it.io.drain(id, Dir::Forward), moved(20, false));
    assert_eq!(it.io.pipes(), 0, "an empty pipe goes back");
    assert_eq!(fill(&mut it), moved(10, false));
    assert_eq!(
        fill(&mut it),
        Outcome::WouldBlock,
        "now the socket is empty"
    );
    it.kernel.borrow_mut().shutdown(it.client).unwrap();
    settle(&mut it.kernel.borrow_mut());
    assert_eq!(
        fill(&mut it),
        Outcome::WouldBlock,
        "the end is not told while the pipe holds bytes"
    );
    it.io.drain(id, Dir::Forward);
    assert_eq!(fill(&mut it), Outcome::Eof);
}

#[test]
fn pipes_run_out() {
    let mut it = setup(Tuning { pipes: 1, ..PLAIN });
    let id = session();
    for sock in [it.client, it.backend] {
        write(&mut it.kernel.borrow_mut(), sock, 5).unwrap();
    }
    settle(&mut it.kernel.borrow_mut());
    assert_eq!(it.io.fill(id, Dir::Forward, Via::Splice), moved(5, false));
    assert_eq!(it.io.fill(id, Dir::Return, Via::Splice), Outcome::NoPipe);
    it.io.drain(id, Dir::Forward);
    assert_eq!(it.io.fill(id, Dir::Return, Via::Splice), moved(5, false));
    it.io.drain(id, Dir::Return);
    it.io.scarcity.descriptors = Some(3);
    write(&mut it.kernel.borrow_mut(), it.client, 5).unwrap();
    settle(&mut it.kernel.borrow_mut());
    let none = it.io.fill(id, Dir::Forward, Via::Splice);
    assert_eq!(none, Outcome::NoPipe, "a pipe is two descriptors");
}

#[test]
fn this_host_runs_out_of_what_it_needs() {
    let mut it = setup(PLAIN);
    let id = session();
    it.io.close(id, Side::Backend, Close::Fin);
    let connect = |it: &mut Setup| {
        it.io
            .connect(id, 1, backend_address(), None, First::default())
    };
    it.io.scarcity.ports = true;
    assert_eq!(connect(&mut it), Err(Fault::LocalPorts));
    it.io.scarcity = Scarcity {
        memory: true,
        ..Scarcity::default()
    };
    assert_eq!(connect(&mut it), Err(Fault::LocalMemory));
    it.io.scarcity = Scarcity {
        descriptors: Some(1),
        ..Scarcity::default()
    };
    assert_eq!(connect(&mut it), Err(Fault::LocalDescriptors));
    assert!(
        matches!(it.io.accept(ListenerId(0)), Accept::WouldBlock),
        "nobody waits"
    );
    connect_client(&it.kernel);
    let fault = Fault::LocalDescriptors;
    assert!(matches!(it.io.accept(ListenerId(0)), Accept::Exhausted(is) if is == fault));
    it.io.scarcity = Scarcity {
        gone: 1,
        ..Scarcity::default()
    };
    assert!(matches!(it.io.accept(ListenerId(0)), Accept::Gone));
    assert!(matches!(it.io.accept(ListenerId(0)), Accept::WouldBlock));
}

#[test]
fn a_connection_that_is_dropped_is_closed_and_one_that_waits_is_reset_with_its_listener() {
    let mut it = setup(PLAIN);
    let first = connect_client(&it.kernel);
    let accept = it.io.accept(ListenerId(0));
    assert!(matches!(accept, Accept::Conn(..)));
    drop(accept);
    let second = connect_client(&it.kernel);
    it.io.unlisten(ListenerId(0));
    let third = connect_client(&it.kernel);
    let mut kernel = it.kernel.borrow_mut();
    settle(&mut kernel);
    assert_eq!(read(&mut kernel, first, 1), Ok(0));
    assert_eq!(read(&mut kernel, second, 1), Err(Some(Fault::Reset)));
    assert_eq!(read(&mut kernel, third, 1), Err(Some(Fault::Refused)));
}

#[test]
fn calls_that_break_the_contract_are_findings() {
    let mut it = setup(PLAIN);
    let id = session();
    write(&mut it.kernel.borrow_mut(), it.client, 5).unwrap();
    settle(&mut it.kernel.borrow_mut());
    let findings = |it: &Setup| it.kernel.borrow().ledger.findings.len();
    it.io.drain(id, Dir::Forward);
    assert_eq!(findings(&it), 1, "an empty store");
    it.io.fill(id, Dir::Forward, Via::Copy);
    it.io.fill(id, Dir::Forward, Via::Copy);
    assert_eq!(findings(&it), 2, "a buffer that is not empty");
    it.io.recv(SessionId::new(0, 2), &mut [0]);
    assert_eq!(findings(&it), 3, "a session that is not there");
}
