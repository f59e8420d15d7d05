//! Bugs that can be built into the engine, to see that a sweep finds them.
//!
//! Each is one line of the engine under `cfg!(tlb_planted = "NAME")`, switched on by
//! `RUSTFLAGS='--cfg tlb_planted="NAME"'` and by nothing else; a program built so says it when it starts.

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
    "preface-skip-lost",
}
