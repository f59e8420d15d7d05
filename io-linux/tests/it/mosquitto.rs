//! MQTT through tlb: the clients and brokers of `mosquitto`. A client's name in its CONNECT is its key.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use crate::support::programs::{Folder, Server, as_stdout, free_address, installed, run, run_with};
use crate::support::setup::Setup;
use crate::support::tlb::Tlb;

/// CONNECT (MQTT 3.1.1, section 3.1) of a client whose name has eleven bytes, and that has no will and no password.
const CONNECT: &str = "kind = \"fixed\"\nsize = 25\nkey = { offset = 14, length = 11 }";
const DEVICES: usize = 12;
const MESSAGES: usize = 200;

fn serve(address: SocketAddr, folder: &Folder) -> Server {
    let config = folder.path().join(format!("{}.conf", address.ip()));
    let (ip, port) = (address.ip(), address.port());
    let text = format!("listener {port} {ip}\nallow_anonymous true\n");
    fs::write(&config, text).expect("a configuration");
    // It becomes somebody else when root starts it, who may read what root wrote.
    let mut command = Command::new("mosquitto");
    command.arg("-c").arg(config);
    Server::start(&mut as_stdout(&command), " running")
}

fn client(program: &str, to: SocketAddr, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(["-V", "311", "-h", &to.ip().to_string()])
        .args(["-p", &to.port().to_string()])
        .args(words);
    command
}

#[test]
fn a_device_finds_its_broker_and_hears_every_message() {
    if !installed(&["mosquitto", "mosquitto_sub", "mosquitto_pub"]) {
        return;
    }
    let folder = Folder::new("mosquitto");
    let addresses: Vec<SocketAddr> = (54..56).map(free_address).collect();
    let _brokers: Vec<Server> = addresses.iter().map(|&it| serve(it, &folder)).collect();
    for (broker, &address) in addresses.iter().enumerate() {
        let words = ["-r", "-t", "who", "-m", &broker.to_string()];
        run(&mut client("mosquitto_pub", address, &words));
    }
    let tlb = Tlb::start(&Setup::new(&addresses).workers(2).unpack(CONNECT));
    let name = |device: usize| format!("device-{device:04}");
    let who = |device: usize| -> usize {
        let words = ["-i", &name(device), "-t", "who", "-C", "1", "-W", "10"];
        let said = run(&mut client("mosquitto_sub", tlb.address(), &words));
        said.trim().parse().expect("a broker's number")
    };
    let owners: Vec<usize> = (0..DEVICES).map(who).collect();
    for (device, &owner) in owners.iter().enumerate() {
        assert_eq!(who(device), owner, "{} has two brokers", name(device));
    }
    let used: BTreeSet<_> = owners.iter().collect();
    assert_eq!(used.len(), 2, "every device went to one broker");
    for (device, &owner) in owners.iter().enumerate() {
        hears(&folder, &name(device), tlb.address(), addresses[owner]);
    }
}

/// Its broker keeps what is said to it while it is away, and it hears that in order by tlb.
fn hears(folder: &Folder, name: &str, tlb: SocketAddr, broker: SocketAddr) {
    let told: String = (0..MESSAGES).map(|it| format!("{name} {it}\n")).collect();
    let file = folder.path().join(name);
    fs::write(&file, &told).expect("what is to be told");
    let lasting = ["-i", name, "-c", "-q", "1", "-t", name];
    run(client("mosquitto_sub", tlb, &lasting).arg("-E"));
    let words = ["-q", "1", "-t", name, "-l"];
    let said = fs::File::open(&file).expect("what was just written");
    run_with(&mut client("mosquitto_pub", broker, &words), said.into());
    let most = MESSAGES.to_string();
    let heard = run(client("mosquitto_sub", tlb, &lasting).args(["-C", &most, "-W", "15"]));
    assert_eq!(heard, told);
}
