//! Reading the configuration anew, in process.
//!
//! Everything that can fail is done before anything changes: reading the file, opening its new
//! listeners, opening a new session log. What then follows cannot fail.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::pending;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tlb_engine::fleet::FleetInput;
use tlb_engine::ids::{ListenerId, PoolId};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::command::Refusal;
use super::thread::{ControlThread, Log, Slot};
use super::view::ReloadView;
use crate::config_file::{ListenerSettings, Settings};
use crate::cpus::Cpus;
use crate::limits;
use crate::listen::listen;
use crate::registry::UnpackRegistry;
use crate::resolve;
use crate::session_log::SessionLog;
use crate::socket::{self, ListenerOptions, SessionOptions};
use crate::worker::{Control, Reconfigure};

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) registry: UnpackRegistry,
}

type Reply = oneshot::Sender<Result<ReloadView, Refusal>>;
/// A file that is being read.
type Loading = JoinHandle<Result<Box<Settings>, String>>;

/// One reload at a time; whoever asks meanwhile waits for the next one.
#[derive(Debug, Default)]
pub(crate) struct Reloading {
    loading: Option<(Loading, Reply)>,
    waiting: VecDeque<Reply>,
    /// Of the one that was loaded.
    reply: Option<Reply>,
}

impl Reloading {
    /// What was read.
    pub(super) async fn loaded(&mut self) -> Result<Box<Settings>, String> {
        let Some((task, _)) = &mut self.loading else {
            return pending().await;
        };
        let read = task.await;
        self.reply = self.loading.take().map(|(_, reply)| reply);
        read.unwrap_or_else(|error| Err(format!("reading the configuration failed: {error}")))
    }
}

/// What a reload does to the listeners.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// By id: its place in the new file.
    kept: BTreeMap<usize, usize>,
    /// Places in the new file of those that are to be opened.
    opened: Vec<usize>,
    /// Ids of those that go.
    removed: Vec<usize>,
}

/// A listener stays what it is as long as its name and its `bind` do.
fn plan(slots: &[Option<Slot>], new: &[ListenerSettings]) -> Plan {
    let mut plan = Plan::default();
    let known: BTreeMap<&str, (usize, &Slot)> = slots
        .iter()
        .enumerate()
        .filter_map(|(id, slot)| Some((id, slot.as_ref()?)))
        .map(|(id, slot)| (&*slot.name, (id, slot)))
        .collect();
    for (place, listener) in new.iter().enumerate() {
        match known.get(&*listener.engine.name) {
            Some(&(id, slot)) if slot.bind == listener.bind => {
                plan.kept.insert(id, place);
            }
            _ => plan.opened.push(place),
        }
    }
    let ids = known.values().map(|&(id, _)| id);
    plan.removed = ids.filter(|id| !plan.kept.contains_key(id)).collect();
    plan.removed.sort_unstable();
    plan
}

/// Whether this kernel has what the listeners' sessions are to have. Those that stay get it in the workers, where it would
/// be too late to refuse the whole.
fn can_have(listeners: &[ListenerSettings]) -> Result<(), String> {
    let lacks = |listener: &ListenerSettings| {
        let error = socket::tcp(&listener.bind)
            .and_then(|scratch| socket::set_late(&scratch, options(listener).session))
            .err()?;
        Some(format!("listener {}: {error}", listener.engine.name))
    };
    listeners.iter().find_map(lacks).map_or(Ok(()), Err)
}

/// Listening sockets of a new listener, one for each worker.
struct Opened {
    place: usize,
    slot: Slot,
    sockets: Vec<TcpListener>,
}

fn open(
    new: &[ListenerSettings],
    places: &[usize],
    workers: usize,
    cpus: &Cpus,
) -> Result<Vec<Opened>, String> {
    let open = |&place: &usize| {
        let listener = &new[place];
        let (name, bind) = (&listener.engine.name, listener.bind);
        let (address, sockets) = listen(bind, workers, options(listener), cpus)
            .map_err(|error| format!("listener {name}: cannot listen on {bind}: {error}"))?;
        let slot = Slot {
            name: name.clone(),
            bind,
            address,
        };
        Ok(Opened {
            place,
            slot,
            sockets,
        })
    };
    places.iter().map(open).collect()
}

