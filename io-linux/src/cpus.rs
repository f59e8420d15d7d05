//! Workers that have a CPU each.

use std::io;
use std::net::TcpListener;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use socket2::SockRef;

use crate::config_file::Settings;

/// The calling thread.
const THIS: Pid = Pid::from_raw(0);

/// The CPUs that workers are kept to, in turn; the default: wherever the kernel runs them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cpus {
    cpus: Box<[usize]>,
    /// Whether a worker is to have the clients that come in on its CPU.
    incoming: bool,
}

impl Cpus {
    pub(crate) fn of(settings: &Settings) -> Self {
        Self {
            cpus: settings.cpus.as_slice().into(),
            incoming: settings.incoming_cpu,
        }
    }

    pub(crate) fn of_worker(&self, worker: usize) -> Option<usize> {
        self.cpus.get(worker % self.cpus.len().max(1)).copied()
    }

    /// The first one that this process may not use.
    ///
    /// # Errors
    /// The kernel does not say.
    pub(crate) fn first_denied(&self) -> io::Result<Option<usize>> {
        if self.cpus.is_empty() {
            return Ok(None);
        }
        let allowed = sched_getaffinity(THIS)?;
        let denied = |cpu: &&usize| !allowed.is_set(**cpu).unwrap_or(false);
        Ok(self.cpus.iter().find(denied).copied())
    }

    /// Has each worker's socket of a listener take the clients whose packets come in on that worker's CPU
    /// (`SO_INCOMING_CPU`, socket(7)), if it is to be so; where no worker has a packet's CPU, all may.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn direct(&self, sockets: &[TcpListener]) -> io::Result<()> {
        for (worker, socket) in sockets.iter().enumerate().filter(|_| self.incoming) {
            if let Some(cpu) = self.of_worker(worker) {
                SockRef::from(socket).set_cpu_affinity(cpu)?;
            }
        }
        Ok(())
    }
}

/// Keeps the calling thread to a CPU.
///
/// # Errors
/// The process may not use it, not any more.
pub(crate) fn keep_to(cpu: usize) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu)?;
    Ok(sched_setaffinity(THIS, &only)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus(cpus: &[usize]) -> Cpus {
        Cpus {
            cpus: cpus.into(),
            incoming: false,
        }
    }

    #[test]
    fn workers_have_cpus_in_turn() {
        assert_eq!(cpus(&[]).of_worker(3), None);
        let two = cpus(&[4, 6]);
        let of_workers = [0, 1, 2, 3].map(|worker| two.of_worker(worker));
        assert_eq!(of_workers, [Some(4), Some(6), Some(4), Some(6)]);
    }

    #[test]
    fn a_cpu_that_there_is_not_is_denied() {
        let allowed = sched_getaffinity(THIS).unwrap();
        let first = (0..CpuSet::count()).find(|&cpu| allowed.is_set(cpu) == Ok(true));
        let first = first.unwrap();
        let denied = |list: &[usize]| cpus(list).first_denied().unwrap();
        assert_eq!(denied(&[]), None);
        assert_eq!(denied(&[first]), None);
        let last = CpuSet::count() - 1;
        assert_eq!(denied(&[first, last]), Some(last));
        assert_eq!(denied(&[usize::MAX]), Some(usize::MAX));
        std::thread::spawn(move || {
            keep_to(first).unwrap();
            assert!(keep_to(last).is_err());
            let mut only = CpuSet::new();
            only.set(first).unwrap();
            assert_eq!(sched_getaffinity(THIS).unwrap(), only);
        })
        .join()
        .unwrap();
    }
}
