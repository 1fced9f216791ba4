//! The inputs that broke other targets, against the target in this process. `xtask`'s scenario `bad-input` says the same to a card.

use std::time::Duration;

use controller::{Listener, PortId};
use nvmeof_model::cases::{Bench, CASES};
use nvmeof_model::{for_each_case, wire};

use super::card::*;
use crate::Limits;

/// A card, and its connections in the order in which the case has opened them.
struct Here {
    card: Card,
    taken: Vec<Vec<u8>>,
}

impl Bench for Here {
    fn open(&mut self) -> Result<usize, String> {
        self.card.open().ok_or("no place")?;
        self.taken.push(Vec::new());
        Ok(self.taken.len() - 1)
    }

    fn send(&mut self, id: usize, bytes: &[u8]) {
        let index = self.card.pipes[id].0;
        let pipe = &mut self.card.pipes[id].1;
        if !pipe.closed && !pipe.aborted {
            self.card.send(index, bytes);
        }
    }

    fn next(&mut self, id: usize) -> Result<Option<Vec<u8>>, String> {
        self.card.run();
        let (pipe, taken) = (&mut self.card.pipes[id].1, &mut self.taken[id]);
        taken.append(&mut pipe.to_host);
        match wire::whole_pdu(taken) {
            Some(length) => Ok(Some(taken.drain(..length).collect())),
            None if pipe.closed || pipe.aborted => Ok(None),
            None => Err("no answer".into()),
        }
    }

    fn close(&mut self, id: usize) {
        self.card.run();
        let (index, pipe) = &self.card.pipes[id];
        if !pipe.closed && !pipe.aborted {
            let index = *index;
            self.card.cut(index);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.card.run();
        self.card.tick_at(self.card.now + time);
    }

    fn nqn(&self) -> &'static str {
        NQN
    }
}

fn case(name: &str) {
    let limits = Limits { connections: 16, slots: 600, data_pages_per_connection: 512, ..UNLIMITED };
    for fragment in [7, 4096] {
        let mut here = Here { card: Card::with(limits, POOL_PAGES), taken: Vec::new() };
        here.card.fragment = fragment;
        // So that the discovery log has entries.
        let listener = Listener { port_id: PortId::FIRST, address: [192, 0, 2, 1].into(), port: 4420 };
        here.card.subsystem.set_listeners(&[listener]);
        let case = CASES.iter().find(|case| case.name == name).expect("a case");
        case.run(&mut here).unwrap_or_else(|what| panic!("in pieces of {fragment} bytes: {what}"));
        here.card.assert_clean();
    }
}

macro_rules! named_tests {
    ($($module:ident: $($name:ident),+;)+) => {
        $(mod $module {
            $(#[test]
            fn $name() {
                super::case(stringify!($name));
            })+
        })+
    };
}
for_each_case!(named_tests);
