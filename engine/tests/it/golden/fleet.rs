//! A fleet that is told things by words.

use std::collections::BTreeMap;
use std::iter;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tlb_engine::api::TellHow;
use tlb_engine::balance::Policy;
use tlb_engine::config::Failover;
use tlb_engine::fleet::{
    Admin, BackendConfig, Fleet, FleetAction, FleetConfig, FleetInput, OnDown, PoolConfig,
    ProbeConfig, ProbeId, ProbeOutcome,
};
use tlb_engine::health::Change;
use tlb_engine::ids::Incarnation;
use tlb_engine::roster::Roster;
use tlb_engine::time::Timestamp;

use super::rig::{address_of, duration};

/// One pool, `p`, whose backends `a`, `b` and `c` are probed every second.
pub(crate) struct FleetRig {
    pool: PoolConfig,
    /// From the first command on that needs it.
    fleet: Option<Fleet>,
    now: Timestamp,
    /// Under way, by where.
    probes: BTreeMap<SocketAddr, ProbeId>,
}

impl FleetRig {
    pub(crate) fn new() -> Self {
        let probe = ProbeConfig {
            interval: Duration::from_secs(1),
            fast_interval: Duration::from_millis(200),
            timeout: Duration::from_millis(500),
            rise: 2,
            fall: 3,
        };
        let backends = ["a", "b", "c"].map(|word| backend(word).expect("a valid backend"));
        Self {
            pool: PoolConfig {
                name: "p".into(),
                policy: Policy::HashRing { points: 16 },
                bounded_load: None,
                failover: Failover::default(),
                sources: Vec::new(),
                probe: Some(probe),
                on_down: OnDown::default(),
                slow_start: None,
                admission: None,
                backends: backends.into(),
            },
            fleet: None,
            now: Timestamp::ZERO,
            probes: BTreeMap::new(),
        }
    }

    /// Does what a line says and returns what the fleet says to that; `None` if it makes no sense.
    ///
    /// | command | |
    /// |---|---|
    /// | `set NAME=VALUE ..` | of the pool, before anything else |
    /// | `configure ID[=ADDRESS][*WEIGHT][:drain] ..` | its backends are these; `ID=?` is not resolved |
    /// | `resolved ID ADDRESS` | |
    /// | `until ID` | time passes until that backend is probed |
    /// | `pass 5s` | time passes |
    /// | `probed ID passes`, `fails`, `cannot` | what the probe found that is under way; `cannot`: this host is at fault |
    /// | `reported WORKER ID up`, `down` | what a worker's sessions found out |
    /// | `operator ID ready`, `drain`, `maint` | |
    pub(crate) fn command(&mut self, line: &str) -> Option<Vec<String>> {
        let words: Vec<_> = line.split(' ').collect();
        let mut said = Vec::new();
        match words[..] {
            ["set", ref settings @ ..] => settings.iter().try_for_each(|it| self.set(it))?,
            ["configure", ref backends @ ..] => {
                self.fleet();
                let backends = backends.iter().map(|word| backend(word));
                self.pool.backends = backends.collect::<Option<_>>()?;
                let pools = vec![self.pool.clone()];
                self.handle(FleetInput::Configure(FleetConfig { pools }));
            }
            ["resolved", id, address] => self.handle(FleetInput::Resolved {
                pool: "p".into(),
                backend: id.into(),
                address: address.parse().ok()?,
            }),
            ["until", id] => {
                let to = self.address(id)?;
                while !self.probes.contains_key(&to) {
                    let next = self.fleet().poll_timeout()?;
                    self.pass(next, &mut said);
                }
            }
            ["pass", time] => {
                let until = self.now + duration(time)?;
                while let Some(next) = self.fleet().poll_timeout().filter(|&at| at <= until) {
                    self.pass(next, &mut said);
                }
                self.now = until;
            }
            ["probed", id, found] => {
                let at = self.address(id)?;
                let probe = self.probes.remove(&at)?;
                let outcome = match found {
                    "passes" => ProbeOutcome::Passed,
                    "fails" => ProbeOutcome::Failed("refused".into()),
                    "cannot" => ProbeOutcome::Inconclusive("no descriptor".into()),
                    _ => return None,
                };
                self.handle(FleetInput::Probed { probe, outcome });
            }
            ["reported", worker, id, change] => {
                let input = FleetInput::Reported {
                    worker: worker.parse().ok()?,
                    backend: self.incarnation(id)?,
                    change: match change {
                        "up" => Change::Up,
                        "down" => Change::Down,
                        _ => return None,
                    },
                };
                self.handle(input);
            }
            ["operator", id, wish] => {
                let wish = match wish {
                    "ready" => Admin::Ready,
                    "drain" => Admin::Drain,
                    "maint" => Admin::Maint,
                    _ => return None,
                };
                let now = self.now;
                if let Err(error) = self.fleet().set(now, "p", id, wish) {
                    said.push(format!("{error:?}"));
                }
            }
            _ => return None,
        }
        said.extend(self.said());
        Some(said)
    }

