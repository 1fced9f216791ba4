//! Drives that come and go at a data core: what control asks for, and what becomes of their namespaces.
//!
//! A drive that leaves in order takes its namespaces with it: its operator has decided, and hosts are told at once. Those
//! of a drive that was pulled stay attached and are Namespace Not Ready, because it may come back, here or in another slot;
//! they go when another drive comes up in its place. See docs/design/hot-plug.md.

use controller::BackendNamespace;
use controller::config::MAX_NAMESPACES;
use drive::limits::MAX_DRIVES;
use hal_api::{FrameQueue, Instant, NvmeDevice};
use message::{DataEnds, DriveReply, DriveRequest};
use nvme::NSID_ALL;

use crate::data_core::DataCore;

/// The way to control, and who was pulled.
pub(crate) struct Plug<D: 'static> {
    control: Option<DataEnds<'static, D>>,
    /// For each place, the number of the drive that was pulled out of it.
    pulled: [Option<u8>; MAX_DRIVES],
    /// Namespaces of drives on their way out, with their keys: a drive that could not be flushed says so at
    /// its end, when they are detached already, and hosts may meet it again.
    leaving: heapless::Vec<(BackendNamespace, u32), MAX_NAMESPACES>,
}

impl<D> Plug<D> {
    pub(crate) const fn new() -> Self {
        Self { control: None, pulled: [None; MAX_DRIVES], leaving: heapless::Vec::new() }
    }

    /// The key of a namespace while its drive is on its way out.
    pub(crate) fn leaving(&self, backend: BackendNamespace) -> Option<u32> {
        self.leaving.iter().find(|(leaving, _)| *leaving == backend).map(|(_, key)| *key)
    }
}

impl<F: FrameQueue, D: NvmeDevice + 'static> DataCore<F, D> {
    /// From now on drives come and go as control asks.
    pub fn obey(&mut self, control: DataEnds<'static, D>) {
        self.plug.control = Some(control);
    }

    /// Does what control has asked for, and goes on with removals.
    pub(crate) fn plug_and_unplug(&mut self, now: Instant) {
        while let Some(request) = self.plug.control.as_mut().and_then(|control| control.requests.pop()) {
            match request {
                DriveRequest::Add { place, device } => self.add_drive(place, device),
                DriveRequest::Remove { place, in_order } => self.remove_drive(place, in_order, now),
            }
        }
        while self.plug.control.as_mut().is_some_and(|control| control.replies.has_room()) {
            let Some((place, removed)) = self.drives.take_removed(&mut self.pool) else { break };
            hal_log::info!("drive {} is out", removed.number);
            self.answer(place as u8, removed.device, removed.in_order);
        }
        // Once a drive is out, or this core has let go of it, it has told all its losses.
        self.plug.leaving.retain(|(leaving, _)| self.drives.get(leaving.drive).is_some());
        self.forget_replaced(now);
    }

    fn add_drive(&mut self, place: u8, device: D) {
        let namespaces = self.subsystem.namespaces();
        // A pulled one may come back, although nothing of it is attached.
        let pulled = self.plug.pulled;
        let is_taken = |number| {
            let is_attached = namespaces.iter().any(|namespace| namespace.backend.drive == number);
            is_attached || pulled.contains(&Some(number))
        };
        match self.drives.add(usize::from(place), device, is_taken) {
            Ok(number) => hal_log::info!("drive {} is in", number),
            Err(device) => {
                hal_log::error!("a drive has come for place {}, which is not empty", place);
                self.answer(place, device, false);
            }
        }
    }

    fn remove_drive(&mut self, place: u8, in_order: bool, now: Instant) {
        // Without one the answer is on its way already.
        let number = self.drives.begin_removal(usize::from(place), in_order, now, &mut self.pool);
        let Some(number) = number else { return };
        if in_order {
            hal_log::info!("drive {} is being taken out", number);
            self.note_leaving(number, now);
            return self.gone(all_of(number), now);
        }
        let kept = self.subsystem.namespaces().iter().filter(|namespace| namespace.backend.drive == number);
        let kept = kept.count();
        hal_log::warn!("drive {} was pulled, {} namespaces wait for it", number, kept);
        if kept == 0 {
            // Some may be on their way to be served, or wait to be.
            return self.gone(all_of(number), now);
        }
        let pulled = self.plug.pulled.get_mut(usize::from(place));
        if let Some(earlier) = pulled.and_then(|pulled| pulled.replace(number)) {
            self.gone(all_of(earlier), now);
        }
    }

    /// Keeps in mind how hosts know the namespaces of a drive on its way out.
    fn note_leaving(&mut self, number: u8, now: Instant) {
        for index in 0..MAX_NAMESPACES {
            let Some(namespace) = self.subsystem.namespaces().get(index) else { return };
            if namespace.backend.drive == number {
                self.keep_leaving(namespace.backend, namespace.key, now);
            }
        }
    }

    /// The registrar takes a namespace away. That the drive is on its way out, and what it could not flush,
    /// comes by other rings, earlier or later.
    pub(crate) fn note_detached(&mut self, key: u32, now: Instant) {
        let attached = self.subsystem.attached(key);
        let Some(backend) = attached.map(|namespace| namespace.backend) else { return };
        if self.drives.get(backend.drive).is_some() {
            self.keep_leaving(backend, key, now);
        }
    }

    fn keep_leaving(&mut self, backend: BackendNamespace, key: u32, now: Instant) {
        let leaving = &mut self.plug.leaving;
        if leaving.iter().any(|(known, _)| *known == backend) {
            return;
        }
        if leaving.is_full() {
            // Of drives that stay, the namespace alone was taken away.
            leaving.retain(|(known, _)| self.drives.is_leaving(known.drive));
        }
        if leaving.push((backend, key)).is_err() {
            // Other drives are stuck on their way out: rather a loss too many than one that nobody hears of.
            self.subsystem.note_lost_writes(key, now);
        }
    }

    fn answer(&mut self, place: u8, device: D, in_order: bool) {
        let Some(control) = self.plug.control.as_mut() else { return };
        // There is room: each place has one message at most under way, and the caller has looked.
        let sent = control.replies.push(DriveReply::Removed { place, device, in_order });
        debug_assert!(sent.is_ok());
    }

    /// A drive that works in the place of a pulled one has replaced it.
    fn forget_replaced(&mut self, now: Instant) {
        for place in 0..MAX_DRIVES {
            let present = self.drives.number_in(place).and_then(|number| self.drives.get(number));
            if !present.is_some_and(|drive| drive.is_ready() && !drive.has_work()) {
                continue;
            }
            if let Some(pulled) = self.plug.pulled.get_mut(place).and_then(Option::take) {
                self.gone(all_of(pulled), now);
            }
        }
    }
}

fn all_of(drive: u8) -> BackendNamespace {
    BackendNamespace { drive, nsid: NSID_ALL }
}
