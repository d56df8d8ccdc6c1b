//! Which thread runs on which core: a worker on its own, everything else on the others.
//!
//! Enters: the cores of the configuration. Leaves: the affinity of the calling thread, which those
//! that it starts inherit. A control thread that compiles tables for a tenth of a second, on the
//! core of a worker, is a tenth of a second in which the scheduler lets packets wait.

use std::sync::OnceLock;

use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity};

/// The cores that this process was started with, in order, as far as the kernel reports. Asked for the
/// first time while it starts: a thread that has left some of them to the workers sees fewer.
pub fn given() -> &'static [usize] {
    static GIVEN: OnceLock<Vec<usize>> = OnceLock::new();
    GIVEN.get_or_init(|| {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        cores.into_iter().map(|core| core.id).collect()
    })
}

/// The kernel's number of this thread.
pub(super) fn thread_id() -> u32 {
    gettid().as_raw_nonzero().get().cast_unsigned()
}

/// Pins this thread. core_affinity answers no more than yes or no.
pub(super) fn pin(core: Option<usize>) -> bool {
    let Some(id) = core else { return false };
    let pinned = core_affinity::set_for_current(core_affinity::CoreId { id });
    if pinned {
        tracing::info!(core = id, "pinned");
    } else {
        tracing::warn!(
            core = id,
            "the kernel refused this core; the worker runs unpinned (check `workers.cores` against \
             the CPUs that the service may use)"
        );
    }
    pinned
}

/// Keeps this thread, and those that it starts from now on, off the workers' cores; those that are
/// left to it. Empty if there is none besides: then nothing is changed.
#[must_use]
pub fn leave_to_workers(workers: &[usize]) -> Vec<usize> {
    let Ok(allowed) = sched_getaffinity(None) else { return Vec::new() };
    let left: Vec<usize> =
        (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu) && !workers.contains(cpu)).collect();
    if left.is_empty() {
        return left;
    }
    let mut set = CpuSet::new();
    left.iter().for_each(|cpu| set.set(*cpu));
    match sched_setaffinity(None, &set) {
        Ok(()) => left,
        Err(error) => {
            tracing::warn!(%error, "the control thread may run on the workers' cores");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::thread::{CpuSet, sched_getaffinity};

    use super::leave_to_workers;

    fn allowed() -> Vec<usize> {
        let set = sched_getaffinity(None).expect("every thread may ask");
        (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
    }

    /// On a thread of its own: the other tests keep their cores.
    fn on_a_thread(test: impl FnOnce() + Send + 'static) {
        thread::spawn(test).join().expect("it passes");
    }

    #[test]
    fn threads_that_are_started_stay_off_too() {
        on_a_thread(|| {
            let all = allowed();
            let Some((own, others)) = all.split_last() else { return };
            let left = leave_to_workers(&[*own]);
            assert_eq!(left, others);
            let expected = if others.is_empty() { all } else { left };
            let inherited = thread::spawn(allowed).join().expect("it asks");
            assert_eq!(inherited, expected);
        });
    }

    #[test]
    fn a_node_whose_cores_are_all_workers_keeps_them() {
        on_a_thread(|| {
            let all = allowed();
            assert!(leave_to_workers(&all).is_empty());
            assert_eq!(allowed(), all);
        });
    }
}
