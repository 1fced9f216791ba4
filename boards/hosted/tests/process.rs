//! The process from outside: what it refuses before anything starts, and how it ends.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use message::Then;
use message::mailbox::{
    Answer, Call, Edition, Error, Frame, FrameReader, MAX_FRAME_BYTES, Request, Response, encode,
};

const HOSTED: &str = env!("CARGO_BIN_EXE_hosted");
/// Exit code where this system offers no namespace.
const UNAVAILABLE: i32 = 69;

/// A folder that is removed with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("penstock-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, bytes: u64) -> String {
        let path = self.0.join(name);
        File::create(&path).unwrap().set_len(bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The process, which ends with the value, so that a test that fails leaves none behind.
struct Process(Child);

impl Process {
    /// Starts it; gives what it says as well.
    fn start(command: &mut Command) -> (Self, BufReader<ChildStderr>) {
        let mut child = command.env_remove("PENSTOCK_LOG").stderr(Stdio::piped()).spawn().unwrap();
        let said = child.stderr.take().unwrap();
        (Self(child), BufReader::new(said))
    }

    fn ask_to_end(&self, signal: &str) {
        let asked = Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap();
        assert!(asked.success());
    }

    fn wait(&mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }

    fn kill(&mut self) -> ExitStatus {
        let _ = self.0.kill();
        self.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing happens to one that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the process says about arguments that it refuses.
fn refusal(arguments: &[&str]) -> String {
    let output = Command::new(HOSTED).args(arguments).env_remove("PENSTOCK_LOG").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
    assert!(!text.contains("penstock 0"), "something has started: {text}");
    text
}

#[test]
fn bad_input_is_refused_in_a_sentence_before_anything_starts() {
    let folder = Folder::new("arguments");
    let wire = folder.path("wire");
    let (good, odd) = (folder.file("good", 4096), folder.file("odd", 4096 + 512));
    let empty = folder.file("empty", 0);
    let missing = folder.path("missing");
    let with = |drive: &str| refusal(&["--wire", &wire, "--drive", &good, "--drive", drive]);
    assert!(with(&missing).contains("missing: there is no such file"));
    assert!(with(folder.0.to_str().unwrap()).contains("neither a file nor a block device"));
    assert!(
        with(&format!("{odd},block=4096")).contains("4608 bytes are not a multiple of the block size, 4096")
    );
    assert!(with(&empty).contains("the file is empty"));
    assert!(with(&good).contains("it is locked by"));
    assert!(with("ram:1X").contains("not a size such as 64M"));
    // More than there are addresses.
    assert!(with("ram:300T").contains("no 329853488332800 bytes of memory"));
    let wrong = |words: &[&str]| refusal(&[&["--wire", &wire], words].concat());
    assert!(wrong(&["--plan", "quad"]).contains("there are: single, pair"));
    assert!(wrong(&["--append", "plan=quad"]).contains("there are: single, pair"));
    assert!(wrong(&["--append", "selftest=panic"]).contains("no bugs on purpose"));
    assert!(wrong(&["--cpus", "0,1023"]).contains("on CPU 1023"));
    assert!(wrong(&["--ip", "10.0.0.1"]).contains("ip=ADDRESS/PREFIX"));
    let host = refusal(&["--namespace", "--ip", "10.0.0.1/24", "--host-ip", "10.1.0.2"]);
    assert!(host.contains("--host-ip 10.1.0.2: no host of 10.0.0.1/24"), "{host}");
    let twins =
        wrong(&["--drive", "ram:1M,serial=A", "--drive", "ram:2M,serial=B", "--drive", "ram:1M,serial=A"]);
    assert!(twins.contains("drives 0 and 2 have the same serial number, A"), "{twins}");
    let default = wrong(&["--drive", "ram:1M", "--drive", "ram:1M,serial=RAM0"]);
    assert!(default.contains("drives 0 and 1 have the same serial number, RAM0"), "{default}");
    assert!(wrong(&["--nqn", "a b"]).contains("no blanks"));
    assert!(wrong(&["--memory", "8M"]).contains("at least 32M"));
    assert!(refusal(&["--drive", &good]).contains("--namespace"));
    assert!(refusal(&["--wire", "/nonexistent/wire"]).contains("folder does not exist"));
    let tap = refusal(&["--tap", "penstock-none", "--drive", &good]);
    assert!(tap.contains("ip tuntap add penstock-none") && tap.contains("--namespace"), "{tap}");
    assert!(wrong(&["--config", &odd]).contains("odd: it is no configuration store, which has 131072 bytes"));
    let many: Vec<&str> = (0..17).flat_map(|_| ["--drive", "ram:1M"]).collect();
    assert!(wrong(&many).contains("16 places"));
    let ports = wrong(&["--wire", "connect:/a", "--wire", "connect:/b"]);
    assert!(ports.contains("3 ports, and the card has 2"), "{ports}");
    let taps = refusal(&["--namespace", "--tap", "a", "--tap", "b"]);
    assert!(taps.contains("it has one interface"), "{taps}");
    assert!(!PathBuf::from(&wire).exists());
}

/// Words of a shell that takes further namespaces away from the process that it becomes.
const WITHOUT_NAMESPACES: &str = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" --namespace";

#[test]
fn a_system_without_namespaces_has_an_exit_code_of_its_own() {
    let mut command = Command::new("unshare");
    let permitted = command.args(["-Ur", "true"]).stderr(Stdio::null()).status().is_ok_and(|s| s.success());
    let mut command = Command::new(if permitted { "unshare" } else { HOSTED });
    if permitted {
        command.args(["-Ur", "sh", "-c", WITHOUT_NAMESPACES, HOSTED]);
    } else {
        command.arg("--namespace");
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(UNAVAILABLE), "{text}");
    assert!(text.contains("gives no user and network namespace"), "{text}");
}

#[test]
fn the_port_in_a_namespace_has_the_mtu_that_was_asked_for() {
    let mut command = Command::new(HOSTED);
    command.args(["--namespace", "--mtu", "9000", "--memory", "64M", "--cpus", "none"]);
    let (mut process, said) = Process::start(&mut command);
    let mut lines = said.lines().map(Result::unwrap);
    let port = lines.by_ref().find(|line| line.contains(", MTU ") || line.starts_with("error:"));
    let status = process.kill();
    if status.code() == Some(UNAVAILABLE) {
        eprintln!("skipped: {port:?}");
        return;
    }
    assert!(port.as_ref().is_some_and(|line| line.contains(", MTU 9000,")), "{port:?}");
}

#[test]
fn it_is_ready_and_ends_in_good_order_when_asked() {
    let folder = Folder::new("run");
    let (drive, wire) = (folder.file("drive", 1 << 20), folder.path("wire"));
    for plan in ["single", "pair"] {
        let mut command = Command::new(HOSTED);
        command.args(["--drive", &drive, "--drive", "ram:1M,block=4096", "--wire", &wire, "--plan", plan]);
        command.args(["--ip", "10.0.0.1/24", "--memory", "64M", "--cpus", "none"]);
        let (mut process, said) = Process::start(&mut command);
        let mut lines = said.lines();
        // Somebody has to be at the other end before the port has a link.
        let mut peer = None;
        let ready = lines.by_ref().map(Result::unwrap).find(|line| {
            peer = peer.take().or_else(|| std::os::unix::net::UnixStream::connect(&wire).ok());
            line.contains("INFO  ready: 2 namespaces of nqn.")
        });
        assert!(ready.expect("ready").ends_with(" at 10.0.0.1:4420"));
        process.ask_to_end("-TERM");
        let rest: Vec<String> = lines.map(Result::unwrap).collect();
        for said in ["shutdown: complete, 2 drives are shut down", "the card is off"] {
            assert!(rest.iter().any(|line| line.ends_with(said)), "{plan}: {rest:?}");
        }
        assert!(process.wait().success());
        assert!(!PathBuf::from(&wire).exists());
    }
}

#[test]
fn it_serves_by_two_ports() {
    let folder = Folder::new("ports");
    let wires = ["wire1", "wire2"].map(|name| folder.path(name));
    let mut command = Command::new(HOSTED);
    command.args(["--drive", "ram:1M", "--wire", &wires[0], "--wire", &wires[1], "--ip", "10.0.0.1/24"]);
    command.args(["--append", "ip.2=10.0.1.1/24", "--memory", "64M", "--cpus", "none"]);
    let (mut process, said) = Process::start(&mut command);
    let mut lines = said.lines().map(Result::unwrap);
    let mut ports: Vec<String> = Vec::new();
    let mut addresses: Vec<String> = Vec::new();
    while addresses.len() < 2 {
        let line = lines.next().expect("ready by both ports");
        if let Some((_, port)) = line.split_once("INFO  port ").filter(|_| line.contains(", MTU ")) {
            ports.push(port[..20].to_owned());
        } else if let Some((_, address)) = line.rsplit_once(" at ").filter(|_| line.contains("ready: 1 ")) {
            addresses.push(address.to_owned());
        }
    }
    assert_eq!(ports, ["1: 02:ca:4d:00:00:01", "2: 02:ca:4d:00:00:02"]);
    assert_eq!(addresses, ["10.0.0.1:4420", "10.0.1.1:4420"]);
    process.ask_to_end("-TERM");
    lines.for_each(drop);
    assert!(process.wait().success());
    assert!(wires.iter().all(|wire| !PathBuf::from(wire).exists()));
}

/// The next response on the mailbox's line.
fn response(line: &mut UnixStream, reader: &mut FrameReader) -> Response {
    loop {
        // One byte at a time: what is behind a response stays on the line.
        let mut byte = [0];
        line.read_exact(&mut byte).expect("a response");
        match reader.take(&byte).1 {
            Some(Frame::Message(response)) => return response,
            Some(bad) => panic!("{bad:?}"),
            None => {}
        }
    }
}

#[test]
fn an_operator_is_answered_by_each_plan() {
    let folder = Folder::new("mailbox");
    let (wire, mailbox, config) = (folder.path("wire"), folder.path("mailbox"), folder.path("config"));
    for (plan, cores, is_stored) in [("single", 1, false), ("pair", 2, true)] {
        let mut command = Command::new(HOSTED);
        command.args(["--drive", "ram:1M", "--wire", &wire, "--ip", "10.0.0.1/24", "--mailbox", &mailbox]);
        command.args(["--memory", "64M", "--cpus", "none", "--plan", plan]);
        command.args(["--config", &config].iter().filter(|_| is_stored));
        let (mut process, said) = Process::start(&mut command);
        let mut lines = said.lines().map(Result::unwrap);
        assert!(lines.any(|line| line.contains("ready: 1 ")));
        let mut line = UnixStream::connect(&mailbox).unwrap();
        line.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
        let mut reader = FrameReader::new();
        let calls = [
            Call::Hello(Edition::HERE),
            Call::Cores { first: 0 },
            Call::Status,
            Call::End { then: Then::Restart },
            Call::End { then: Then::Off },
        ];
        for (sequence, call) in (1..).zip(calls) {
            let mut to = [0; MAX_FRAME_BYTES];
            line.write_all(encode(&Request { sequence, call }, &mut to).unwrap()).unwrap();
        }
        assert_eq!(response(&mut line, &mut reader).result, Ok(Answer::Hello(Edition::HERE)));
        let Ok(Answer::Cores(answer)) = response(&mut line, &mut reader).result else { panic!("no cores") };
        assert_eq!(answer.cores.len(), cores);
        assert!(answer.cores.iter().all(|core| core.productive_turns + core.empty_turns > 0));
        let Ok(Answer::Status(status)) = response(&mut line, &mut reader).result else { panic!("no status") };
        assert_eq!(status.configuration_is_stored, is_stored);
        // A process does not start itself again; it ends.
        assert_eq!(response(&mut line, &mut reader).result, Err(Error::NotHere));
        assert_eq!(response(&mut line, &mut reader).result, Ok(Answer::Ending { then: Then::Off }));
        lines.for_each(drop);
        assert!(process.wait().success());
        assert!(!PathBuf::from(&mailbox).exists());
    }
}

#[test]
fn it_says_that_it_waits_for_dhcp_where_nobody_asked_for_that() {
    let folder = Folder::new("dhcp");
    let wire = folder.path("wire");
    for (asked, words) in [(false, &[][..]), (true, &["--ip", "dhcp"])] {
        let mut command = Command::new(HOSTED);
        command.args(["--wire", &wire, "--memory", "64M", "--cpus", "none"]).args(words);
        let (mut process, said) = Process::start(&mut command);
        let mut lines = said.lines().map(Result::unwrap);
        let mut warned = false;
        let started = lines.by_ref().any(|line| {
            warned |= line.contains("WARN  no --ip: ");
            line.contains("subsystem nqn.")
        });
        process.kill();
        assert!(started && warned != asked, "{words:?}");
    }
}

#[test]
fn it_goes_on_and_ends_in_good_order_when_nobody_reads_its_log_any_more() {
    let folder = Folder::new("unread");
    let wire = folder.path("wire");
    for (plan, signal) in [("single", "-TERM"), ("pair", "-INT")] {
        let mut command = Command::new(HOSTED);
        command.args(["--drive", "ram:1M", "--wire", &wire, "--plan", plan, "--ip", "10.0.0.1/24"]);
        command.args(["--memory", "64M", "--cpus", "none"]);
        let (mut process, said) = Process::start(&mut command);
        let mut lines = said.lines();
        let mut peer = None;
        let ready = lines.by_ref().map(Result::unwrap).any(|line| {
            peer = peer.take().or_else(|| std::os::unix::net::UnixStream::connect(&wire).ok());
            line.contains("INFO  ready: ")
        });
        assert!(ready, "{plan}");
        // From here on every line of the log is written in vain.
        drop((lines, peer));
        process.ask_to_end(signal);
        let status = process.wait();
        assert_eq!(status.code(), Some(0), "{plan}: {status}");
        assert!(!PathBuf::from(&wire).exists());
    }
}
