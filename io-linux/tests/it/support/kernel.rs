//! Whether this kernel forwards sessions for this user.

use std::io::Write as _;
use std::sync::OnceLock;
use std::{env, fs};

use super::programs::{REQUIRE, free_address};
use super::setup::Setup;
use super::tlb::Tlb;

/// Whether this process has the capabilities that it takes (capabilities(7)).
fn is_allowed() -> bool {
    const NEEDED: u64 = 1 << 12 | 1 << 13 | 1 << 38 | 1 << 39;
    let status = fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let has = line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok());
    has.is_some_and(|has| has & NEEDED == NEEDED)
}

/// Whether sessions may be handed off here. If not, the test says so on the real stderr and is to pass without doing
/// anything; where the user may, and `TLB_REQUIRE_PROGRAMS=1`, it fails.
#[track_caller]
pub(crate) fn hands_off() -> bool {
    static MAY: OnceLock<bool> = OnceLock::new();
    let may = *MAY.get_or_init(|| {
        let setup = Setup::new(&[free_address(90)]).listener("hand-off = 1");
        let (status, said) = Tlb::check(&setup);
        assert!(
            status.success() || said.contains("hand-off"),
            "{status}: {said}"
        );
        status.success()
    });
    if !may {
        assert!(
            env::var_os(REQUIRE).is_none_or(|value| value != "1") || !is_allowed(),
            "this kernel cannot hand sessions off, and {REQUIRE}=1"
        );
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: this user or this kernel cannot hand sessions off"
        );
    }
    may
}
