//! Numbers that the kernel keeps for the world until they are due.

/// What the notes of the kernel stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Note {
    Client(usize),
    Trouble(usize),
    GiveUp(usize),
    Message(usize),
    Heal,
    Fleet,
    Report,
    Probe(usize),
    Calm,
}

impl Note {
    pub(super) const fn pack(self) -> u64 {
        let (kind, number) = match self {
            Self::Client(number) => (0, number),
            Self::Trouble(number) => (1, number),
            Self::GiveUp(number) => (2, number),
            Self::Message(number) => (3, number),
            Self::Heal => (4, 0),
            Self::Fleet => (5, 0),
            Self::Report => (6, 0),
            Self::Probe(number) => (7, number),
            Self::Calm => (8, 0),
        };
        (kind << 32) | number as u64
    }

    pub(super) const fn unpack(note: u64) -> Self {
        let number = (note & 0xffff_ffff) as usize;
        match note >> 32 {
            0 => Self::Client(number),
            1 => Self::Trouble(number),
            2 => Self::GiveUp(number),
            3 => Self::Message(number),
            4 => Self::Heal,
            5 => Self::Fleet,
            6 => Self::Report,
            7 => Self::Probe(number),
            _ => Self::Calm,
        }
    }
}
