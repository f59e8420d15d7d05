//! The program `tlb-sim`: arguments in, exit code out.

#[cfg(feature = "config")]
mod config;
#[cfg(feature = "config")]
mod recorded;

use std::fs;
use std::process::ExitCode;
use std::time::Instant;

#[cfg(feature = "config")]
use tlb::registry::UnpackRegistry;
use tlb_engine::planted;

use crate::swarm::coverage::{Coverage, WHOLE};
use crate::swarm::draw::Template;
use crate::swarm::report::{failure, run_caught};
use crate::swarm::{Intensity, Run, Scenario, draw, text};

const HELP: &str = "\
Runs tlb's engine through network failures in a simulated kernel, each run from one number.

  --seeds N            how many scenarios (default 1000)
  --seed S             the first one's number (default 1); with --seeds 1, that one alone
  --mode calm|swarm    no faults, or any (default swarm)
  --config FILE        with the listeners, unpacks, pools, policies and timeouts of a
                       configuration of tlb; clients send frames that are made from each
                       unpack's description
  --frames FILE        frames for unpacks that are code: a line for each, with the unpack's name,
                       the frame in hex and, if the key is to be checked, the key in hex
  --replay FILE        runs one scenario from a file instead
  --print              prints the scenario instead of running it
  --hash               prints the hash of each run's trace
  --keep-going         does not stop at the first failure
  --brief              of a failure, prints one line

Exit status: 0 all is well, 1 a failure was found, 2 the command line is wrong.
";

struct Options {
    seeds: u64,
    seed: u64,
    intensity: Intensity,
    replay: Option<String>,
    config: Option<String>,
    frames: Option<String>,
    print: bool,
    hash: bool,
    keep_going: bool,
    brief: bool,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options {
        seeds: 1000,
        seed: 1,
        intensity: Intensity::Swarm,
        replay: None,
        config: None,
        frames: None,
        print: false,
        hash: false,
        keep_going: false,
        brief: false,
    };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        let number = |text: String| {
            text.parse()
                .map_err(|_| format!("{text} is not a number of the kind that {arg} takes"))
        };
        match arg.as_str() {
            "--seeds" => options.seeds = number(value()?)?,
            "--seed" => options.seed = number(value()?)?,
            "--mode" => {
                options.intensity = match value()?.as_str() {
                    "calm" => Intensity::Calm,
                    "swarm" => Intensity::Swarm,
                    other => return Err(format!("--mode is calm or swarm, not {other}")),
                }
            }
            "--replay" => options.replay = Some(value()?),
            "--config" => options.config = Some(value()?),
            "--frames" => options.frames = Some(value()?),
            "--print" => options.print = true,
            "--hash" => options.hash = true,
            "--brief" => options.brief = true,
            "--keep-going" => options.keep_going = true,
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("{other} is unknown; see --help")),
        }
    }
    if options.frames.is_some() && options.config.is_none() {
        return Err("--frames needs --config".into());
    }
    Ok(Some(options))
}

/// Runs `tlb-sim` with this process's arguments.
#[cfg(feature = "config")]
pub fn main() -> ExitCode {
    main_with(&UnpackRegistry::new())
}

/// Runs `tlb-sim` with this process's arguments. This build cannot read configurations of tlb.
#[cfg(not(feature = "config"))]
pub fn main() -> ExitCode {
    run(std::env::args().skip(1), |_, _| {
        Err("this program was built without the feature \"config\"".into())
    })
}

/// Runs `tlb-sim` with this process's arguments and with unpacks of one's own, which a configuration's listeners may
/// name: the simulator's side of [`tlb::cli::main_with`]. Their frames come from `--frames`.
#[cfg(feature = "config")]
pub fn main_with(registered: &UnpackRegistry) -> ExitCode {
    with_args(std::env::args().skip(1), registered)
}

/// As [`main_with`], with other arguments than the process's; the program's name is not one of them.
#[cfg(feature = "config")]
pub fn with_args(args: impl Iterator<Item = String>, registered: &UnpackRegistry) -> ExitCode {
    run(args, |config, frames| {
        config::load(config, frames, registered)
    })
}

/// Reads a configuration, and a file of frames.
type Load<'a> = &'a dyn Fn(&str, Option<&str>) -> Result<Template, String>;

fn run(
    args: impl Iterator<Item = String>,
    load: impl Fn(&str, Option<&str>) -> Result<Template, String>,
) -> ExitCode {
    if let Some(name) = planted::NAME {
        eprintln!("THIS PROGRAM HAS A PLANTED BUG: {name}");
    }
    match parse(args) {
        Ok(Some(options)) => execute(&options, &load),
        Ok(None) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("tlb-sim: {message}");
            ExitCode::from(2)
        }
    }
}

