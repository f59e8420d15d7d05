//! Who is compared, and how each is told to do the same job.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::load::Work;
use super::process::{OTHER_CPU, Process, RELAY_CPU};

/// tlb with an option that trades the CPU of an idle moment for time; beside the others, not among them.
pub(crate) const TLB_SPINNING: &str = "tlb spin";
/// tlb that hands its sessions to the kernel, where this user may.
pub(crate) const TLB_HAND_OFF: &str = "tlb hand-off";
/// tlb with the congestion control that most hosts have, whatever this one has.
pub(crate) const TLB_CUBIC: &str = "tlb cubic";

/// A relay that does nothing but relay: how far ahead any relay could be.
pub(crate) const BARE: &str = "bare relay";

/// A connection without a relay from one CPU to the other, which is as far as one by a relay goes.
pub(crate) const DIRECT_ACROSS: &str = "direct across";

/// Somebody between the clients and the backend, or nobody.
#[derive(Debug)]
pub(crate) struct Contender {
    /// Whose product it is: the best setting of each counts.
    pub(crate) product: &'static str,
    /// The setting.
    pub(crate) setting: String,
    /// Where it echoes, and where it discards.
    pub(crate) at: [SocketAddr; 2],
    /// `None` for a direct connection, and for one that is called when it is its turn.
    pub(crate) process: Option<Process>,
    /// How it is called. What it does while it rests would be felt by the others.
    call: Option<Call>,
}

/// A program and its arguments.
#[derive(Debug)]
struct Call {
    program: String,
    args: Vec<String>,
}

impl Contender {
    /// Whether it has a part in this.
    pub(crate) fn does(&self, work: Work) -> bool {
        let alone = matches!(
            work,
            Work::PingPong {
                conns: 1,
                together: false,
                ..
            }
        );
        match self.product {
            DIRECT_ACROSS => alone,
            // It copies, and holds nothing that is worth being measured.
            BARE => matches!(work, Work::PingPong { .. } | Work::Churn { .. }),
            // Who says nothing is not handed off.
            TLB_HAND_OFF => !matches!(work, Work::Idle { .. }),
            _ => true,
        }
    }

    /// It is its turn.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn begin(&mut self) -> io::Result<()> {
        if let Some(Call { program, args }) = &self.call {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let process = Process::start(RELAY_CPU, program, &args)?;
            let ready = contender(self.product, &self.setting, self.at, process)?;
            self.process = ready.process;
        }
        Ok(())
    }

    /// Its turn is over.
    pub(crate) fn end(&mut self) {
        if self.call.is_some() {
            self.process = None;
        }
    }

    /// The CPU of the backend.
    pub(crate) fn backend_cpu(&self, work: Work) -> &'static str {
        if self.product == DIRECT_ACROSS {
            return RELAY_CPU;
        }
        clients_cpu(work)
    }
}

/// The CPU of the clients.
pub(crate) const fn clients_cpu(work: Work) -> &'static str {
    match work {
        Work::PingPong { together: true, .. } => RELAY_CPU,
        _ => OTHER_CPU,
    }
}

/// The ports of a contender.
fn ports(number: u16) -> [SocketAddr; 2] {
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    [at(21_000 + 2 * number), at(21_001 + 2 * number)]
}

