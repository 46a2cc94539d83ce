//! The past, as the port tells it: read where it may block, and not before it is written.

use std::sync::Arc;

use super::reader::{Found, Reader};
use super::{JournalCodec, Shared};
use crate::domain::id::Sequence;
use crate::ports::{Page, PastEvents, Pending};

/// See the module.
pub(super) struct FileEvents {
    codec: Arc<dyn JournalCodec>,
    shared: Arc<Shared>,
    /// The next number wanted.
    wanted: u64,
    /// Where it stands; `None` before the first page, and after one that nobody waited for.
    reader: Option<Reader>,
}

impl FileEvents {
    pub(super) fn new(codec: Arc<dyn JournalCodec>, shared: Arc<Shared>, from: Sequence) -> Self {
        Self { codec, shared, wanted: from.get(), reader: None }
    }
}

impl PastEvents for FileEvents {
    fn next_page(&mut self) -> Pending<'_, Page> {
        let shared = Arc::clone(&self.shared);
        let through = shared.given();
        let flushed = shared.flushed();
        Box::pin(async move {
            flushed.await;
            let reader = self.reader.take();
            let mut reader =
                reader.unwrap_or_else(|| Reader::new(Arc::clone(&self.codec), self.wanted));
            let (reader, found) = blocking(move || {
                let found = read(&mut reader, &shared);
                (reader, found)
            })
            .await;
            self.wanted = reader.wanted();
            self.reader = Some(reader);
            match found {
                Found::Events(events) => Page::Events(events),
                Found::End => Page::End { through: Sequence::new(through) },
            }
        })
    }
}

/// A file that cannot be read is passed over: what it holds is missing, and is told to be.
fn read(reader: &mut Reader, shared: &Shared) -> Found {
    let before = reader.wanted();
    let home = shared.home();
    reader.next_page(&home, || shared.given()).unwrap_or_else(|error| {
        tracing::error!(%error, "a part of the journal cannot be read");
        reader.skip(&home);
        if reader.wanted() > before { Found::Events(Vec::new()) } else { Found::End }
    })
}

/// Work that may block, off the runtime's own threads.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is ending, and this future with it.
        Err(_) => std::future::pending().await,
    }
}
