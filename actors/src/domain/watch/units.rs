//! What its manager says of the unit.

use super::{Cadence, Fallen, Follows, Run, Turn, View, Watch};
use crate::domain::cause::{Cause, Code};
use crate::domain::diagnosis::Exit;
use crate::domain::input::{Effect, Reaction};
use crate::domain::moment::Moment;
use crate::domain::ticket::CommandError;
use crate::domain::unit::{SUCCESS, UnitPhase, UnitReading, UnitStatus};

impl Watch {
    /// Takes what its manager said.
    pub fn hear(&mut self, reading: UnitReading, now: Moment) -> Reaction {
        let mut turn = Turn { watch: self, now, reaction: Reaction::default() };
        match reading {
            UnitReading::Seen(status) => turn.seen(&status),
            UnitReading::NotFound => {
                let unit = turn.name();
                let cause =
                    Cause::new(Code::InvalidConfiguration, format!("systemd knows no unit {unit}"));
                turn.unseen(cause.with_remedy(format!(
                    "set lifecycle.monitored_unit to a unit that `systemctl list-units --all` shows, or \
                     have it installed: `systemctl status {unit}`"
                )));
            }
            UnitReading::Unseen(why) => {
                let said = format!("systemd cannot be asked about {}: {why}", turn.name());
                let cause = Cause::new(Code::Unrecognised, said);
                turn.unseen(cause.with_remedy(
                    "see whether `systemctl status` works for this user; without a systemd leave \
                     lifecycle.monitored_unit out",
                ));
            }
        }
        turn.reaction
    }
}

impl Turn<'_> {
    fn name(&self) -> String {
        self.watch.spec.unit.clone().unwrap_or_default()
    }

    /// Whether it runs is not known any more.
    fn unseen(&mut self, cause: Cause) {
        if self.watch.obstacle.as_ref() == Some(&cause) {
            return;
        }
        self.settle();
        self.watch.unit = None;
        self.watch.obstacle = Some(cause.clone());
        self.cease();
        self.doubt(cause);
    }

    fn seen(&mut self, status: &UnitStatus) {
        if self.watch.obstacle.take().is_some() {
            self.watch.last_error = None;
        }
        let before = self.watch.unit.replace(status.clone()).map(|before| before.phase());
        match status.phase() {
            UnitPhase::Up => self.up(status),
            UnitPhase::ComingUp => self.coming_up(status),
            UnitPhase::BeingStopped => {
                self.settle();
                self.cease();
                self.enter(View::Stopping, None);
            }
            UnitPhase::Ending => self.ending(status),
            UnitPhase::AwaitingRestart => {
                self.ending(status);
                self.decide(Follows::Restart, status.restart_after);
            }
            // Nothing that matters has changed of one that was stopped, and has failed of that.
            UnitPhase::GivenUp if before == Some(UnitPhase::GivenUp) => {}
            UnitPhase::GivenUp => self.given_up(status),
            UnitPhase::Down => self.down(status),
            UnitPhase::Unclear => {
                self.settle();
                self.cease();
                let (unit, active) = (&status.name, status.active.as_str());
                let said = format!("systemd says of {unit}: {active} ({})", status.sub);
                self.doubt(Cause::new(Code::Unrecognised, said));
            }
        }
    }

    fn up(&mut self, status: &UnitStatus) {
        let run = Run { pid: status.main_pid };
        if self.watch.asked != Some(run) {
            self.begin_run(run, status);
        }
    }

    fn coming_up(&mut self, status: &UnitStatus) {
        // One that says itself when it is ready.
        if status.main_pid.is_some() {
            return self.up(status);
        }
        if self.watch.asked.is_some() {
            self.cease();
        }
        if let View::Crashed(_) = self.watch.view {
            self.settle();
            self.watch.ledger.observed(self.now);
        }
        // Whichever it will be, it is another run.
        self.watch.known = None;
        self.enter(View::Starting { since: self.now, misses: 0 }, None);
    }

    /// Its main process is another one than that which is asked.
    fn begin_run(&mut self, run: Run, status: &UnitStatus) {
        if matches!(self.watch.view, View::Running(_)) {
            // What its manager said in between was not heard.
            self.fall(cause_of_end(status), status.exit, Follows::Undecided);
        }
        if let View::Crashed(fallen) = &self.watch.view {
            if fallen.follows == Follows::Undecided {
                self.decide(Follows::Restart, None);
            }
            self.watch.ledger.observed(self.now);
        }
        let is_known = run.pid.is_some() && self.watch.known == Some(run);
        if !is_known {
            self.watch.incarnation = self.watch.incarnation.next();
        }
        self.watch.known = Some(run);
        self.watch.asked = Some(run);
        self.watch.cadence = Cadence::Eager;
        self.enter(View::Starting { since: self.now, misses: 0 }, None);
        self.effect(Effect::Watch { incarnation: self.watch.incarnation });
    }

    /// It has ended by itself, or was ended for what it did.
    fn ending(&mut self, status: &UnitStatus) {
        match &self.watch.view {
            View::Running(_) | View::Starting { .. } | View::Unknown => {
                if self.watch.known.is_none() {
                    // A run that nobody here has seen.
                    self.watch.incarnation = self.watch.incarnation.next();
                }
                self.fall(cause_of_end(status), status.exit, Follows::Undecided);
            }
            View::Stopped | View::Stopping | View::Crashed(_) | View::Failed { .. } => {}
        }
    }

    fn given_up(&mut self, status: &UnitStatus) {
        let cause = cause_of_end(status);
        match &self.watch.view {
            View::Running(_) | View::Starting { .. } => {
                self.fall(cause.clone(), status.exit, Follows::Nothing);
            }
            View::Crashed(_) => self.decide(Follows::Nothing, None),
            View::Failed { .. } => return,
            // Somebody has asked for its end, however it ended then.
            View::Stopping => return self.rest(),
            View::Unknown | View::Stopped => {}
        }
        self.watch.last_error = Some(cause.clone());
        self.cease();
        self.enter(View::Failed { cause: cause.clone() }, Some(cause.clone()));
        self.disappoint(&CommandError::Failed(cause));
    }

    fn down(&mut self, status: &UnitStatus) {
        match &self.watch.view {
            // Nobody has asked for its end (vLLM exits with status 0 when its engine dies), and nobody
            // starts it again.
            View::Running(_) | View::Starting { .. } => {
                self.fall(cause_of_end(status), status.exit, Follows::Nothing);
            }
            View::Crashed(fallen) if is_at_its_end(fallen) => self.decide(Follows::Nothing, None),
            // Somebody has stopped it meanwhile.
            View::Crashed(_) | View::Unknown | View::Stopping | View::Failed { .. } => self.rest(),
            View::Stopped => {}
        }
    }

    /// It does not run, and nobody wants it to.
    fn rest(&mut self) {
        self.watch.outage = None;
        self.watch.last_error = None;
        self.cease();
        self.enter(View::Stopped, None);
        self.disappoint(&self.watch.not_managed());
    }
}

