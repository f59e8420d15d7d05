//! Names of things: newtypes over small integers, with a generation where a slot is used again.

use core::fmt;

const INDEX_BITS: u32 = 27;
const GENERATION_BITS: u32 = 28;
const ATTEMPT_BITS: u32 = 8;

/// One client connection and what became of it.
///
/// Slots are used again, generations are not (before 2^28 sessions have passed through one worker), so an id that
/// outlived its session names nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    index: u32,
    generation: u32,
}

impl SessionId {
    /// Highest slot. One less than the bits allow, so that no token is `u64::MAX`.
    pub const MAX_INDEX: usize = (1 << INDEX_BITS) - 2;

    /// The id of slot `index` (at most [`SessionId::MAX_INDEX`]) in its `generation`, which wraps at 2^28.
    pub const fn new(index: usize, generation: u32) -> Self {
        Self {
            index: index as u32,
            generation: generation & ((1 << GENERATION_BITS) - 1),
        }
    }

    /// The slot: small, dense, and shared by all sessions that ever used it.
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// The generation within the slot's engine.
    pub const fn generation(self) -> u32 {
        self.generation
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SessionId {
    /// `s3.17`: slot 3, generation 17.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}.{}", self.index, self.generation)
    }
}

/// A connection to a backend that no session has yet. Numbers are used again, but never for two at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WarmId(pub u32);

impl WarmId {
    /// The number: small and dense.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for WarmId {
    /// `warm3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "warm{}", self.0)
    }
}

/// Which end of a session a socket belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The connection that was accepted.
    Client,
    /// The connection that tlb opened.
    Backend,
}

impl Side {
    /// Both, client first.
    pub const BOTH: [Self; 2] = [Self::Client, Self::Backend];

    /// The opposite side.
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Backend,
            Self::Backend => Self::Client,
        }
    }

    /// The direction whose bytes come from this side.
    pub const fn outgoing(self) -> Dir {
        match self {
            Self::Client => Dir::Forward,
            Self::Backend => Dir::Return,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Backend => "backend",
        })
    }
}

/// Which way bytes flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dir {
    /// From the client to the backend.
    Forward,
    /// From the backend to the client.
    Return,
}

impl Dir {
    /// Both, forward first.
    pub const BOTH: [Self; 2] = [Self::Forward, Self::Return];

    /// The opposite direction.
    pub const fn other(self) -> Self {
        match self {
            Self::Forward => Self::Return,
            Self::Return => Self::Forward,
        }
    }

    /// Where the bytes come from.
    pub const fn from(self) -> Side {
        match self {
            Self::Forward => Side::Client,
            Self::Return => Side::Backend,
        }
    }

    /// Where the bytes go to.
    pub const fn to(self) -> Side {
        self.from().other()
    }
}

impl fmt::Display for Dir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward => "forward",
            Self::Return => "return",
        })
    }
}

/// One socket: a session's client, or one of the backends it tried.
///
/// Late events of an abandoned attempt carry that attempt's number and so die quietly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId {
    /// The session.
    pub session: SessionId,
    /// Which end.
    pub side: Side,
    /// Number of the connect attempt, counted from zero and wrapping; zero for the client.
    pub attempt: u8,
}

impl SocketId {
    /// The client's socket of a session.
    pub const fn client(session: SessionId) -> Self {
        Self {
            session,
            side: Side::Client,
            attempt: 0,
        }
    }

    /// The backend's socket of a session's `attempt`.
    pub const fn backend(session: SessionId, attempt: u8) -> Self {
        Self {
            session,
            side: Side::Backend,
            attempt,
        }
    }

    /// Packs the id into 64 bits, for the token of an event queue. Never `u64::MAX`.
    pub const fn to_token(self) -> u64 {
        let side = matches!(self.side, Side::Backend) as u64;
        ((self.session.index as u64) << (GENERATION_BITS + ATTEMPT_BITS + 1))
            | ((self.session.generation as u64) << (ATTEMPT_BITS + 1))
            | ((self.attempt as u64) << 1)
            | side
    }

    /// The id that [`SocketId::to_token`] packed.
    pub const fn from_token(token: u64) -> Self {
        let side = if token & 1 == 1 {
            Side::Backend
        } else {
            Side::Client
        };
        let generation = (token >> (ATTEMPT_BITS + 1)) as u32;
        Self {
            session: SessionId::new(
                (token >> (GENERATION_BITS + ATTEMPT_BITS + 1)) as usize,
                generation,
            ),
            side,
            attempt: (token >> 1) as u8,
        }
    }
}

/// A listener: its place in [`Config::listeners`](crate::config::Config::listeners).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u32);

impl ListenerId {
    /// As an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ListenerId {
    /// `listener-3` for number 3.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "listener-{}", self.0)
    }
}

/// A pool: its place in [`Roster::pools`](crate::roster::Roster::pools).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub u32);

impl PoolId {
    /// As an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PoolId {
    /// `pool-3` for number 3.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pool-{}", self.0)
    }
}

/// One incarnation of a backend, unique in the process and never used again.
///
/// A backend whose address changes becomes a new incarnation: what was learnt about the old address does not count
/// for the new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u32);

impl fmt::Display for Incarnation {
    /// `backend-3` for number 3.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "backend-{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_at_the_corners() {
        for index in [0, 1, SessionId::MAX_INDEX] {
            for generation in [0, 1, (1 << GENERATION_BITS) - 1] {
                for attempt in [0, 1, u8::MAX] {
                    let session = SessionId::new(index, generation);
                    for id in [
                        SocketId {
                            attempt,
                            ..SocketId::client(session)
                        },
                        SocketId::backend(session, attempt),
                    ] {
                        assert_eq!(SocketId::from_token(id.to_token()), id);
                    }
                }
            }
        }
    }

    #[test]
    fn sides_and_directions_agree() {
        for dir in Dir::BOTH {
            assert_eq!(dir.from().outgoing(), dir);
            assert_eq!(dir.to(), dir.other().from());
        }
    }
}
