//! Drives of a running QEMU that fail, slow down, come and go.

use super::step::{Fail, Slow};
use crate::paths::TemporaryFolder;
use crate::qemu::{self, Drive};
use crate::qmp::Qmp;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What was done to which drive.
#[derive(Default)]
pub struct Faults {
    /// The block node that stands before a drive's own, and its throttle group if it has one.
    before: BTreeMap<String, (String, Option<String>)>,
    /// Drives that were plugged in later: their namespace is a property of the controller.
    plugged: BTreeSet<String>,
    made: u32,
}

impl Faults {
    /// Some of the drive's I/O fails from now on.
    pub fn fail(&mut self, qmp: &mut Qmp, fail: &Fail) -> Result<()> {
        let rule = |kind: &str| {
            let mut rule = json!({"event": "none", "iotype": kind, "errno": fail.errno, "once": false});
            if let Some(sector) = fail.sector {
                rule["sector"] = sector.into();
            }
            rule
        };
        let rules: Vec<Value> = fail.on.iter().map(|kind| rule(kind.name())).collect();
        let node = self.node(&fail.drive);
        let options =
            json!({"driver": "blkdebug", "node-name": node, "image": fail.drive, "inject-error": rules});
        qmp.command("blockdev-add", options)?;
        self.put_before(qmp, &fail.drive, Some((node, None)))
    }

    /// The drive serves so many operations a second from now on.
    pub fn slow(&mut self, qmp: &mut Qmp, slow: &Slow) -> Result<()> {
        let limits = match (slow.iops, slow.per_minute) {
            (Some(iops), None) => json!({"iops-total": iops}),
            // One a second, and what is larger than this counts as several.
            (None, Some(count @ 1..)) => json!({"iops-total": 1, "iops-size": (4096 * count).div_ceil(60)}),
            _ => bail!("expected one of `iops` and `per_minute`"),
        };
        self.throttle(qmp, &slow.drive, &limits)
    }

    /// The drive keeps the next write until it is let go; what comes later overtakes it. Whoever resets the drive
    /// meanwhile waits for ever, and QEMU with it.
    pub fn hold(&mut self, qmp: &mut Qmp, drive: &str) -> Result<()> {
        let node = self.node(drive);
        qmp.command("blockdev-add", json!({"driver": "blkdebug", "node-name": node, "image": drive}))?;
        self.put_before(qmp, drive, Some((node, None)))?;
        self.debug(qmp, drive, "break pwritev held")
    }

    /// The drive carries out what it keeps.
    pub fn let_go(&mut self, qmp: &mut Qmp, drive: &str) -> Result<()> {
        self.debug(qmp, drive, "resume held")
    }

    fn debug(&self, qmp: &mut Qmp, drive: &str, command: &str) -> Result<()> {
        // By its device: a write that is kept holds the lock that naming a node would take.
        let line = format!("qemu-io -d {} \"{command}\"", self.device(drive));
        let answer = qmp.command("human-monitor-command", json!({"command-line": line}))?;
        // It is silent where all is well.
        match answer.as_str().map(str::trim) {
            Some("") | None => Ok(()),
            Some(error) => bail!("QEMU's answer to `{line}`: {error}"),
        }
    }

    /// The drive ends next to nothing from now on: a byte a second. What it holds ends when it is mended or reset.
    pub fn hang(&mut self, qmp: &mut Qmp, drive: &str) -> Result<()> {
        self.throttle(qmp, drive, &json!({"bps-total": 1}))
    }

    fn throttle(&mut self, qmp: &mut Qmp, drive: &str, limits: &Value) -> Result<()> {
        let node = self.node(drive);
        let group = format!("{node}-group");
        qmp.command("object-add", json!({"qom-type": "throttle-group", "id": group, "limits": limits}))?;
        let options =
            json!({"driver": "throttle", "node-name": node, "throttle-group": group, "file": drive});
        qmp.command("blockdev-add", options)?;
        self.put_before(qmp, drive, Some((node, Some(group))))
    }

    /// The drive is as it was made.
    pub fn mend(&mut self, qmp: &mut Qmp, drive: &str) -> Result<()> {
        self.put_before(qmp, drive, None)
    }

    /// Plugs a drive in; one that was there before finds its data again.
    pub fn plug(&mut self, qmp: &mut Qmp, drive: &Drive, folder: &TemporaryFolder) -> Result<()> {
        let file = drive.file(folder.path())?;
        let name = &drive.name;
        let protocol = json!({"driver": "file", "filename": file, "discard": "unmap"});
        qmp.command("blockdev-add", json!({"driver": "raw", "node-name": name, "file": protocol}))?;
        let mut device = json!({
            "driver": "nvme",
            "id": format!("nvme-{name}"),
            "serial": name,
            "drive": name,
            "logical_block_size": drive.block_size,
            "physical_block_size": drive.block_size,
        });
        if let Some(bus) = &drive.bus {
            device["bus"] = bus.as_str().into();
        }
        qmp.command("device_add", device)?;
        self.plugged.insert(name.clone());
        Ok(())
    }

    /// Presses the button of the drive's slot.
    pub fn ask_for(&mut self, qmp: &mut Qmp, drive: &str) -> Result<()> {
        qmp.command("device_del", json!({"id": format!("nvme-{drive}")})).map(drop)
    }

    /// Whether a drive that was asked for is out; its name is free then.
    pub fn is_out(&mut self, qmp: &mut Qmp, drive: &str) -> Result<bool> {
        let devices = qmp.command("qom-list", json!({"path": "/machine/peripheral"}))?;
        let id = format!("nvme-{drive}");
        let devices = devices.as_array().context("QEMU lists no devices")?;
        if devices.iter().any(|device| device["name"] == id.as_str()) {
            return Ok(false);
        }
        if let Some(old) = self.before.remove(drive) {
            remove(qmp, &old)?;
        }
        // The device lets go of its file a moment after it is out of the list.
        match qmp.command("blockdev-del", json!({"node-name": drive})) {
            Err(error) if format!("{error:#}").contains("in use") => return Ok(false),
            other => other?,
        };
        self.plugged.remove(drive);
        Ok(true)
    }

    fn node(&mut self, drive: &str) -> String {
        self.made += 1;
        format!("{drive}-fault{}", self.made)
    }

    /// The device that has the drive's blocks.
    fn device(&self, drive: &str) -> String {
        if self.plugged.contains(drive) { format!("nvme-{drive}") } else { qemu::namespace_id(drive) }
    }

    fn put_before(
        &mut self,
        qmp: &mut Qmp,
        drive: &str,
        new: Option<(String, Option<String>)>,
    ) -> Result<()> {
        let device = self.device(drive);
        let node = new.as_ref().map_or(drive, |(node, _)| node);
        let path = format!("/machine/peripheral/{device}");
        qmp.command("qom-set", json!({"path": path, "property": "drive", "value": node}))?;
        if let Some(old) = self.before.remove(drive) {
            remove(qmp, &old)?;
        }
        if let Some(new) = new {
            self.before.insert(drive.to_owned(), new);
        }
        Ok(())
    }
}

fn remove(qmp: &mut Qmp, (node, group): &(String, Option<String>)) -> Result<()> {
    qmp.command("blockdev-del", json!({"node-name": node}))?;
    if let Some(group) = group {
        qmp.command("object-del", json!({"id": group}))?;
    }
    Ok(())
}
