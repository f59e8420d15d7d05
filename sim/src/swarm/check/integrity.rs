//! What arrived is what was sent: whole, unless a reset or a named reason explains it.
//!
//! That every byte was the right one at its place is checked by the peers, as it comes. Here it is
//! the ends.

use std::collections::BTreeMap;

use tlb_engine::api::{CloseReason, Fault};

use super::Findings;
use crate::swarm::peers::Peer;
use crate::swarm::scenario::Scenario;
use crate::swarm::stream::Origin;

const NAME: &str = "integrity";

/// Compares what the two ends of each session saw. `reasons` are those of the clients' sessions.
pub fn integrity(
    scenario: &Scenario,
    peers: &[Peer],
    reasons: &BTreeMap<usize, CloseReason>,
    findings: &mut Findings,
) {
    let by_origin = |origin: Origin| peers.iter().find(|peer| peer.origin == origin);
    for peer in peers {
        let other = peer.expect.origin.and_then(by_origin);
        if let Err(what) = sides_agree(scenario, peers, peer, other) {
            findings.add("cross-talk", format!("{}: {what}", peer.origin));
        }
        let ends = (peer.origin, peer.expect.origin);
        let ((Origin::Client(client), _) | (_, Some(Origin::Client(client)))) = ends else {
            continue;
        };
        let Some(&reason) = reasons.get(&client) else {
            continue;
        };
        if let Err(what) = whole(scenario, peers, peer, other, reason) {
            findings.add(NAME, format!("{}: {what} ({reason})", peer.origin));
        }
        if let (Origin::Client(_), CloseReason::Rejected(_)) = (peer.origin, reason) {
            let about = &scenario.clients[client];
            if peer.sent >= u64::from(about.garbage) + u64::from(about.frame) {
                let what = format!("its frame is whole, and refused ({reason})");
                findings.add("verdict", format!("{}: {what}", peer.origin));
            }
        }
        if matches!(peer.origin, Origin::Client(_))
            && let Err(what) = blame(scenario, peers, peer, client, reason)
        {
            findings.add("blame", format!("{}: {what} ({reason})", peer.origin));
        }
    }
}

/// Whether what that client says first may be heard by several connections, of which it hears one at most.
fn may_replay(scenario: &Scenario, client: &Peer) -> bool {
    match client.origin {
        Origin::Client(number) => scenario.listeners[scenario.clients[number].listener].replay,
        Origin::Conn(_) => false,
    }
}

/// Bytes that a peer sent and that should arrive: without garbage.
fn due(scenario: &Scenario, peer: &Peer) -> u64 {
    match peer.origin {
        Origin::Client(client) => peer
            .sent
            .saturating_sub(u64::from(scenario.clients[client].garbage)),
        Origin::Conn(_) => peer.sent,
    }
}

fn sides_agree(
    scenario: &Scenario,
    peers: &[Peer],
    peer: &Peer,
    other: Option<&Peer>,
) -> Result<(), String> {
    let Some(other) = other else {
        return match peer.expect.origin {
            Some(origin) => Err(format!("hears {origin}, which nobody is")),
            None => Ok(()),
        };
    };
    let replayed = may_replay(scenario, other);
    let elsewhere = other.expect.origin.is_some_and(|it| it != peer.origin);
    if elsewhere && !replayed {
        return Err(format!("hears {}, which hears somebody else", other.origin));
    }
    if peer.expect.received > due(scenario, other) {
        return Err(format!("got more than {} sent", other.origin));
    }
    let same = |it: &&Peer| it.expect.origin == peer.expect.origin;
    if peers.iter().filter(same).count() > 1 && !replayed {
        return Err(format!("is not the only one that hears {}", other.origin));
    }
    Ok(())
}

fn whole(
    scenario: &Scenario,
    peers: &[Peer],
    peer: &Peer,
    other: Option<&Peer>,
    reason: CloseReason,
) -> Result<(), String> {
    // One that had the preface and was left, as far as one can tell: its client hears somebody else, or nobody.
    if let (Origin::Conn(_), Some(client)) = (peer.origin, other)
        && may_replay(scenario, client)
        && client.expect.origin != Some(peer.origin)
    {
        return Ok(());
    }
    let clean = peer.ended && peer.broken.is_none() && peer.is_faithful();
    if reason == CloseReason::Completed && peer.is_faithful() && !clean {
        return Err("did not see the end".into());
    }
    if !clean {
        return Ok(());
    }
    let sent = match (other, peer.origin) {
        // The kernel of a process that is killed closes its sockets, perhaps in order.
        (Some(other), _) => Some((other.finished || other.killed, due(scenario, other))),
        // Whoever sent nothing has no name: it is the one that hears this client, or, of several, one that heard nothing.
        (None, Origin::Client(_)) if may_replay(scenario, peer) => return Ok(()),
        (None, Origin::Client(_)) => peers
            .iter()
            .rfind(|it| it.expect.origin == Some(peer.origin))
            .map(|it| (it.finished || it.killed, due(scenario, it))),
        (None, Origin::Conn(_)) => return Ok(()),
    };
    let received = peer.expect.received;
    if let Some((true, sent)) = sent
        && sent == received
    {
        return Ok(());
    }
    let explained = match reason {
        // At rest, so that a FIN cuts nothing off.
        CloseReason::IdleTimeout
        | CloseReason::Shutdown
        | CloseReason::BackendDown
        | CloseReason::BackendMaint
        | CloseReason::BackendRemoved => true,
        CloseReason::ClientLeft
        | CloseReason::PrereadTimeout
        | CloseReason::PrereadLimit
        | CloseReason::PrereadMemory
        | CloseReason::Rejected(_)
        | CloseReason::NoBackend
        | CloseReason::ConnectFailed(_)
        | CloseReason::RetryBudget
        | CloseReason::LocalFault(_) => received == 0,
        CloseReason::ClientBroken(fault) if fault.is_local() => received == 0,
        _ => false,
    };
    // Too little was said to know who talked to whom; that a FIN was passed on in order is checked
    // by the calls.
    let explained = explained || (sent.is_none() && received < 9);
    // An attempt that was given up before it had a byte of the preface.
    let abandoned = matches!(peer.origin, Origin::Conn(_)) && received == 0;
    if explained || abandoned {
        return Ok(());
    }
    Err(format!(
        "sees a clean end after {received} bytes of {sent:?}"
    ))
}

/// A session that ended by somebody's fault has somebody whose fault it was.
fn blame(
    scenario: &Scenario,
    peers: &[Peer],
    peer: &Peer,
    client: usize,
    reason: CloseReason,
) -> Result<(), String> {
    let heard = |it: &&Peer| it.expect.origin == Some(Origin::Client(client));
    match reason {
        CloseReason::ClientBroken(fault) if !fault.is_local() && peer.is_faithful() => {
            Err("did not break".into())
        }
        // Of several, the one that broke may have heard nothing.
        CloseReason::BackendBroken(Fault::Reset) if !may_replay(scenario, peer) => {
            let mut faithful = peers.iter().filter(heard).map(Peer::is_faithful);
            match faithful.next_back() {
                Some(true) => Err("its backend did not break".into()),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}
