//! What the kernel side remembers of a session.

use std::net::TcpStream;
use std::ops::{Index, IndexMut};

use tlb_engine::ids::{ListenerId, SessionId, Side};

use crate::hand_off::Pair;
use crate::relay::Store;

/// One session's share: 48 bytes at most, kept for the slot's next session.
#[derive(Debug, Default)]
pub(super) struct Entry {
    generation: u32,
    /// The place of the listener that it came in by, and above it how often its backend was written to: never, once, or
    /// more often.
    origin: u32,
    pub(super) client: Option<TcpStream>,
    pub(super) backend: Option<TcpStream>,
    /// By [`Dir`](tlb_engine::ids::Dir).
    pub(super) stores: [Store; 2],
}

/// Where the number of writes is in [`Entry::origin`]. Listeners are counted over the life of a process: 2^30 are more
/// than any lives to see.
const WRITES: u32 = 30;

impl Entry {
    pub(super) const fn listener(&self) -> ListenerId {
        ListenerId(self.origin & ((1 << WRITES) - 1))
    }

    /// It has a backend's connection, to which nothing was written.
    pub(super) fn connect(&mut self, backend: TcpStream) {
        self.origin = self.listener().0;
        self.backend = Some(backend);
    }

    /// Called before each write to the backend; whether this is the second one.
    pub(super) const fn writes_again(&mut self) -> bool {
        let before = self.origin >> WRITES;
        if before < 2 {
            self.origin += 1 << WRITES;
        }
        before == 1
    }

    pub(super) fn socket(&self, side: Side) -> Option<&TcpStream> {
        match side {
            Side::Client => self.client.as_ref(),
            Side::Backend => self.backend.as_ref(),
        }
    }

    /// Both, if it has both.
    pub(super) fn pair(&self) -> Option<Pair<'_>> {
        let (client, backend) = self.client.as_ref().zip(self.backend.as_ref())?;
        Some(Pair { client, backend })
    }

    pub(super) fn take_socket(&mut self, side: Side) -> Option<TcpStream> {
        match side {
            Side::Client => self.client.take(),
            Side::Backend => self.backend.take(),
        }
    }
}

/// The entries, by slot. It grows to the most sessions there ever were at a time, and stays so.
#[derive(Debug, Default)]
pub(super) struct Sessions(Vec<Entry>);

impl Sessions {
    /// A session has begun.
    pub(super) fn begin(&mut self, session: SessionId, listener: ListenerId, client: TcpStream) {
        let slot = session.index();
        if slot >= self.0.len() {
            self.0.resize_with(slot + 1, Entry::default);
        }
        let entry = &mut self.0[slot];
        debug_assert!(
            entry.client.is_none() && entry.backend.is_none(),
            "the slot's last session has closed its sockets"
        );
        entry.generation = session.generation();
        entry.origin = listener.0;
        entry.client = Some(client);
    }

    pub(super) fn get(&self, session: SessionId) -> Option<&Entry> {
        self.0
            .get(session.index())
            .filter(|entry| entry.generation == session.generation())
    }

    pub(super) fn get_mut(&mut self, session: SessionId) -> Option<&mut Entry> {
        self.0
            .get_mut(session.index())
            .filter(|entry| entry.generation == session.generation())
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter()
    }
}

/// By slot, whatever session has it.
impl Index<usize> for Sessions {
    type Output = Entry;

    fn index(&self, slot: usize) -> &Entry {
        &self.0[slot]
    }
}

impl IndexMut<usize> for Sessions {
    fn index_mut(&mut self, slot: usize) -> &mut Entry {
        &mut self.0[slot]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Entry>() <= 48);
    }

    #[test]
    fn only_the_second_write_to_a_backend_is_the_second() {
        let mut entry = Entry {
            origin: 7,
            ..Entry::default()
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for _ in 0..2 {
            entry.connect(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            let seen = [(); 4].map(|()| entry.writes_again());
            assert_eq!(seen, [false, true, false, false]);
            assert_eq!(entry.listener(), ListenerId(7));
        }
    }
}
