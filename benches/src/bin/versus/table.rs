//! What was measured, and the table that is made of it.

use std::fmt::Write as _;

use super::load::Work;
use super::peers::{BARE, DIRECT_ACROSS, TLB_CUBIC, TLB_HAND_OFF, TLB_SPINNING};

/// One measurement.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// Units a second.
    pub(crate) rate: f64,
    /// Microseconds: the median, and the 99th percentile.
    pub(crate) took: [f64; 2],
    /// Microseconds of the relay's CPU per unit.
    pub(crate) relay: f64,
    /// Microseconds of everybody's CPU per unit.
    pub(crate) all: f64,
    /// Bytes of memory per session.
    pub(crate) memory: f64,
    /// Pipes that are open.
    pub(crate) pipes: f64,
    /// Microseconds: the 99th percentile without the bulk flows, where there were some.
    pub(crate) alone: f64,
    /// Megabytes a second of the bulk flows beside.
    pub(crate) bulk: f64,
}

/// All samples of a contender at one work.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) product: &'static str,
    pub(crate) setting: String,
    pub(crate) samples: Vec<Sample>,
    /// System calls per unit, where they were counted.
    pub(crate) syscalls: Option<f64>,
}

/// Median, least and most.
fn spread(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> [f64; 3] {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    let (Some(&least), Some(&most)) = (values.first(), values.last()) else {
        return [0.0; 3];
    };
    [values[values.len() / 2], least, most]
}

/// What decides which setting is a product's best: the relay's CPU, of idle sessions the memory, and beside bulk flows
/// the 99th percentile.
fn cost(work: Work, entry: &Entry) -> f64 {
    let of = |sample: &Sample| match work {
        Work::Idle { .. } => sample.memory,
        Work::Fair { .. } => sample.took[1],
        _ => sample.relay,
    };
    spread(&entry.samples, of)[0]
}

/// The rows of one work: each product at its best setting, and the ratio of the best peer to tlb.
pub(crate) fn rows(work: Work, entries: &[Entry]) -> String {
    let mut best: Vec<&Entry> = Vec::new();
    for entry in entries.iter().filter(|it| !it.samples.is_empty()) {
        match best.iter_mut().find(|known| known.product == entry.product) {
            Some(known) if cost(work, entry) < cost(work, known) => *known = entry,
            Some(_) => {}
            None => best.push(entry),
        }
    }
    let peers = best.iter().filter(|it| {
        ![
            "direct",
            DIRECT_ACROSS,
            BARE,
            "tlb",
            TLB_SPINNING,
            TLB_CUBIC,
            TLB_HAND_OFF,
        ]
        .contains(&it.product)
    });
    let peer = peers.map(|it| cost(work, it)).min_by(f64::total_cmp);
    let of = |product| best.iter().find(|it| it.product == product);
    let tlb = of("tlb").map(|it| cost(work, it));
    let bare = of(BARE).map(|it| cost(work, it));
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{} (per {})", work.name(), work.unit());
    for entry in &best {
        let _ = row(&mut out, work, entry);
    }
    if let (Some(peer), Some(tlb)) = (peer, tlb) {
        let _ = write!(out, "  best peer / tlb: {:.2}", peer / tlb);
        let _ = match bare {
            Some(bare) => writeln!(out, ", / bare relay: {:.2}", peer / bare),
            None => writeln!(out),
        };
    }
    out
}

fn row(out: &mut String, work: Work, entry: &Entry) -> std::fmt::Result {
    let samples = &entry.samples;
    write!(out, "  {:<13} {:<22}", entry.product, entry.setting)?;
    if let Work::Idle { .. } = work {
        let [memory, least, most] = spread(samples, |it| it.memory);
        let cpu = spread(samples, |it| it.relay)[0];
        let pipes = spread(samples, |it| it.pipes)[0];
        return writeln!(
            out,
            " {memory:>8.0} B ({least:.0} to {most:.0})   {pipes:.0} pipes   {cpu:.2} us CPU a second"
        );
    }
    if let Work::Fair { .. } = work {
        let alone = spread(samples, |it| it.alone)[0];
        let [most, least, worst] = spread(samples, |it| it.took[1]);
        let bulk = spread(samples, |it| it.bulk)[0];
        return writeln!(
            out,
            " p99 alone {alone:>6.0} us, beside {bulk:>5.0} MB/s {most:>6.0} us ({least:.0} to {worst:.0}): \
             {:.2} times",
            most / alone.max(1.0)
        );
    }
    let rate = spread(samples, |it| it.rate)[0];
    let [half, most] = [0, 1].map(|it| spread(samples, |sample| sample.took[it])[0]);
    let relay = spread(samples, |it| it.relay);
    let all = spread(samples, |it| it.all)[0];
    write!(out, " {rate:>9.0}/s")?;
    if matches!(work, Work::Bulk { .. }) {
        write!(out, "  {:>19}", "")?;
    } else {
        write!(out, "  p50 {half:>5.0} p99 {most:>5.0}")?;
    }
    write!(
        out,
        "  relay {:>7.2} us ({:.2} to {:.2})  all {all:>7.2} us",
        relay[0], relay[1], relay[2]
    )?;
    match entry.syscalls {
        Some(syscalls) => writeln!(out, "  {syscalls:>6.1} calls"),
        None => writeln!(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(product: &'static str, relay: &[f64]) -> Entry {
        let sample = |&relay: &f64| Sample {
            relay,
            ..Sample::default()
        };
        Entry {
            product,
            setting: String::new(),
            samples: relay.iter().map(sample).collect(),
            syscalls: None,
        }
    }

    #[test]
    fn a_bare_relay_is_no_peer_but_a_bound() {
        let entries = [
            entry("tlb", &[2.0]),
            entry(BARE, &[1.5]),
            entry("haproxy", &[3.0]),
        ];
        let text = rows(Work::Churn { conns: 1 }, &entries);
        assert!(
            text.ends_with("best peer / tlb: 1.50, / bare relay: 2.00\n"),
            "{text}"
        );
    }

    #[test]
    fn the_best_setting_of_each_counts_by_its_median() {
        let entries = [
            entry("direct", &[0.0]),
            entry("tlb", &[2.0, 100.0, 1.0]),
            entry("haproxy", &[5.0, 5.0, 1.0]),
            entry("haproxy", &[3.0, 3.0, 9.0]),
            entry("nginx", &[4.0]),
        ];
        let text = rows(Work::Churn { conns: 1 }, &entries);
        assert!(text.ends_with("best peer / tlb: 1.50\n"), "{text}");
        assert_eq!(text.lines().count(), 6);
        assert!(text.contains("2.00 us (1.00 to 100.00)"), "{text}");
    }
}
