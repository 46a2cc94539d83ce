//! Whether the way a launch was made is to be gone again.

use super::Turn;
use crate::domain::cause::{Cause, Code};
use crate::domain::diagnosis::Exit;
use crate::domain::event::EventKind;
use crate::domain::id::Incarnation;
use crate::domain::input::Effect;
use crate::domain::state::{Differed, State};
use crate::domain::target::Target;
use crate::domain::trust::{LaunchMethod, Memory, Recall, Trust, Verdict};

impl Turn<'_> {
    /// A launch that is about to be called failed may have failed for how it was made, unless somebody
    /// has killed it: the kernel for want of memory, of which one made from nothing takes more, or a
    /// person. One that has no process yet was not made in any way.
    pub(super) fn suspect(&mut self, exit: Option<Exit>) {
        const FROM_OUTSIDE: [Exit; 3] = [Exit::Signal(9), Exit::Signal(15), Exit::Unknown];
        if exit.is_some_and(|exit| FROM_OUTSIDE.contains(&exit)) {
            return;
        }
        if let State::Starting(starting) = &self.machine.state
            && starting.pid.is_some()
        {
            let (target, method) = (starting.target.clone(), starting.method);
            self.machine.trusts.of(&target, |trust| trust.failed(method));
        }
    }

    /// A launch that was made so serves.
    pub(super) fn trust(
        &mut self,
        incarnation: Incarnation,
        target: &Target,
        method: LaunchMethod,
        recall: &Recall,
    ) {
        if let Some(memory) = self.machine.trusts.of(target, |trust| trust.served(method)) {
            self.remember(target.clone(), memory);
        }
        if *recall != Recall::NotCompared {
            self.effect(Effect::Compare { incarnation });
        }
    }

    /// What a launch has made of the fixed prompt; `None` if it could not be had.
    pub(super) fn completed(&mut self, incarnation: Incarnation, text: Option<String>) {
        let Some(running) = self.current_running(incarnation) else { return };
        let Some(text) = text else { return };
        let (target, method) = (running.target.clone(), running.method);
        let (recall, differed) = (running.recall.clone(), running.differed);
        running.differed = Differed::Once;
        let verdict =
            self.machine.trusts.of(&target, |trust| trust.completed(method, &recall, &text));
        match (verdict, differed) {
            (Verdict::Fine(Some(memory)), _) => self.remember(target, memory),
            (Verdict::Fine(None), _) => {}
            // Other requests may have been computed with it.
            (Verdict::Differs, Differed::Never) => self.effect(Effect::Compare { incarnation }),
            (Verdict::Differs, Differed::Once) => {
                self.machine.trusts.of(&target, Trust::differed);
                let said = "a warm launch completes a fixed prompt otherwise than those before it";
                self.fail(incarnation, Cause::new(Code::Unrecognised, said), None);
            }
        }
    }

    fn remember(&mut self, target: Target, memory: Memory) {
        if let Memory::AtMost(instead) = memory {
            self.emit(EventKind::LaunchDistrusted { instead });
        }
        self.effect(Effect::Remember { target, memory });
    }
}