    fn set(&mut self, setting: &str) -> Option<()> {
        let (name, value) = setting.split_once('=')?;
        let probe = self.pool.probe.as_mut()?;
        match name {
            "backends" => {
                let backends = value.split(',').map(backend);
                self.pool.backends = backends.collect::<Option<_>>()?;
            }
            "interval" => probe.interval = duration(value)?,
            "timeout" => probe.timeout = duration(value)?,
            "rise" => probe.rise = value.parse().ok()?,
            "fall" => probe.fall = value.parse().ok()?,
            "panic" => self.pool.failover.panic = value.parse().ok()?,
            "slow-start" => self.pool.slow_start = Some(duration(value)?),
            "on-down" => {
                self.pool.on_down.how = match value {
                    "keep" => None,
                    "close" => Some(TellHow::Close),
                    "reset" => Some(TellHow::Reset),
                    _ => return None,
                }
            }
            _ => return None,
        }
        self.fleet.is_none().then_some(())
    }

    fn fleet(&mut self) -> &mut Fleet {
        let pools = vec![self.pool.clone()];
        self.fleet
            .get_or_insert_with(|| Fleet::new(FleetConfig { pools }, 7, Timestamp::ZERO))
    }

    fn handle(&mut self, input: FleetInput) {
        let now = self.now;
        self.fleet().handle(now, input);
    }

    fn pass(&mut self, until: Timestamp, said: &mut Vec<String>) {
        self.now = self.now.max(until);
        let now = self.now;
        self.fleet().handle_timeout(now);
        said.push(format!("now {now}"));
        said.extend(self.said());
    }

    /// Where a backend is that has an address.
    fn address(&mut self, id: &str) -> Option<SocketAddr> {
        let pool = self.fleet().view().pop()?;
        pool.backends.iter().find(|it| it.id == id)?.address
    }

    fn incarnation(&mut self, id: &str) -> Option<Incarnation> {
        let pool = self.fleet().view().pop()?;
        let found = pool.backends.iter().find(|it| it.id == id)?;
        Some(found.incarnation)
    }

    /// All that the fleet has to say, events first.
    fn said(&mut self) -> Vec<String> {
        let Some(fleet) = &mut self.fleet else {
            return Vec::new();
        };
        let actions: Vec<_> = iter::from_fn(|| fleet.poll_action()).collect();
        let mut said: Vec<_> = iter::from_fn(|| fleet.poll_event())
            .map(|event| format!("* {event}"))
            .collect();
        for action in actions {
            let of = match &action {
                FleetAction::Publish(roster) => format!(": {}", line_up(roster)),
                _ => String::new(),
            };
            said.push(format!("-> {action}{of}"));
            match action {
                FleetAction::Probe { probe, to, .. } => drop(self.probes.insert(to, probe)),
                FleetAction::Cancel { probe } => self.probes.retain(|_, it| *it != probe),
                _ => {}
            }
        }
        said
    }

    pub(crate) fn assert_quiescent(&mut self, path: &Path) {
        let path = path.display();
        assert_eq!(self.fleet().pending(), None, "{path} leaves nothing behind");
    }
}

/// The backends of a roster, and what is special about them.
fn line_up(roster: &Roster) -> String {
    let one = |of: &tlb_engine::roster::Backend| {
        let mut word = of.id.to_string();
        for (is, what) in [
            (of.address.is_none(), "nowhere"),
            (of.down, "down"),
            (of.draining, "drains"),
            (of.ramp.is_some(), "slowly"),
        ] {
            if is {
                word += &format!(" {what}");
            }
        }
        word
    };
    let pools = roster.pools.iter();
    let words: Vec<_> = pools
        .flat_map(|pool| pool.backends().iter().map(|it| one(it)))
        .collect();
    words.join(", ")
}

/// `ID[=ADDRESS][*WEIGHT][:drain]`, whose address follows from its id unless it is given.
fn backend(word: &str) -> Option<BackendConfig> {
    let (word, draining) = match word.strip_suffix(":drain") {
        Some(word) => (word, true),
        None => (word, false),
    };
    let (word, weight) = match word.split_once('*') {
        Some((word, weight)) => (word, weight.parse().ok()?),
        None => (word, 1),
    };
    let (id, address) = match word.split_once('=') {
        Some((id, "?")) => (id, None),
        Some((id, address)) => (id, Some(address.parse().ok()?)),
        None => (word, Some(address_of(word)?)),
    };
    Some(BackendConfig {
        id: id.into(),
        address,
        weight,
        draining,
    })
}
