//! Threads for what blocks. Not the runtime's: its pool belongs to the embedder, who may fill it.

use std::thread;

use tokio::sync::oneshot;

use crate::domain::absence::ScanError;

/// Does this on a thread of its own.
///
/// # Errors
///
/// The system's, when it has no thread to give: then nothing was done.
pub(in crate::adapters) async fn on_own_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ScanError> {
    let (answer, result) = oneshot::channel();
    let work = move || {
        // Whoever asked may have stopped waiting.
        drop(answer.send(work()));
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| ScanError::new(format!("thread {name}"), &error))?;
    Ok(result.await.expect("the thread does not panic"))
}
