//! Connections to backends that no session has yet.

use std::net::TcpStream;

use tlb_engine::ids::WarmId;

/// Their sockets, by number. Nobody waits for their events: what became of one is seen when it is taken.
#[derive(Debug, Default)]
pub(super) struct Warm(Vec<Option<TcpStream>>);

impl Warm {
    pub(super) fn put(&mut self, warm: WarmId, socket: TcpStream) {
        if self.0.len() <= warm.index() {
            self.0.resize_with(warm.index() + 1, || None);
        }
        debug_assert!(self.0[warm.index()].is_none(), "{warm} is there already");
        self.0[warm.index()] = Some(socket);
    }

    pub(super) fn take(&mut self, warm: WarmId) -> Option<TcpStream> {
        self.0.get_mut(warm.index())?.take()
    }

    #[cfg(test)]
    pub(super) fn get(&self, warm: WarmId) -> Option<&TcpStream> {
        self.0.get(warm.index())?.as_ref()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}
