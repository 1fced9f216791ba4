//! A user and network namespace of the process's own: there it may set up interfaces without any right outside.

use std::fs::write;
use std::io;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getgid, getuid};

/// Moves the calling process into a new user namespace, as its root, and a new network namespace with nothing but a
/// loopback interface (user_namespaces(7)). Only while the process has one thread.
///
/// # Errors
/// What the system says, for example where it forbids user namespaces.
pub fn enter_own_namespace() -> io::Result<()> {
    let (user, group) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
    // A group map of one's own is taken only after this.
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", format!("0 {user} 1"))?;
    write("/proc/self/gid_map", format!("0 {group} 1"))
}
