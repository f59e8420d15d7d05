//! Golden scripts: inputs, each followed by the events and actions that it causes.
//!
//! `tests/golden/*.txt` are read line by line, and `tests/golden/fleet/*.txt`, which are a fleet's. A line that begins
//! with two spaces is the engine's: `*` is an event, `->` an action. Every other line is the script's: a comment, or a
//! command (see [`Rig::command`] and [`FleetRig::command`]). After a change that is meant, `TLB_GOLDEN=rewrite cargo test
//! -p tlb-engine --test it` writes what the engine says now into the files, and the difference is there for the reviewer
//! to read.

mod fleet;
mod rig;

use std::path::{Path, PathBuf};
use std::{env, fs};

use fleet::FleetRig;
use rig::Rig;

/// Lines around a difference.
const CONTEXT: usize = 3;

#[test]
fn scripts_say_what_the_engine_does() {
    compare(scripts("tests/golden", 12), |path, script| {
        let mut rig = Rig::new();
        let played = play(path, script, |line| rig.command(line));
        rig.assert_quiescent(path);
        played
    });
}

#[test]
fn scripts_say_what_the_fleet_does() {
    compare(scripts("tests/golden/fleet", 6), |path, script| {
        let mut rig = FleetRig::new();
        let played = play(path, script, |line| rig.command(line));
        rig.assert_quiescent(path);
        played
    });
}

/// Compares scripts with what `play` makes of them, or makes them so.
fn compare(scripts: Vec<PathBuf>, play: impl Fn(&Path, &str) -> String) {
    let rewrite = env::var("TLB_GOLDEN").is_ok_and(|how| how == "rewrite");
    let mut wrong = String::new();
    for path in scripts {
        let written = fs::read_to_string(&path).expect("a script can be read");
        let played = play(&path, &written);
        if played == written {
            continue;
        }
        if rewrite {
            fs::write(&path, played).expect("a script can be written");
        } else {
            wrong += &format!("\n{}\n{}", path.display(), difference(&written, &played));
        }
    }
    assert!(
        wrong.is_empty(),
        "- as the script says, + as the engine does; if it is meant, set TLB_GOLDEN=rewrite\n{wrong}"
    );
}

/// The scripts in a folder: at least so many.
fn scripts(folder: &str, least: usize) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(folder).expect("the folder of scripts");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_file())
        .collect();
    assert!(paths.len() >= least, "the scripts are there");
    paths.sort();
    paths
}

/// The script again, with what the engine says now.
fn play(path: &Path, script: &str, mut command: impl FnMut(&str) -> Option<Vec<String>>) -> String {
    let mut played = String::new();
    for (number, line) in script.lines().enumerate() {
        if line.starts_with("  ") {
            continue;
        }
        played += line;
        played.push('\n');
        if !line.is_empty() && !line.starts_with('#') {
            let said = command(line).unwrap_or_else(|| {
                panic!("{}:{}: {line}: what is that?", path.display(), number + 1)
            });
            for said in said {
                played += &format!("  {said}\n");
            }
        }
    }
    played
}

/// What differs, with a few lines around it: from the first line that does to the last.
fn difference(written: &str, played: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (written.lines().collect(), played.lines().collect());
    let same = |pairs: &mut dyn Iterator<Item = (&&str, &&str)>| {
        pairs.take_while(|(old, new)| old == new).count()
    };
    let head = same(&mut old.iter().zip(&new));
    let tail = same(&mut old.iter().rev().zip(new.iter().rev()));
    let tail = tail.min(old.len().min(new.len()) - head);
    let before = &old[head.saturating_sub(CONTEXT)..head];
    let after = &old[old.len() - tail..][..tail.min(CONTEXT)];
    let lines = before.iter().map(|line| format!(" {line}\n"));
    let lines = lines.chain(
        old[head..old.len() - tail]
            .iter()
            .map(|line| format!("-{line}\n")),
    );
    let lines = lines.chain(
        new[head..new.len() - tail]
            .iter()
            .map(|line| format!("+{line}\n")),
    );
    lines
        .chain(after.iter().map(|line| format!(" {line}\n")))
        .collect()
}

#[test]
fn a_difference_is_shown_with_what_is_around_it() {
    let (written, played) = ("a\nb\nc\nd\ne\nf\ng\nh\n", "a\nb\nc\nd\nx\ny\nf\ng\nh\n");
    assert_eq!(
        difference(written, played),
        " b\n c\n d\n-e\n+x\n+y\n f\n g\n h\n"
    );
    assert_eq!(difference("a\n", "a\na\n"), " a\n+a\n");
}
