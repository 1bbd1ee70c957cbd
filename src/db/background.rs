//! Long work on a thread of its own with a low priority, so that requests get the processor first.

use tokio::sync::oneshot;

use crate::error::{Doing, Result};

/// Some tenth of the share that a request gets. Not the lowest priority: on a busy machine a copy would take hours, and the
/// WAL grows as long as something reads it.
const NICE: i32 = 10;

/// Lowers the priority of this thread and of those that it starts from now on, unless it is low already. There is no way
/// back.
pub fn lower_priority() {
    // Both apply to this thread only. Root could raise a low priority by mistake.
    let lowered = rustix::process::getpriority_process(None)
        .and_then(|now| rustix::process::setpriority_process(None, now.max(NICE)));
    if let Err(error) = lowered {
        log::debug!("long work runs at normal priority: {error}");
    }
}

/// Runs `work` with a low priority on a thread of this name.
///
/// # Errors
/// If the thread cannot be started, or `work` panics.
pub async fn in_background<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let (send, receive) = oneshot::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            lower_priority();
            // The caller may be gone.
            drop(send.send(work()));
        })
        .doing("start a thread for long work")?;
    receive.await.doing("wait for long work")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_work_has_a_low_priority_and_its_caller_keeps_its_own() {
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.build().unwrap();
        let before = priority();
        let inside = runtime.block_on(in_background("test", priority));
        assert_eq!((inside.unwrap(), priority()), (NICE.max(before), before));
        let panicked = runtime.block_on(in_background("test", || panic!("of a test")));
        panicked.unwrap_err();
    }
}
