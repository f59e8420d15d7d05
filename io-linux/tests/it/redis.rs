//! `redis-cli` and `redis-benchmark` through tlb: a client's first line, `*N` for a command of N
//! words, is its key.

use std::net::SocketAddr;
use std::process::Command;

use crate::support::programs::{Server, free_address, installed, run};
use crate::support::setup::{Setup, id};
use crate::support::tlb::{Tlb, field};

const SERVERS: u8 = 3;
const LINE: &str = "kind = \"delimited\"\ndelimiter = \"0d0a\"\nkey = { offset = 0 }";

/// Words of the longest command.
const LONGEST: usize = 24;

struct Redis {
    addresses: Vec<SocketAddr>,
    _servers: Vec<Server>,
}

impl Redis {
    fn start(first: u8) -> Self {
        let addresses: Vec<SocketAddr> = (first..first + SERVERS).map(free_address).collect();
        let serve = |address: &SocketAddr| {
            let mut command = Command::new("redis-server");
            command
                .args(["--save", "", "--appendonly", "no", "--bind"])
                .arg(address.ip().to_string())
                .arg("--port")
                .arg(address.port().to_string());
            Server::start(&mut command, "Ready to accept connections")
        };
        Self {
            _servers: addresses.iter().map(serve).collect(),
            addresses,
        }
    }

    /// The servers that know this key, asked without tlb.
    fn holders(&self, key: &str) -> Vec<usize> {
        let knows = |&index: &usize| cli(self.addresses[index], &["EXISTS", key]).trim() == "1";
        (0..self.addresses.len()).filter(knows).collect()
    }

    /// How often the server has run this command, asked without tlb.
    fn calls(&self, index: usize, command: &str) -> u64 {
        let stats = cli(self.addresses[index], &["INFO", "commandstats"]);
        let prefix = format!("cmdstat_{command}:calls=");
        let line = stats.lines().find_map(|line| line.strip_prefix(&prefix));
        line.and_then(|rest| rest.split(',').next())
            .map_or(0, |number| number.parse().expect("a number of calls"))
    }
}

fn cli(to: SocketAddr, words: &[&str]) -> String {
    let mut command = Command::new("redis-cli");
    command
        .args(["-h", &to.ip().to_string(), "-p", &to.port().to_string()])
        .args(words);
    run(&mut command)
}

#[test]
fn the_first_line_decides_the_server() {
    if !installed(&["redis-server", "redis-cli"]) {
        return;
    }
    let redis = Redis::start(10);
    let tlb = Tlb::start(&Setup::new(&redis.addresses).workers(2).unpack(LINE));
    let mut servers = Vec::new();
    for words in 3..=LONGEST {
        let key = format!("list-of-{words}-words");
        let elements = vec!["x"; words - 2];
        let command = [&["RPUSH", key.as_str()][..], &elements].concat();
        for round in 1..=3 {
            let length = cli(tlb.address(), &command);
            assert_eq!(
                length.trim(),
                (round * elements.len()).to_string(),
                "round {round} of *{words} did not reach the server of the rounds before"
            );
        }
        let holders = redis.holders(&key);
        assert_eq!(holders.len(), 1, "*{words} reached {holders:?}");
        // What tlb says is what the servers say.
        let backend = id(holders[0]);
        let line = tlb
            .log()
            .await_line(&format!("a session of *{words}"), |line| {
                line.contains("session closed")
                    && field(line, "key").is_some_and(|logged| is_line(logged, words))
            });
        assert_eq!(field(&line, "backend"), Some(backend.as_str()), "{line}");
        servers.push(holders[0]);
    }
    servers.sort_unstable();
    servers.dedup();
    assert!(servers.len() > 1, "every line went to server {servers:?}");
}

/// Whether the log's way to write a key stands for `*words`: as text, or in hex.
fn is_line(logged: &str, words: usize) -> bool {
    let text = format!("*{words}");
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    logged == text || logged == hex
}

fn benchmark(first: u8, relay: &str) {
    const REQUESTS: u64 = 20_000;
    if !installed(&["redis-server", "redis-cli", "redis-benchmark"]) {
        return;
    }
    let redis = Redis::start(first);
    let setup = Setup::new(&redis.addresses)
        .workers(2)
        .unpack(LINE)
        .top(relay);
    let tlb = Tlb::start(&setup);
    let entry = tlb.address();
    for options in [
        &["-c", "20"][..],
        &["-c", "8", "-P", "16", "-d", "2000"][..],
    ] {
        let mut command = Command::new("redis-benchmark");
        command
            .args([
                "-h",
                &entry.ip().to_string(),
                "-p",
                &entry.port().to_string(),
            ])
            .args(["-n", &REQUESTS.to_string(), "-q", "-t", "set,get,lpush"])
            .args(options);
        run(&mut command);
    }
    // SET and LPUSH are commands of three words, GET of two: one server each.
    let count = |command| -> Vec<u64> {
        let servers = 0..redis.addresses.len();
        servers.map(|index| redis.calls(index, command)).collect()
    };
    let calls = ["set", "lpush", "get"].map(count);
    for (calls, command) in calls.iter().zip(["set", "lpush", "get"]) {
        let most = calls.iter().max().expect("there are servers");
        assert_eq!(
            *most,
            calls.iter().sum::<u64>(),
            "{command} reached two: {calls:?}"
        );
        assert_eq!(*most, 2 * REQUESTS, "calls of {command}");
    }
    assert_eq!(
        calls[0], calls[1],
        "commands of three words went to two servers"
    );
}

#[test]
fn benchmark_through_copy() {
    benchmark(20, "relay = \"copy\"");
}

#[test]
fn benchmark_through_splice() {
    benchmark(30, "relay = \"splice\"");
}
