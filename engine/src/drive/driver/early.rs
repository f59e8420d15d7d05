//! A session before its relay.

use super::{Driver, link};
use crate::api::Input;
use crate::drive::{Connect, Io, Outcome};
use crate::ids::{SessionId, Side};
use crate::time::Timestamp;

impl<I: Io> Driver<I> {
    /// Reads the client's first bytes until there is a verdict.
    pub(super) fn preread(&mut self, now: Timestamp, id: SessionId) {
        loop {
            let want = self.engine.wants(id).min(self.scratch.len());
            let Some(link) = link(&mut self.links, id).filter(|_| want > 0) else {
                break;
            };
            if link.duplex.is_relaying() || !link.duplex.client_readable() {
                break;
            }
            let outcome = self.io.recv(id, &mut self.scratch[..want]);
            link.duplex.client_read(outcome);
            let input = match outcome {
                Outcome::Moved { bytes, .. } => Input::Received {
                    session: id,
                    bytes: &self.scratch[..bytes],
                },
                Outcome::Eof => Input::Ended { session: id },
                Outcome::Broken(fault) => Input::ClientBroken { session: id, fault },
                Outcome::WouldBlock | Outcome::NoPipe => break,
            };
            self.engine.handle(now, input);
            self.settle(now);
        }
    }

    /// Looks after a session that has no relay yet and reads nothing.
    pub(super) fn connecting(&mut self, now: Timestamp, id: SessionId) {
        let link = link(&mut self.links, id).filter(|link| !link.duplex.is_relaying());
        let Some(link) = link else {
            return;
        };
        // The client's bytes wait in the kernel, but its reset ends the session.
        let fault = link
            .duplex
            .take_client_suspect()
            .then(|| self.io.take_error(id, Side::Client));
        if let Some(Some(fault)) = fault {
            return self.client_broken(now, id, fault);
        }
        let (true, true, Some(attempt)) = (link.connecting, link.stirred, link.attempt) else {
            return;
        };
        link.stirred = false;
        match self.io.connected(id) {
            Ok(Connect::InProgress) => {}
            Ok(Connect::Established) => {
                link.connecting = false;
                self.engine.handle(
                    now,
                    Input::Connected {
                        session: id,
                        attempt,
                    },
                );
            }
            Err(fault) => {
                link.connecting = false;
                self.engine.handle(
                    now,
                    Input::ConnectFailed {
                        session: id,
                        attempt,
                        fault,
                    },
                );
            }
        }
        self.settle(now);
    }
}
