//! Commands that change what is declared, one change at a time; `apply.rs` makes many.

use clap::{Subcommand, ValueEnum};
use message::configuration::{
    ConfigurationChange as Change, DriveNamespace, NamespaceSetting, Nqn, PortAccess, SubsystemSetting,
};
use message::mailbox::{Answer, Call, Kept};

use crate::client::{Client, Failure};
use crate::survey;

/// What hosts are told of a subsystem where nothing else is declared.
pub const MODEL: &str = "Penstock";

/// What becomes of a subsystem.
#[derive(Subcommand, Debug)]
pub enum Subsystem {
    /// Create a subsystem; nobody may connect to it until hosts are allowed
    Create {
        /// Its NQN
        #[arg(value_parser = nqn)]
        nqn: Nqn,
        /// Serial number, up to 20 letters [default: made of its NQN]
        #[arg(long)]
        serial: Option<String>,
        /// Model, up to 40 letters
        #[arg(long, default_value = MODEL)]
        model: String,
        /// Let any host connect
        #[arg(long)]
        any_host: bool,
    },
    /// Delete a subsystem: its hosts are cut off, and its namespaces stay detached until they are attached or released
    Delete {
        /// Its NQN
        #[arg(value_parser = nqn)]
        nqn: Nqn,
    },
    /// Let a host connect
    Allow {
        /// The subsystem's NQN
        #[arg(value_parser = nqn)]
        nqn: Nqn,
        /// The host's NQN (`nvme show-hostnqn` there)
        #[arg(value_parser = nqn)]
        host: Nqn,
    },
    /// Do not let a host connect any more: unless any host may, it is cut off
    Disallow {
        /// The subsystem's NQN
        #[arg(value_parser = nqn)]
        nqn: Nqn,
        /// The host's NQN
        #[arg(value_parser = nqn)]
        host: Nqn,
    },
    /// Say whether any host may connect; without, those that are not allowed by name are cut off
    AnyHost {
        /// The subsystem's NQN
        #[arg(value_parser = nqn)]
        nqn: Nqn,
        /// Whether
        state: Switch,
    },
}

/// What becomes of a namespace.
#[allow(clippy::large_enum_variant, reason = "one exists in a run of the tool")]
#[derive(Subcommand, Debug)]
pub enum Namespace {
    /// Attach a drive's namespace to a subsystem, which it is in no other of
    Attach {
        /// The drive's serial number, `SERIAL:NSID` where it has several namespaces, or the UUID that `dpuctl namespaces` names it by
        drive: String,
        /// The subsystem's NQN
        #[arg(long, value_parser = nqn)]
        subsystem: Nqn,
        /// NSID in that subsystem [default: derived from the drive]
        #[arg(long)]
        nsid: Option<u32>,
        /// UUID that hosts see [default: derived from the drive]
        #[arg(long, value_parser = bytes_of_16)]
        uuid: Option<[u8; 16]>,
        /// NGUID that hosts see [default: the drive's own]
        #[arg(long, value_parser = bytes_of_16)]
        nguid: Option<[u8; 16]>,
    },
    /// Detach a drive's namespace: hosts' commands end, and nobody sees it until it is attached or released
    Detach {
        /// As for `attach`
        drive: String,
    },
    /// Declare nothing of a detached namespace any more: it goes back to the default subsystem, if that takes any
    Release {
        /// As for `attach`
        drive: String,
    },
    /// Say whether namespaces of which nothing is declared are in the default subsystem
    Automatic {
        /// Whether
        state: Switch,
    },
}

/// What becomes of a port.
#[derive(Subcommand, Debug)]
pub enum Port {
    /// Set the ANA state of a port: hosts with another path are moved there, or come back
    Access {
        /// Its number, from 1
        port: u16,
        /// The state
        state: Access,
    },
    /// Say whether hosts can connect by a port; if not, those that are there are cut off
    Listener {
        /// Its number, from 1
        port: u16,
        /// Whether
        state: Switch,
    },
}

/// On or off.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    On,
    Off,
}

/// ANA states, as nvme-cli writes them.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Optimized,
    NonOptimized,
    Inaccessible,
    PersistentLoss,
}

impl From<Access> for PortAccess {
    fn from(access: Access) -> Self {
        match access {
            Access::Optimized => Self::Optimized,
            Access::NonOptimized => Self::NonOptimized,
            Access::Inaccessible => Self::Inaccessible,
            Access::PersistentLoss => Self::PersistentLoss,
        }
    }
}

impl Subsystem {
    /// The change that it is.
    pub fn change(&self) -> Result<Change, Failure> {
        Ok(match self {
            Self::Create { nqn, serial, model, any_host } => {
                let serial = serial.clone().unwrap_or_else(|| serial_of(nqn));
                Change::CreateSubsystem(SubsystemSetting {
                    nqn: nqn.clone(),
                    serial: fitting("serial number", &serial)?,
                    model: fitting("model", model)?,
                    any_host: *any_host,
                })
            }
            Self::Delete { nqn } => Change::DeleteSubsystem { subsystem: nqn.clone() },
            Self::Allow { nqn, host } => Change::AllowHost { subsystem: nqn.clone(), host: host.clone() },
            Self::Disallow { nqn, host } => {
                Change::DisallowHost { subsystem: nqn.clone(), host: host.clone() }
            }
            Self::AnyHost { nqn, state } => {
                Change::SetAnyHost { subsystem: nqn.clone(), any_host: *state == Switch::On }
            }
        })
    }
}

