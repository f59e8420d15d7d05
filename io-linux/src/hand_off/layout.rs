//! What tlb and `hand_off.bpf.c` tell each other, byte for byte.

use std::net::{IpAddr, SocketAddr};

/// Of the tuple of a packet.
pub(super) const TUPLE: usize = 36;
/// Of a flow.
pub(super) const FLOW: usize = 72;
/// Of what was seen of a flow.
pub(super) const SEEN: usize = 40;

/// A direction of a session as the packets that it comes in: from a peer, to tlb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tuple {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
}

impl Tuple {
    pub(super) fn bytes(self) -> [u8; TUPLE] {
        let mut bytes = [0; TUPLE];
        bytes[..16].copy_from_slice(&octets(self.from.ip()));
        bytes[16..32].copy_from_slice(&octets(self.to.ip()));
        bytes[32..34].copy_from_slice(&self.from.port().to_be_bytes());
        bytes[34..].copy_from_slice(&self.to.port().to_be_bytes());
        bytes
    }

    /// The packets of the same connection the other way.
    pub(super) const fn reversed(self) -> Self {
        Self {
            from: self.to,
            to: self.from,
        }
    }
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// What becomes of a direction's packets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    /// Their new addresses: those of the other connection, from tlb to the other peer.
    pub(super) becomes: Tuple,
    /// Added to their sequence numbers, and to what they acknowledge.
    pub(super) seq_add: u32,
    pub(super) ack_add: u32,
    /// The place of its [`Seen`]; the other direction's is the even or odd neighbour.
    pub(super) slot: u32,
    /// The interface by which they leave; 0: they are for this host.
    pub(super) interface: u32,
    /// A value of the other connection's timestamp clock, and at which millisecond of `CLOCK_MONOTONIC` it was read.
    pub(super) clock: (u32, u32),
    /// Window scales: of the sender, and of what the receiver was told.
    pub(super) scale: (u8, u8),
    /// Where tlb's own socket stands, as long as it is to hear of what is acknowledged.
    pub(super) own: Option<Own>,
}

/// Where tlb's own socket stands on the connection that a direction's packets come in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Own {
    /// The end of what it has sent.
    pub(super) end: u32,
    /// What it receives next.
    pub(super) next: u32,
}

impl Flow {
    pub(super) fn bytes(&self) -> [u8; FLOW] {
        let mut bytes = [0; FLOW];
        bytes[..TUPLE].copy_from_slice(&self.becomes.bytes());
        let words = [
            self.seq_add,
            self.ack_add,
            self.slot,
            self.interface,
            self.clock.0,
            self.clock.1,
            self.own.map_or(0, |own| own.end),
            self.own.map_or(0, |own| own.next),
        ];
        for (place, word) in bytes[TUPLE..68].as_chunks_mut().0.iter_mut().zip(words) {
            *place = word.to_ne_bytes();
        }
        bytes[68] = self.scale.0;
        bytes[69] = self.scale.1;
        bytes[70] = u8::from(self.own.is_some());
        bytes
    }
}

/// The [`Flow::slot`] of a flow.
pub(super) fn slot_of(flow: &[u8; FLOW]) -> u32 {
    let word = flow[TUPLE + 8..].first_chunk().copied();
    u32::from_ne_bytes(word.unwrap_or_default())
}

/// What was seen of a direction's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// When its sender sent a byte or an end last, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) last: u64,
    /// How far acknowledgements have gone since the hand-off.
    pub(super) acked: u64,
    /// The highest acknowledgement; before the first one, what tlb has sent.
    pub(super) ack: u32,
    /// The end of what it sent.
    pub(super) end: u32,
    state: u32,
}

impl Seen {
    const ACKED: u32 = 1;
    const FIN_OF_OTHER_ACKED: u32 = 8;
    const RESET: u32 = 16;

    /// At the hand-off, `now`, when tlb has sent up to `ack`, and has received up to `end`.
    pub(super) const fn new(now: u64, ack: u32, end: u32) -> Self {
        Self {
            last: now,
            acked: 0,
            ack,
            end,
            state: 0,
        }
    }

    pub(super) fn bytes(&self) -> [u8; SEEN] {
        let mut bytes = [0; SEEN];
        bytes[8..16].copy_from_slice(&self.last.to_ne_bytes());
        bytes[16..24].copy_from_slice(&self.acked.to_ne_bytes());
        bytes[24..28].copy_from_slice(&self.ack.to_ne_bytes());
        bytes[28..32].copy_from_slice(&self.end.to_ne_bytes());
        bytes[36..].copy_from_slice(&self.state.to_ne_bytes());
        bytes
    }

    pub(super) fn of(bytes: &[u8; SEEN]) -> Self {
        let [last, acked] = [8, 16].map(|at| {
            let word = bytes[at..].first_chunk().copied();
            u64::from_ne_bytes(word.unwrap_or_default())
        });
        let [ack, end, state] = [24, 28, 36].map(|at| {
            let word = bytes[at..].first_chunk().copied();
            u32::from_ne_bytes(word.unwrap_or_default())
        });
        Self {
            last,
            acked,
            ack,
            end,
            state,
        }
    }

    /// Whether its sender has acknowledged all that tlb sent it, up to `end`.
    pub(super) const fn has_acked(&self, end: u32) -> bool {
        self.state & Self::ACKED != 0 && self.ack.wrapping_sub(end) as i32 >= 0
    }

    /// Whether its sender has acknowledged the other one's FIN.
    pub(super) const fn has_acked_fin(&self) -> bool {
        self.state & Self::FIN_OF_OTHER_ACKED != 0
    }

    /// Whether its sender has reset the connection.
    pub(super) const fn has_reset(&self) -> bool {
        self.state & Self::RESET != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_knows_its_slot() {
        let tuple = Tuple {
            from: "[fd00::1]:1".parse().unwrap(),
            to: "127.0.0.1:65535".parse().unwrap(),
        };
        let flow = Flow {
            becomes: tuple,
            seq_add: u32::MAX,
            ack_add: u32::MAX,
            slot: 0x0102_0304,
            interface: u32::MAX,
            clock: (u32::MAX, u32::MAX),
            scale: (14, 14),
            own: Some(Own {
                end: u32::MAX,
                next: u32::MAX,
            }),
        };
        assert_eq!(slot_of(&flow.bytes()), 0x0102_0304);
    }

    #[test]
    fn what_was_seen_is_read_as_it_was_written() {
        let seen = Seen {
            acked: 1 << 40,
            state: Seen::RESET,
            ..Seen::new(u64::MAX - 1, 3, 4)
        };
        assert_eq!(Seen::of(&seen.bytes()), seen);
    }

    #[test]
    fn everything_is_acknowledged_only_when_the_last_byte_is() {
        let seen = |ack, state| Seen {
            state,
            ..Seen::new(0, ack, 0)
        };
        assert!(seen(5, Seen::ACKED).has_acked(5));
        assert!(!seen(5, 0).has_acked(5), "nothing was heard yet");
        assert!(!seen(5, Seen::ACKED).has_acked(6));
        assert!(seen(2, Seen::ACKED).has_acked(u32::MAX), "numbers wrap");
    }
}
