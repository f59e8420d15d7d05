//! Bugs that can be built into the engine, to see that a sweep finds them.
//!
//! Each is a line of the engine under `cfg!(tlb_planted = "NAME")`, switched on by the compiler's
//! flag `--cfg tlb_planted="NAME"` and by nothing else; `.ci/planted` builds with each of them, in
//! a target directory of its own. A program built so says it when it starts.

macro_rules! planted {
    ($($name:literal),* $(,)?) => {
        /// The names of all of them.
        pub const NAMES: &[&str] = &[$($name),*];

        /// The one that this program was built with.
        pub const fn name() -> Option<&'static str> {
            $(if cfg!(tlb_planted = $name) {
                return Some($name);
            })*
            None
        }
    };
}

planted! {
    "accept-never-resumes",
    "back-off-ignored",
    "deadline-not-moved-up",
    "down-one-too-late",
    "drain-ignored",
    "eagain-means-empty",
    "failed-backend-tried-again",
    "fault-not-sticky",
    "full-pipe-stays-stalled",
    "half-close-closes",
    "hint-taken-for-end",
    "idle-not-refreshed",
    "load-not-returned",
    "local-fault-blamed",
    "no-pipe-spins",
    "one-accept-per-event",
    "preface-cut-behind-head",
    "preread-deadline-per-byte",
    "removed-backend-awaited",
    "reset-becomes-fin",
    "reset-before-acknowledged",
    "retries-without-end",
    "short-read-hides-fin",
    "taken-error-forgotten",
    "trial-not-alone",
    "urgent-mark-stops-splice",
}
