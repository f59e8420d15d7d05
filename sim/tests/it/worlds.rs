//! What the scenarios begin with.

use std::sync::Arc;

use tlb_engine::balance::Policy;
use tlb_engine::config::{Failover, Limits, Listener};
use tlb_engine::ids::PoolId;
use tlb_engine::rng::Rng;
use tlb_engine::time::Duration;
use tlb_engine::unpack::{Endian, FrameSize, Key, Length, LengthField};
use tlb_sim::check::owners;
use tlb_sim::net::Chunking;
use tlb_sim::peers::{Answer, Client, Manner, Op, Pace};
use tlb_sim::scenario::{Member, Scenario};
use tlb_sim::stream::{Flow, HEAD};

/// Points per unit of weight: few, because the checker draws them all for each pick.
pub(crate) const POINTS: u32 = 32;

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// One tlb, three backends, `clients` clients that come within half a second.
pub(crate) fn world(rng: &mut Rng, clients: u16) -> Scenario {
    // `*`, a u32 length, that many bytes, two bytes of check; the key at 19.
    let length = Length {
        offset: 1,
        width: 4,
        endian: Endian::Big,
        adjust: 2,
    };
    let key = Key {
        offset: 19,
        length: Some(4),
    };
    let station = LengthField::new(b"*", length, key, FrameSize::default());
    let station = station.expect("the station's frame is a possible frame");
    Scenario {
        tlbs: 1,
        listener: Listener::new("devices", Some(Arc::new(station)), PoolId(0)),
        limits: Limits {
            shutdown_timeout: ms(500),
            ..Limits::default()
        },
        policy: Policy::HashRing { points: POINTS },
        failover: Failover {
            connect_timeout: ms(300),
            ..Failover::default()
        },
        fleet: None,
        backends: vec![Manner::default(); 3],
        members: Member::all(0..3),
        clients: (0..clients).map(|number| client(rng, number)).collect(),
        client_hosts: 1,
        timetable: vec![],
        chunking: [Chunking::Whole, Chunking::Random][rng.below(2) as usize],
        latency: ms(1 + rng.below(20)),
        // So many that a crash hardly ever has to send its FIN into a full one, where it would be
        // lost.
        window: 256,
        limit: Duration::from_secs(20),
        settle: ms(500),
    }
}

/// A client that sends a few kilobytes, ends its stream, and reads what comes back.
pub(crate) fn client(rng: &mut Rng, number: u16) -> Client {
    let frame = HEAD + 2 + rng.below(200) as usize;
    let send = frame as u64 + rng.below(3000);
    Client {
        flow: Flow {
            client: number,
            key: rng.next_u64() as u32,
            frame,
        },
        tlb: 0,
        at: ms(10 + rng.below(500)),
        garbage: 0,
        chunking: Chunking::Random,
        script: vec![Op::Send(send), Op::Fin],
        pace: Pace::default(),
        patience: Duration::from_secs(15),
        answer: Answer {
            bytes: 1 + rng.below(3000),
            after: None,
            ends_first: false,
        },
    }
}

/// Gives `client` a key that `backend` owns among `members`.
pub(crate) fn own(rng: &mut Rng, client: &mut Client, members: &[Member], backend: usize) {
    while owners(POINTS, members, client.flow.key)[0].backend != backend {
        client.flow.key = rng.next_u64() as u32;
    }
}

/// Gives every client a key that `backend` owns among the world's first members.
pub(crate) fn own_all(rng: &mut Rng, world: &mut Scenario, backend: usize) {
    for client in &mut world.clients {
        own(rng, client, &world.members, backend);
    }
}