/// Whether nothing was to follow it but the end of what is left.
fn is_at_its_end(fallen: &Fallen) -> bool {
    match fallen.follows {
        Follows::Undecided | Follows::Nothing | Follows::Answer | Follows::Token => true,
        Follows::Restart => false,
    }
}

/// Why a unit has ended, by its manager's word (`systemd.service(5)`, `$SERVICE_RESULT`).
fn cause_of_end(status: &UnitStatus) -> Cause {
    let UnitStatus { name, result, exit, .. } = status;
    let how = exit.map_or_else(|| "in an unknown way".to_owned(), |exit| format!("with {exit}"));
    let (code, said) = match result.as_str() {
        "oom-kill" => (Code::KilledForMemory, format!("{name}: the kernel killed it for memory")),
        "timeout" => (Code::EngineHung, format!("{name} did not start or stop in its time")),
        "watchdog" => (Code::EngineHung, format!("{name} did not answer systemd's watchdog")),
        "start-limit-hit" => {
            let said = format!("{name} was started too often; its last run ended {how}");
            (Code::RestartLimitReached, said)
        }
        SUCCESS | "exit-code" | "signal" | "core-dump" => {
            (code_of(*exit), format!("{name} ended by itself, {how}"))
        }
        other => (code_of(*exit), format!("{name} failed ({other}); it ended {how}")),
    };
    Cause::new(code, said)
        .with_remedy(format!("read why: `journalctl --unit {name} | vllmd diagnose -`"))
}

/// A program that cannot be started exits so (`systemd.exec(5)`, `EXIT_EXEC`).
const EXEC_FAILED: i32 = 203;

fn code_of(exit: Option<Exit>) -> Code {
    match exit {
        Some(Exit::Code(EXEC_FAILED)) => Code::VllmNotFound,
        Some(Exit::Code(_) | Exit::Signal(_) | Exit::Unknown) | None => Code::EngineDied,
    }
}
