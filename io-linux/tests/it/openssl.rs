//! TLS through tlb, by `openssl` and `curl`: whatever is changed, lost or added on the way breaks it. The frame is the
//! record of the client's greeting, and the key the random bytes in that.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use crate::support::eventually;
use crate::support::programs::{Folder, Server, free_address, installed, run};
use crate::support::setup::Setup;
use crate::support::stream::Stream;
use crate::support::tlb::{Tlb, field};

/// A record (RFC 8446, section 5.1) that begins with a ClientHello (section 4.1.2).
const HELLO: &str = "kind = \"length-field\"\nmagic = \"16\"\nlength = { offset = 3, width = 2 }\n\
                     key = { offset = 11, length = 32 }";
const LARGE: usize = 4 << 20;
const SESSIONS: usize = 24;

fn certificate(folder: &Folder) {
    let mut command = Command::new("openssl");
    command.current_dir(folder.path()).args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
        "-days",
        "2",
        "-subj",
        "/CN=station.test",
        "-addext",
        "subjectAltName=DNS:station.test",
    ]);
    run(&mut command);
}

#[test]
fn greetings_are_routed_and_what_follows_is_whole() {
    if !installed(&["openssl", "curl"]) {
        return;
    }
    let folder = Folder::new("openssl");
    certificate(&folder);
    let large = Stream::new(7, LARGE).bytes();
    fs::write(folder.path().join("large"), &large).expect("a page");
    let addresses: Vec<SocketAddr> = (50..52).map(free_address).collect();
    let serve = |address: &SocketAddr| {
        let mut command = Command::new("openssl");
        command
            .current_dir(folder.path())
            .args([
                "s_server", "-WWW", "-cert", "cert.pem", "-key", "key.pem", "-accept",
            ])
            .arg(address.to_string());
        Server::start(&mut command, "ACCEPT")
    };
    let _servers: Vec<Server> = addresses.iter().map(serve).collect();
    let tlb = Tlb::start(&Setup::new(&addresses).workers(2).unpack(HELLO));
    let (ip, port) = (tlb.address().ip(), tlb.address().port());
    let got = folder.path().join("got");
    for version in ["--tlsv1.3", "--tls-max=1.2"] {
        for _ in 0..SESSIONS / 2 {
            let mut command = Command::new("curl");
            command
                .args(["--fail", "--silent", "--show-error", "--http1.0"])
                .args(version.split('='))
                .arg("--cacert")
                .arg(folder.path().join("cert.pem"))
                .args(["--resolve", &format!("station.test:{port}:{ip}")])
                .arg("--output")
                .arg(&got)
                .arg(format!("https://station.test:{port}/large"));
            run(&mut command);
            assert!(
                fs::read(&got).expect("what curl wrote") == large,
                "the page is not what it was"
            );
        }
    }
    let closed = eventually("every session is over", || {
        let closed = tlb.log().lines(|line| line.contains("session closed"));
        (closed.len() == SESSIONS).then_some(closed)
    });
    let mut backends: Vec<_> = closed.iter().map(|line| field(line, "backend")).collect();
    backends.sort_unstable();
    backends.dedup();
    // Twenty-four random keys on two servers: one in eight million runs uses a single one.
    assert_eq!(backends.len(), 2, "{closed:#?}");
}
