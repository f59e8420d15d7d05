//! What the 64 bits of an event's token stand for.

use mio::Token;
use tlb_engine::ids::{ListenerId, SessionId, SocketId};

// A token carries a whole SocketId.
const _: () = assert!(usize::BITS == 64, "tlb needs a 64-bit system");

/// A slot that no session has: one above the highest, in the place where a socket's token has its
/// slot.
const RESERVED: u64 = SocketId::client(SessionId::new(SessionId::MAX_INDEX + 1, 0)).to_token();

/// Beside the listeners, which count from `RESERVED` on and have 32 bits.
const WAKER: u64 = RESERVED | 1 << 36;

/// Where an event came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A listening socket: connections may wait.
    Listener(ListenerId),
    /// Another thread: the control channel has something.
    Waker,
    /// A socket of a session.
    Socket(SocketId),
}

impl Source {
    /// The token to register it by.
    pub(crate) fn token(self) -> Token {
        Token(match self {
            Self::Listener(id) => RESERVED + u64::from(id.0),
            Self::Waker => WAKER,
            Self::Socket(id) => id.to_token(),
        } as usize)
    }

    /// What was registered by this token.
    pub(crate) fn of(token: Token) -> Self {
        match token.0 as u64 {
            WAKER => Self::Waker,
            listener @ RESERVED.. => Self::Listener(ListenerId((listener - RESERVED) as u32)),
            socket => Self::Socket(SocketId::from_token(socket)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_round_trip_and_never_collide() {
        let highest = SessionId::new(SessionId::MAX_INDEX, u32::MAX);
        let sources = [
            Source::Listener(ListenerId(0)),
            Source::Listener(ListenerId(u32::MAX)),
            Source::Waker,
            Source::Socket(SocketId::client(SessionId::new(0, 0))),
            Source::Socket(SocketId::backend(highest, u8::MAX)),
        ];
        for (at, source) in sources.into_iter().enumerate() {
            assert_eq!(Source::of(source.token()), source);
            for other in &sources[at + 1..] {
                assert_ne!(source.token(), other.token());
            }
        }
    }
}
