//! ANA states on all data cores.
//!
//! One core begins all changes, so that all cores see them in one order. Each takes its part as in any change, that core too: it judges
//! I/O by the new state from then on, tells its controllers' hosts, and confirms when I/O that came before and that the state would
//! refuse has ended.

use message::Change;

use crate::ana::{AnaState, PortId};
use crate::cores::Begun;
use crate::cores::changes::MAX_ANA_CHANGES;
use crate::subsystem::Subsystem;

/// How a change of a port's ANA state begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnaStart {
    /// It is made: there are no other cores. I/O that came before may still be under way.
    Made,
    /// It is begun: it is made with [`crate::Heard::AnaChanged`].
    Begun,
    /// The port has that state, or there is no such port.
    Unchanged,
    /// Try again later: an earlier change of the port is under way.
    Busy,
}

impl Subsystem {
    /// Changes how hosts reach the namespaces by a port, on all cores. For the registrar alone.
    pub fn set_ana_state_everywhere(&mut self, port: PortId, state: AnaState) -> AnaStart {
        debug_assert!(self.is_registrar());
        let place = Change::Ana { port: port.0, state: state as u8 };
        let Some(cores) = self.cores.as_mut() else {
            return if self.set_ana_state(port, state) { AnaStart::Made } else { AnaStart::Unchanged };
        };
        let of_port = |begun: &Begun| matches!(begun.change, Change::Ana { port: of, .. } if of == port.0);
        let of_any = |begun: &Begun| matches!(begun.change, Change::Ana { .. });
        if cores.count(of_port) > 0 || cores.count(of_any) >= MAX_ANA_CHANGES {
            return AnaStart::Busy;
        }
        if !self.ports.has(port) || self.ports.state(port) == state {
            return AnaStart::Unchanged;
        }
        let begun = Begun::of(place);
        cores.begin(begun, cores.all()).map_or(AnaStart::Busy, |_| AnaStart::Begun)
    }
}
