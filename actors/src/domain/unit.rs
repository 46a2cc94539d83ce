//! What a service manager says of the unit that it runs vLLM as, in systemd's words
//! (`org.freedesktop.systemd1(5)`, `systemd.exec(5)`).

use std::time::Duration;

use crate::domain::diagnosis::Exit;

/// What came of asking for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitReading {
    /// It is so.
    Seen(UnitStatus),
    /// The manager knows no such unit.
    NotFound,
    /// The manager could not be asked, and why. The unit may be anything.
    Unseen(String),
}

/// A unit at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnitStatus {
    /// Its name, such as `vllm.service`.
    pub name: String,
    /// Its `ActiveState`.
    pub active: Activity,
    /// Its `SubState`: which step of that.
    pub sub: String,
    /// The `Result` of its last run: `success`, or what it failed by.
    pub result: String,
    /// Its main process, while there is one.
    pub main_pid: Option<u32>,
    /// How its last main process ended; `None` before that.
    pub exit: Option<Exit>,
    /// How often the manager has restarted it by itself since somebody started it.
    pub restarts: u32,
    /// How long the manager waits before a restart; `None` if it does not say.
    pub restart_after: Option<Duration>,
    /// Where its processes are, below the root of the control groups; `None` while it has none.
    pub control_group: Option<String>,
}

/// A unit's `ActiveState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activity {
    /// It runs.
    Active,
    /// It runs, and reads its configuration again.
    Reloading,
    /// It does not run.
    Inactive,
    /// It does not run, for it has failed.
    Failed,
    /// It is being started, or waits to be started again.
    Activating,
    /// It is being stopped, or what is left of it is.
    Deactivating,
    /// Another one, which this version does not know.
    Other,
}

impl Activity {
    /// The activity of this name.
    pub fn named(name: &str) -> Self {
        match name {
            "active" => Self::Active,
            "reloading" | "refreshing" => Self::Reloading,
            "inactive" => Self::Inactive,
            "failed" => Self::Failed,
            "activating" => Self::Activating,
            "deactivating" => Self::Deactivating,
            _ => Self::Other,
        }
    }

    /// Its name, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Reloading => "reloading",
            Self::Inactive => "inactive",
            Self::Failed => "failed",
            Self::Activating => "activating",
            Self::Deactivating => "deactivating",
            Self::Other => "other",
        }
    }
}

/// Which step of a unit's life it is in, as far as that matters to whoever watches it (systemd 257,
/// `src/core/service.c`, `state_translation_table`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitPhase {
    /// It does not run, and nobody wants it to.
    Down,
    /// It is being started.
    ComingUp,
    /// It runs.
    Up,
    /// Somebody has asked for its end.
    BeingStopped,
    /// It has ended by itself, or was ended for what it did; what is left of it is cleared away.
    Ending,
    /// It has ended so, and is started again.
    AwaitingRestart,
    /// It has ended so, and is not started again.
    GivenUp,
    /// Nobody here knows.
    Unclear,
}

impl UnitStatus {
    /// A unit of this name that has never run.
    pub fn inactive(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            active: Activity::Inactive,
            sub: "dead".to_owned(),
            result: SUCCESS.to_owned(),
            main_pid: None,
            exit: None,
            restarts: 0,
            restart_after: None,
            control_group: None,
        }
    }

    /// Which step it is in.
    pub fn phase(&self) -> UnitPhase {
        // Between a failure and the restart that follows it (from systemd 254 on).
        if self.sub.ends_with("-before-auto-restart") || self.sub.starts_with("auto-restart") {
            return UnitPhase::AwaitingRestart;
        }
        match self.active {
            // Its main process has ended (`RemainAfterExit=`).
            Activity::Active if self.sub == "exited" => UnitPhase::Down,
            Activity::Active | Activity::Reloading => UnitPhase::Up,
            Activity::Activating => UnitPhase::ComingUp,
            // Whose main process has ended by itself is gone through the same steps for what is left of it;
            // with another result the manager has ended it for what it did.
            Activity::Deactivating if self.is_stop() => UnitPhase::BeingStopped,
            Activity::Deactivating => UnitPhase::Ending,
            Activity::Inactive => UnitPhase::Down,
            Activity::Failed => UnitPhase::GivenUp,
            Activity::Other => UnitPhase::Unclear,
        }
    }

    fn is_stop(&self) -> bool {
        let is_step = matches!(&*self.sub, "stop" | "stop-sigterm" | "stop-sigkill");
        is_step && self.result == SUCCESS && self.main_pid.is_some()
    }
}

/// The `Result` of a unit that has not failed.
pub const SUCCESS: &str = "success";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_of_a_service_is_known() {
        let status = |active: &str, sub: &str, result: &str, main_pid| {
            let (active, sub) = (Activity::named(active), sub.to_owned());
            let result = result.to_owned();
            UnitStatus { active, sub, result, main_pid, ..UnitStatus::inactive("vllm.service") }
        };
        let phase = |active, sub, result| status(active, sub, result, Some(7)).phase();
        for (active, sub, result, expected) in [
            ("inactive", "dead", "success", UnitPhase::Down),
            ("activating", "start-pre", "success", UnitPhase::ComingUp),
            ("activating", "start", "success", UnitPhase::ComingUp),
            ("active", "running", "success", UnitPhase::Up),
            ("reloading", "reload", "success", UnitPhase::Up),
            ("refreshing", "refresh-extensions", "success", UnitPhase::Up),
            ("deactivating", "stop-sigterm", "success", UnitPhase::BeingStopped),
            ("deactivating", "stop", "success", UnitPhase::BeingStopped),
            ("deactivating", "stop-sigterm", "timeout", UnitPhase::Ending),
            ("deactivating", "stop-watchdog", "watchdog", UnitPhase::Ending),
            ("deactivating", "final-sigterm", "success", UnitPhase::Ending),
            ("deactivating", "stop-post", "exit-code", UnitPhase::Ending),
            ("failed", "failed-before-auto-restart", "exit-code", UnitPhase::AwaitingRestart),
            ("inactive", "dead-before-auto-restart", "success", UnitPhase::AwaitingRestart),
            ("activating", "auto-restart", "signal", UnitPhase::AwaitingRestart),
            ("activating", "auto-restart-queued", "signal", UnitPhase::AwaitingRestart),
            ("failed", "failed", "start-limit-hit", UnitPhase::GivenUp),
            ("maintenance", "cleaning", "success", UnitPhase::Unclear),
        ] {
            assert_eq!(phase(active, sub, result), expected, "{active} ({sub}), {result}");
        }
        assert_eq!(phase("active", "exited", SUCCESS), UnitPhase::Down);
        // The front has exited with status 0, and workers linger.
        let left = status("deactivating", "stop-sigterm", SUCCESS, None);
        assert_eq!(left.phase(), UnitPhase::Ending);
    }

    #[test]
    fn an_activity_has_the_name_that_it_was_read_by() {
        let names = ["active", "reloading", "inactive", "failed", "activating", "deactivating"];
        assert_eq!(names.map(|name| Activity::named(name).as_str()), names);
        assert_eq!(Activity::named("maintenance"), Activity::Other);
    }
}
