//! Whether this kernel forwards sessions for this user.

use std::env;
use std::io::Write as _;
use std::sync::OnceLock;

use super::programs::{REQUIRE, free_address};
use super::setup::Setup;
use super::tlb::Tlb;

/// Whether sessions may be handed off here. If not, the test says so on the real stderr and is to pass without doing
/// anything, unless `TLB_REQUIRE_PROGRAMS=1`.
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
            env::var_os(REQUIRE).is_none_or(|value| value != "1"),
            "this user or this kernel cannot hand sessions off, and {REQUIRE}=1"
        );
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: this user or this kernel cannot hand sessions off"
        );
    }
    may
}
