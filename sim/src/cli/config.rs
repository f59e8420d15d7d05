//! A user's configuration as what all scenarios have alike.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tlb::config_file::{HealthSettings, ListenerSettings, PoolSettings, ProbeKind, Settings};
use tlb::registry::UnpackRegistry;
use tlb_engine::fleet::Admission;

use super::recorded;
use crate::swarm::draw::Template;
use crate::swarm::frames;
use crate::swarm::scenario::{Door, FleetRules, Framing, Group, Membership, Probing};

/// Most backends that fit into the simulator's addresses.
const BACKENDS_MAX: usize = 200;

/// Reads a configuration, and the frames for those of its unpacks that are code.
///
/// # Errors
/// What is wrong with a file, or what of it cannot be simulated, in words.
pub(super) fn load(
    path: &str,
    recordings: Option<&str>,
    registered: &UnpackRegistry,
) -> Result<Template, String> {
    let settings = Settings::load(Path::new(path), registered);
    let settings = settings.map_err(|errors| errors.to_string())?;
    if settings.listeners.is_empty() {
        return Err(format!("{path}: no listener, and so nothing to simulate"));
    }
    let recorded = match recordings {
        Some(path) => recorded::load(path, registered)?,
        None => Vec::new(),
    };
    let door = |of: &ListenerSettings| {
        let name = &of.engine.name;
        let framing = framing(of, &recorded, registered);
        framing
            .map(|framing| door(of, framing))
            .map_err(|what| format!("{path}: listener {name}: {what}"))
    };
    let listeners: Result<_, _> = settings.listeners.iter().map(door).collect();
    let pools = settings.pools.iter().enumerate();
    let backends: Vec<_> = pools
        .flat_map(|(number, pool)| {
            let each = pool.backends.iter();
            each.map(move |it| (number, it.weight, membership(it.draining)))
        })
        .collect();
    if backends.len() > BACKENDS_MAX {
        return Err(format!(
            "{path}: more than {BACKENDS_MAX} backends are not simulated"
        ));
    }
    Ok(Template {
        mode: settings.relay,
        preread_memory: settings.limits.preread_memory,
        reset_ms: millis(settings.limits.reset_timeout),
        shutdown_ms: millis(settings.limits.shutdown_timeout),
        listeners: listeners?,
        pools: settings.pools.iter().map(group).collect(),
        backends,
    })
}

const fn membership(draining: bool) -> Membership {
    if draining {
        Membership::Draining
    } else {
        Membership::Member
    }
}

fn millis(of: Duration) -> u64 {
    u64::try_from(of.as_millis()).unwrap_or(u64::MAX)
}

/// How the frames of a listener's clients look.
fn framing(
    of: &ListenerSettings,
    recorded: &[&'static frames::Recorded],
    registered: &UnpackRegistry,
) -> Result<Framing, String> {
    let Some(unpack) = &of.engine.unpack else {
        return Ok(Framing::None);
    };
    if let Some(spec) = unpack.spec() {
        frames::sizes(&spec, of.engine.preread_limit)?;
        return Ok(Framing::Spec(spec));
    }
    let mut same = recorded.iter().filter(|it| Arc::ptr_eq(&it.unpack, unpack));
    same.next().map(|it| Framing::Recorded(it)).ok_or_else(|| {
        let mut names = registered.names();
        let is_it = |name: &&str| {
            let known = registered.get(name);
            known.is_some_and(|known| Arc::ptr_eq(known, unpack))
        };
        let name = names.find(is_it).unwrap_or("its unpack");
        format!("{name} is code, so that its frames must be given: name a file by --frames")
    })
}

fn door(of: &ListenerSettings, framing: Framing) -> Door {
    let engine = &of.engine;
    Door {
        framing,
        pool: engine.pool.index(),
        preread_ms: millis(engine.preread_timeout),
        limit: engine.preread_limit,
        max_sessions: engine.max_sessions,
        idle_ms: engine.idle_timeout.map(millis),
        half_close_ms: millis(engine.half_close_timeout),
        admission: of.admission.map(pair),
        per_source: of.per_source.map(NonZeroU32::get),
        replay: engine.replay,
    }
}

const fn pair(of: Admission) -> (u32, u32) {
    (of.rate.get(), of.burst.get())
}

/// Whatever a probe asks for, the simulated backends answer it as they should if they answer.
fn probing(of: &HealthSettings) -> Probing {
    Probing {
        interval_ms: millis(of.schedule.interval),
        timeout_ms: millis(of.schedule.timeout),
        rise: of.schedule.rise,
        fall: of.schedule.fall,
        exchange: !matches!(of.kind, ProbeKind::Tcp),
    }
}

fn group(of: &PoolSettings) -> Group {
    Group {
        policy: of.policy,
        bounded: of.bounded_load,
        connect_ms: millis(of.failover.connect_timeout),
        retries: of.failover.retries,
        fall: of.failover.fall,
        warm: of.failover.warm,
        early_resets: of.failover.early_resets,
        fleet: FleetRules {
            health: of.health.as_ref().map(probing),
            panic: of.failover.panic,
            max_ejected: of.failover.max_ejected,
            on_down: of.on_down.how,
            tell_rate: of.on_down.rate.get(),
            ramp_ms: of.slow_start.map(millis),
            admission: of.admission.map(pair),
        },
    }
}
