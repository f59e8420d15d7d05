//! A user's own configuration in the simulator: its listeners, unpacks and pools, and frames that fit them.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use tlb::registry::UnpackRegistry;
use tlb_engine::unpack::{Reject, Status, Target, Unpack};
use tlb_sim::cli;

/// A folder that is removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tlb-sim-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).expect("a file");
        path.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn config(unpack: &str) -> String {
    let named = unpack.starts_with('[');
    let (name, table) = if named { ("own", unpack) } else { (unpack, "") };
    format!(
        r#"
{table}
[[listener]]
name = "devices"
bind = "127.0.0.1:8011"
unpack = "{name}"
pool = "stations"
preread-timeout = "2s"

[[pool]]
name = "stations"
connect-timeout = "500ms"
backends = [
  {{ id = "a", address = "127.0.0.11:7001", weight = 2 }},
  {{ id = "b", address = "127.0.0.12:7001" }},
  {{ id = "c", address = "127.0.0.13:7001", draining = true }},
]
"#
    )
}

fn run(args: &[&str], registry: &UnpackRegistry) -> ExitCode {
    cli::with_args(args.iter().map(|&arg| arg.to_owned()), registry)
}

#[test]
fn every_described_framing_goes_through_the_failures() {
    let folder = Folder::new("described");
    let unpacks = [
        "[unpack.own]\nkind = \"length-field\"\nmagic = \"2a\"\nmax-frame = \"4KiB\"\n\
         length = { offset = 1, width = 4, adjust = 2 }\nkey = { offset = 19, length = 4 }",
        "[unpack.own]\nkind = \"length-field\"\n\
         length = { offset = 2, width = 2, endian = \"little\", adjust = -4 }\nkey = { offset = 5 }",
        "[unpack.own]\nkind = \"delimited\"\ndelimiter = \"0d 0a\"\nkey = { offset = 0 }",
        "[unpack.own]\nkind = \"fixed\"\nsize = 12\nkey = { offset = 2, length = 3 }",
    ];
    for (number, unpack) in unpacks.into_iter().enumerate() {
        let path = folder.file(&format!("{number}.toml"), &config(unpack));
        for mode in ["calm", "swarm"] {
            let args = ["--config", &path, "--mode", mode, "--seeds", "25"];
            let code = run(&args, &UnpackRegistry::new());
            assert_eq!(code, ExitCode::SUCCESS, "{mode}: {unpack}");
        }
    }
}

/// A byte of length, a byte of type, and a name of that length.
#[derive(Debug)]
struct Named {
    /// Refuses frames of this type.
    refuses: u8,
    /// Takes a byte more than the name for the key.
    slips: bool,
}

impl Unpack for Named {
    fn unpack(&self, prefix: &[u8], _scanned: usize, _eof: bool) -> Status {
        let wait = |at_least| Status::Partial {
            at_least,
            scanned: 0,
        };
        let Some(&[length, kind]) = prefix.first_chunk() else {
            return wait(2);
        };
        let end = 2 + usize::from(length);
        if kind == self.refuses {
            return Status::Invalid(Reject::Custom(1));
        }
        if prefix.len() < end {
            return wait(end);
        }
        let from = if self.slips { 1 } else { 2 };
        Status::Complete {
            frame: 0..end,
            target: Target::Key(from..end),
        }
    }
}

const FRAMES: &str =
    "named 0307616263 616263\nnamed 0407646f6f72 646f6f72 # a door\nnamed 0209 2020\n";

#[test]
fn an_unpack_that_is_code_takes_recorded_frames() {
    let folder = Folder::new("recorded");
    let path = folder.file("tlb.toml", &config("named"));
    let frames = folder.file("frames", &FRAMES.replace("0209 2020", "02092020 2020"));
    let registry = |refuses, slips| {
        let mut registry = UnpackRegistry::new();
        registry
            .register("named", Named { refuses, slips })
            .expect("a new name");
        registry
    };
    let args = ["--config", &path, "--frames", &frames, "--seeds", "25"];
    assert_eq!(run(&args, &registry(0, false)), ExitCode::SUCCESS);

    // One that refuses a recorded frame, or finds another key in it, is found out.
    assert_eq!(run(&args, &registry(9, false)), ExitCode::FAILURE);
    assert_eq!(run(&args, &registry(0, true)), ExitCode::FAILURE);

    let without = ["--config", &path, "--seeds", "1"];
    assert_eq!(run(&without, &registry(0, false)), ExitCode::from(2));
    assert_eq!(run(&args, &UnpackRegistry::new()), ExitCode::from(2));
}
