//! What the card has, asked page by page of control and of each data core, and put together.

use message::configuration::{NamespaceReading, Nqn, SubsystemPlace, SubsystemReading};
use message::mailbox::{Answer, Call, Core, CoreAnswer, CoreCall, DriveCounters, PortCounters, Status};

use crate::client::{Client, Failure};
use crate::declared::Declared;
use crate::views::{Drive, Host, Namespace, Port, Queue, Subsystem};

pub fn status(client: &mut Client) -> Result<Status, Failure> {
    match client.call(Call::Status)? {
        Answer::Status(status) => Ok(status),
        _ => Err(Failure::Nonsense),
    }
}

pub fn cores(client: &mut Client) -> Result<Vec<Core>, Failure> {
    let page = |first| match client.call(Call::Cores { first })? {
        Answer::Cores(more) => Ok(more.cores.into_iter().collect()),
        _ => Err(Failure::Nonsense),
    };
    all(page, |core| core.number)
}

pub fn drives(client: &mut Client) -> Result<Vec<Drive>, Failure> {
    let mut drives: Vec<Drive> = Vec::new();
    for core in data_cores(client)? {
        let page = |first| match of_core(client, core, CoreCall::Drives { first })? {
            CoreAnswer::Drives(more) => Ok(more.into_iter().collect()),
            _ => Err(Failure::Nonsense),
        };
        for of_core in all(page, |drive: &message::mailbox::Drive| drive.number)? {
            match drives.iter_mut().find(|drive| drive.number == of_core.number) {
                Some(drive) => drive.add(&of_core),
                None => drives.push(Drive::of(&of_core)),
            }
        }
    }
    drives.sort_by_key(|drive| drive.number);
    Ok(drives)
}

pub fn ports(client: &mut Client) -> Result<Vec<Port>, Failure> {
    let mut ports: Vec<Port> = Vec::new();
    for core in data_cores(client)? {
        let CoreAnswer::Ports(of_core) = of_core(client, core, CoreCall::Ports)? else {
            return Err(Failure::Nonsense);
        };
        for port in &of_core {
            match ports.iter_mut().find(|known| known.number == port.number) {
                Some(known) => add_port(&mut known.counters, &port.counters),
                None => ports.push(Port::of(port)),
            }
        }
    }
    Ok(ports)
}

pub fn subsystems(client: &mut Client) -> Result<Vec<Subsystem>, Failure> {
    let mut subsystems: Vec<Subsystem> = Vec::new();
    for core in data_cores(client)? {
        let page = |first| match of_core(client, core, CoreCall::Subsystems { first: SubsystemPlace(first) })?
        {
            CoreAnswer::Subsystems(more) => Ok(more.into_iter().collect()),
            _ => Err(Failure::Nonsense),
        };
        for of_core in all(page, |of: &SubsystemReading| of.place.0)? {
            match subsystems.iter_mut().find(|of| of.place == of_core.place) {
                // Each core has its own controllers.
                Some(of) => of.controllers += u32::from(of_core.controllers),
                None => subsystems.push(Subsystem::of(&of_core)),
            }
        }
    }
    for subsystem in &mut subsystems {
        let place = subsystem.place;
        let page = |first| match of_core(client, 0, CoreCall::AllowedHosts { subsystem: place, first })? {
            CoreAnswer::AllowedHosts(more) => Ok(more.into_iter().collect()),
            _ => Err(Failure::Nonsense),
        };
        let hosts = all(page, |(number, _): &(u8, Nqn)| *number)?;
        subsystem.hosts = hosts.into_iter().map(|(_, host)| host).collect();
    }
    Ok(subsystems)
}

pub fn namespaces(client: &mut Client) -> Result<Vec<Namespace>, Failure> {
    // The first core keeps them for all.
    let page = |first| match of_core(client, 0, CoreCall::Namespaces { first })? {
        CoreAnswer::Namespaces(more) => Ok(more.into_iter().collect()),
        _ => Err(Failure::Nonsense),
    };
    let namespaces = all(page, |namespace: &NamespaceReading| namespace.number)?;
    let (drives, subsystems) = (drives(client)?, subsystems(client)?);
    Ok(namespaces.iter().map(|namespace| Namespace::of(namespace, &drives, &subsystems)).collect())
}

/// What is declared.
pub fn declared(client: &mut Client) -> Result<Declared, Failure> {
    let mut changes = Vec::new();
    loop {
        let first = u16::try_from(changes.len()).map_err(|_| Failure::Nonsense)?;
        match client.call(Call::Configuration { first })? {
            Answer::Configuration(more) if more.is_empty() => return Ok(Declared::of(changes)),
            Answer::Configuration(more) => changes.extend(more),
            _ => return Err(Failure::Nonsense),
        }
    }
}

