//! Those who show us no environment, and yet run as the user that we run as.
//!
//! Of a launch these can be programs that gain rights when they are executed (setuid, file
//! capabilities), and processes that asked for it (prctl(2), `PR_SET_DUMPABLE`). Of strangers there
//! are many: ssh-agent, the sshd of a login, the renderers of a browser. Nobody needs the environment
//! of one that is in the session of the launch, descends from a member, or is in a session that a
//! member heads. A session is inherited or made, never joined, and orphans go to an ancestor. So of
//! the others, one is a stranger
//!
//! - if a stranger lives who heads its session: it descends from him;
//! - if a stranger lives who is its parent, and is younger than the launch, which such a one cannot
//!   have inherited orphans from;
//! - if its parent, or the leader of its session, is in a namespace that encloses ours (Linux,
//!   `kernel/exit.c`, `find_new_reaper`).
//!
//! What is left is undecided: a daemon that made itself a session, and whose parent has ended. A
//! stranger may live for ever, and nothing that it does would tell. It is waited for, named once, and
//! taken for a stranger: that of the launch there would have to be one that hid itself, left its
//! session, and lost its parent, all between two looks.

use rustix::io::Errno;

use super::roster::Roster;
use super::session::{Look, Session, ourselves};
use crate::adapters::proc_fs::Stat;
use crate::domain::absence::ScanError;

/// Whether one who hides belongs.
enum Verdict {
    Stranger,
    /// It does, but cannot be held.
    Member,
    Undecided,
}

impl Look<'_> {
    /// Says of each who hides whether it is a stranger, once it is known who belongs.
    pub(super) fn judge_hidden(&mut self, roster: &mut Roster) {
        let hidden = std::mem::take(&mut self.hidden);
        let strangers = &self.strangers;
        roster.undecided.keep(|pid| hidden.contains_key(&pid) || strangers.contains(&pid));
        for (pid, error) in hidden {
            if self.found.contains(&pid) {
                continue;
            }
            let stat = self.candidates.get(&pid);
            let start_time = stat.map_or(0, |stat| stat.start_time);
            if roster.member(pid).is_some_and(|it| it.held.start_time == start_time) {
                continue;
            }
            // It stays in doubt: see `judge_session`.
            if stat.is_some_and(|stat| self.session == Session::Leaderless(stat.session)) {
                self.flawed_by(error);
                continue;
            }
            match stat.map_or_else(|| self.by_session(pid), |stat| self.by_origin(stat, roster)) {
                Ok(Verdict::Stranger) => {}
                Ok(Verdict::Undecided) if roster.undecided.is_given_up(pid, start_time, &error) => {
                }
                Ok(Verdict::Undecided | Verdict::Member) => {
                    self.flawed_by(error);
                    continue;
                }
                Err(error) => {
                    self.flawed_by(error);
                    continue;
                }
            }
            self.strangers.insert(pid);
        }
    }

    /// Of one whose descent is known.
    fn by_origin(&self, stat: &Stat, roster: &Roster) -> Result<Verdict, ScanError> {
        // So is a session whose leader has no number here, and whoever is in it.
        let is_from_outside = stat.parent == 0 || stat.session == 0;
        let is_stranger = is_from_outside
            || ourselves()?.contains(&stat.pid)
            || (stat.session != stat.pid && self.living_stranger(stat.session, roster)?.is_some())
            || self
                .living_stranger(stat.parent, roster)?
                .is_some_and(|parent| self.begun != 0 && parent.start_time > self.begun);
        Ok(if is_stranger { Verdict::Stranger } else { Verdict::Undecided })
    }

    /// Of one that shows nothing at all, as with `hidepid=1`.
    fn by_session(&self, pid: u32) -> Result<Verdict, ScanError> {
        match session_of(pid) {
            Ok(session) if self.session.number() == Some(session) => Ok(Verdict::Member),
            Ok(_) => Ok(Verdict::Undecided),
            Err(Errno::SRCH) => Ok(Verdict::Stranger),
            Err(error) => Err(ScanError::new("getsid(2)", &error)),
        }
    }

    /// The one of this number, if it was seen not to belong, and lives: its descendants do not belong
    /// either, if they do not otherwise.
    fn living_stranger(&self, pid: u32, roster: &Roster) -> Result<Option<Stat>, ScanError> {
        if !self.strangers.contains(&pid)
            || self.found.contains(&pid)
            || roster.member(pid).is_some()
        {
            return Ok(None);
        }
        Ok(Stat::of(pid)?.filter(|stat| !stat.is_zombie()))
    }
}

/// Its session, 0 if that is led from a namespace that encloses ours.
#[expect(unsafe_code, reason = "rustix panics at the session 0")]
fn session_of(pid: u32) -> Result<u32, Errno> {
    // SAFETY: the call takes and returns numbers.
    let session = unsafe { libc::getsid(pid.cast_signed()) };
    u32::try_from(session)
        .map_err(|_| Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_told_where_proc_tells_nothing() {
        let me = Stat::of(std::process::id()).unwrap().unwrap();
        assert_eq!(session_of(me.pid), Ok(me.session));
        assert_eq!(session_of(5_000_000), Err(Errno::SRCH));
    }
}
