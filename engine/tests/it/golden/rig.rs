//! An engine that is told things by words.

use std::collections::BTreeMap;
use std::iter;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tlb_engine::Engine;
use tlb_engine::api::{Action, Ends, Fault, Input, Report, Standing};
use tlb_engine::balance::Policy;
use tlb_engine::config::{Config, Failover, Limits, Listener};
use tlb_engine::ids::{Dir, Incarnation, ListenerId, PoolId, SessionId, Side};
use tlb_engine::roster::{Backend, Load, Pool, Roster};
use tlb_engine::time::Timestamp;
use tlb_engine::unpack::{Delimited, FrameSize, Key};

/// Listener 0 takes a line, which is the key; listener 1 takes anything, without a key.
pub(crate) struct Rig {
    config: Config,
    failover: Failover,
    /// From the first command on that needs it.
    engine: Option<Engine>,
    now: Timestamp,
    /// By the number that their names have: `s1` was accepted first.
    sessions: Vec<SessionId>,
    attempts: BTreeMap<SessionId, u8>,
    backends: Vec<Arc<Backend>>,
    incarnations: u32,
    epoch: u64,
    loads: Vec<Load>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let key = Key {
            offset: 0,
            length: None,
        };
        let unpack = Delimited::new(b"\n", key, FrameSize::default()).expect("a valid framing");
        let lines = Listener::new("lines", Some(Arc::new(unpack)), PoolId(0));
        let mut rig = Self {
            config: Config::new(
                vec![lines, Listener::new("any", None, PoolId(0))],
                Limits::default(),
            ),
            failover: Failover::default(),
            engine: None,
            now: Timestamp::ZERO,
            sessions: Vec::new(),
            attempts: BTreeMap::new(),
            backends: Vec::new(),
            incarnations: 0,
            epoch: 0,
            loads: Vec::new(),
        };
        rig.enrol(&["a", "b", "c"]).expect("valid backends");
        rig
    }

    /// Does what a line says and returns what the engine says to that; `None` if it makes no sense.
    ///
    /// | command | |
    /// |---|---|
    /// | `set NAME=VALUE ..` | a limit of the configuration, before anything else |
    /// | `accept [any]` | a client comes to the listener of lines, or of anything |
    /// | `received S "BYTES"`, `ended S`, `client-breaks S FAULT` | of the client |
    /// | `connected S`, `fails S FAULT` | of the current attempt; `S#N` names another |
    /// | `relayed S [forward=N] [back=N] [ended=DIR] [broken=SIDE:FAULT] [unacknowledged, finished, finished-by-reset]` | |
    /// | `expire` | time passes until the next deadline |
    /// | `pass 5s` | time passes |
    /// | `publish ID[=ADDRESS][:drain] ..` | a roster; another address is another backend |
    /// | `accept-fails FAULT` | at the listener of lines |
    /// | `stop` | |
    pub(crate) fn command(&mut self, line: &str) -> Option<Vec<String>> {
        let words: Vec<_> = line.split(' ').collect();
        let (&command, rest) = words.split_first()?;
        let mut said = Vec::new();
        match (command, rest) {
            ("set", settings) => settings.iter().try_for_each(|it| self.set(it))?,
            ("accept", _) => said.extend(self.accept(rest == ["any"])),
            ("received", [_, ..]) => {
                let (_, text) = line.split_once('"')?;
                let bytes = unescape(text.strip_suffix('"')?);
                let session = self.session(rest[0])?.0;
                self.handle(Input::Received {
                    session,
                    bytes: &bytes,
                });
            }
            ("expire", []) => {
                let (at, timer) = self.engine().poll_timeout()?;
                self.now = self.now.max(at);
                said.push(format!("{timer:?} at {}", self.now));
                self.expire();
            }
            ("pass", [time]) => {
                self.now = self.now + duration(time)?;
                said.push(format!("now {}", self.now));
                self.expire();
            }
            ("publish", backends) => {
                self.enrol(backends)?;
                let (now, roster) = (self.now, self.roster());
                self.engine().publish(now, roster);
            }
            ("accept-fails", [name]) => {
                let (now, fault) = (self.now, fault(name)?);
                self.engine().accept_failed(now, ListenerId(0), fault);
            }
            ("stop", []) => {
                let now = self.now;
                self.engine().stop(now);
            }
            (command, [session, rest @ ..]) => self.tell(command, session, rest)?,
            _ => return None,
        }
        said.extend(self.said());
        Some(said)
    }

    /// What a driver may tell of a session's sockets.
    fn tell(&mut self, command: &str, session: &str, rest: &[&str]) -> Option<()> {
        let (session, attempt) = self.session(session)?;
        let input = match (command, rest) {
            ("ended", []) => Input::Ended { session },
            ("client-breaks", [name]) => Input::ClientBroken {
                session,
                fault: fault(name)?,
            },
            ("connected", []) => Input::Connected { session, attempt },
            ("fails", [name]) => Input::ConnectFailed {
                session,
                attempt,
                fault: fault(name)?,
            },
            ("relayed", words) => Input::Relayed {
                session,
                attempt,
                report: report(words)?,
                quiet: None,
            },
            _ => return None,
        };
        self.handle(input);
        Some(())
    }

    fn set(&mut self, setting: &str) -> Option<()> {
        let (name, value) = setting.split_once('=')?;
        let [Some(lines), Some(any)] = &mut self.config.listeners[..] else {
            return None;
        };
        let (lines, any) = (Arc::make_mut(lines), Arc::make_mut(any));
        match name {
            "preread-timeout" => lines.preread_timeout = duration(value)?,
            "preread-limit" => lines.preread_limit = value.parse().ok()?,
            "max-sessions" => lines.max_sessions = value.parse().ok()?,
            "idle-timeout" => {
                lines.idle_timeout = Some(duration(value)?);
                any.idle_timeout = lines.idle_timeout;
            }
            "half-close-timeout" => lines.half_close_timeout = duration(value)?,
            "preread-memory" => self.config.limits.preread_memory = value.parse().ok()?,
            "reset-timeout" => self.config.limits.reset_timeout = duration(value)?,
            "shutdown-timeout" => self.config.limits.shutdown_timeout = duration(value)?,
            "connect-timeout" => self.failover.connect_timeout = duration(value)?,
            "retries" => self.failover.retries = value.parse().ok()?,
            "fall" => self.failover.fall = value.parse().ok()?,
            _ => return None,
        }
        self.engine.is_none().then_some(())
    }

    /// Makes these the backends there are.
    fn enrol(&mut self, backends: &[&str]) -> Option<()> {
        let mut enrolled = Vec::new();
        for word in backends {
            let (word, draining) = match word.strip_suffix(":drain") {
                Some(word) => (word, true),
                None => (*word, false),
            };
            let (id, address) = match word.split_once('=') {
                Some((id, address)) => (id, address.parse().ok()?),
                None => (word, address_of(word)?),
            };
            enrolled.push(self.backend(id, address, draining));
        }
        self.backends = enrolled;
        self.epoch += 1;
        Some(())
    }
}