pub(crate) const fn options(of: &ListenerSettings) -> ListenerOptions {
    ListenerOptions {
        session: SessionOptions {
            idle: of.keepalive,
            user_timeout: of.user_timeout,
            congestion: of.congestion,
        },
        // Where nothing is to be unpacked, the backend may be who speaks first.
        defer: of.engine.unpack.is_some(),
    }
}

impl ControlThread {
    /// Somebody wants the configuration to be read anew.
    pub(super) fn reload(&mut self, reply: Reply) {
        if self.stopping {
            // Whoever asked may have gone.
            let _ = reply.send(Err(Refusal::NotNow("tlb is stopping")));
            return;
        }
        if self.reloading.loading.is_some() {
            self.reloading.waiting.push_back(reply);
            return;
        }
        let Some(Source { path, registry }) = self.source.clone() else {
            let _ = reply.send(Err(Refusal::NotNow(
                "tlb runs without a configuration file",
            )));
            return;
        };
        let task = tokio::task::spawn_blocking(move || read(&path, &registry));
        self.reloading.loading = Some((task, reply));
    }

    /// The configuration was read.
    pub(super) fn loaded(&mut self, loaded: Result<Box<Settings>, String>) {
        let result = loaded.and_then(|settings| self.adopt(*settings));
        match &result {
            Ok(view) => {
                self.counters.reloads.0 += 1;
                self.counters.last_reload = now_seconds();
                info!(
                    generation = view.generation,
                    listeners_added = view.listeners_added.len(),
                    listeners_removed = view.listeners_removed.len(),
                    backends_added = view.backends_added.len(),
                    backends_removed = view.backends_removed.len(),
                    "configuration reloaded"
                );
                for warning in &view.warnings {
                    warn!("{warning}");
                }
            }
            Err(why) => {
                self.counters.reloads.1 += 1;
                error!("configuration not reloaded, nothing was changed: {why}");
            }
        }
        if let Some(reply) = self.reloading.reply.take() {
            // Whoever asked may have gone.
            let _ = reply.send(result.map_err(Refusal::Config));
        }
        if let Some(next) = self.reloading.waiting.pop_front() {
            self.reload(next);
        }
    }

    fn adopt(&mut self, mut new: Settings) -> Result<ReloadView, String> {
        let plan = plan(&self.slots, &new.listeners);
        can_have(&new.listeners)?;
        if let Some(listener) = new.listeners.iter().find(|it| it.engine.hand_off.is_some())
            && !self.hands_off
        {
            let name = &listener.engine.name;
            return Err(format!(
                "listener {name}: hand-off is switched on at start, if any listener has it then: restart tlb"
            ));
        }
        let opened = open(&new.listeners, &plan.opened, self.remotes.len(), &self.cpus)?;
        let log = self.open_log(&new)?;
        let mut view = differences(&self.settings, &new);
        view.warnings
            .extend(new.warnings.iter().map(ToString::to_string));
        self.counters.generation += 1;
        view.generation = self.counters.generation;

        limits::adopt(&mut new, Some(&self.settings));
        let config = limits::fleet_config(&new);
        let ids = self.fleet.ids(&config);
        for listener in &mut new.listeners {
            listener.engine.pool = ids
                .get(listener.engine.pool.index())
                .copied()
                .unwrap_or(PoolId(0));
        }
        let now = self.clock.now();
        let names = self.names_to_ask(&new);
        self.fleet.handle(now, FleetInput::Configure(config));
        self.names.ask(names, now);
        self.settings = new;
        // The roster goes out before the listeners that refer to its pools.
        self.execute();
        self.reconfigure(&plan, opened);
        self.change_log(log);
        Ok(view)
    }

    /// Names that were not resolved, or stand for another host than before.
    fn names_to_ask(&self, new: &Settings) -> Vec<resolve::Named> {
        let before: BTreeSet<_> = resolve::named(&self.settings).into_iter().collect();
        let waiting: BTreeSet<_> = self.names.wanted.iter().cloned().collect();
        let names = resolve::named(new).into_iter();
        names
            .filter(|name| !before.contains(name) || waiting.contains(name))
            .collect()
    }

