//! `nvme` against a small target: what it prints, that blocks come back as they were written, and that nothing is written
//! unless it may be.

mod target;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::Ordering;

use target::{BLOCK_BYTES, BLOCKS, NSID, Plan, Target};

const NQN: &str = "nqn.2026-11.test:one";

fn one() -> Target {
    Target::start(Plan { nqns: vec![NQN], ..Plan::default() })
}

fn nvme(target: &Target, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dpuctl"));
    command.arg("nvme").args(words).args(["--target", &target.address.to_string()]).output().unwrap()
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(target: &Target, words: &[&str]) -> serde_json::Value {
    let output = nvme(target, &[words, &["--json"]].concat());
    assert!(output.status.success(), "{words:?}: {}", error(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(target: &Target, words: &[&str]) -> String {
    let output = nvme(target, words);
    assert!(output.status.success(), "{words:?}: {}", error(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A file, which goes with it.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("dpuctl-nvme-{name}-{}", std::process::id())))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn discovery_names_each_subsystem() {
    let target = Target::start(Plan { nqns: vec![NQN, "nqn.2026-11.test:two"], ..Plan::default() });
    let value = json(&target, &["discover"]);
    assert_eq!(
        (value[0]["nqn"].as_str(), value[1]["nqn"].as_str()),
        (Some(NQN), Some("nqn.2026-11.test:two"))
    );
    assert_eq!((value[0]["address"].as_str(), value[0]["port"].as_str()), (Some("10.0.0.1"), Some("4420")));
    assert_eq!((value[0]["kind"].as_str(), value[0]["transport"].as_str()), (Some("nvm"), Some("tcp")));
    assert!(text(&target, &["discover"]).lines().nth(1).unwrap().contains(NQN));
}

#[test]
fn the_controller_and_its_namespaces_are_identified() {
    let target = one();
    let controller = json(&target, &["id-ctrl"]);
    assert_eq!(
        (controller["model"].as_str(), controller["serial"].as_str()),
        (Some("MODEL"), Some("SERIAL"))
    );
    assert_eq!(
        (controller["version"].as_str(), controller["max_transfer_bytes"].as_u64()),
        (Some("1.4.0"), Some(8192))
    );
    let lines = text(&target, &["id-ctrl"]);
    let first: Vec<&str> = lines.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(first, ["model", "MODEL"]);
    let namespace = json(&target, &["id-ns", "--nsid", "7"]);
    assert_eq!((namespace["blocks"].as_u64(), namespace["block_bytes"].as_u64()), (Some(2048), Some(512)));
    assert_eq!(namespace["uuid"].as_str(), Some("cdcdcdcd-cdcd-cdcd-cdcd-cdcdcdcdcdcd"));
    assert_eq!(namespace["nguid"].as_str(), Some("ab".repeat(16).as_str()));
    assert!(namespace["eui64"].is_null());
    assert_eq!(json(&target, &["list-ns"])[0]["nsid"].as_u64(), Some(u64::from(NSID)));
    assert_eq!(nvme(&target, &["id-ns", "--nsid", "8"]).status.code(), Some(2));
}

#[test]
fn logs_are_read() {
    let target = one();
    let smart = json(&target, &["smart-log"]);
    assert_eq!((smart["temperature_c"].as_i64(), smart["host_reads"].as_u64()), (Some(27), Some(42)));
    let group = &json(&target, &["ana-log"])["groups"][0];
    assert_eq!((group["state"].as_str(), group["namespaces"][0].as_u64()), (Some("optimized"), Some(7)));
    let bytes = json(&target, &["get-log", "--page", "0x02", "--bytes", "8"])["bytes"].clone();
    assert_eq!(bytes, serde_json::json!([0, 44, 1, 100, 10, 0, 0, 0]));
    let refused = nvme(&target, &["get-log", "--page", "0xc0"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(error(&refused).contains("log page 0xc0") && error(&refused).contains("INVALID_LOG_PAGE"));
}

#[test]
fn blocks_come_back_as_they_were_written() {
    let target = one();
    let (input, out) = (File::new("input"), File::new("out"));
    // More than a command takes (8 KiB), and not whole blocks.
    let data: Vec<u8> = (0..20_000_u32).map(|number| ((number * 7) >> 3) as u8).collect();
    std::fs::write(&input.0, &data).unwrap();
    let words = ["write", "--block", "100", "--input", input.path()];
    let refused = nvme(&target, &words);
    assert_eq!((refused.status.code(), target.writes.load(Ordering::Relaxed)), (Some(2), 0));
    assert!(error(&refused).contains("--overwrite"));
    assert!(text(&target, &[&words[..], &["--overwrite"]].concat()).starts_with("40 blocks"));
    assert_eq!(target.writes.load(Ordering::Relaxed), 3);
    assert_eq!(target.contents(116), data[16 * BLOCK_BYTES..][..BLOCK_BYTES]);
    text(&target, &["flush"]);
    text(&target, &["read", "--block", "100", "--blocks", "40", "--out", out.path()]);
    let read = std::fs::read(&out.0).unwrap();
    assert_eq!((&read[..data.len()], read.len()), (&data[..], 40 * BLOCK_BYTES));
    assert!(read[data.len()..].iter().all(|byte| *byte == 0));
    let shown = text(&target, &["read", "--block", "100"]);
    assert!(shown.starts_with("00000000  00 00 01 02 03 04"), "{shown}");
}

#[test]
fn what_goes_beyond_the_namespace_is_not_asked_for() {
    let (target, last) = (one(), (BLOCKS - 1).to_string());
    assert!(nvme(&target, &["read", "--block", &last]).status.success());
    let beyond = nvme(&target, &["read", "--block", &last, "--blocks", "2"]);
    assert_eq!(beyond.status.code(), Some(2));
    assert!(error(&beyond).contains("2048 blocks"), "{}", error(&beyond));
}
