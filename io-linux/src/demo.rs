//! `tlb demo`: the main job in one process, on loopback, checked byte by byte.
//!
//! Three backends, a tlb and a few devices. Each device's key decides its backend; one backend is killed on the way,
//! its devices find the next owner, the others notice nothing; it comes back, and its keys come home.

mod peers;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use self::peers::{Backend, Device};
use crate::config_file::Settings;
use crate::registry::UnpackRegistry;
use crate::server::{Running, Server};

const CONFIG: &str = include_str!("demo/tlb.toml");
const IDS: [char; 3] = ['a', 'b', 'c'];
const KEYS: [&str; 6] = ["dev1", "dev2", "dev3", "dev4", "dev5", "dev6"];
/// How long a backend that came back may wait for its first key. Its back-off is about a second.
const COMES_HOME: Duration = Duration::from_secs(10);

/// What went wrong: a line for a person.
type Failure = Box<dyn std::error::Error>;

/// Runs the demo; the exit code says whether everything was right.
pub(crate) fn main() -> ExitCode {
    let mut out = io::stdout().lock();
    match run(&mut out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Where nobody reads, the exit code says it.
            let _ = writeln!(out, "\nFAILED: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(out: &mut impl Write) -> Result<(), Failure> {
    let began = Instant::now();
    let mut backends = Vec::new();
    for id in IDS {
        backends.push(Backend::start(id, None)?);
    }
    let (tlb, address) = serve(&backends)?;
    writeln!(
        out,
        "tlb listens on {address}; backends a, b and c; {} devices.",
        KEYS.len()
    )?;

    writeln!(
        out,
        "\nEach device's first frame comes in pieces; the key in it decides the backend:"
    )?;
    let mut devices = Vec::new();
    for key in KEYS {
        let mut device = Device::connect(address, key)?;
        device.exchange()?;
        writeln!(
            out,
            "  {key} -> {}   {} bytes there and back",
            device.backend, device.bytes
        )?;
        devices.push(device);
    }

    let victim = devices[0].backend;
    kill(out, &mut backends, victim)?;
    let moved = fail_over(out, address, &mut devices, victim)?;

    writeln!(out, "\nStart backend {victim} again:")?;
    let place = IDS
        .iter()
        .position(|id| *id == victim)
        .ok_or("no such backend")?;
    backends[place] = Backend::start(victim, Some(backends[place].address))?;
    come_home(out, address, &mut devices, &moved, victim)?;

    let bytes: usize = devices.iter().map(|device| device.bytes).sum();
    drop(devices);
    tlb.stop();
    tlb.join()?;
    let took = began.elapsed().as_secs_f64();
    writeln!(
        out,
        "\nEvery byte of {bytes} came back, in order and to its owner ({took:.1} s)."
    )?;
    Ok(())
}

/// A tlb in front of `backends`, and where it listens.
fn serve(backends: &[Backend]) -> Result<(Running, SocketAddr), Failure> {
    let mut config = CONFIG.to_owned();
    for backend in backends {
        config = config.replace(&format!("@{}", backend.id), &backend.address.to_string());
    }
    let settings = Settings::parse("demo.toml", &config, &UnpackRegistry::new())?;
    let tlb = Server::new(settings).start()?;
    let address = tlb.address("devices").ok_or("the listener is missing")?;
    Ok((tlb, address))
}

fn kill(out: &mut impl Write, backends: &mut [Backend], victim: char) -> Result<(), Failure> {
    writeln!(out, "\nKill backend {victim}:")?;
    for backend in backends.iter_mut().filter(|backend| backend.id == victim) {
        backend.kill();
    }
    Ok(())
}

/// The victim's devices lose their connection and find the next owner; the others go on. Returns the keys that moved.
fn fail_over(
    out: &mut impl Write,
    address: SocketAddr,
    devices: &mut [Device],
    victim: char,
) -> Result<Vec<&'static str>, Failure> {
    let mut moved = Vec::new();
    for device in devices {
        let key = device.key;
        if device.backend != victim {
            device.exchange()?;
            writeln!(out, "  {key} -> {}   not disturbed", device.backend)?;
            continue;
        }
        device.await_end()?;
        device.reconnect(address)?;
        device.exchange()?;
        if device.backend == victim {
            return Err(format!("{key} was answered by a backend that is dead").into());
        }
        writeln!(
            out,
            "  {key} -> {}   was on {victim}, reconnected",
            device.backend
        )?;
        moved.push(key);
    }
    Ok(moved)
}

/// New connections of the moved keys go home as soon as tlb has found out that their owner is back.
fn come_home(
    out: &mut impl Write,
    address: SocketAddr,
    devices: &mut [Device],
    moved: &[&str],
    victim: char,
) -> Result<(), Failure> {
    let deadline = Instant::now() + COMES_HOME;
    for device in devices
        .iter_mut()
        .filter(|device| moved.contains(&device.key))
    {
        loop {
            device.reconnect(address)?;
            device.exchange()?;
            if device.backend == victim {
                break;
            }
            if Instant::now() > deadline {
                let key = device.key;
                return Err(format!("{key} did not come home within {COMES_HOME:?}").into());
            }
        }
        writeln!(out, "  {} -> {victim}   home again", device.key)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_tells_what_it_does_and_finds_nothing_wrong() {
        let mut out = Vec::new();
        run(&mut out).unwrap_or_else(|failure| {
            panic!("{failure}\n{}", String::from_utf8_lossy(&out));
        });
        let out = String::from_utf8(out).expect("the demo writes text");
        for key in KEYS {
            assert!(
                out.contains(&format!("{key} -> ")),
                "{key} is not named in\n{out}"
            );
        }
        assert!(
            out.contains("home again") && out.contains("Every byte of"),
            "{out}"
        );
    }
}