pub fn hosts(client: &mut Client) -> Result<Vec<Host>, Failure> {
    let subsystems = subsystems(client)?;
    let mut hosts = Vec::new();
    for core in data_cores(client)? {
        let page = |first| match of_core(client, core, CoreCall::Controllers { first })? {
            CoreAnswer::Controllers(more) => Ok(more.into_iter().collect()),
            _ => Err(Failure::Nonsense),
        };
        let controllers = all(page, |controller: &message::mailbox::Controller| controller.cntlid)?;
        hosts.extend(controllers.iter().map(|controller| Host::of(controller, core, &subsystems)));
    }
    hosts.sort_by(|one, other| (&one.host_nqn, one.cntlid).cmp(&(&other.host_nqn, other.cntlid)));
    Ok(hosts)
}

pub fn queues(client: &mut Client) -> Result<Vec<Queue>, Failure> {
    let mut queues = Vec::new();
    for core in data_cores(client)? {
        let page = |first| match of_core(client, core, CoreCall::Queues { first })? {
            CoreAnswer::Queues(more) => Ok(more.into_iter().collect()),
            _ => Err(Failure::Nonsense),
        };
        let places = all(page, |queue: &message::mailbox::Queue| queue.place)?;
        queues.extend(places.iter().map(|queue| Queue::of(queue, core)));
    }
    queues.sort_by_key(|queue| (queue.cntlid.unwrap_or(u16::MAX), queue.queue_id));
    Ok(queues)
}

pub fn data_cores(client: &mut Client) -> Result<std::ops::Range<u8>, Failure> {
    status(client).map(|status| 0..status.data_cores)
}

pub fn of_core(client: &mut Client, core: u8, call: CoreCall) -> Result<CoreAnswer, Failure> {
    match client.call(Call::Core { core, call })? {
        Answer::Core(answer) => Ok(answer),
        _ => Err(Failure::Nonsense),
    }
}

/// A number that a list goes on from.
trait Number: Copy + PartialOrd + Default {
    fn next(self) -> Option<Self>;
}

macro_rules! number {
    ($($kind:ty),*) => {
        $(impl Number for $kind {
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
        })*
    };
}

number!(u8, u16, u32);

/// A whole list, page by page.
fn all<T, N: Number>(
    mut page: impl FnMut(N) -> Result<Vec<T>, Failure>,
    number: impl Fn(&T) -> N,
) -> Result<Vec<T>, Failure> {
    let (mut list, mut next) = (Vec::new(), Some(N::default()));
    while let Some(first) = next {
        let more = page(first)?;
        let Some(last) = more.last() else { break };
        // Numbers rise, or this would not end.
        let mut at_least = Some(first);
        for entry in &more {
            if at_least.is_none_or(|least| number(entry) < least) {
                return Err(Failure::Nonsense);
            }
            at_least = number(entry).next();
        }
        next = number(last).next();
        list.extend(more);
    }
    Ok(list)
}

/// Adds what another core has counted.
pub fn add_drive(sum: &mut DriveCounters, other: &DriveCounters) {
    sum.commands += other.commands;
    sum.media_errors += other.media_errors;
    sum.other_errors += other.other_errors;
    sum.command_timeouts += other.command_timeouts;
    sum.aborted += other.aborted;
    sum.request_timeouts += other.request_timeouts;
    sum.resets += other.resets;
    sum.unknown_completions += other.unknown_completions;
    sum.lost_caches += other.lost_caches;
    sum.failures += other.failures;
    sum.busy += other.busy;
}

fn add_port(sum: &mut PortCounters, other: &PortCounters) {
    sum.received_frames += other.received_frames;
    sum.sent_frames += other.sent_frames;
    sum.passed_on_frames += other.passed_on_frames;
    sum.dropped_frames += other.dropped_frames;
    sum.carried_frames += other.carried_frames;
    sum.accepted_connections += other.accepted_connections;
    sum.refused_connections += other.refused_connections;
    sum.free_sockets += other.free_sockets;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_end_at_an_empty_page_or_at_the_last_number() {
        let mut asked = Vec::new();
        let page = |first: u8| {
            asked.push(first);
            Ok(if first < 6 { vec![first, first + 1] } else { Vec::new() })
        };
        assert_eq!(all(page, |number| *number).ok(), Some(vec![0, 1, 2, 3, 4, 5]));
        assert_eq!(asked, [0, 2, 4, 6]);
        assert_eq!(all(|_: u8| Ok(vec![255u8]), |number| *number).ok(), Some(vec![255]));
    }

    #[test]
    fn a_list_whose_numbers_do_not_rise_is_nonsense() {
        for page in [vec![3u8, 3], vec![5, 4]] {
            assert!(matches!(all(|_| Ok(page.clone()), |number| *number), Err(Failure::Nonsense)));
        }
        assert!(matches!(all(|_: u8| Ok(vec![0u8]), |number| *number), Err(Failure::Nonsense)));
    }
}