    /// Tells the workers about their listeners.
    fn reconfigure(&mut self, plan: &Plan, opened: Vec<Opened>) {
        for &id in &plan.removed {
            self.slots[id] = None;
        }
        let mut places: BTreeMap<usize, usize> = plan.kept.clone();
        let workers = self.remotes.len();
        let mut sockets: Vec<Vec<(ListenerId, TcpListener, SessionOptions)>> =
            (0..workers).map(|_| Vec::new()).collect();
        for new in opened {
            let id = self.slots.len();
            let rules = options(&self.settings.listeners[new.place]).session;
            places.insert(id, new.place);
            info!(name = %new.slot.name, address = %new.slot.address, workers, "listening");
            self.slots.push(Some(new.slot));
            for (of_worker, socket) in sockets.iter_mut().zip(new.sockets) {
                of_worker.push((ListenerId(id as u32), socket, rules));
            }
        }
        let by_id: Vec<_> = (0..self.slots.len())
            .map(|id| places.get(&id).copied())
            .collect();
        let kept: Vec<_> = plan
            .kept
            .iter()
            .map(|(&id, &place)| {
                (
                    ListenerId(id as u32),
                    options(&self.settings.listeners[place]),
                )
            })
            .collect();
        for (number, (remote, opened)) in self.remotes.iter().zip(sockets).enumerate() {
            let config = limits::share(&self.settings, &by_id, number, workers);
            remote.tell(Control::Reconfigure(Box::new(Reconfigure {
                config: Arc::new(config),
                opened,
                kept: kept.clone(),
            })));
        }
    }

    /// A session log of its own, if the new configuration wants another one than there is.
    fn open_log(&self, new: &Settings) -> Result<Option<Option<Log>>, String> {
        if new.session_log == self.settings.session_log {
            return Ok(None);
        }
        let Some(settings) = &new.session_log else {
            return Ok(Some(None));
        };
        let opened = SessionLog::open(settings);
        let opened =
            opened.map_err(|error| format!("the session log cannot be opened: {error}"))?;
        Ok(Some(Some(opened)))
    }

    fn change_log(&mut self, log: Option<Option<Log>>) {
        let Some(log) = log else {
            if let Some((log, _)) = &self.log {
                log.reopen();
            }
            return;
        };
        let handle = log.as_ref().map(|(log, _)| log.clone());
        self.tell_all(|| Control::Log(handle.clone()));
        if let Some((old, thread)) = std::mem::replace(&mut self.log, log) {
            self.counters.log_dropped += old.dropped();
            drop(old);
            // Nobody waits for it: what is queued is written as soon as the workers let go of it.
            drop(tokio::task::spawn_blocking(move || {
                thread.finish(Duration::from_secs(5))
            }));
        }
    }
}

fn read(path: &Path, registry: &UnpackRegistry) -> Result<Box<Settings>, String> {
    let settings = Settings::load(path, registry);
    settings.map(Box::new).map_err(|errors| errors.to_string())
}

