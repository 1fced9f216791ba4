//! `bench` against a small target: what it prints and its exit codes, that it writes only where it may, and that it finds
//! the block that is wrong.

mod target;

use std::process::{Command, Output};
use std::sync::atomic::Ordering;

use target::{NSID, Plan, Target};

const NQN: &str = "nqn.2026-11.test:one";

fn bench(target: &Target, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dpuctl"));
    command.args(["bench", "--target", &target.address.to_string()]).args(words).output().unwrap()
}

fn one() -> Target {
    Target::start(Plan { nqns: vec![NQN], ..Plan::default() })
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", error(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A short load: 64 places.
const SHORT: [&str; 6] = ["--count", "200", "--area", "256k", "--depth", "8"];

#[test]
fn it_reads_alone_and_finds_the_only_subsystem() {
    let target = one();
    let value = json(&bench(&target, &[&SHORT[..], &["--connections", "2", "--json"]].concat()));
    assert_eq!((value["nqn"].as_str(), value["nsid"].as_u64()), (Some(NQN), Some(u64::from(NSID))));
    let run = &value["runs"][0];
    assert_eq!((run["all"]["commands"].as_u64(), run["read"]["commands"].as_u64()), (Some(200), Some(200)));
    assert!(run["write"].is_null() && run["read"]["p99_us"].as_f64() > Some(0.0));
    assert_eq!(target.writes.load(Ordering::Relaxed), 0);
}

#[test]
fn runs_are_lines_of_a_table() {
    let output = bench(&one(), &[&SHORT[..], &["--mix", "50", "--overwrite", "--runs", "2"]].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().take(2).collect()).collect();
    for line in [["1", "read"], ["1", "write"], ["1", "all"], ["2", "read"], ["2", "all"]] {
        assert!(lines.iter().any(|found| *found == line), "{text}");
    }
}

#[test]
fn nothing_is_written_unless_it_may_be() {
    let target = one();
    for words in [&["--read-percent", "99"][..], &["--verify"]] {
        let output = bench(&target, &[&SHORT[..], words].concat());
        assert_eq!(output.status.code(), Some(2));
        assert!(error(&output).contains("--overwrite"), "{}", error(&output));
    }
    assert_eq!(target.writes.load(Ordering::Relaxed), 0);
}

#[test]
fn what_is_written_is_what_is_read() {
    let target = one();
    let before = target.contents(3);
    let words = [&SHORT[..], &["--verify", "--overwrite", "--mix", "50", "--json"]].concat();
    assert_eq!(json(&bench(&target, &words))["verified"], true);
    assert!(target.writes.load(Ordering::Relaxed) > 64);
    assert_ne!(target.contents(3), before);
}

#[test]
fn a_wrong_block_is_named() {
    let target = Target::start(Plan { nqns: vec![NQN], wrong_block: Some(13) });
    // Without --verify nobody knows what it should be.
    assert!(bench(&target, &SHORT).status.success());
    let output = bench(&target, &[&SHORT[..], &["--verify", "--overwrite"]].concat());
    assert_eq!(output.status.code(), Some(65));
    assert!(error(&output).contains("block 13 of namespace 7"), "{}", error(&output));
    assert!(error(&output).contains("from byte 40 on"), "{}", error(&output));
}

#[test]
fn errors_say_what_to_do() {
    let several = Target::start(Plan { nqns: vec![NQN, "nqn.2026-11.test:two"], ..Plan::default() });
    let cases: [(&[&str], i32, &[&str]); 6] = [
        (&[], 2, &["--nqn", "test:one", "test:two"]),
        (&["--nqn", "nqn.2026-11.test:three"], 1, &["CONNECT_INVALID_PARAMETERS", "NQN"]),
        (&["--nqn", NQN, "--nsid", "9"], 2, &["no namespace 9", "there are 7"]),
        (&["--nqn", NQN, "--size", "1000"], 2, &["whole blocks of 512"]),
        (&["--nqn", NQN, "--size", "16k"], 2, &["at most 8192 bytes"]),
        (&["--nqn", NQN, "--data-digest"], 76, &["digests"]),
    ];
    for (words, code, says) in cases {
        let output = bench(&several, words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", error(&output));
        for part in says {
            assert!(error(&output).contains(part), "{words:?}: {}", error(&output));
        }
    }
}

#[test]
fn nobody_there_is_exit_69() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let mut command = Command::new(env!("CARGO_BIN_EXE_dpuctl"));
    let output = command.args(["bench", "--target", &address]).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", error(&output));
    assert!(error(&output).contains(&address));
}
