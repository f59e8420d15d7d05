//! A user's configuration as what all scenarios have alike.

use std::path::Path;
use std::time::Duration;

use tlb::config_file::{ListenerSettings, PoolSettings, Settings};
use tlb::registry::UnpackRegistry;
use tlb_sim::swarm::draw::Template;
use tlb_sim::swarm::scenario::{Door, Framing, Group, Membership};

/// Most backends that fit into the simulator's addresses.
const BACKENDS_MAX: usize = 200;

/// Reads a configuration.
///
/// Listeners, pools, weights, policies, limits and timeouts are the user's. The clients' frames are
/// the simulator's own: of an unpack it counts whether there is one.
///
/// # Errors
/// What is wrong with the file, in words.
pub(crate) fn load(path: &str) -> Result<Template, String> {
    let settings = Settings::load(Path::new(path), &UnpackRegistry::default());
    let settings = settings.map_err(|errors| errors.to_string())?;
    if settings.listeners.is_empty() {
        return Err(format!("{path}: no listener, and so nothing to simulate"));
    }
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
        listeners: settings.listeners.iter().map(door).collect(),
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

fn door(of: &ListenerSettings) -> Door {
    let engine = &of.engine;
    let framing = if engine.unpack.is_some() {
        Framing::Length
    } else {
        Framing::None
    };
    Door {
        framing,
        pool: engine.pool.index(),
        preread_ms: millis(engine.preread_timeout),
        limit: engine.preread_limit,
        max_sessions: engine.max_sessions,
        idle_ms: engine.idle_timeout.map(millis),
        half_close_ms: millis(engine.half_close_timeout),
    }
}

fn group(of: &PoolSettings) -> Group {
    Group {
        policy: of.policy,
        bounded: of.bounded_load,
        connect_ms: millis(of.failover.connect_timeout),
        retries: of.failover.retries,
        fall: of.failover.fall,
    }
}
