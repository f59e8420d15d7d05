//! The session log: one line for each session that ended.
//!
//! Workers leave what they know of a session in a bounded queue; a thread of its own makes lines of
//! it and writes them out. A worker never waits: where the queue is full, or the line cannot be
//! written, it is dropped and counted.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use tlb_engine::api::Closed;

use self::line::Ended;
use self::writer::Writer;
use crate::config_file::{SessionLogFormat, SessionLogSettings, SessionLogTarget};
use crate::names::Names;

mod line;
#[cfg(test)]
mod tests;
mod writer;

/// Most sessions that wait to be written, of about a quarter of a KiB each.
const QUEUE: usize = 16_384;
/// Permissions of a new file: clients' addresses and keys are not for everyone.
const MODE: u32 = 0o640;

/// Where workers leave their lines. A clone leaves them in the same queue.
#[derive(Clone, Debug)]
pub(crate) struct SessionLog {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
}

/// What waits in the queue.
#[derive(Debug)]
enum Message {
    /// A session that is to have its line. Boxed, for the queue has room for all from the start.
    Session(Box<Ended>),
    /// [`Shared::reopen`] is set.
    Wake,
}

#[derive(Debug, Default)]
struct Shared {
    /// Lines that were dropped.
    dropped: AtomicU64,
    /// Whether the file is to be opened anew.
    reopen: AtomicBool,
}

impl SessionLog {
    /// Opens where lines go, and begins to write.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread not started.
    pub(crate) fn open(settings: &SessionLogSettings) -> io::Result<(Self, SessionLogThread)> {
        let (file, path) = match &settings.to {
            // Not through Rust's own buffer, which would hide which lines were written.
            SessionLogTarget::Stdout => (io::stdout().as_fd().try_clone_to_owned()?.into(), None),
            SessionLogTarget::File(path) => (append_to(path)?, Some(path.clone())),
        };
        Self::start(file, path, settings.format, QUEUE)
    }

    fn start(
        file: File,
        path: Option<Box<Path>>,
        format: SessionLogFormat,
        queue: usize,
    ) -> io::Result<(Self, SessionLogThread)> {
        let (queue, queued) = mpsc::sync_channel(queue);
        let (ended, end) = mpsc::sync_channel(1);
        let shared = Arc::new(Shared::default());
        let writer = Writer::new(file, path, format, Arc::clone(&shared));
        thread::Builder::new()
            .name("session-log".to_owned())
            .spawn(move || {
                writer.run(&queued);
                // Nobody may be waiting any more.
                let _ = ended.send(());
            })?;
        let log = Self { queue, shared };
        Ok((log, SessionLogThread { end }))
    }

    /// Leaves the line of a session that ends now. Never waits.
    pub(crate) fn write(&self, closed: &Closed, names: &Names) {
        let ended = Box::new(Ended::new(closed, names, Timestamp::now()));
        if self.queue.try_send(Message::Session(ended)).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines that were dropped so far, because the queue was full or they could not be written.
    pub(crate) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Opens the file anew, after it was renamed. Lines are lost neither before nor after. Of
    /// standard output, it does nothing.
    pub(crate) fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        // If the queue is full, the thread has something to do anyway, and sees the flag.
        let _ = self.queue.try_send(Message::Wake);
    }
}

/// What writes the lines. It ends when everything is written and no [`SessionLog`] is left.
#[derive(Debug)]
pub(crate) struct SessionLogThread {
    end: Receiver<()>,
}

impl SessionLogThread {
    /// Waits until everything is written, after the last [`SessionLog`] is gone, but no longer than
    /// `within`. `false` if that was too short, as where nobody reads standard output: the rest is
    /// lost with the process.
    pub(crate) fn finish(self, within: Duration) -> bool {
        self.end.recv_timeout(within).is_ok()
    }
}

/// Opens a file to append to, which is made if it is not there.
fn append_to(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(MODE).open(path)
}