pub(super) fn now_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// What differs, in words and names.
fn differences(old: &Settings, new: &Settings) -> ReloadView {
    let listeners = |of: &Settings| -> BTreeSet<String> {
        let names = of.listeners.iter().map(|it| String::from(&*it.engine.name));
        names.collect()
    };
    let pools = |of: &Settings| -> BTreeSet<String> {
        of.pools.iter().map(|it| String::from(&*it.name)).collect()
    };
    let backends = |of: &Settings| -> BTreeSet<String> {
        let pools = of.pools.iter();
        pools
            .flat_map(|pool| {
                pool.backends
                    .iter()
                    .map(move |it| format!("{}/{}", pool.name, it.id))
            })
            .collect()
    };
    let without = |one: BTreeSet<String>, other: BTreeSet<String>| -> Vec<String> {
        one.difference(&other).cloned().collect()
    };
    let mut warnings = Vec::new();
    let mut only_at_start = |key: &str, differs: bool| {
        if differs {
            warnings.push(format!("{key} differs, which is only read when tlb starts"));
        }
    };
    only_at_start("workers", old.workers != new.workers);
    only_at_start("cpus", old.cpus != new.cpus);
    only_at_start("incoming-cpu", old.incoming_cpu != new.incoming_cpu);
    only_at_start("relay", old.relay != new.relay);
    only_at_start("spin-us", old.spin != new.spin);
    only_at_start("[admin]", old.admin != new.admin);
    ReloadView {
        generation: 0,
        listeners_added: without(listeners(new), listeners(old)),
        listeners_removed: without(listeners(old), listeners(new)),
        pools_added: without(pools(new), pools(old)),
        pools_removed: without(pools(old), pools(new)),
        backends_added: without(backends(new), backends(old)),
        backends_removed: without(backends(old), backends(new)),
        warnings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        Settings::parse("t", text, &UnpackRegistry::new()).expect("fine")
    }

    fn listeners(of: &[(&str, u16)]) -> Settings {
        let mut text = String::from(
            "[[pool]]\nname = 'p'\npolicy = 'p2c'\nbackends = [{ id = 'a', address = '127.0.0.1:1' }]\n",
        );
        for (name, port) in of {
            text +=
                &format!("[[listener]]\nname = '{name}'\npool = 'p'\nbind = '127.0.0.1:{port}'\n");
        }
        settings(&text)
    }

    fn slots(of: &Settings) -> Vec<Option<Slot>> {
        let slot = |it: &ListenerSettings| Slot {
            name: it.engine.name.clone(),
            bind: it.bind,
            address: it.bind,
        };
        of.listeners.iter().map(|it| Some(slot(it))).collect()
    }

    #[test]
    fn a_listener_is_its_name_and_its_bind() {
        let old = listeners(&[("a", 1001), ("b", 1002), ("c", 1003)]);
        let mut slots = slots(&old);
        let same = plan(&slots, &old.listeners);
        assert_eq!(same.kept, BTreeMap::from([(0, 0), (1, 1), (2, 2)]));
        assert!(same.opened.is_empty() && same.removed.is_empty());

        // Another order, one removed, one elsewhere, one new.
        let new = listeners(&[("d", 1004), ("c", 1003), ("b", 2002)]);
        let changed = plan(&slots, &new.listeners);
        assert_eq!(changed.kept, BTreeMap::from([(2, 1)]));
        assert_eq!(changed.opened, [0, 2]);
        assert_eq!(changed.removed, [0, 1]);

        // What was removed is not there any more.
        slots[0] = None;
        let back = plan(&slots, &old.listeners);
        assert_eq!(back.kept, BTreeMap::from([(1, 1), (2, 2)]));
        assert_eq!(back.opened, [0]);
        assert!(back.removed.is_empty());
    }

    #[test]
    fn what_differs_is_named() {
        let old = listeners(&[("a", 1001), ("b", 1002)]);
        let mut new = settings(
            "workers = 3\n[[pool]]\nname = 'q'\npolicy = 'p2c'\nbackends = [\
             { id = 'x', address = 'localhost:1' }]\n\
             [[listener]]\nname = 'b'\npool = 'q'\nbind = '127.0.0.1:1002'\n",
        );
        let view = differences(&old, &new);
        assert_eq!(view.listeners_removed, ["a"]);
        assert!(view.listeners_added.is_empty());
        assert_eq!(
            (&*view.pools_added, &*view.pools_removed),
            (&["q".to_owned()][..], &["p".to_owned()][..])
        );
        assert_eq!(view.backends_added, ["q/x"]);
        assert_eq!(view.backends_removed, ["p/a"]);
        assert_eq!(view.warnings.len(), 1, "{:?}", view.warnings);
        new.workers = None;
        assert!(differences(&old, &new).warnings.is_empty());
    }

    #[test]
    fn a_listener_that_cannot_be_opened_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = taken.local_addr().expect("an address").port();
        let new = listeners(&[("a", 0), ("b", port)]);
        let error = open(&new.listeners, &[0, 1], 2, &Cpus::default())
            .map(|_| ())
            .expect_err("taken");
        assert!(
            error.starts_with(&format!("listener b: cannot listen on 127.0.0.1:{port}")),
            "{error}"
        );
    }
}
