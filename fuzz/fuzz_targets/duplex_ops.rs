//! Any history of two sockets: the relay loses nothing, passes on no end that was none, and does not spin.
//!
//! An input is read from the front; what is missing reads as zeros:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | mode: 0 copy, 1 splice, 2 auto (modulo 3) |
//! | 1 | bytes of the preface |
//! | 2 | bytes that client and backend have room for at first |
//! | 2 × any | steps: what (modulo 16) and whose (the next bit), then how much |

#![no_main]

use libfuzzer_sys::fuzz_target;
use tlb_engine::api::Close;
use tlb_engine::drive::{HandOff, Mode};
use tlb_engine::ids::Side;

#[path = "../../engine/src/duplex/world.rs"]
mod world;

use world::{Step, check};

/// Each step costs a walk through the inboxes.
const STEPS_MAX: usize = 200;

fn step(what: u8, how: u8) -> Step {
    let side = Side::BOTH[usize::from(what >> 4 & 1)];
    let amount = usize::from(how) + 1;
    match what % 16 {
        0..4 => Step::Sends(side, amount),
        4 => Step::Urgent(side),
        5 => Step::Fin(side),
        6 => Step::Reset(side),
        7..9 => Step::Room(side, amount),
        9 => Step::Acknowledge(side),
        10 => Step::Spurious(side),
        11 => Step::Pipes(how % 2 == 0),
        12 => Step::Wind(if how % 2 == 0 {
            Close::Fin
        } else {
            Close::Reset
        }),
        13 => Step::Offers([HandOff::Done, HandOff::Later, HandOff::Never][amount % 3]),
        _ => Step::Pump(amount % 12),
    }
}

fuzz_target!(|data: &[u8]| {
    let (head, rest) = data.split_at(data.len().min(4));
    let byte = |at: usize| head.get(at).copied().unwrap_or(0);
    let mode = [Mode::Copy, Mode::Splice, Mode::Auto][usize::from(byte(0) % 3)];
    let rooms = [usize::from(byte(2)), usize::from(byte(3))];
    let pairs = rest.chunks_exact(2).take(STEPS_MAX);
    let steps: Vec<_> = pairs.map(|pair| step(pair[0], pair[1])).collect();
    check(mode, byte(1).into(), rooms, &steps);
});
