//! The process itself, by the names that Prometheus' own clients use.

use std::fs;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};

use super::{COUNTER, GAUGE, Text};

/// Writes what the kernel tells; what it does not tell is left out.
pub(super) fn render(text: &mut Text) {
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let times = [usage.user_time(), usage.system_time()];
        let seconds: f64 = times
            .iter()
            .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6)
            .sum();
        text.one(
            "process_cpu_seconds_total",
            COUNTER,
            "Time that CPUs spent on it.",
            seconds,
        );
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (name, key, help) in [
        (
            "process_resident_memory_bytes",
            "VmRSS:",
            "Memory that it has in RAM.",
        ),
        (
            "process_virtual_memory_bytes",
            "VmSize:",
            "Memory that it has addresses for.",
        ),
    ] {
        if let Some(bytes) = memory(&status, key) {
            text.one(name, GAUGE, help, bytes);
        }
    }
    // From Linux 6.2 on the size of the directory is the number of its entries, before that it is 0. To count them one
    // by one would take long while there are many sessions.
    if let Ok(open) = fs::metadata("/proc/self/fd")
        && open.len() > 0
    {
        text.one(
            "process_open_fds",
            GAUGE,
            "Descriptors that it has open.",
            open.len(),
        );
    }
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        text.one(
            "process_max_fds",
            GAUGE,
            "Descriptors that it may have open.",
            soft,
        );
    }
}

/// The value of a line like `VmRSS:    1234 kB`, in bytes.
fn memory(status: &str, key: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kibibytes: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_in_bytes() {
        let status = "VmPeak:\t  9 kB\nVmSize:\t   2048 kB\nVmRSS:\t x kB\n";
        assert_eq!(memory(status, "VmSize:"), Some(2 << 20));
        assert_eq!(memory(status, "VmRSS:"), None);
        assert_eq!(memory(status, "VmData:"), None);
    }

    #[test]
    fn this_process_has_used_something() {
        let mut text = Text::default();
        render(&mut text);
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_virtual_memory_bytes",
            "process_max_fds",
        ] {
            let sample = text.0.lines().find_map(|line| {
                let value = line.strip_prefix(name)?.strip_prefix(' ')?;
                value.parse::<f64>().ok()
            });
            assert!(
                sample.is_some_and(|value| value > 0.0),
                "{name}: {sample:?}"
            );
        }
    }
}
