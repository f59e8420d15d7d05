//! The two ways of moving bytes between sockets, and what a direction holds between reading and
//! writing.

use std::fmt;

use bytes::Bytes;

use crate::pipe_pool::Pipe;

pub(crate) mod copy;
pub(crate) mod splice;

/// The bytes that one direction has read and not yet written.
///
/// Small, because every session has two of them, nearly always empty.
#[derive(Default)]
pub(crate) enum Store {
    /// None.
    #[default]
    Empty,
    /// They lie in the worker's shared buffer, which one direction at a time can have.
    Scratch {
        /// Place of the first one.
        start: u32,
        /// Place behind the last one.
        end: u32,
    },
    /// So many have gone with the SYN, which nobody knows yet.
    Early {
        /// How many.
        sent: u32,
        /// What is to follow, once it was handed over.
        rest: Option<Box<Bytes>>,
    },
    /// They have a buffer of their own: the preface, or what a slow destination left over. Never
    /// empty.
    Own(Box<Bytes>),
    /// They are in the kernel. Never empty between two calls of the driver.
    Pipe(Pipe),
}

impl fmt::Debug for Store {
    /// How much, not what: these are other people's bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Scratch { start, end } => write!(f, "Scratch({})", end - start),
            Self::Early { sent, .. } => write!(f, "Early({sent})"),
            Self::Own(bytes) => write!(f, "Own({})", bytes.len()),
            Self::Pipe(pipe) => write!(f, "Pipe({})", pipe.held()),
        }
    }
}