/// All that are there. Says who is not.
///
/// # Errors
/// One does not start.
pub(crate) fn start(
    this: &str,
    backend: [SocketAddr; 2],
    folder: &Path,
    quick: bool,
) -> io::Result<Vec<Contender>> {
    let mut all: Vec<Contender> = ["direct", DIRECT_ACROSS]
        .map(|product| Contender {
            product,
            setting: String::new(),
            at: backend,
            process: None,
            call: None,
        })
        .into();
    let mut number = 0;
    let mut next = || {
        number += 1;
        ports(number)
    };
    let tlb = tlb_binary()?;
    let variants = [
        ("tlb", 0, ""),
        (TLB_SPINNING, 100, ""),
        (TLB_CUBIC, 0, "congestion = \"cubic\"\n"),
    ];
    for (product, spin, listener) in variants {
        let at = next();
        let text = tlb_config(at, backend, spin, listener);
        let file = write(folder, &format!("{product}.toml"), &text)?;
        let args = ["run", "-c", &file, "--log-level", "error"];
        let process = Process::start(RELAY_CPU, &tlb, &args)?;
        all.push(contender(product, "", at, process)?);
    }
    let at = next();
    let text = tlb_config(at, backend, 0, "hand-off = 16\n");
    let file = write(folder, "tlb-hand-off.toml", &text)?;
    if Command::new(&tlb)
        .args(["check", "-c", &file])
        .output()?
        .status
        .success()
    {
        let args = ["run", "-c", &file, "--log-level", "error"];
        all.push(Contender {
            product: TLB_HAND_OFF,
            setting: String::new(),
            at,
            process: None,
            call: Some(Call {
                program: tlb,
                args: args.map(str::to_owned).into(),
            }),
        });
    } else {
        println!("this user or this kernel cannot hand sessions off, which is not compared");
    }

    let at = next();
    let args = [at[0], at[1], backend[0], backend[1]].map(|it| it.to_string());
    let args = ["bare", &args[0], &args[1], &args[2], &args[3]];
    let process = Process::start(RELAY_CPU, this, &args)?;
    all.push(contender(BARE, "", at, process)?);

    let buffers: &[u32] = if quick { &[16] } else { &[16, 64] };
    if let Some(haproxy) = found("haproxy") {
        for buffer in buffers {
            for splice in ["none", "auto", "always"] {
                if quick && splice == "always" {
                    continue;
                }
                let at = next();
                let text = haproxy_config(at, backend, buffer * 1024, splice);
                let file = write(folder, &format!("haproxy-{buffer}-{splice}.cfg"), &text)?;
                let process = Process::start(RELAY_CPU, &haproxy, &["-db", "-q", "-f", &file])?;
                let setting = format!("{buffer} KiB, splice {splice}");
                all.push(contender("haproxy", &setting, at, process)?);
            }
        }
    } else {
        println!("haproxy is not installed, and not compared");
    }
    let module = Path::new("/usr/lib/nginx/modules/ngx_stream_js_module.so");
    match found("nginx").filter(|_| module.exists()) {
        Some(nginx) => {
            write(folder, "key.js", NJS)?;
            for buffer in buffers {
                let at = next();
                let text = nginx_config(at, backend, *buffer, folder);
                let file = write(folder, &format!("nginx-{buffer}.conf"), &text)?;
                let prefix = folder.display().to_string();
                let process = Process::start(RELAY_CPU, &nginx, &["-p", &prefix, "-c", &file])?;
                let setting = format!("{buffer} KiB");
                all.push(contender("nginx", &setting, at, process)?);
            }
        }
        None => {
            println!("nginx with its stream and njs modules is not installed, and not compared");
        }
    }
    Ok(all)
}

/// One that listens.
fn contender(
    product: &'static str,
    setting: &str,
    at: [SocketAddr; 2],
    mut process: Process,
) -> io::Result<Contender> {
    let patience = Instant::now() + Duration::from_secs(10);
    for address in at {
        while TcpStream::connect(address).is_err() {
            if Instant::now() > patience || !process.lives() {
                return Err(io::Error::other(format!(
                    "{product} {setting} does not listen"
                )));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(Contender {
        product,
        setting: setting.to_owned(),
        at,
        process: Some(process),
        call: None,
    })
}

fn write(folder: &Path, name: &str, text: &str) -> io::Result<String> {
    let path = folder.join(name);
    fs::write(&path, text)?;
    Ok(path.display().to_string())
}

/// A program, if it is installed.
fn found(program: &str) -> Option<String> {
    ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.exists())
        .map(|path| path.display().to_string())
}

/// The release binary, built if need be.
fn tlb_binary() -> io::Result<String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "build",
            "--release",
            "--quiet",
            "--locked",
            "-p",
            "tlb-io-linux",
            "--bin",
            "tlb",
        ])
        .status()?;
    if !status.success() {
        return Err(io::Error::other("tlb cannot be built"));
    }
    let here: PathBuf = std::env::current_exe()?;
    let binary = here.with_file_name("tlb");
    Ok(binary.display().to_string())
}

