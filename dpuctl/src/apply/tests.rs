//! Files, and what is wrong with them.

use super::*;

const DEFAULT: &str = "nqn.2014-08.org.example:card";

fn namespace(serial: &str, nsid: u32, byte: u8) -> views::Namespace {
    views::Namespace {
        identity: uuid(&[byte; 16]),
        drive: Some(0),
        drive_serial: Some(serial.to_owned()),
        drive_nsid: Some(nsid),
        size_bytes: 1 << 20,
        block_bytes: 512,
        state: "attached",
        subsystem: Some(DEFAULT.to_owned()),
        declared: "nothing",
        nsid: Some(1),
        uuid: uuid(&[byte; 16]),
        nguid: None,
    }
}

fn card() -> Card {
    Card {
        default_nqn: Some(DEFAULT.try_into().unwrap()),
        namespaces: vec![namespace("one", 1, 1), namespace("two", 1, 2), namespace("two", 2, 3)],
        ports: BTreeSet::from([1]),
    }
}

fn judged(text: &str) -> Result<Declared, Vec<String>> {
    judge(&toml::from_str(text).unwrap(), &card())
}

const WHOLE: &str = r#"
automatic = false
detached = ["two:2"]

[[subsystem]]
nqn = "nqn.2014-08.org.example:a"
hosts = ["nqn.2014-08.org.example:h"]

[[subsystem.namespace]]
drive = "one"
nsid = 1
uuid = "00112233-4455-6677-8899-aabbccddeeff"

[[subsystem.namespace]]
drive = "99999999-9999-9999-9999-999999999999"

[[subsystem]]
nqn = "nqn.2014-08.org.example:card"
any_host = false

[[port]]
number = 1
access = "non-optimized"
listener = true
"#;

#[test]
fn a_file_says_what_is_declared_and_is_printed_again() {
    let declared = judged(WHOLE).unwrap();
    assert_eq!(declared.namespaces[&[3; 16]], None);
    assert_eq!(declared.namespaces[&[1; 16]].as_ref().unwrap().nsid, Some(1));
    // One that is away can be named.
    assert!(declared.namespaces[&[0x99; 16]].is_some());
    assert_eq!(declared.access[&1], PortAccess::NonOptimized);
    assert_eq!(judged(&file_of(&declared, false)).unwrap(), declared);
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let text = r#"
        detached = ["one", "three"]
        [[subsystem]]
        nqn = "nqn.2014-08.org.example:card"
        serial = "1"
        [[subsystem]]
        nqn = "a"
        [[subsystem]]
        nqn = "nqn.2014-08.org.example:a"
        serial = "123456789012345678901"
        namespace = [{ drive = "one", nsid = 1 }, { drive = "two", nsid = 1 }, { drive = "two:1", uuid = "x" }]
        [[subsystem]]
        nqn = "nqn.2014-08.org.example:a"
        [[port]]
        number = 3
        access = "good"
    "#;
    let reasons = judged(text).unwrap_err();
    let expected = [
        "is the default subsystem",
        "begins with `nqn.`",
        "is not ASCII of 20 letters",
        "has NSID 1 twice",
        "has several namespaces",
        "not a UUID",
        "is declared twice",
        "the namespace one is declared twice",
        "no drive has the namespace three",
        "no port 3",
        "is not optimized",
    ];
    for (place, part) in expected.iter().enumerate() {
        assert!(reasons.get(place).is_some_and(|reason| reason.contains(part)), "{part}: {reasons:#?}");
    }
    assert_eq!(reasons.len(), expected.len(), "{reasons:#?}");
}

#[test]
fn names_that_a_card_would_refuse_are_told_before_it_is_asked() {
    let two = uuid(&[2; 16]);
    let of = |nqn: &str, keys: &str| {
        let text = format!("[[subsystem]]\nnqn = \"{nqn}\"\nnamespace = [{{ drive = \"one\", {keys} }}]");
        judged(&text).err().unwrap_or_default().join("; ")
    };
    let other = "nqn.2014-08.org.example:a";
    assert!(of(other, "nsid = 0").contains("from 1 to 1048575"));
    assert!(of(other, "nsid = 1048576").contains("from 1 to 1048575"));
    assert!(of(other, "uuid = \"00000000-0000-0000-0000-000000000000\"").contains("zeros"));
    assert!(of(other, &format!("uuid = \"{two}\"")).contains("of drive two"));
    // All of the card's stand in the default subsystem with NSID 1.
    assert!(of(DEFAULT, "nsid = 1").contains("NSID 1 of"));
    assert_eq!(of(other, "nsid = 1"), "");
}

#[test]
fn more_than_a_card_can_have_is_told() {
    let subsystem = |number: usize| {
        let hosts = (0..5).map(|host| format!("\"nqn.h{number}.{host}\"")).collect::<Vec<_>>().join(", ");
        format!("[[subsystem]]\nnqn = \"nqn.s{number}\"\nhosts = [{hosts}]\n")
    };
    let file = |count| (0..count).map(subsystem).collect::<String>();
    assert!(judged(&file(12)).is_ok());
    let reasons = judged(&file(16)).unwrap_err();
    assert!(reasons[0].contains("17 subsystems") && reasons[1].contains("80 different hosts"), "{reasons:?}");
}

#[test]
fn a_word_that_is_misspelt_is_no_word() {
    assert!(toml::from_str::<File>("automatik = true").is_err());
    assert!(toml::from_str::<File>("[[subsystem]]\nnqn = \"nqn.a\"\nhost = []").is_err());
}

#[test]
fn nothing_declared_is_a_file_too() {
    let text = file_of(&Declared::default(), false);
    assert_eq!(judged(&text).unwrap(), Declared::default());
}
