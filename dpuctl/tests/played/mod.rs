//! A card that a test plays: a socket that answers as the test says.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Output};

use message::mailbox::{Answer, Frame, FrameReader, MAX_FRAME_BYTES, Request, Response, Status, encode};

/// Runs the tool against a card that answers so, until the tool hangs up.
pub fn dpuctl(name: &str, words: &[&str], answer: impl Fn(&Request) -> Answer + Send + 'static) -> Output {
    let path = path(name);
    let listener = UnixListener::bind(&path).unwrap();
    let card = std::thread::spawn(move || serve(&listener, &answer));
    let mut command = Command::new(env!("CARGO_BIN_EXE_dpuctl"));
    let output = command.arg("--card").arg(&path).args(words).output().unwrap();
    // Ends the card where the tool has not asked it anything.
    let _ = std::os::unix::net::UnixStream::connect(&path);
    card.join().unwrap();
    let _ = std::fs::remove_file(&path);
    output
}

/// Where such a card's socket is.
pub fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("dpuctl-{name}-{}", std::process::id()))
}

/// Answers one tool until it hangs up.
pub fn serve(listener: &UnixListener, answer: &impl Fn(&Request) -> Answer) {
    let mut line = listener.accept().unwrap().0;
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
            let response = Response { sequence: request.sequence, result: Ok(answer(&request)) };
            let mut to = [0; MAX_FRAME_BYTES];
            line.write_all(encode(&response, &mut to).unwrap()).unwrap();
        }
    }
}

pub fn status() -> Status {
    Status {
        version: "9.8.7".try_into().unwrap(),
        board: "test".try_into().unwrap(),
        plan: "many".try_into().unwrap(),
        uptime_us: 61_000_000,
        cores: 3,
        data_cores: 2,
        crashes: 0,
        crashes_in_a_row: 0,
        configuration_is_stored: false,
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
