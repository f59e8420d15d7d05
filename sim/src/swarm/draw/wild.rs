//! What peers do in a swarm scenario.

use tlb_engine::rng::Rng;

use super::{chance, echo, one_of, size};
use crate::swarm::frames;
use crate::swarm::scenario::{
    Client, FRAME_FIXED, FRAME_MIN, Framing, Membership, Scenario, Script, Start, Then,
};

/// Which kinds of behaviour a swarm scenario has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Classes {
    garbage: bool,
    truncated: bool,
    aborts: bool,
    slow: bool,
    trickle: bool,
    urgent: bool,
    hold: bool,
    odd_backends: bool,
}

impl Classes {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let mut on = || chance(rng, 50);
        Self {
            garbage: on(),
            truncated: on(),
            aborts: on(),
            slow: on(),
            trickle: on(),
            urgent: on(),
            hold: on(),
            odd_backends: on(),
        }
    }
}

pub(super) fn wild_workload(scenario: &mut Scenario, rng: &mut Rng, classes: &Classes, free: bool) {
    for backend in &mut scenario.backends {
        let membership = one_of(
            rng,
            &[
                Membership::Member,
                Membership::Member,
                Membership::Member,
                Membership::Member,
                Membership::Draining,
                Membership::Absent,
            ],
        );
        if free {
            backend.membership = membership;
        }
        backend.script = draw_backend(rng, classes);
    }
    let count = one_of(rng, &[1, 3, 10, 30]);
    for _ in 0..count {
        let client = draw_client(scenario, rng, classes);
        scenario.clients.push(client);
    }
}

fn draw_backend(rng: &mut Rng, classes: &Classes) -> Script {
    if !classes.odd_backends {
        return echo();
    }
    let send = size(rng);
    let start = match rng.below(5) {
        0 => Start::Now,
        1 => Start::End,
        2 => Start::Bytes(rng.below(200) as u32),
        _ => Start::Echo,
    };
    let mut then = one_of(rng, &[Then::FinLast, Then::FinLast, Then::Fin]);
    let mut quit = None;
    if classes.aborts && chance(rng, 30) {
        match rng.below(3) {
            0 => then = Then::Reset,
            1 => then = Then::Close,
            _ => {
                quit = Some((
                    rng.below(3000) as u32,
                    one_of(rng, &[Then::Reset, Then::Close]),
                ));
            }
        }
    } else if classes.hold && chance(rng, 20) {
        then = Then::Hold;
    }
    let (read, read_pause_us) = draw_reading(rng, classes);
    let chunk = draw_chunk(rng, classes);
    Script {
        start,
        send: if chunk < 100 { send.min(3000) } else { send },
        chunk,
        pause_us: one_of(rng, &[0, 0, 10, 1000]),
        urgent: classes.urgent && chance(rng, 20),
        then,
        read,
        read_pause_us,
        quit,
    }
}

fn draw_reading(rng: &mut Rng, classes: &Classes) -> (u32, u32) {
    if classes.slow && chance(rng, 25) {
        one_of(rng, &[(0, 0), (1000, 5000), (100, 1000), (20_000, 20_000)])
    } else {
        (u32::MAX, 0)
    }
}

fn draw_chunk(rng: &mut Rng, classes: &Classes) -> u32 {
    if classes.trickle && chance(rng, 30) {
        one_of(rng, &[1, 3, 50])
    } else {
        one_of(rng, &[500, 1460, 20_000, 1 << 20])
    }
}

pub(super) fn draw_client(scenario: &Scenario, rng: &mut Rng, classes: &Classes) -> Client {
    let listener = rng.below(scenario.listeners.len() as u64) as usize;
    let framing = scenario.listeners[listener].framing;
    // Which recording, or a key of its own, by which a backend can tell whose frame it is.
    let key = match framing {
        Framing::Spec(_) => Some(scenario.clients.len() as u16),
        Framing::Recorded(recorded) => Some(rng.below(recorded.frames.len() as u64) as u16),
        _ => None,
    };
    let (frame, skips) = match framing {
        Framing::Fixed => (FRAME_FIXED, false),
        Framing::None | Framing::Delimited => (FRAME_MIN + size(rng).min(2000), false),
        Framing::Length => (FRAME_MIN + size(rng).min(2000), true),
        // Listeners whose frames cannot be simulated are refused before anything is drawn.
        Framing::Spec(spec) => {
            let limit = scenario.listeners[listener].limit;
            let sizes = frames::sizes(&spec, limit).unwrap_or_default();
            (frames::draw_size(rng, sizes), frames::skips(&spec))
        }
        Framing::Recorded(recorded) => {
            let frame = &recorded.frames[usize::from(key.unwrap_or(0))];
            (frame.bytes.len() as u32, false)
        }
    };
    let garbage = if classes.garbage && skips && chance(rng, 40) {
        one_of(rng, &[1, 7, 40, 300, 2000])
    } else {
        0
    };
    let mut send = frame + size(rng);
    if classes.truncated && chance(rng, 20) {
        send = rng.below(u64::from(frame)) as u32;
    }
    let chunk = draw_chunk(rng, classes);
    // A trickle of single bytes must come to an end within the scenario.
    if chunk < 100 {
        send = send.min(3000);
    }
    let (read, read_pause_us) = draw_reading(rng, classes);
    let mut then = one_of(rng, &[Then::Fin, Then::Fin, Then::FinLast]);
    let mut quit = None;
    if classes.aborts && chance(rng, 25) {
        match rng.below(3) {
            0 => then = Then::Reset,
            1 => then = Then::Close,
            _ => {
                quit = Some((
                    rng.below(3000) as u32,
                    one_of(rng, &[Then::Reset, Then::Close]),
                ));
            }
        }
    } else if classes.hold && chance(rng, 25) {
        then = Then::Hold;
    }
    // Both ends waiting for the other's end would be nobody's fault.
    if then == Then::FinLast && !classes.hold {
        then = Then::Fin;
    }
    Client {
        at_us: rng.below(2_500_000),
        worker: rng.below(scenario.workers as u64) as usize,
        listener,
        key: key.unwrap_or_else(|| rng.below(64) as u16 * 977),
        garbage,
        evil: garbage >= 8 && chance(rng, 50),
        frame,
        host: rng.below(4) as usize,
        script: Script {
            start: Start::Now,
            send,
            chunk,
            pause_us: one_of(rng, &[0, 0, 10, 1000]),
            urgent: classes.urgent && chance(rng, 20),
            then,
            read,
            read_pause_us,
            quit,
        },
    }
}
