//! The thread that writes lines out.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use tracing::{info, warn};

use super::line;
use super::{Message, Shared, append_to};
use crate::config_file::SessionLogFormat;

/// Bytes that are written in one go, or a line more.
const BATCH: usize = 64 * 1024;

/// Takes lines from the queue and writes them to the file.
#[derive(Debug)]
pub(super) struct Writer {
    file: File,
    /// What to open anew; `None` for standard output.
    path: Option<Box<Path>>,
    format: SessionLogFormat,
    shared: Arc<Shared>,
    /// Whether the last thing written was the beginning of a line whose end could not be.
    torn: bool,
    /// Lines that were dropped since writing failed; `None` while it does not.
    failing: Option<u64>,
}

impl Writer {
    pub(super) fn new(
        file: File,
        path: Option<Box<Path>>,
        format: SessionLogFormat,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            file,
            path,
            format,
            shared,
            torn: false,
            failing: None,
        }
    }

    /// Writes until nobody can leave a line any more.
    pub(super) fn run(mut self, queued: &Receiver<Message>) {
        let mut batch = Vec::with_capacity(BATCH);
        while let Ok(first) = queued.recv() {
            self.add(&mut batch, &first);
            while batch.len() < BATCH {
                let Ok(next) = queued.try_recv() else { break };
                self.add(&mut batch, &next);
            }
            if self.shared.reopen.swap(false, Ordering::Acquire) {
                self.reopen();
            }
            self.write(&batch);
            batch.clear();
        }
    }

    /// Writes whole lines, and counts those that cannot be. The next batch is tried all the same.
    fn write(&mut self, batch: &[u8]) {
        if batch.is_empty() {
            return;
        }
        let (written, result) = self.write_out(batch);
        let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        if written > 0 {
            self.torn = batch[written - 1] != b'\n';
        }
        let dropped = lines(&batch[written..]);
        self.shared.dropped.fetch_add(dropped, Ordering::Relaxed);
        match (result, &mut self.failing) {
            (Ok(()), None) => {}
            (Ok(()), Some(dropped)) => {
                info!(dropped = *dropped, "session log written again");
                self.failing = None;
            }
            (Err(error), None) => {
                warn!(%error, "cannot write the session log: lines are dropped");
                self.failing = Some(dropped);
            }
            (Err(_), Some(before)) => *before += dropped,
        }
    }

    /// Writes as much as it can, and says how much of `batch` that was.
    fn write_out(&mut self, batch: &[u8]) -> (usize, io::Result<()>) {
        if self.torn {
            if let Err(error) = self.file.write_all(b"\n") {
                return (0, Err(error));
            }
            self.torn = false;
        }
        let mut written = 0;
        while written < batch.len() {
            match self.file.write(&batch[written..]) {
                Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (written, Err(error)),
            }
        }
        (written, Ok(()))
    }

    fn reopen(&mut self) {
        let Some(path) = &self.path else { return };
        match append_to(path) {
            Ok(file) => {
                self.file = file;
                self.torn = false;
            }
            Err(error) => {
                let path = path.display();
                warn!(%path, %error, "cannot open the session log anew: the old file is used");
            }
        }
    }

    fn add(&self, batch: &mut Vec<u8>, message: &Message) {
        if let Message::Session(ended) = message {
            line::add(batch, self.format, ended);
        }
    }
}
