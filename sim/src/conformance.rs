//! One table of relay scenarios for every world: what client and backend do, what both observe, and why the session
//! ended.
//!
//! A [`Row`] is data and knows no world. A runner takes the steps in order, one after the other, each to its end; only
//! writes go on in the background ([`Act::Send`]), so that two big flows do not wait for each other. Where the model
//! differs from the kernel, the model is wrong.

mod rows;
#[cfg(test)]
mod tests;

pub use rows::ROWS;
use tlb_engine::ids::Side;

/// The client's bytes up to the end of the key: with these there is a verdict. `*`, a big-endian u16 for the rest of the
/// frame, and four bytes of key.
pub const HEAD: [u8; 7] = *b"*\xff\xf0key1";
/// tlb's `preread-limit` in every row. The frame is longer than that, and longer than most rows' streams.
pub const PREREAD_LIMIT: usize = 1024;
/// tlb's `connect-timeout` in every row, in milliseconds. There are no retries.
pub const CONNECT_TIMEOUT_MS: u64 = 500;
/// What garbage is made of.
pub const GARBAGE: u8 = b'.';

/// One scenario.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// What is at the backend's address.
    pub backend: Backend,
    /// What happens, in this order.
    pub steps: &'static [Step],
    /// The reason of the session's end; several where two ends race.
    pub reasons: &'static [&'static str],
    /// Why the model does not run it, if it does not.
    pub not_in_model: Option<&'static str>,
    /// Why turmoil does not run it, if it does not.
    pub not_in_turmoil: Option<&'static str>,
    /// Why the kernel does not run it, if it does not.
    pub not_in_kernel: Option<&'static str>,
}

/// What is at the backend's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Somebody who accepts.
    Listens,
    /// Nobody, on a host that says so.
    Refuses,
    /// Nobody who answers.
    Hangs,
}

/// Who does what.
pub type Step = (Side, Act);

/// One step of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The client connects to tlb.
    Connect,
    /// As `Connect`, with the smallest receive buffer there is.
    ConnectSmall,
    /// The backend waits for tlb's connection.
    Accept,
    /// Begins to write this many bytes of the side's stream, in pieces of this size; the next step does not wait.
    Send(usize, usize),
    /// Writes this many bytes of [`GARBAGE`], which no stream counts.
    Garbage(usize),
    /// Writes the next byte of the stream as urgent data.
    Urgent,
    /// Ends the stream, after all that was to be written.
    Fin,
    /// Closes the socket, after all that was to be written was acknowledged. With data unread the kernel sends a reset.
    Close,
    /// Closes the socket by a reset, after all that was to be written was acknowledged.
    Reset,
    /// Reads exactly this many bytes of the other side's stream, in pieces of at most this size.
    Expect(usize, usize),
    /// Waits until something is there to be read, and leaves it there.
    Await,
    /// Reads the end of the stream, and no byte before it.
    Eof,
    /// Reads a reset, and no byte before it.
    Cut,
    /// Reads whatever comes until the end, whichever it is.
    End,
}

/// Byte `at` of what a side sends in all.
pub fn byte(side: Side, at: usize) -> u8 {
    if side == Side::Client && at < HEAD.len() {
        return HEAD[at];
    }
    let salt = if side == Side::Client { 0 } else { 101 };
    (at * 7 + at / 253 + salt) as u8
}

/// A side's stream as one reader of it has seen it so far.
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    from: Side,
    at: usize,
}

impl Reader {
    /// Before the first byte that `from` sends.
    pub const fn new(from: Side) -> Self {
        Self { from, at: 0 }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// They are not the next bytes of the stream: says where.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        for got in bytes {
            let want = byte(self.from, self.at);
            if *got != want {
                let (from, at) = (self.from, self.at);
                return Err(format!(
                    "byte {at} of the {from} is {got:#04x}, not {want:#04x}"
                ));
            }
            self.at += 1;
        }
        Ok(())
    }
}
