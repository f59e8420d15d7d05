//! Sessions that the kernel forwards: what their peers, and an operator, see of it.

mod hosts;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::kernel::hands_off;
use crate::support::peers::reset;
use crate::support::proc::{descriptors, descriptors_at_rest};
use crate::support::programs::free_address;
use crate::support::setup::Setup;
use crate::support::site::{Site, Through};
use crate::support::stream::{Stream, rest};
use crate::support::tlb::{Tlb, field};
use crate::support::{PATIENCE, eventually};

/// How long a hand-off is awaited before more is said.
const PAUSE: Duration = Duration::from_millis(20);

/// A session of a site, handed off.
struct Session {
    client: TcpStream,
    backend: TcpStream,
}

impl Session {
    /// The next one of a site whose sessions are handed off at once.
    #[track_caller]
    fn of(site: &Site) -> Self {
        let (client, backend) = site.session();
        Self::away(site, client, backend)
    }

    /// This one.
    #[track_caller]
    fn away(site: &Site, client: TcpStream, backend: TcpStream) -> Self {
        let session = Self { client, backend };
        let open = descriptors_at_rest(tlb(site).pid());
        until_handed_off(tlb(site), &session.client, &session.backend);
        // The client's socket goes last of all; the backend's keeps a port.
        eventually("the sockets are gone", || {
            (descriptors(tlb(site).pid()) < open).then_some(())
        });
        session
    }

    /// A question and an answer.
    #[track_caller]
    fn talk(&self) {
        for (from, to) in [(&self.client, &self.backend), (&self.backend, &self.client)] {
            let said = Stream::new(7, 100);
            said.send(from).expect("a peer that lives");
            said.expect_from(to);
        }
    }

    /// Either peer is reset, though it says nothing.
    #[track_caller]
    fn expect_resets(self) {
        for mut peer in [self.client, self.backend] {
            let error = peer.read(&mut [0]).expect_err("a reset");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    }
}

/// Has the client say one thing after the other, with a pause in which nobody says anything, until tlb hands its session
/// off.
#[track_caller]
fn until_handed_off(tlb: &Tlb, client: &TcpStream, backend: &TcpStream) {
    let count = || tlb.log().lines(|line| line.contains("handed off")).len();
    let (before, began) = (count(), Instant::now());
    loop {
        let said = Stream::new(7, 100);
        said.send(client).expect("a peer that lives");
        said.expect_from(backend);
        let asked = Instant::now();
        while asked.elapsed() < PAUSE {
            if count() > before {
                return;
            }
            thread::yield_now();
        }
        assert!(began.elapsed() < PATIENCE, "it is not handed off");
    }
}

fn tlb(site: &Site) -> &Tlb {
    site.tlb.as_ref().expect("a site with tlb")
}

fn count(site: &Site, text: &str) -> usize {
    tlb(site).log().lines(|line| line.contains(text)).len()
}

#[test]
fn an_operator_sees_what_the_kernel_moved() {
    if !hands_off() {
        return;
    }
    let site = Site::new(Through::Kernel);
    let session = Session::of(&site);
    let bytes = Stream::new(3, 300_000);
    thread::scope(|scope| {
        scope.spawn(|| bytes.send(&session.client));
        bytes.expect_from(&session.backend);
    });
    session.client.shutdown(Shutdown::Write).expect("a FIN");
    let (_, end) = rest(&session.backend);
    assert_eq!(format!("{end:?}"), "Fin", "half of it has ended");
    bytes.send(&session.backend).expect("the other half lives");
    session.backend.shutdown(Shutdown::Write).expect("a FIN");
    bytes.expect_from_then_fin(&session.client);
    let line = tlb(&site).await_closed("completed");
    let moved = |name| -> u64 {
        field(&line, name)
            .and_then(|it| it.parse().ok())
            .expect(name)
    };
    let (forward, back) = (moved("forward"), moved("return"));
    assert_eq!(back, 300_000, "{line}");
    let before = forward - 300_000 - 40;
    assert_eq!(
        before % 100,
        0,
        "the first frame, and whole messages: {line}"
    );
}

#[test]
fn a_reset_passes_by_and_is_told() {
    if !hands_off() {
        return;
    }
    let site = Site::new(Through::Kernel);
    let Session {
        client,
        mut backend,
    } = Session::of(&site);
    reset(client);
    let error = backend.read(&mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    tlb(&site).await_closed("client-reset");
}

#[test]
fn a_port_that_is_used_again_is_another_sessions() {
    if !hands_off() {
        return;
    }
    let site = Site::new(Through::Kernel);
    let began = Instant::now();
    let from = Some(free_address(91));
    for _ in 0..3 {
        // The backend ends first, so that the client's port is free at once.
        let (client, backend) = site.session_from(from);
        let session = Session::away(&site, client, backend);
        session.backend.shutdown(Shutdown::Write).expect("a FIN");
        let (_, end) = rest(&session.client);
        assert_eq!(format!("{end:?}"), "Fin");
        session.client.shutdown(Shutdown::Write).expect("a FIN");
        let (_, end) = rest(&session.backend);
        assert_eq!(format!("{end:?}"), "Fin");
    }
    eventually("all have ended", || {
        (count(&site, "reason=completed") == 3).then_some(())
    });
    // As long as the last session of a port is remembered, and a good deal longer than this takes.
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "no session had to wait"
    );
}

#[test]
fn an_idle_session_ends_at_its_timeout_and_a_busy_one_does_not() {
    if !hands_off() {
        return;
    }
    let site = Site::with(Through::Kernel, |setup| {
        setup.listener("idle-timeout = \"1500ms\"")
    });
    let (idle, busy) = (Session::of(&site), Session::of(&site));
    while count(&site, "reason=idle-timeout") == 0 {
        busy.talk();
    }
    idle.expect_resets();
    busy.talk();
}

#[test]
fn stopping_ends_sessions_that_are_away() {
    if !hands_off() {
        return;
    }
    let mut site = Site::with(Through::Kernel, |setup| {
        setup.top("shutdown-timeout = \"100ms\"")
    });
    let session = Session::of(&site);
    let mut tlb = site.tlb.take().expect("a site with tlb");
    tlb.signal(Signal::SIGTERM);
    session.expect_resets();
    assert_eq!(tlb.await_exit().code(), Some(0));
    tlb.await_closed("shutdown");
}

#[test]
fn nothing_is_left_of_a_tlb_that_is_killed() {
    if !hands_off() {
        return;
    }
    let mut site = Site::new(Through::Kernel);
    let mut session = Session::of(&site);
    let mut tlb = site.tlb.take().expect("a site with tlb");
    tlb.signal(Signal::SIGKILL);
    tlb.await_exit();
    // Nobody says anything on its behalf, so that a peer finds out when it speaks.
    session
        .client
        .write_all(b"anybody?")
        .expect("a socket that does not know yet");
    let error = session.client.read(&mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_reload_cannot_switch_it_on() {
    let site = Site::new(Through::Copy);
    let tlb = tlb(&site);
    let setup = Setup::new(&site.farm.addresses())
        .bind(tlb.address().to_string())
        .listener("hand-off = 1");
    tlb.rewrite(&setup.render());
    tlb.signal(Signal::SIGHUP);
    tlb.log().await_line("a refusal", |line| {
        line.contains("hand-off is switched on at start")
    });
}