/// `more` is what each listener has beside that.
fn tlb_config(at: [SocketAddr; 2], backend: [SocketAddr; 2], spin: u32, more: &str) -> String {
    let mut text = format!("workers = 1\nspin-us = {spin}\n");
    text += "[unpack.station]\nkind = \"length-field\"\nmagic = \"2a\"\n\
         length = { offset = 1, width = 4, adjust = 2 }\nkey = { offset = 19, length = 4 }\n";
    for (name, (at, to)) in ["echo", "sink"].iter().zip(at.iter().zip(backend)) {
        text += &format!(
            "[[listener]]\nname = \"{name}\"\nbind = \"{at}\"\nunpack = \"station\"\npool = \"{name}\"\n{more}\
             [[pool]]\nname = \"{name}\"\nbackends = [{{ id = \"a\", address = \"{to}\" }}, \
             {{ id = \"b\", address = \"{to}\" }}]\n"
        );
    }
    text
}

fn haproxy_config(
    at: [SocketAddr; 2],
    backend: [SocketAddr; 2],
    buffer: u32,
    splice: &str,
) -> String {
    let option = match splice {
        "auto" => "  option splice-auto\n",
        "always" => "  option splice-request\n  option splice-response\n",
        _ => "",
    };
    let mut text = format!(
        "global\n  nbthread 1\n  maxconn 9600\n  maxpipes 256\n  tune.bufsize {buffer}\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n{option}"
    );
    for (name, (at, to)) in ["echo", "sink"].iter().zip(at.iter().zip(backend)) {
        text += &format!(
            "frontend f-{name}\n  bind {at}\n  tcp-request inspect-delay 5s\n\
             \x20 tcp-request content accept if {{ req.payload(19,4) -m found }}\n\
             \x20 default_backend b-{name}\n\
             backend b-{name}\n  balance hash req.payload(19,4)\n  hash-type consistent\n\
             \x20 server a {to}\n  server b {to}\n"
        );
    }
    text
}

/// What finds the key for nginx.
const NJS: &str = "
function preread(s) {
    s.on('upload', function (data, flags) {
        if (data.length >= 23) {
            s.variables.key = data.slice(19, 23).toString('hex');
            s.done();
        }
    });
}
export default { preread };
";

fn nginx_config(
    at: [SocketAddr; 2],
    backend: [SocketAddr; 2],
    buffer: u32,
    folder: &Path,
) -> String {
    let folder = folder.display();
    let mut text = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
         load_module /usr/lib/nginx/modules/ngx_stream_js_module.so;\n\
         daemon off;\nmaster_process off;\nworker_rlimit_nofile 20000;\n\
         pid {folder}/nginx-{buffer}.pid;\nerror_log /dev/null crit;\n\
         events {{ worker_connections 19990; }}\n\
         stream {{\n  js_path {folder};\n  js_import key.js;\n  js_var $key;\n\
         \x20 proxy_buffer_size {buffer}k;\n  proxy_half_close on;\n  tcp_nodelay on;\n"
    );
    for (name, (at, to)) in ["echo", "sink"].iter().zip(at.iter().zip(backend)) {
        // Two names for one place, as an upstream wants them.
        let other = SocketAddr::from(([127, 0, 0, 2], to.port()));
        text += &format!(
            "  upstream {name} {{ hash $key consistent; server {to}; server {other}; }}\n\
             \x20 server {{ listen {at} backlog=4096; js_preread key.preread; proxy_pass {name}; }}\n"
        );
    }
    text + "}\n"
}
