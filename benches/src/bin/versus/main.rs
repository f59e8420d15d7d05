//! tlb side by side with haproxy and nginx, and with no relay at all: the same job, by content, in one run.
//!
//! ```console
//! $ cargo run --release -p tlb-benches --bin versus
//! ```
//!
//! Everybody is there from the start and rests until it is their turn; turns alternate, and each round begins with
//! another one. The relay has one CPU, clients and backends the other, but where a row says otherwise. What counts is the relay's CPU per unit, by the
//! kernel's own count; rates on a machine that does other things mean little. Nothing is installed: peers that are
//! not there are left out, and named.

mod backend;
mod bare;
mod load;
mod peers;
mod process;
mod table;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use self::load::Work;
use self::peers::{Contender, clients_cpu};
use self::process::{OTHER_CPU, Process, Trace};
use self::table::{Entry, Sample};

const HELP: &str = "\
Compares tlb with haproxy, nginx and a direct connection, doing the same job by content.

  versus [ROW...] [--rounds N] [--seconds S] [--quick] [--no-strace]

  ROW          bulk-one-N, bulk-both-N, ping-SIZE-N, churn-N, idle-N (N connections),
               ping-SIZE-N-together (everybody on one CPU),
               fair-N-M (small messages of N beside bulk flows of M),
               fair-N-M-PACE (of so many MB a second in all)
  --rounds     how often each is measured (default 15)
  --seconds    how long each measurement takes (default 0.5)
  --quick      fewer settings of the peers
  --no-strace  does not count system calls
";

const ROWS: [&str; 14] = [
    "bulk-one-1",
    "bulk-one-64",
    "bulk-both-1",
    "bulk-both-64",
    "ping-64-1",
    "ping-64-1-together",
    "ping-64-256",
    "ping-4096-1",
    "ping-4096-256",
    "churn-1",
    "churn-64",
    "idle-9500",
    "fair-256-4",
    "fair-256-4-600",
];

