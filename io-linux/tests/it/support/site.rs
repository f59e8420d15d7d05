//! One deployment of the issue: sixteen backends, and a way to them.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use super::farm::{BACKENDS, Farm};
use super::peers;
use super::setup::Setup;
use super::stream::{Stream, frame};
use super::tlb::Tlb;

/// Sources rest by it, whatever the host does: where it paces they would not.
pub(crate) const UNPACED: &str = "congestion = \"reno\"";

/// How a client's bytes get to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Through {
    /// Without tlb: proves the scenario itself.
    Nothing,
    /// Through tlb's copying relay.
    Copy,
    /// Through tlb's splicing relay.
    Splice,
    /// Through the relay that chooses between the two as it goes.
    Auto,
    /// Through that relay until the kernel takes over.
    Kernel,
}

/// Sixteen backends that the test drives, and where clients come in.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) tlb: Option<Tlb>,
    pub(crate) farm: Farm,
    entry: SocketAddr,
}

impl Site {
    /// A fresh one.
    #[track_caller]
    pub(crate) fn new(through: Through) -> Self {
        Self::with(through, |setup| setup)
    }

    /// A fresh one, with changes to tlb's configuration.
    #[track_caller]
    pub(crate) fn with(through: Through, change: impl FnOnce(Setup) -> Setup) -> Self {
        let farm = Farm::new(BACKENDS);
        let addresses = farm.addresses();
        let relay = match through {
            Through::Nothing => {
                return Self {
                    tlb: None,
                    entry: addresses[0],
                    farm,
                };
            }
            Through::Copy => "relay = \"copy\"",
            Through::Splice => "relay = \"splice\"",
            Through::Auto | Through::Kernel => "relay = \"auto\"",
        };
        let mut setup = Setup::new(&addresses).top(relay);
        if through != Through::Copy {
            setup = setup.listener(UNPACED);
        }
        if through == Through::Kernel {
            setup = setup.listener("hand-off = 1");
        }
        let tlb = Tlb::start(&change(setup));
        Self {
            entry: tlb.address(),
            tlb: Some(tlb),
            farm,
        }
    }

    /// Where clients connect.
    pub(crate) const fn entry(&self) -> SocketAddr {
        self.entry
    }

    /// A fresh client.
    #[track_caller]
    pub(crate) fn connect(&self) -> TcpStream {
        peers::connect(self.entry)
    }

    /// Both ends of a session whose first frame has arrived.
    #[track_caller]
    pub(crate) fn session(&self) -> (TcpStream, TcpStream) {
        self.session_from(None)
    }

    /// Likewise, from an address of the client's own.
    #[track_caller]
    pub(crate) fn session_from(&self, from: Option<SocketAddr>) -> (TcpStream, TcpStream) {
        let mut client = match from {
            Some(from) => peers::connect_from(from, self.entry),
            None => self.connect(),
        };
        let first = frame(0x5e55_1011, 40);
        client.write_all(&first).expect("the client's first frame");
        let (_, backend) = self.farm.accept();
        Stream::after(first, 0, 0).expect_from(&backend);
        (client, backend)
    }
}