fn execute(options: &Options, load: Load<'_>) -> ExitCode {
    if let Some(path) = &options.replay {
        return match fs::read_to_string(path).map_err(|error| error.to_string()) {
            Err(error) => complain(path, &error),
            Ok(text) => match text::parse(&text) {
                Err(error) => complain(path, &error.to_string()),
                Ok(scenario) => one(&scenario, &format!("tlb-sim --replay {path}"), options),
            },
        };
    }
    let load = |path: &String| load(path, options.frames.as_deref());
    let template = match options.config.as_ref().map(load).transpose() {
        Ok(template) => template,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    if options.print {
        let scenario = draw::draw_like(template.as_ref(), options.seed, options.intensity);
        print!("{}", text::print(&scenario));
        return ExitCode::SUCCESS;
    }
    sweep(options, template.as_ref())
}

fn complain(path: &str, error: &str) -> ExitCode {
    eprintln!("tlb-sim: {path}: {error}");
    ExitCode::from(2)
}

fn again(options: &Options, seed: u64) -> String {
    let mode = options.intensity;
    let config = options
        .config
        .as_ref()
        .map(|path| format!(" --config {path}"));
    let frames = options
        .frames
        .as_ref()
        .map(|path| format!(" --frames {path}"));
    let files = config.unwrap_or_default() + &frames.unwrap_or_default();
    format!("cargo run -p tlb-sim --profile sweep -- --mode {mode}{files} --seeds 1 --seed {seed}")
}

fn one(scenario: &Scenario, command: &str, options: &Options) -> ExitCode {
    if options.print {
        print!("{}", text::print(scenario));
        return ExitCode::SUCCESS;
    }
    let run = run_caught(scenario);
    if options.hash {
        println!("{:016x}", run.hash);
    }
    if run.findings.is_empty() {
        println!(
            "well: {} sessions, {} events, {:?}",
            run.sessions, run.events, run.lasted
        );
        return ExitCode::SUCCESS;
    }
    print!("{}", failure(scenario, &run, command));
    ExitCode::FAILURE
}

#[derive(Default)]
struct Totals {
    runs: u64,
    failed: u64,
    sessions: u64,
    events: u64,
    virtual_seconds: f64,
    coverage: Coverage,
}

impl Totals {
    fn add(&mut self, run: &Run) {
        self.runs += 1;
        self.failed += u64::from(!run.findings.is_empty());
        self.sessions += run.sessions;
        self.events += run.events;
        self.virtual_seconds += run.lasted.as_secs_f64();
        self.coverage.add(&run.coverage);
    }

    fn print(&self, seconds: f64) {
        let (runs, failed) = (self.runs, self.failed);
        let (sessions, events, faults) = (self.sessions, self.events, self.coverage.faults());
        println!("scenarios        {runs:>14}   of which failed: {failed}");
        println!("sessions         {sessions:>14}");
        println!(
            "events           {events:>14}   {:>12.0} per second on one core",
            events as f64 / seconds
        );
        println!("faults           {faults:>14}");
        let per_second = self.virtual_seconds / seconds;
        println!(
            "virtual seconds  {:>14.0}   {per_second:>12.0} per real second",
            self.virtual_seconds
        );
        println!("real seconds     {seconds:>14.1}");
    }
}

fn sweep(options: &Options, template: Option<&Template>) -> ExitCode {
    let begun = Instant::now();
    let mut totals = Totals::default();
    let last = options.seed.saturating_add(options.seeds);
    for seed in options.seed..last {
        let scenario = draw::draw_like(template, seed, options.intensity);
        let run = run_caught(&scenario);
        totals.add(&run);
        if options.hash {
            println!("{seed} {:016x}", run.hash);
        }
        if run.findings.is_empty() {
            continue;
        }
        if options.keep_going {
            println!("seed {seed}: {}", run.findings[0]);
            continue;
        }
        if options.brief {
            let (finding, runs) = (&run.findings[0], totals.runs);
            println!("found by scenario {runs} (seed {seed}): {finding}");
            return ExitCode::FAILURE;
        }
        print!("{}", failure(&scenario, &run, &again(options, seed)));
        println!("\nfound by scenario {} of {}", totals.runs, options.seeds);
        return ExitCode::FAILURE;
    }
    if !options.hash {
        println!("{}", totals.coverage);
    }
    totals.print(begun.elapsed().as_secs_f64());
    let missing = totals.coverage.missing();
    let free = options.intensity == Intensity::Swarm && template.is_none();
    let whole = free && options.seeds >= WHOLE;
    if whole && !missing.is_empty() {
        println!("a sweep of this size must have seen these, too: {missing:?}");
        return ExitCode::FAILURE;
    }
    if totals.failed > 0 {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
