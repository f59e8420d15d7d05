//! Bugs that can be built in, to see that a simulation finds them.
//!
//! Each is a line of this crate under `cfg!(tlb_planted = "NAME")`, switched on by the compiler's flag
//! `--cfg tlb_planted="NAME"` and by nothing else. `.ci/planted` builds the simulation with each of them, in a target
//! directory of its own; the `tlb` binary does not compile with any.

/// All of them, each with whether this build has it.
const ALL: [(&str, bool); 49] = [
    (
        "accept-never-resumes",
        cfg!(tlb_planted = "accept-never-resumes"),
    ),
    ("admission-ignored", cfg!(tlb_planted = "admission-ignored")),
    (
        "admission-never-resumes",
        cfg!(tlb_planted = "admission-never-resumes"),
    ),
    (
        "answered-but-replayed",
        cfg!(tlb_planted = "answered-but-replayed"),
    ),
    ("away-never-idle", cfg!(tlb_planted = "away-never-idle")),
    ("away-not-counted", cfg!(tlb_planted = "away-not-counted")),
    ("away-not-revoked", cfg!(tlb_planted = "away-not-revoked")),
    ("back-off-ignored", cfg!(tlb_planted = "back-off-ignored")),
    (
        "backend-admission-ignored",
        cfg!(tlb_planted = "backend-admission-ignored"),
    ),
    (
        "deadline-not-moved-up",
        cfg!(tlb_planted = "deadline-not-moved-up"),
    ),
    (
        "down-backend-picked",
        cfg!(tlb_planted = "down-backend-picked"),
    ),
    (
        "down-backend-published-up",
        cfg!(tlb_planted = "down-backend-published-up"),
    ),
    ("down-one-too-late", cfg!(tlb_planted = "down-one-too-late")),
    ("drain-ignored", cfg!(tlb_planted = "drain-ignored")),
    (
        "eagain-means-empty",
        cfg!(tlb_planted = "eagain-means-empty"),
    ),
    (
        "ejection-cap-ignored",
        cfg!(tlb_planted = "ejection-cap-ignored"),
    ),
    (
        "failed-backend-tried-again",
        cfg!(tlb_planted = "failed-backend-tried-again"),
    ),
    ("fall-one-too-late", cfg!(tlb_planted = "fall-one-too-late")),
    ("fault-not-sticky", cfg!(tlb_planted = "fault-not-sticky")),
    ("half-close-closes", cfg!(tlb_planted = "half-close-closes")),
    (
        "hint-taken-for-end",
        cfg!(tlb_planted = "hint-taken-for-end"),
    ),
    (
        "idle-not-refreshed",
        cfg!(tlb_planted = "idle-not-refreshed"),
    ),
    ("load-not-returned", cfg!(tlb_planted = "load-not-returned")),
    (
        "local-fault-blamed",
        cfg!(tlb_planted = "local-fault-blamed"),
    ),
    ("no-pipe-spins", cfg!(tlb_planted = "no-pipe-spins")),
    (
        "one-accept-per-event",
        cfg!(tlb_planted = "one-accept-per-event"),
    ),
    (
        "operator-forgotten",
        cfg!(tlb_planted = "operator-forgotten"),
    ),
    ("panic-ignored", cfg!(tlb_planted = "panic-ignored")),
    (
        "preface-cut-behind-head",
        cfg!(tlb_planted = "preface-cut-behind-head"),
    ),
    (
        "preread-deadline-per-byte",
        cfg!(tlb_planted = "preread-deadline-per-byte"),
    ),
    ("probe-storm", cfg!(tlb_planted = "probe-storm")),
    (
        "removed-backend-awaited",
        cfg!(tlb_planted = "removed-backend-awaited"),
    ),
    ("removed-not-told", cfg!(tlb_planted = "removed-not-told")),
    ("reset-becomes-fin", cfg!(tlb_planted = "reset-becomes-fin")),
    ("replayed-unasked", cfg!(tlb_planted = "replayed-unasked")),
    (
        "reset-before-acknowledged",
        cfg!(tlb_planted = "reset-before-acknowledged"),
    ),
    (
        "retries-without-end",
        cfg!(tlb_planted = "retries-without-end"),
    ),
    ("rise-at-once", cfg!(tlb_planted = "rise-at-once")),
    (
        "short-read-hides-fin",
        cfg!(tlb_planted = "short-read-hides-fin"),
    ),
    ("source-not-left", cfg!(tlb_planted = "source-not-left")),
    (
        "stale-probe-counts",
        cfg!(tlb_planted = "stale-probe-counts"),
    ),
    (
        "taken-error-forgotten",
        cfg!(tlb_planted = "taken-error-forgotten"),
    ),
    (
        "tell-before-roster",
        cfg!(tlb_planted = "tell-before-roster"),
    ),
    (
        "told-after-up-again",
        cfg!(tlb_planted = "told-after-up-again"),
    ),
    ("told-all-at-once", cfg!(tlb_planted = "told-all-at-once")),
    ("trial-not-alone", cfg!(tlb_planted = "trial-not-alone")),
    (
        "urgent-mark-stops-splice",
        cfg!(tlb_planted = "urgent-mark-stops-splice"),
    ),
    ("visit-forgotten", cfg!(tlb_planted = "visit-forgotten")),
    (
        "warm-outlives-stop",
        cfg!(tlb_planted = "warm-outlives-stop"),
    ),
];

/// The bug that this build has, if any.
pub const NAME: Option<&str> = find();

const fn find() -> Option<&'static str> {
    let mut place = 0;
    while place < ALL.len() {
        if ALL[place].1 {
            return Some(ALL[place].0);
        }
        place += 1;
    }
    None
}