impl Rig {
    /// A backend as it was, if its address stays: what is known about it stays, too.
    fn backend(&mut self, id: &str, address: SocketAddr, draining: bool) -> Arc<Backend> {
        let same = |known: &&Arc<Backend>| *known.id == *id && known.address == Some(address);
        if let Some(known) = self.backends.iter().find(same) {
            return Arc::new(Backend {
                draining,
                ..(**known).clone()
            });
        }
        self.incarnations += 1;
        let load = Load::default();
        self.loads.push(load.clone());
        Arc::new(Backend {
            id: id.into(),
            incarnation: Incarnation(self.incarnations),
            address: Some(address),
            weight: 1,
            draining,
            load,
            ..Backend::default()
        })
    }

    fn roster(&self) -> Arc<Roster> {
        let policy = Policy::HashRing { points: 64 };
        let pool = Pool::new("all", policy, self.failover.clone(), self.backends.clone());
        Arc::new(Roster {
            epoch: self.epoch,
            pools: vec![Arc::new(pool)],
        })
    }

    fn engine(&mut self) -> &mut Engine {
        let roster = self.roster();
        self.engine.get_or_insert_with(|| {
            let config = Arc::new(self.config.clone());
            Engine::new(config, roster, 7, Timestamp::ZERO)
        })
    }

