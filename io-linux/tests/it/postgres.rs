//! PostgreSQL through tlb: the frame is a client's StartupMessage, the key the user and the database in it.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::programs::{Folder, Server, as_stdout, free_address, installed, run};
use crate::support::setup::Setup;
use crate::support::tlb::Tlb;

/// StartupMessage (PostgreSQL documentation, "Message Formats"): its length, a version, and then
/// `user alice database tenant-NN`, each word with a zero behind it.
const STARTUP: &str = "kind = \"length-field\"\nlength = { offset = 0, width = 4, adjust = -4 }\n\
     key = { offset = 8, length = 30 }";
const TENANTS: usize = 8;
/// Rows that are copied in and out.
const ROWS: usize = 200_000;
/// PostgreSQL does not serve root. Nobody has this id by name on Debian.
const NOBODY: u32 = 65_534;

/// Where Debian keeps the programs of the newest version there is.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let versions = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    versions.max().unwrap_or_default()
}

fn is_root() -> bool {
    let us = fs::metadata("/proc/self").expect("a process of our own");
    us.uid() == 0
}

/// One of them, as somebody who is not root.
fn program(name: &str) -> Command {
    let path = programs().join(name);
    if !is_root() {
        return Command::new(path);
    }
    let id = NOBODY.to_string();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
        .arg(path);
    command
}

struct Postgres {
    data: PathBuf,
    address: SocketAddr,
    _server: Server,
}

impl Postgres {
    fn start(data: PathBuf, address: SocketAddr) -> Self {
        fs::create_dir(&data).expect("a folder");
        if is_root() {
            chown(&data, Some(NOBODY), Some(NOBODY)).expect("root may");
        }
        let mut command = program("initdb");
        command
            .current_dir("/")
            .args([
                "--auth",
                "trust",
                "--username",
                "alice",
                "--no-sync",
                "--pgdata",
            ])
            .arg(&data);
        run(&mut command);
        let mut command = program("postgres");
        command
            .arg("-D")
            .arg(&data)
            .args(["-h", &address.ip().to_string()])
            .args(["-p", &address.port().to_string()])
            .args(["-c", "unix_socket_directories=", "-c", "fsync=off"]);
        let mut command = as_stdout(&command);
        command.current_dir("/");
        Self {
            _server: Server::start(&mut command, "ready to accept connections"),
            data,
            address,
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Killed, it would leave shared memory behind.
        let _ = program("pg_ctl")
            .current_dir("/")
            .args(["stop", "--silent", "--mode", "immediate", "--pgdata"])
            .arg(&self.data)
            .output();
    }
}

fn sql(at: SocketAddr, database: &str, what: &str) -> String {
    let mut command = Command::new("psql");
    command
        .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
        .args(["--set", "ON_ERROR_STOP=1", "--command", what])
        .arg(conninfo(at, database));
    run(&mut command)
}

fn conninfo(at: SocketAddr, database: &str) -> String {
    format!(
        "host={} port={} user=alice dbname={database} sslmode=disable gssencmode=disable",
        at.ip(),
        at.port()
    )
}

/// Copies rows into a table and out again.
fn copies(tlb: SocketAddr, database: &str, folder: &Path) {
    let rows: String = (0..ROWS).map(|row| format!("{row}\trow {row}\n")).collect();
    let (there, back) = (folder.join("there"), folder.join("back"));
    fs::write(&there, &rows).expect("rows");
    let (there, back_name) = (there.display(), back.display());
    sql(tlb, database, "create table copied (number int, text text)");
    sql(tlb, database, &format!("\\copy copied from '{there}'"));
    let ordered = "select * from copied order by number";
    sql(
        tlb,
        database,
        &format!("\\copy ({ordered}) to '{back_name}'"),
    );
    assert!(
        fs::read_to_string(back).expect("what psql wrote") == rows,
        "the rows are not what they were"
    );
}

#[test]
fn a_tenant_has_one_server_and_loses_no_row() {
    let server = programs().join("postgres");
    let bench = programs().join("pgbench");
    let [server, bench] = [&server, &bench].map(|path| path.display().to_string());
    if !installed(&[&server, &bench, "psql"]) {
        return;
    }
    let folder = Folder::new("postgres");
    let servers: Vec<Postgres> = (0..2)
        .map(|it| {
            Postgres::start(
                folder.path().join(format!("data-{it}")),
                free_address(58 + it),
            )
        })
        .collect();
    let tenant = |number: usize| format!("tenant-{number:02}");
    for (number, server) in servers.iter().enumerate() {
        for it in 0..TENANTS {
            let database = tenant(it);
            let create = format!("create database \"{database}\" strategy = file_copy");
            sql(server.address, "postgres", &create);
            let mark = format!("create table who as select {number} as server");
            sql(server.address, &database, &mark);
        }
    }
    let addresses: Vec<SocketAddr> = servers.iter().map(|it| it.address).collect();
    let tlb = Tlb::start(&Setup::new(&addresses).workers(2).unpack(STARTUP));
    let who = |it: usize| sql(tlb.address(), &tenant(it), "select server from who");
    let owners: Vec<String> = (0..TENANTS).map(who).collect();
    for (it, owner) in owners.iter().enumerate() {
        assert_eq!(who(it), *owner, "{} has two servers", tenant(it));
    }
    let used: BTreeSet<_> = owners.iter().collect();
    assert_eq!(used.len(), 2, "every tenant went to one server");
    copies(tlb.address(), &tenant(0), folder.path());
    for words in [
        &["--initialize", "--quiet"][..],
        &["-c", "8", "-t", "100", "--no-vacuum"][..],
    ] {
        let mut command = Command::new(&bench);
        run(command.args(words).arg(conninfo(tlb.address(), &tenant(1))));
    }
    let done = sql(
        tlb.address(),
        &tenant(1),
        "select count(*) from pgbench_history",
    );
    assert_eq!(done.trim(), "800");
}
