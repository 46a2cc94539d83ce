//! What a test has somebody say, in its order, to whoever listens.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};

/// See the module.
#[derive(Debug)]
pub(super) struct Queue<T> {
    sender: mpsc::UnboundedSender<T>,
    receiver: Arc<Mutex<mpsc::UnboundedReceiver<T>>>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self { sender, receiver: Arc::new(Mutex::new(receiver)) }
    }
}

impl<T> Queue<T> {
    pub(super) fn say(&self, word: T) {
        // The receiver lives as long as we do.
        self.sender.send(word).ok();
    }

    pub(super) fn listener(&self) -> Listener<T> {
        Listener(Arc::clone(&self.receiver))
    }
}

/// Takes what comes.
pub(super) struct Listener<T>(Arc<Mutex<mpsc::UnboundedReceiver<T>>>);

impl<T> Listener<T> {
    /// The next word; never, once nobody is left who could say one.
    pub(super) async fn next(&self) -> T {
        match self.0.lock().await.recv().await {
            Some(word) => word,
            None => std::future::pending().await,
        }
    }
}