    fn accept(&mut self, any: bool) -> Option<String> {
        let now = self.now;
        let peer = ([127, 0, 0, 1], 4001 + self.sessions.len() as u16).into();
        let listener = ListenerId(any.into());
        match self.engine().accept(now, listener, peer) {
            Ok(session) => {
                self.sessions.push(session);
                None
            }
            Err(shed) => Some(format!("shed: {shed:?}")),
        }
    }

    fn handle(&mut self, input: Input<'_>) {
        let now = self.now;
        self.engine().handle(now, input);
    }

    fn expire(&mut self) {
        let now = self.now;
        self.engine().handle_timeout(now);
    }

    /// A session and an attempt: `s2` is the second one's current attempt, `s2#0` its first.
    fn session(&self, name: &str) -> Option<(SessionId, u8)> {
        let (name, attempt) = match name.split_once('#') {
            Some((name, attempt)) => (name, Some(attempt.parse().ok()?)),
            None => (name, None),
        };
        let number: usize = name.strip_prefix('s')?.parse().ok()?;
        let session = *self.sessions.get(number.checked_sub(1)?)?;
        let current = self.attempts.get(&session).copied().unwrap_or(0);
        Some((session, attempt.unwrap_or(current)))
    }

    /// All that the engine has to say, events first.
    fn said(&mut self) -> Vec<String> {
        let Some(engine) = &mut self.engine else {
            return Vec::new();
        };
        engine.check_all();
        let mut said: Vec<_> = iter::from_fn(|| engine.poll_event())
            .map(|event| format!("* {event}"))
            .collect();
        while let Some(action) = engine.poll_action() {
            if let Action::Connect {
                session, attempt, ..
            } = action
            {
                self.attempts.insert(session, attempt);
            }
            said.push(format!("-> {action}"));
        }
        said
    }

    pub(crate) fn assert_quiescent(&mut self, path: &Path) {
        let path = path.display();
        assert_eq!(
            self.engine().pending(),
            None,
            "{path} leaves nothing behind"
        );
        for load in &self.loads {
            assert_eq!(load.get(), 0, "{path} leaves no session at a backend");
        }
    }
}

/// `a` is at 10.0.0.1, `b` at 10.0.0.2, and so on.
pub(super) fn address_of(id: &str) -> Option<SocketAddr> {
    let last = id.bytes().next()?.checked_sub(b'a')? + 1;
    Some(([10, 0, 0, last], 7000).into())
}

pub(super) fn duration(word: &str) -> Option<Duration> {
    if let Some(millis) = word.strip_suffix("ms") {
        return millis.parse().ok().map(Duration::from_millis);
    }
    word.strip_suffix('s')?
        .parse()
        .ok()
        .map(Duration::from_secs)
}

fn fault(word: &str) -> Option<Fault> {
    Some(match word {
        "refused" => Fault::Refused,
        "unreachable" => Fault::Unreachable,
        "timed-out" => Fault::TimedOut,
        "reset" => Fault::Reset,
        "ports" => Fault::LocalPorts,
        "descriptors" => Fault::LocalDescriptors,
        _ => return None,
    })
}

fn report(words: &[&str]) -> Option<Report> {
    let mut report = Report::default();
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("forward", bytes) => report.forward = bytes.parse().ok()?,
            ("back", bytes) => report.back = bytes.parse().ok()?,
            ("ended", "forward") => report.ended[Dir::Forward as usize] = true,
            ("ended", "return") => report.ended[Dir::Return as usize] = true,
            ("broken", what) => {
                let (side, name) = what.split_once(':')?;
                let side = Side::BOTH.into_iter().find(|it| it.to_string() == side)?;
                report.broken = Some((side, fault(name)?));
            }
            ("unacknowledged", "") => report.standing = Standing::Unacknowledged,
            ("finished", "") => report.standing = Standing::Finished(Ends::FIN),
            ("finished-by-reset", "") => report.standing = Standing::Finished(Ends::RESET),
            _ => return None,
        }
    }
    Some(report)
}

/// `\n` is a line's end; everything else is itself.
fn unescape(text: &str) -> Vec<u8> {
    text.replace("\\n", "\n").into_bytes()
}
