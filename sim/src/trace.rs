//! What happened, as one number and as the lines a reader needs after a failure.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::rc::Rc;

use tlb_engine::time::Timestamp;

/// How many lines are kept for a failure's output.
pub const KEPT: usize = 50;

/// A running hash over everything that happened, and the last [`KEPT`] lines of it. Clones write to
/// the same trace.
#[derive(Clone, Debug, Default)]
pub struct Trace(Rc<RefCell<Inner>>);

#[derive(Debug)]
struct Inner {
    hash: Fnv,
    count: u64,
    kept: VecDeque<String>,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            hash: Fnv(0xcbf2_9ce4_8422_2325),
            count: 0,
            kept: VecDeque::with_capacity(KEPT),
        }
    }
}

impl Trace {
    /// Takes a fact into the hash and keeps its line.
    pub fn line(&self, at: Timestamp, host: &str, what: impl fmt::Display) {
        let line = format!("{at} {host} {what}");
        let mut inner = self.0.borrow_mut();
        inner.take(format_args!("{line}"));
        if inner.kept.len() == KEPT {
            inner.kept.pop_front();
        }
        inner.kept.push_back(line);
    }

    /// Takes a fact into the hash only: single kernel calls, which would drown the facts that
    /// explain a failure.
    pub fn mix(&self, at: Timestamp, host: &str, what: impl fmt::Display) {
        self.0.borrow_mut().take(format_args!("{at} {host} {what}"));
    }

    /// The hash of everything so far.
    pub fn hash(&self) -> u64 {
        self.0.borrow().hash.0
    }

    /// How many facts went into it.
    pub fn count(&self) -> u64 {
        self.0.borrow().count
    }

    /// The last lines, oldest first.
    pub fn last(&self) -> Vec<String> {
        self.0.borrow().kept.iter().cloned().collect()
    }
}

impl Inner {
    fn take(&mut self, what: fmt::Arguments<'_>) {
        self.count += 1;
        // A line's end is part of it, so that no two sequences of lines run together alike.
        self.hash
            .write_fmt(format_args!("{what}\n"))
            .expect("a hash takes every string");
    }
}

/// FNV-1a, 64 bits: a trace needs equality, not collision resistance.
#[derive(Debug)]
struct Fnv(u64);

impl fmt::Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_the_published_one() {
        let mut hash = Inner::default().hash;
        hash.write_str("foobar").unwrap();
        assert_eq!(hash.0, 0x8594_4171_f739_67e8);
    }

    #[test]
    fn order_and_time_matter_and_only_the_last_lines_are_kept() {
        let (one, two, three) = (Trace::default(), Trace::default(), Trace::default());
        for n in 0..100 {
            one.line(Timestamp::from_millis(n), "tlb0", n);
            two.mix(Timestamp::from_millis(n), "tlb0", n);
            three.mix(Timestamp::from_millis(n + 1), "tlb0", n);
        }
        assert_eq!(one.hash(), two.hash());
        assert_ne!(one.hash(), three.hash());
        assert_eq!(one.count(), 100);
        assert_eq!(one.last().len(), KEPT);
        assert_eq!(one.last()[0], "0.050000s tlb0 50");
        assert!(two.last().is_empty());
    }
}
