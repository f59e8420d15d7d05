//! The program in the kernel, and its maps.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{fmt, io};

use aya::maps::{Array, HashMap, Map, MapData, MapError, RingBuf};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use nix::ifaddrs::getifaddrs;
use nix::libc;

use super::layout::{FLOW, Flow, SEEN, Seen, TUPLE, Tuple, slot_of};

/// Made of `hand_off.bpf.c` by `build.sh`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("hand_off.bpf.o");

/// Why packets cannot be forwarded in the kernel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The kernel refuses the program: it is older than Linux 6.6, or the process may not.
    #[error("{0}")]
    Load(String),
    /// The interfaces cannot be listed.
    #[error("interfaces: {0}")]
    Interfaces(#[from] io::Error),
}

/// Packets of sessions that were handed off are forwarded for as long as this lives.
pub(crate) struct Program {
    maps: Mutex<Maps>,
    /// Detached when it is dropped.
    _loaded: Ebpf,
}

/// What the program writes its news to.
pub(crate) struct Ring(pub(super) RingBuf<MapData>);

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").finish_non_exhaustive()
    }
}

struct Maps {
    flows: HashMap<MapData, [u8; TUPLE], [u8; FLOW]>,
    seen: Array<MapData, [u8; SEEN]>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").finish_non_exhaustive()
    }
}

impl Program {
    /// Has the kernel ask the program about every packet that comes in by any interface that there is now, for up to
    /// `sessions` sessions. What it has to say comes out of the ring.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub(crate) fn load(sessions: u32) -> Result<(Self, Ring), Error> {
        let said = |error: &dyn std::error::Error| {
            // The verifier's log would be many pages.
            let text = error.to_string();
            Error::Load(text.lines().next().unwrap_or_default().to_owned())
        };
        let mut loaded = EbpfLoader::new()
            .verifier_log_level(VerifierLogLevel::DISABLE)
            .map_max_entries("FLOWS", sessions * 2)
            .map_max_entries("SEEN", sessions * 2)
            .load(OBJECT)
            .map_err(|error| said(&error))?;
        let maps = Maps {
            flows: take(&mut loaded, "FLOWS").map_err(|error| said(&error))?,
            seen: take(&mut loaded, "SEEN").map_err(|error| said(&error))?,
        };
        let news = take(&mut loaded, "NEWS").map_err(|error| said(&error))?;
        let program = loaded.program_mut("hand_off");
        let program = program.and_then(|it| <&mut SchedClassifier>::try_from(it).ok());
        let Some(program) = program else {
            return Err(Error::Load("the object has no program".to_owned()));
        };
        program.load().map_err(|error| said(&error))?;
        for name in interfaces()? {
            let options = TcAttachOptions::TcxOrder(LinkOrder::default());
            program
                .attach_with_options(&name, TcAttachType::Ingress, options)
                .map_err(|error| Error::Load(format!("interface {name}: {error}")))?;
        }
        let program = Self {
            maps: Mutex::new(maps),
            _loaded: loaded,
        };
        Ok((program, Ring(news)))
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, packets of this tuple go as told, and what is seen of them begins with `seen`, if it is new.
    ///
    /// # Errors
    /// There are as many as there may be.
    pub(super) fn put(
        &self,
        tuple: Tuple,
        flow: &Flow,
        seen: Option<Seen>,
    ) -> Result<(), MapError> {
        let mut maps = self.maps();
        if let Some(seen) = seen {
            maps.seen.set(flow.slot, seen.bytes(), 0)?;
        }
        maps.flows.insert(tuple.bytes(), flow.bytes(), 0)
    }

    /// Packets of this tuple are this host's own again, unless they are another session's by now, in another slot: ports
    /// are used again.
    pub(super) fn remove(&self, tuple: Tuple, slot: u32) {
        let mut maps = self.maps();
        let key = tuple.bytes();
        if maps
            .flows
            .get(&key, 0)
            .is_ok_and(|flow| slot_of(&flow) == slot)
        {
            // It was there a moment ago, and at most the program itself has removed it.
            let _ = maps.flows.remove(&key);
        }
    }

    /// What was seen so far at that place.
    pub(super) fn seen(&self, slot: u32) -> Seen {
        let bytes = self.maps().seen.get(&slot, 0);
        bytes.map_or_else(|_| Seen::default(), |bytes| Seen::of(&bytes))
    }
}

fn take<M: TryFrom<Map, Error = MapError>>(
    loaded: &mut Ebpf,
    name: &'static str,
) -> Result<M, MapError> {
    let map = loaded.take_map(name).ok_or(MapError::InvalidName {
        name: name.to_owned(),
    })?;
    M::try_from(map)
}

/// Those whose packets begin as the program expects: with a header of Ethernet.
fn interfaces() -> io::Result<Vec<String>> {
    let all = getifaddrs()?;
    let ours = all.filter(|it| {
        let link = it.address.as_ref().and_then(|it| it.as_link_addr());
        link.is_some_and(|link| matches!(link.hatype(), libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK))
    });
    Ok(ours.map(|it| it.interface_name).collect())
}
