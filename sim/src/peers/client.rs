//! Clients: each follows its script, while it checks what comes back.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;

use tlb_engine::rng::Rng;
use tokio::time::{sleep, timeout};
use turmoil::net::TcpStream;

use super::{Client, ClientReport, End, Op, Table, Wire, both, rest, until};
use crate::net::{Chunker, now};
use crate::stream::{Expect, garbage};

/// Runs one client to its end. `to` is its tlb's listener.
pub async fn client(number: usize, to: SocketAddr, rng: Rng, table: Table) {
    let change = |change: &dyn Fn(&mut ClientReport)| {
        change(&mut table.reports.borrow_mut()[number]);
    };
    let plan = table.clients[number].clone();
    sleep(plan.at).await;
    let give_up = now() + plan.patience;
    let left = || give_up.since(now());
    match timeout(left(), TcpStream::connect(to)).await {
        Err(_) => change(&|report| report.has_aborted = true),
        Ok(Err(_)) => change(&|report| report.end = End::Refused),
        Ok(Ok(stream)) => match Wire::new(stream, &table.resets) {
            Ok(wire) => {
                change(&|report| report.from = Some(wire.local));
                let talk = Talk {
                    number,
                    plan: &plan,
                    wire,
                    table: &table,
                    stop: Cell::new(false),
                };
                if timeout(left(), talk.run(rng)).await.is_err() {
                    talk.abort();
                }
            }
            Err(error) => table.find(format!("c{number} has no address: {error}")),
        },
    }
    change(&|report| report.is_done = true);
    let report = &table.reports.borrow()[number];
    table
        .trace
        .line(now(), "client", format_args!("c{number} {report:?}"));
}

/// A client that is connected.
struct Talk<'a> {
    number: usize,
    plan: &'a Client,
    wire: Wire,
    table: &'a Table,
    stop: Cell<bool>,
}

impl Talk<'_> {
    async fn run(&self, rng: Rng) {
        both(self.read(), self.write(rng), &self.stop).await;
        if !self.stop.get() {
            // Whether its stream has ended before or cannot end any more, it is over here.
            let _ = self.wire.fin().await;
        }
    }

    fn change(&self, change: impl Fn(&mut ClientReport)) {
        change(&mut self.table.reports.borrow_mut()[self.number]);
    }

    /// Checks what comes back, to its end.
    async fn read(&self) {
        let mut expect = Expect::back(self.plan.flow);
        let mut buf = vec![0; 4096];
        rest(self.plan.pace.first).await;
        let end = loop {
            let bytes = match self.wire.read(&mut buf).await {
                Err(end) => break end,
                Ok(bytes) => bytes,
            };
            if let Err(slip) = expect.feed(&buf[..bytes]) {
                self.table.find(slip.to_string());
                self.stop.set(true);
            }
            self.change(|report| {
                report.received = expect.received();
                report.backend = expect.backend();
            });
            rest(self.plan.pace.each).await;
        };
        self.change(|report| report.end = end);
        // A writer that waits for room does not hear of a reset.
        self.stop.set(self.stop.get() || end == End::Reset);
    }

    /// Follows the script, as far as the connection lets it.
    async fn write(&self, rng: Rng) {
        let mut chunks = Chunker::new(self.plan.chunking, rng);
        let mut at = 0;
        for op in &self.plan.script {
            let result = self.perform(*op, at, &mut chunks).await;
            if result.is_err() || self.stop.get() {
                return;
            }
            if let Op::Send(bytes) = op {
                at += bytes;
            }
        }
    }

    /// Does one step. `at` bytes were sent before.
    async fn perform(&self, op: Op, at: u64, chunks: &mut Chunker) -> io::Result<()> {
        match op {
            Op::Send(bytes) => return self.send(at, bytes, chunks).await,
            Op::Pause(pause) => sleep(pause).await,
            Op::Await(bytes) => {
                until(|| {
                    let report = &self.table.reports.borrow()[self.number];
                    report.received >= bytes || report.end != End::Open
                })
                .await;
            }
            Op::Fin => return self.wire.fin().await,
            Op::Abort => {
                self.abort();
                self.stop.set(true);
            }
        }
        Ok(())
    }

    /// Makes the end that comes now a reset.
    fn abort(&self) {
        self.wire.reset();
        self.change(|report| report.has_aborted = true);
    }

    async fn send(&self, at: u64, bytes: u64, chunks: &mut Chunker) -> io::Result<()> {
        let Client {
            garbage: lead,
            flow,
            ..
        } = self.plan;
        let byte = |at: u64| match at.checked_sub(*lead) {
            Some(offset) => flow.forward(offset),
            None => garbage(at),
        };
        let sent = Cell::new(at);
        let tell = |bytes| {
            sent.set(sent.get() + bytes);
            self.change(|report| report.sent = sent.get().saturating_sub(*lead));
        };
        self.wire.write(at..at + bytes, chunks, byte, tell).await
    }
}
