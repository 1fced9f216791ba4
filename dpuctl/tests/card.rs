//! The tool against cards that answer, refuse, say nothing, and talk nonsense: what it prints, and its exit codes.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output};

use message::mailbox::{
    Answer, Call, Edition, Error, Frame, FrameReader, MAX_FRAME_BYTES, Request, Response, Status, encode,
};

/// A path for a socket, which goes with it.
struct Path(PathBuf);

impl Path {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("dpuctl-{name}-{}", std::process::id())))
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs the tool against a card that `serve` plays.
fn dpuctl(name: &str, words: &[&str], serve: impl FnOnce(UnixStream) + Send + 'static) -> Output {
    let path = Path::new(name);
    let listener = UnixListener::bind(&path.0).unwrap();
    let card = std::thread::spawn(move || serve(listener.accept().unwrap().0));
    let output = tool(&["--card", path.0.to_str().unwrap(), "--timeout", "0.3"], words);
    card.join().unwrap();
    output
}

fn tool(before: &[&str], words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dpuctl"));
    command.env_remove("DPUCTL_CARD").args(before).args(words).output().unwrap()
}

/// Answers each request until the tool hangs up.
fn answer(mut line: UnixStream, mut answer: impl FnMut(&Request) -> Vec<Response>) {
    let (mut reader, mut bytes) = (FrameReader::new(), [0; 256]);
    loop {
        let count = line.read(&mut bytes).unwrap_or(0);
        if count == 0 {
            return;
        }
        let mut rest = &bytes[..count];
        while !rest.is_empty() {
            let (taken, frame) = reader.take::<Request>(rest);
            rest = &rest[taken..];
            let Some(frame) = frame else { continue };
            let Frame::Message(request) = frame else { panic!("{frame:?}") };
            for response in answer(&request) {
                let mut to = [0; MAX_FRAME_BYTES];
                line.write_all(encode(&response, &mut to).unwrap()).unwrap();
            }
        }
    }
}

fn status() -> Status {
    Status {
        version: "9.8.7".try_into().unwrap(),
        board: "test".try_into().unwrap(),
        plan: "many".try_into().unwrap(),
        uptime_us: 61_000_000,
        cores: 4,
        data_cores: 3,
        crashes: 2,
        crashes_in_a_row: 1,
        configuration_is_stored: false,
    }
}

fn well(request: &Request) -> Response {
    let answer = match request.call {
        Call::Hello(edition) => Answer::Hello(edition),
        _ => Answer::Status(status()),
    };
    Response { sequence: request.sequence, result: Ok(answer) }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn an_answer_is_printed_for_people_and_for_programs() {
    let output = dpuctl("table", &["status"], |line| answer(line, |request| vec![well(request)]));
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(printed.contains("penstock 9.8.7 for test") && printed.contains("1 min 1 s"), "{printed}");
    assert!(printed.contains("2 since power-on, 1 in a row"), "{printed}");
    let output = dpuctl("json", &["status", "--json"], |line| answer(line, |request| vec![well(request)]));
    let printed = text(&output.stdout);
    assert!(
        printed.contains("\"uptime_us\": 61000000") && printed.contains("\"plan\": \"many\""),
        "{printed}"
    );
}

#[test]
fn what_was_meant_for_another_tool_is_passed_over() {
    let output = dpuctl("stale", &["status"], |mut line| {
        // The end of a response, then a whole one.
        line.write_all(&[9, 9, 0]).unwrap();
        answer(line, |request| {
            let stale = Response { sequence: request.sequence.wrapping_sub(7), result: Err(Error::NoHello) };
            vec![stale, well(request)]
        });
    });
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn a_card_of_another_edition_is_named_beside_the_tool() {
    let output = dpuctl("edition", &["status"], |line| {
        answer(line, |request| {
            let card = Edition { version: 77, fingerprint: 0xabcd };
            let refusal = Error::Edition { card, client: Edition::HERE };
            vec![Response { sequence: request.sequence, result: Err(refusal) }]
        });
    });
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("version 77") && said.contains(&Edition::HERE.to_string()), "{said}");
}

#[test]
fn a_card_that_says_nothing_or_hangs_up_is_unavailable() {
    let silent = |mut line: UnixStream| _ = line.read_to_end(&mut Vec::new());
    let output = dpuctl("silent", &["status"], silent);
    assert_eq!(output.status.code(), Some(69));
    assert!(text(&output.stderr).contains("did not answer within 300ms"), "{}", text(&output.stderr));
    let output = dpuctl("gone", &["status"], drop);
    assert_eq!(output.status.code(), Some(69), "{}", text(&output.stderr));
    let output = tool(&["--card", "/nowhere/at/all"], &["status"]);
    assert_eq!(output.status.code(), Some(69));
    assert!(text(&output.stderr).contains("is the card running"), "{}", text(&output.stderr));
    assert_eq!(tool(&[], &["status"]).status.code(), Some(69));
}

#[test]
fn nonsense_is_told_apart_from_silence() {
    let output = dpuctl("nonsense", &["status"], |mut line| {
        line.write_all(b"login: \0password: \0").unwrap();
        let _ = line.read_to_end(&mut Vec::new());
    });
    assert_eq!(output.status.code(), Some(76), "{}", text(&output.stderr));
    // An answer to another question.
    let output = dpuctl("other", &["cores"], |line| answer(line, |request| vec![well(request)]));
    assert_eq!(output.status.code(), Some(76), "{}", text(&output.stderr));
}

#[test]
fn the_command_line_is_checked_before_a_card_is_asked() {
    assert_eq!(tool(&[], &["nothing"]).status.code(), Some(2));
    assert_eq!(tool(&["--timeout", "0"], &["status"]).status.code(), Some(2));
    let output = tool(&[], &["completions", "bash"]);
    assert!(output.status.success() && text(&output.stdout).contains("dpuctl"));
}
