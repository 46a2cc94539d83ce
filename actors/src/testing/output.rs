//! Output that a test writes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::domain::id::Incarnation;
use crate::ports::{LineSource, Output, Pending};

/// An [`Output`] in memory, one text a launch.
#[derive(Debug, Default)]
pub struct ScriptedOutput(Mutex<HashMap<Incarnation, watch::Sender<Text>>>);

#[derive(Debug, Default)]
struct Text {
    lines: Vec<String>,
    reading: Reading,
}

/// What comes of reading.
#[derive(Debug, Default, PartialEq, Eq)]
enum Reading {
    #[default]
    Works,
    Panics,
}

impl Text {
    /// What came after the lines already read; `None` is a panic.
    fn news(&self, read: usize) -> Option<Vec<String>> {
        (self.reading == Reading::Works).then(|| self.lines[read..].to_vec())
    }
}

impl ScriptedOutput {
    /// The launch writes these lines.
    pub fn write(&self, incarnation: Incarnation, lines: &[&str]) {
        let lines = lines.iter().map(|line| (*line).to_owned());
        self.change(incarnation, |text| text.lines.extend(lines));
    }

    /// Whoever reads the output of this launch panics.
    pub fn panic(&self, incarnation: Incarnation) {
        self.change(incarnation, |text| text.reading = Reading::Panics);
    }

    /// How many read the output of this launch now.
    pub fn readers(&self, incarnation: Incarnation) -> usize {
        self.texts().get(&incarnation).map_or(0, watch::Sender::receiver_count)
    }

    fn change(&self, incarnation: Incarnation, change: impl FnOnce(&mut Text)) {
        self.texts().entry(incarnation).or_default().send_modify(change);
    }

    fn texts(&self) -> MutexGuard<'_, HashMap<Incarnation, watch::Sender<Text>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Output for ScriptedOutput {
    fn lines(&self, incarnation: Incarnation) -> Box<dyn LineSource> {
        let text = self.texts().entry(incarnation).or_default().subscribe();
        Box::new(Reader { text, read: 0 })
    }
}

struct Reader {
    text: watch::Receiver<Text>,
    /// Lines read so far.
    read: usize,
}

impl LineSource for Reader {
    fn next_lines(&mut self) -> Pending<'_, Vec<String>> {
        Box::pin(async move {
            let read = self.read;
            let has_news = |text: &Text| text.lines.len() > read || text.reading == Reading::Panics;
            if self.text.wait_for(has_news).await.is_err() {
                // Nobody is left to write.
                std::future::pending::<()>().await;
            }
            let news = self.text.borrow().news(read);
            // Not while the text is borrowed: the writer would find its lock poisoned.
            let lines = news.expect("the reading was scripted to panic");
            self.read += lines.len();
            lines
        })
    }
}
