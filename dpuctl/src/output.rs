//! How answers look: tables for people, JSON for programs. The names in JSON are those of the mailbox, units last.

use std::time::Duration;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use message::Then;
use message::mailbox::{Core, Status};
use serde::Serialize;

fn json(value: &impl Serialize) -> String {
    // Names and numbers alone: there is nothing that JSON could not say.
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn table(heads: &[&str], numbers_from: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(heads.iter().copied());
    for column in table.column_iter_mut().skip(numbers_from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Days, hours, minutes and seconds, as far as there are any.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

pub fn status(status: &Status, as_json: bool) -> String {
    if as_json {
        return json(status);
    }
    let crashes = match (status.crashes, status.crashes_in_a_row) {
        (0, _) => "none since power-on".to_owned(),
        (all, in_a_row) => {
            format!("{all} since power-on, {in_a_row} in a row: `cargo xtask crash` reads the record")
        }
    };
    let configuration = if status.configuration_is_stored {
        "stored"
    } else {
        "not stored: what is set lasts until the next reset"
    };
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.add_row(["firmware", &format!("penstock {} for {}", status.version, status.board)]);
    table.add_row(["up", &span(Duration::from_micros(status.uptime_us))]);
    table.add_row(["cores", &format!("{}, plan {}", status.cores, status.plan)]);
    table.add_row(["crashes", &crashes]);
    table.add_row(["configuration", configuration]);
    table.to_string()
}

pub fn ending(then: Then, as_json: bool) -> String {
    if as_json {
        return json(&serde_json::json!({ "then": then }));
    }
    let then = match then {
        Then::Off => "switches itself off",
        Then::Restart => "starts anew",
    };
    format!(
        "the card finishes what hosts have begun and flushes its drives, then it {then}: its log says how far it is"
    )
}

pub fn cores(cores: &[Core], as_json: bool) -> String {
    if as_json {
        return json(&cores);
    }
    let heads = ["CORE", "ROLES", "PRODUCTIVE TURNS", "EMPTY TURNS", "SLEEPS", "ASLEEP", "LONGEST TURN"];
    let mut table = table(&heads, 2);
    for core in cores {
        let roles: Vec<_> = core.roles.iter().map(|role| role.name()).collect();
        table.add_row([
            core.number.to_string(),
            if roles.is_empty() { "-".to_owned() } else { roles.join(" ") },
            core.productive_turns.to_string(),
            core.empty_turns.to_string(),
            core.sleeps.to_string(),
            format!("{:.1} s", core.asleep_us as f64 / 1e6),
            format!("{} us", core.longest_turn_us),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use message::mailbox::{Role, Roles};

    use super::*;

    #[test]
    fn spans_have_two_units_at_most() {
        let of = |seconds| span(Duration::from_secs(seconds));
        assert_eq!([of(0), of(59), of(61)], ["0 s", "59 s", "1 min 1 s"]);
        assert_eq!([of(3600), of(90_000)], ["1 h 0 min", "1 d 1 h"]);
    }

    #[test]
    fn cores_are_lines_and_objects() {
        let core = Core {
            number: 1,
            roles: Roles::from_iter([Role::Net, Role::Drive]),
            productive_turns: 10,
            empty_turns: 20,
            sleeps: 3,
            asleep_us: 2_500_000,
            longest_turn_us: 40,
        };
        let text = cores(std::slice::from_ref(&core), false);
        let line = text.lines().nth(1).unwrap();
        assert_eq!(line.split_whitespace().collect::<Vec<_>>().join(" "), "1 net drive 10 20 3 2.5 s 40 us");
        let value: serde_json::Value = serde_json::from_str(&cores(&[core], true)).unwrap();
        assert_eq!(value[0]["asleep_us"], 2_500_000);
        assert_eq!(value[0]["roles"][1], "Drive");
    }
}
