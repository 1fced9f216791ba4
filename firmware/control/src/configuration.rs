//! What operators have declared, as the list of changes that leads there from a card of which nothing is declared.
//!
//! The list holds no more than is needed: a change replaces those that it makes void. So it is at once what is stored, what a card
//! that starts is given, and what an operator is shown. Each change is a postcard message, one behind the other.

use message::configuration::ConfigurationChange as Change;

/// The list of changes.
#[derive(Debug)]
pub struct Configuration<'a> {
    list: &'a mut [u8],
    used: usize,
    /// What the list is to be once a change is made.
    draft: &'a mut [u8],
    drafted: usize,
}

/// The configuration has no room for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl<'a> Configuration<'a> {
    /// Nothing is declared. The memories are of the same length: that of the longest configuration.
    pub fn new(list: &'a mut [u8], draft: &'a mut [u8]) -> Self {
        Self { list, used: 0, draft, drafted: 0 }
    }

    /// Takes over what was stored. False where some of it is no change, or there is no room for it: then what stands before that
    /// counts.
    pub fn load(&mut self, stored: &[u8]) -> bool {
        self.used = 0;
        let mut changes = Changes(stored);
        for change in &mut changes {
            let place = self.list.get_mut(self.used..).unwrap_or_default();
            let Some(bytes) = encode(&change, place) else { return false };
            self.used += bytes;
        }
        changes.0.is_empty()
    }

    /// The list.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.list.get(..self.used).unwrap_or_default()
    }

    /// The changes in it, in the order in which they are to be made.
    pub fn changes(&self) -> impl Iterator<Item = Change> + use<'_> {
        Changes(self.bytes())
    }

    /// Works out what the list is once `change` is made; it stays as it is until [`Self::adopt`].
    ///
    /// # Errors
    /// [`Full`].
    pub fn draft(&mut self, change: &Change) -> Result<(), Full> {
        self.drafted = 0;
        let mut is_there = false;
        let mut earlier = Changes(self.list.get(..self.used).unwrap_or_default());
        for entry in &mut earlier {
            let Some(left) = left_of(entry, change) else { continue };
            is_there |= says_already(&left, change);
            let place = self.draft.get_mut(self.drafted..).unwrap_or_default();
            self.drafted += encode(&left, place).ok_or(Full)?;
        }
        if is_remembered(change) && !is_there {
            let place = self.draft.get_mut(self.drafted..).unwrap_or_default();
            self.drafted += encode(change, place).ok_or(Full)?;
        }
        Ok(())
    }

    /// The change of the last draft is made.
    pub fn adopt(&mut self) {
        core::mem::swap(&mut self.list, &mut self.draft);
        self.used = core::mem::take(&mut self.drafted);
    }
}

/// Changes one behind the other; ends before what is none.
struct Changes<'a>(&'a [u8]);

impl Iterator for Changes<'_> {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        if self.0.is_empty() {
            return None;
        }
        let (change, rest) = postcard::take_from_bytes(self.0).ok()?;
        self.0 = rest;
        Some(change)
    }
}

fn encode(change: &Change, place: &mut [u8]) -> Option<usize> {
    postcard::to_slice(change, place).ok().map(|bytes| bytes.len())
}

/// Whether a change says something of the card that was not so from the beginning.
fn is_remembered(change: &Change) -> bool {
    !matches!(
        change,
        Change::DeleteSubsystem { .. } | Change::DisallowHost { .. } | Change::ReleaseNamespace { .. }
    )
}

/// Whether an earlier change says what `change` does, so that its place in the list is the right one.
fn says_already(earlier: &Change, change: &Change) -> bool {
    match (earlier, change) {
        // The card has taken it: it is the same one, but perhaps for what was changed of it since.
        (Change::CreateSubsystem(earlier), Change::CreateSubsystem(now)) => earlier.nqn == now.nqn,
        _ => earlier == change,
    }
}

/// What is left of an earlier change when another one is made.
fn left_of(earlier: Change, change: &Change) -> Option<Change> {
    let is_void = match (&earlier, change) {
        (_, same) if earlier == *same => false,
        (Change::CreateSubsystem(of), Change::DeleteSubsystem { subsystem }) => of.nqn == *subsystem,
        (
            Change::SetAnyHost { subsystem: of, .. } | Change::AllowHost { subsystem: of, .. },
            Change::DeleteSubsystem { subsystem },
        )
        | (Change::SetAnyHost { subsystem: of, .. }, Change::SetAnyHost { subsystem, .. }) => of == subsystem,
        (Change::AttachNamespace(of), Change::DeleteSubsystem { subsystem })
            if of.subsystem == *subsystem =>
        {
            // Its namespaces stay detached.
            return Some(Change::DetachNamespace { namespace: of.namespace });
        }
        (Change::AllowHost { subsystem: of, host: known }, Change::DisallowHost { subsystem, host }) => {
            (of, known) == (subsystem, host)
        }
        (Change::AttachNamespace(of), change) => names_namespace(change, of.namespace),
        (Change::DetachNamespace { namespace }, change) => names_namespace(change, *namespace),
        (Change::SetAutomatic { .. }, Change::SetAutomatic { .. }) => true,
        (Change::SetPortAccess { port: of, .. }, Change::SetPortAccess { port, .. })
        | (Change::SetListener { port: of, .. }, Change::SetListener { port, .. }) => of == port,
        _ => false,
    };
    (!is_void).then_some(earlier)
}

/// Whether a change says anew where a namespace is.
fn names_namespace(change: &Change, of: message::configuration::DriveNamespace) -> bool {
    match change {
        Change::AttachNamespace(setting) => setting.namespace == of,
        Change::DetachNamespace { namespace } | Change::ReleaseNamespace { namespace } => *namespace == of,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