impl Namespace {
    /// The change that it is; the card knows which namespace is meant.
    pub fn change(&self, client: &mut Client) -> Result<Change, Failure> {
        Ok(match self {
            Self::Attach { drive, subsystem, nsid, uuid, nguid } => {
                Change::AttachNamespace(NamespaceSetting {
                    namespace: drive_namespace(client, drive)?,
                    subsystem: subsystem.clone(),
                    nsid: *nsid,
                    uuid: *uuid,
                    nguid: *nguid,
                })
            }
            Self::Detach { drive } => Change::DetachNamespace { namespace: drive_namespace(client, drive)? },
            Self::Release { drive } => {
                Change::ReleaseNamespace { namespace: drive_namespace(client, drive)? }
            }
            Self::Automatic { state } => Change::SetAutomatic { automatic: *state == Switch::On },
        })
    }
}

impl Port {
    /// The change that it is.
    pub fn change(&self) -> Change {
        match *self {
            Self::Access { port, state } => Change::SetPortAccess { port, access: state.into() },
            Self::Listener { port, state } => Change::SetListener { port, enabled: state == Switch::On },
        }
    }
}

/// Makes a change; how long it lasts.
pub fn make(client: &mut Client, change: Change) -> Result<Kept, Failure> {
    match client.call(Call::Change(change))? {
        Answer::Changed(kept) => Ok(kept),
        _ => Err(Failure::Nonsense),
    }
}

/// The namespace that `name` means.
fn drive_namespace(client: &mut Client, name: &str) -> Result<DriveNamespace, Failure> {
    if let Ok(identity) = bytes_of_16(name) {
        return Ok(identity);
    }
    find_namespace(name, &survey::namespaces(client)?).map_err(Failure::Usage)
}

/// The namespace of a drive by its serial number, with the NSID there if it has several.
pub fn find_namespace(name: &str, known: &[crate::views::Namespace]) -> Result<DriveNamespace, String> {
    let (serial, nsid) = match name.rsplit_once(':') {
        Some((serial, nsid)) if nsid.parse::<u32>().is_ok() => (serial, nsid.parse().ok()),
        _ => (name, None),
    };
    let of_drive = known.iter().filter(|namespace| namespace.drive_serial.as_deref() == Some(serial));
    let mut found = of_drive.filter(|namespace| nsid.is_none() || namespace.drive_nsid == nsid);
    match (found.next(), found.next()) {
        (Some(namespace), None) => bytes_of_16(&namespace.identity).map_err(|why| format!("{name}: {why}")),
        (Some(_), Some(_)) => Err(format!(
            "drive {serial} has several namespaces: say which, as {serial}:NSID (`dpuctl namespaces` lists them)"
        )),
        (None, _) => Err(format!("no drive has the namespace {name}: `dpuctl namespaces` lists them")),
    }
}

/// A serial number for a subsystem that nobody has given one: the same whenever it is created.
pub fn serial_of(nqn: &str) -> String {
    // FNV-1a: no secret, and 64 bits tell the subsystems of a data centre apart.
    let hash = nqn.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("PS{hash:016X}")
}

pub fn nqn(text: &str) -> Result<Nqn, String> {
    let is_nqn =
        text.starts_with("nqn.") && text.len() <= 223 && text.chars().all(|letter| !letter.is_control());
    if is_nqn {
        Nqn::try_from(text).map_err(|_| "too long".to_owned())
    } else {
        Err("an NQN begins with `nqn.` and has 223 letters at most".to_owned())
    }
}

/// A UUID, or 32 hexadecimal digits.
pub fn bytes_of_16(text: &str) -> Result<[u8; 16], String> {
    let digits: String = text.chars().filter(|letter| *letter != '-').collect();
    let wrong = || "a UUID, or 32 hexadecimal digits".to_owned();
    if digits.len() != 32 || !digits.is_ascii() {
        return Err(wrong());
    }
    let mut bytes = [0; 16];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * place..2 * place + 2], 16).map_err(|_| wrong())?;
    }
    Ok(bytes)
}

/// A text that there is room for.
pub fn fitting<const N: usize>(what: &str, text: &str) -> Result<heapless::String<N>, Failure> {
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    let fitting = heapless::String::try_from(text).ok().filter(|_| printable);
    fitting.ok_or_else(|| Failure::Usage(format!("the {what} {text:?} is not ASCII of {N} letters at most")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sixteen_bytes_are_uuids_or_digits() {
        let uuid = bytes_of_16("00112233-4455-6677-8899-aabbccddeeff").unwrap();
        assert_eq!(bytes_of_16("00112233445566778899AABBCCDDEEFF").unwrap(), uuid);
        for wrong in
            ["", "0011", "00112233-4455-6677-8899-aabbccddeefg", "\u{e9}0112233445566778899aabbccddeef"]
        {
            assert!(bytes_of_16(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_subsystem_has_the_same_serial_number_whenever_it_is_created() {
        assert_eq!(serial_of("nqn.a"), serial_of("nqn.a"));
        assert!(serial_of("nqn.a") != serial_of("nqn.b") && serial_of("nqn.a").len() <= 20);
    }

    #[test]
    fn what_is_no_nqn_is_told_before_a_card_is_asked() {
        assert!(nqn("nqn.2014-08.org.example:a").is_ok());
        for wrong in ["", "iqn.x", &format!("nqn.{}", "x".repeat(220)), "nqn.\n"] {
            assert!(nqn(wrong).is_err(), "{wrong}");
        }
        assert!(fitting::<20>("serial number", "123456789012345678901").is_err());
        assert!(fitting::<20>("serial number", "\u{e9}").is_err());
    }
}
