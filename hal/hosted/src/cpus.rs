//! Threads on CPUs of their own.

use std::io;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The CPUs that this process may use, ascending.
///
/// # Errors
/// What the system says.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect())
}

/// Keeps the calling thread on `cpu`.
///
/// # Errors
/// What the system says, for example where there is no such CPU.
pub fn pin(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Whether a thread of this process could be kept on `cpu`; tried by one that ends at once.
///
/// # Errors
/// What [`pin`] says.
pub fn check_cpu(cpu: usize) -> io::Result<()> {
    let tried = std::thread::Builder::new().spawn(move || pin(cpu))?.join();
    tried.unwrap_or_else(|_| Err(io::Error::other("the thread that tried it has panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_may_use_one_cpu() {
        let all = allowed_cpus().unwrap();
        let last = *all.last().expect("a CPU");
        let pinned = std::thread::spawn(move || {
            pin(last).unwrap();
            allowed_cpus().unwrap()
        });
        assert_eq!(pinned.join().unwrap(), [last]);
        assert_eq!(allowed_cpus().unwrap(), all);
        assert!(pin(CpuSet::count()).is_err());
        check_cpu(last).unwrap();
        assert!(check_cpu(CpuSet::count()).is_err() && check_cpu(CpuSet::count() - 1).is_err());
        assert_eq!(allowed_cpus().unwrap(), all);
    }
}
