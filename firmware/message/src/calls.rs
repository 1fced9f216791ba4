//! The way by which control asks a data core, and hears its answer: a ring each way, and a bell at each end.
//!
//! A data core that is not asked pays one look at its bell in each turn. Nobody waits: who finds a ring full says so. Tickets
//! tell an answer from one that nobody has the patience for any more.

use hal_mem::{Arena, Bell, Consumer, OutOfMemory, Producer};
use heapless::Vec;

use crate::MAX_DATA_CORES;
use crate::mailbox::{CoreAnswer, CoreCall, Error};

/// Requests and answers on their way between control and one data core. Control asks one thing after the other; an answer that
/// came too late may lie before it.
pub const CALL_RING_ENTRIES: usize = 2;

/// What a data core is asked.
#[derive(Debug)]
pub struct Request {
    /// Control's name for it, returned in the reply.
    pub ticket: u32,
    /// What.
    pub call: CoreCall,
}

/// What it answers.
#[derive(Debug)]
pub struct Reply {
    /// As in the request.
    pub ticket: u32,
    /// What was asked for, or why there is none.
    pub result: Result<CoreAnswer, Error>,
}

/// Control's end towards one data core.
#[derive(Debug)]
struct Way {
    requests: Producer<'static, Request, CALL_RING_ENTRIES>,
    replies: Consumer<'static, Reply, CALL_RING_ENTRIES>,
    /// The data core's.
    bell: &'static Bell,
}

/// Control's ends towards all data cores.
#[derive(Debug)]
pub struct Calls {
    ways: Vec<Way, MAX_DATA_CORES>,
    bell: &'static Bell,
    /// The cores whose rings may hold an answer, as the bell names them.
    heard: u32,
    last_ticket: u32,
    wake: fn(u8),
}

/// A data core's end.
#[derive(Debug)]
pub struct CallDesk {
    requests: Consumer<'static, Request, CALL_RING_ENTRIES>,
    replies: Producer<'static, Reply, CALL_RING_ENTRIES>,
    bell: &'static Bell,
    /// Control's, and which of its rings this is.
    control: &'static Bell,
    number: usize,
    /// The ring may hold a request.
    rung: bool,
    wake_control: fn(),
}

/// The ends of the ways between control and so many data cores, in the order of their numbers. `wake` wakes a data core,
/// `wake_control` the core where control runs.
///
/// # Errors
/// [`OutOfMemory`] when the arena is too small.
pub fn call_ways(
    arena: &mut Arena,
    cores: usize,
    wake: fn(u8),
    wake_control: fn(),
) -> Result<(Calls, Vec<CallDesk, MAX_DATA_CORES>), OutOfMemory> {
    let control: &'static Bell = arena.value(Bell::default())?;
    let (mut ways, mut desks) = (Vec::new(), Vec::new());
    for number in 0..cores.min(MAX_DATA_CORES) {
        let bell: &'static Bell = arena.value(Bell::default())?;
        let (to_data, from_control) = arena.ring()?.split();
        let (to_control, from_data) = arena.ring()?.split();
        // As many as there may be data cores.
        let _ = ways.push(Way { requests: to_data, replies: from_data, bell });
        let _ = desks.push(CallDesk {
            requests: from_control,
            replies: to_control,
            bell,
            control,
            number,
            rung: false,
            wake_control,
        });
    }
    Ok((Calls { ways, bell: control, heard: 0, last_ticket: 0, wake }, desks))
}

impl Calls {
    /// How many data cores can be asked.
    #[must_use]
    pub fn cores(&self) -> u8 {
        self.ways.len() as u8
    }

    /// Asks a data core; the reply has the ticket that this gives.
    ///
    /// # Errors
    /// [`Error::NoSuchCore`]; [`Error::CoreSilent`] where it has not taken what it was asked before.
    pub fn ask(&mut self, core: u8, call: CoreCall) -> Result<u32, Error> {
        let cores = self.cores();
        let way = self.ways.get_mut(usize::from(core)).ok_or(Error::NoSuchCore { core, cores })?;
        let ticket = self.last_ticket.wrapping_add(1);
        way.requests.push(Request { ticket, call }).map_err(|_| Error::CoreSilent { core })?;
        self.last_ticket = ticket;
        if way.bell.ring(0) {
            (self.wake)(core);
        }
        Ok(ticket)
    }

    /// The next reply of any core.
    pub fn hear(&mut self) -> Option<Reply> {
        self.heard |= self.bell.take();
        while self.heard != 0 {
            let from = self.heard.trailing_zeros() as usize;
            if let Some(reply) = self.ways.get_mut(from).and_then(|way| way.replies.pop()) {
                return Some(reply);
            }
            // What comes from now on rings again.
            self.heard &= !Bell::bit(from);
        }
        None
    }

    /// Asks to be woken by an answer. True when one may be there: then the core must not sleep.
    pub fn arm(&mut self) -> bool {
        let rung = self.bell.arm();
        let mut ways = (0..).zip(&mut self.ways).filter(|(from, _)| self.heard & Bell::bit(*from) != 0);
        rung || ways.any(|(_, way)| !way.replies.is_empty())
    }

    /// Control looks by itself.
    pub fn disarm(&mut self) {
        self.bell.disarm();
    }
}

impl CallDesk {
    /// The next request; none is taken while there is no room for its reply.
    pub fn take(&mut self) -> Option<Request> {
        self.rung |= self.bell.take() != 0;
        if !self.rung || !self.replies.has_room() {
            return None;
        }
        let request = self.requests.pop();
        self.rung = request.is_some();
        request
    }

    /// Answers a request that was taken.
    pub fn reply(&mut self, reply: Reply) {
        // There is room: `take` has looked, and one request is answered before the next is taken.
        let sent = self.replies.push(reply);
        debug_assert!(sent.is_ok());
        if self.control.ring(self.number) {
            (self.wake_control)();
        }
    }

    /// Asks to be woken by a request. True when one may be there: then the core must not sleep.
    pub fn arm(&mut self) -> bool {
        // One that waits for room is looked at when the core wakes by itself: control has not taken the replies before it.
        self.bell.arm() || (self.rung && self.replies.has_room())
    }

    /// The core looks by itself.
    pub fn disarm(&mut self) {
        self.bell.disarm();
    }
}

#[cfg(test)]
mod tests;
