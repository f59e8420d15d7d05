//! `curl` to web servers through tlb: a request's first line is its key. The servers end the connections.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::eventually;
use crate::support::programs::{Folder, Server, free_address, installed, run};
use crate::support::setup::Setup;
use crate::support::stream::Stream;
use crate::support::tlb::Tlb;

const LINE: &str = "kind = \"delimited\"\ndelimiter = \"0d0a\"\nkey = { offset = 0 }";
const SERVERS: u8 = 2;
/// Pages that every server has in its own words.
const PAGES: usize = 12;
/// Bytes of a page that all have alike.
const LARGE: usize = 24 << 20;

fn serve(address: SocketAddr, root: &Path) -> Server {
    let mut command = Command::new("python3");
    command
        .args(["-u", "-m", "http.server", "--bind"])
        .arg(address.ip().to_string())
        .arg("--directory")
        .arg(root)
        .arg(address.port().to_string());
    Server::start(&mut command, "Serving HTTP")
}

fn get(from: &Tlb, page: &str, into: &Path) {
    let mut command = Command::new("curl");
    command
        .args(["--fail", "--silent", "--show-error", "--output"])
        .arg(into)
        .arg(format!("http://{}/{page}", from.address()));
    run(&mut command);
}

fn pages_through(relay: &str, first: u8) {
    if !installed(&["python3", "curl"]) {
        return;
    }
    let folder = Folder::new(&format!("curl-{first}"));
    let large = Stream::new(7, LARGE).bytes();
    let addresses: Vec<SocketAddr> = (first..first + SERVERS).map(free_address).collect();
    let servers: Vec<Server> = (0..)
        .zip(&addresses)
        .map(|(server, &address)| {
            let root: PathBuf = folder.path().join(format!("server-{server}"));
            fs::create_dir(&root).expect("a folder");
            for page in 0..PAGES {
                let text = format!("page {page} of server {server}");
                fs::write(root.join(format!("page-{page}")), text).expect("a page");
            }
            fs::write(root.join("large"), &large).expect("a page");
            serve(address, &root)
        })
        .collect();
    let setup = Setup::new(&addresses).workers(2).unpack(LINE).top(relay);
    let tlb = Tlb::start(&setup);
    let got = folder.path().join("got");
    let mut seen = BTreeSet::new();
    for page in 0..PAGES {
        let ask = || {
            get(&tlb, &format!("page-{page}"), &got);
            fs::read_to_string(&got).expect("what curl wrote")
        };
        let text = ask();
        let server = text.strip_prefix(&format!("page {page} of server "));
        seen.insert(server.expect("the page that was asked for").to_owned());
        for _ in 0..2 {
            assert_eq!(ask(), text, "one line went to two servers");
        }
    }
    assert_eq!(seen.len(), servers.len(), "all pages came from {seen:?}");
    for _ in 0..3 {
        get(&tlb, "large", &got);
        assert!(
            fs::read(&got).expect("what curl wrote") == large,
            "the large page is not what it was"
        );
    }
    let sessions = 3 * PAGES + 3;
    eventually("every session has completed", || {
        let completed = tlb.log().lines(|line| line.contains("reason=completed"));
        (completed.len() == sessions).then_some(())
    });
}

#[test]
fn pages_come_whole_through_copy() {
    pages_through("relay = \"copy\"", 40);
}

#[test]
fn pages_come_whole_through_splice() {
    pages_through("relay = \"splice\"", 44);
}