struct Options {
    rows: Vec<Work>,
    rounds: usize,
    lasts: Duration,
    quick: bool,
    strace: bool,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words[..] {
        // The processes that this one starts.
        ["backend", echo, sink] => match (echo.parse(), sink.parse()) {
            (Ok(echo), Ok(sink)) => backend::main(echo, sink),
            _ => Err(io::Error::other("two addresses are wanted")),
        },
        ["bare", echo, sink, to_echo, to_sink] => {
            match [echo, sink, to_echo, to_sink].map(str::parse) {
                [Ok(echo), Ok(sink), Ok(to_echo), Ok(to_sink)] => {
                    bare::main([(echo, to_echo), (sink, to_sink)])
                }
                _ => Err(io::Error::other("four addresses are wanted")),
            }
        }
        ["load", work, to, millis] => match (Work::parse(work), to.parse(), millis.parse()) {
            (Some(work), Ok(to), Ok(millis)) => load::main(work, to, Duration::from_millis(millis)),
            _ => Err(io::Error::other("a row, an address and a time are wanted")),
        },
        _ => match parse(&words) {
            Ok(Some(options)) => compare(&options),
            Ok(None) => {
                print!("{HELP}");
                return ExitCode::SUCCESS;
            }
            Err(what) => {
                eprintln!("versus: {what}");
                return ExitCode::from(2);
            }
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("versus: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(words: &[&str]) -> Result<Option<Options>, String> {
    let mut options = Options {
        rows: Vec::new(),
        // A virtual machine is now faster and now slower, for seconds. Many short rounds have a steadier median than a
        // few long ones.
        rounds: 15,
        lasts: Duration::from_millis(500),
        quick: false,
        strace: true,
    };
    let mut words = words.iter();
    while let Some(&word) = words.next() {
        let mut number = || {
            let value = words.next().and_then(|it| it.parse::<f64>().ok());
            let value = value.filter(|it| *it > 0.0 && *it < 1000.0);
            value.ok_or(format!("{word} needs a number"))
        };
        match word {
            "--help" | "-h" => return Ok(None),
            "--rounds" => options.rounds = number()?.ceil() as usize,
            "--seconds" => options.lasts = Duration::from_secs_f64(number()?),
            "--quick" => options.quick = true,
            "--no-strace" => options.strace = false,
            row => match Work::parse(row) {
                Some(work) => options.rows.push(work),
                None => return Err(format!("{row} is unknown; see --help")),
            },
        }
    }
    if options.rows.is_empty() {
        options.rows = ROWS.iter().filter_map(|row| Work::parse(row)).collect();
    }
    Ok(Some(options))
}

/// A folder for configurations, gone in the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn compare(options: &Options) -> io::Result<()> {
    let folder = std::env::temp_dir().join(format!("versus-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("logs"))?;
    let folder = Folder(folder);
    let at = |port| SocketAddr::from(([0, 0, 0, 0], port));
    let (echo, sink) = (at(20_990), at(20_991));
    let this = std::env::current_exe()?.display().to_string();
    let args = ["backend", &echo.to_string(), &sink.to_string()];
    let mut backend = Process::start(OTHER_CPU, &this, &args)?;
    backend.line()?;
    let here = |of: SocketAddr| SocketAddr::from(([127, 0, 0, 1], of.port()));
    let start = || peers::start(&this, [here(echo), here(sink)], &folder.0, options.quick);
    let mut contenders = start()?;
    for &work in &options.rows {
        let mut entries: Vec<Entry> = contenders
            .iter()
            .map(|it| Entry {
                product: it.product,
                setting: it.setting.clone(),
                samples: Vec::new(),
                syscalls: None,
            })
            .collect();
        for round in 0..options.rounds {
            if matches!(work, Work::Idle { .. }) {
                // What a process had for other work, it keeps: memory is measured in fresh ones.
                contenders.clear();
                contenders = start()?;
            }
            for turn in 0..contenders.len() {
                let place = (turn + round) % contenders.len();
                let contender = &mut contenders[place];
                if !contender.does(work) {
                    continue;
                }
                contender.begin()?;
                let sample = match work {
                    Work::Fair { conns, bulk, pace } => {
                        let flows = Work::Bulk {
                            conns: bulk,
                            both: false,
                            pace,
                        };
                        beside(&this, contender, &backend, conns, flows, options.lasts)
                    }
                    _ => measure(&this, contender, &backend, work, options.lasts, None),
                }?;
                contender.end();
                entries[place].samples.push(sample);
            }
        }
        if options.strace && !matches!(work, Work::Idle { .. } | Work::Fair { .. }) {
            for (contender, entry) in contenders.iter_mut().zip(&mut entries) {
                entry.syscalls = count_calls(&this, contender, &backend, work)?;
            }
        }
        print!("{}", table::rows(work, &entries));
    }
    Ok(())
}

/// Starts the clients of a work, all of them connected, with everybody on the CPU that is theirs in it.
fn clients(
    this: &str,
    to: &Contender,
    backend: &Process,
    work: Work,
    lasts: Duration,
) -> io::Result<Process> {
    process::pin(backend.pid(), to.backend_cpu(work))?;
    let discards = matches!(work, Work::Bulk { both: false, .. });
    let at = to.at[usize::from(discards)].to_string();
    let millis = lasts.as_millis().to_string();
    let mut load = Process::start(
        clients_cpu(work),
        this,
        &["load", &work.name(), &at, &millis],
    )?;
    load.line().map_err(|error| of(to, work, &error))?;
    Ok(load)
}

fn of(contender: &Contender, work: Work, error: &io::Error) -> io::Error {
    let (product, setting) = (contender.product, &contender.setting);
    io::Error::other(format!("{product} {setting} at {}: {error}", work.name()))
}

/// What clients say that they did: units, seconds, and nanoseconds of the median and the 99th percentile.
fn numbers(line: &str) -> [f64; 4] {
    let mut words = line.split(' ');
    [(); 4].map(|()| {
        words
            .next()
            .and_then(|word| word.parse().ok())
            .unwrap_or(0.0)
    })
}

/// What a work costs, beside such flows as are connected and wait for a word.
fn measure(
    this: &str,
    contender: &mut Contender,
    backend: &Process,
    work: Work,
    lasts: Duration,
    flows: Option<&mut Process>,
) -> io::Result<Sample> {
    let relay = contender.process.as_ref().map(Process::pid);
    let memory = |relay: Option<u32>| relay.map_or(0, process::memory) as f64;
    let open = |relay: Option<u32>| relay.map_or(0, process::pipes) as f64;
    let before = (memory(relay), open(relay));
    let mut load = clients(this, contender, backend, work, lasts)?;
    let held = memory(relay) - before.0;
    let pipes = open(relay) - before.1;
    let cpu = |load: &Process| {
        let relay = relay.map_or(0, process::cpu) as f64;
        [
            relay,
            relay + (process::cpu(backend.pid()) + process::cpu(load.pid())) as f64,
        ]
    };
    if let Some(flows) = flows {
        flows.say("go")?;
        std::thread::sleep(lasts / 4);
    }
    let from = cpu(&load);
    load.say("go")?;
    // They wait for one more word, so that their own CPU can still be read.
    let line = load.line();
    let line = line.map_err(|error| of(contender, work, &error))?;
    let to = cpu(&load);
    let [units, seconds, half, most] = numbers(&line);
    load.say("end").ok();
    load.wait()?;
    let per = |of: f64| of / 1000.0 / units.max(1.0);
    Ok(Sample {
        rate: units / seconds,
        took: [half / 1000.0, most / 1000.0],
        relay: match work {
            Work::Idle { .. } => (to[0] - from[0]) / 1000.0 / seconds,
            _ => per(to[0] - from[0]),
        },
        all: per(to[1] - from[1]),
        memory: held / units.max(1.0),
        pipes,
        alone: 0.0,
        bulk: 0.0,
    })
}

/// Small messages alone, and then beside bulk flows.
fn beside(
    this: &str,
    contender: &mut Contender,
    backend: &Process,
    conns: usize,
    flows: Work,
    lasts: Duration,
) -> io::Result<Sample> {
    let messages = Work::PingPong {
        conns,
        size: 64,
        together: false,
    };
    let alone = measure(this, contender, backend, messages, lasts, None)?;
    // They begin when all of the others are connected, which takes long beside them, and end a little after them.
    let mut load = clients(this, contender, backend, flows, lasts * 3 / 2)?;
    let together = measure(this, contender, backend, messages, lasts, Some(&mut load))?;
    let [megabytes, seconds, ..] = numbers(&load.line()?);
    load.say("end").ok();
    load.wait()?;
    Ok(Sample {
        alone: alone.took[1],
        bulk: megabytes / seconds,
        ..together
    })
}

/// System calls of the relay per unit, in a short run of its own.
fn count_calls(
    this: &str,
    contender: &mut Contender,
    backend: &Process,
    work: Work,
) -> io::Result<Option<f64>> {
    let Some(relay) = contender.process.as_ref().map(Process::pid) else {
        return Ok(None);
    };
    let mut load = clients(this, contender, backend, work, Duration::from_millis(500))?;
    let Some(trace) = Trace::begin(relay) else {
        return Ok(None);
    };
    load.say("go")?;
    let line = load.line().map_err(|error| of(contender, work, &error))?;
    let calls = trace.end();
    let [units, ..] = numbers(&line);
    load.say("end").ok();
    load.wait()?;
    Ok(calls.map(|calls| calls as f64 / units.max(1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_the_name_that_it_is_called_by() {
        for row in ROWS.into_iter().chain(["bulk-one-4-800"]) {
            assert_eq!(Work::parse(row).map(Work::name).as_deref(), Some(row));
        }
        for other in [
            "",
            "ping-64",
            "ping-64-1-apart",
            "bulk-two-1",
            "churn-1-1",
            "fair-1",
        ] {
            assert_eq!(Work::parse(other), None, "{other}");
        }
    }
}
