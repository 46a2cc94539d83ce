//! What one message of vLLM, or of what it is made of, says of the cause.

use crate::domain::cause::Code;

/// How near a message is to what went wrong. Of several the nearest is believed, then the earliest: whoever
/// fails first is the cause, whoever fails because of it speaks later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    /// Something has ended; why is said elsewhere, if at all.
    Symptom,
    /// What was made of the cause by somebody further up.
    Consequence,
    /// What went wrong itself.
    Root,
    /// What the kernel, or who asks it, says of it.
    Witness,
}

/// How far vLLM may have come for a message to explain its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Only a start ends of it. A server that serves says such things of single requests, and lives on.
    Start,
    /// It explains the end of what served, where something else tells of one: it may be survived.
    WithAnEnd,
    /// vLLM ends of it at any time.
    Always,
}

/// A kind of message. Rules are data, a table a family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) code: Code,
    pub(super) weight: Weight,
    pub(super) reach: Reach,
    /// Looked for in a line, without what stands before the message (`line.rs`).
    pub(super) pattern: &'static str,
    /// What happened, with the groups of the pattern in braces; what the message says, if there is none.
    pub(super) summary: Option<&'static str>,
    /// What to do, with the groups of the pattern in braces; that of the code, if there is none or a
    /// group was not found.
    pub(super) remedy: Option<&'static str>,
}

impl Rule {
    pub(super) const fn root(code: Code, pattern: &'static str) -> Self {
        Self::new(code, Weight::Root, pattern)
    }

    pub(super) const fn witness(code: Code, pattern: &'static str) -> Self {
        Self::new(code, Weight::Witness, pattern)
    }

    pub(super) const fn consequence(code: Code, pattern: &'static str) -> Self {
        Self::new(code, Weight::Consequence, pattern)
    }

    pub(super) const fn symptom(code: Code, pattern: &'static str) -> Self {
        Self::new(code, Weight::Symptom, pattern)
    }

    const fn new(code: Code, weight: Weight, pattern: &'static str) -> Self {
        Self { code, weight, reach: Reach::Start, pattern, summary: None, remedy: None }
    }

    pub(super) const fn lasting(self) -> Self {
        Self { reach: Reach::WithAnEnd, ..self }
    }

    pub(super) const fn fatal(self) -> Self {
        Self { reach: Reach::Always, ..self }
    }

    pub(super) const fn saying(self, summary: &'static str) -> Self {
        Self { summary: Some(summary), ..self }
    }

    pub(super) const fn curing(self, remedy: &'static str) -> Self {
        Self { remedy: Some(remedy), ..self }
    }
}
