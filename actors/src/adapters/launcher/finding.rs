//! What an earlier supervisor has left: by its record, or by what all launches of the state directory
//! carry. What another supervisor owns that lives is left alone, and is no obstacle.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use super::claim::{LaunchClaim, Traces};
use super::search::{Reason, Seen, Sought};
use super::{ProcessLauncher, Way, cannot_own};
use crate::adapters::ownership::Marked;
use crate::adapters::process_record::{ProcessRecord, RecordError};
use crate::adapters::process_tree::ProcessTree;
use crate::adapters::scratch::Owner;
use crate::adapters::{proc_fs, system_error};
use crate::domain::absence::{Proof, ScanError, ScanErrorKind};
use crate::domain::cause::{Cause, Code, RetryClass};
use crate::domain::diagnosis::Phase;
use crate::domain::target::Target;
use crate::ports::{Found, Head};

/// What was left and lives. Nobody else owns it.
struct Left {
    record: ProcessRecord,
    tree: ProcessTree,
    traces: Traces,
}

impl ProcessLauncher {
    /// For the supervisor that begins: what it can adopt, or has to clear away.
    pub(super) fn look(&self, asked: &Target) -> Result<Found, ScanError> {
        let Some(Left { mut record, tree, traces }) = self.left()? else { return Ok(nothing()) };
        if let Err(error) = self.guard(&traces, &tree) {
            tracing::error!(%error, "vLLM will outlive this supervisor if it is killed");
        }
        let target = self.what_it_serves(&record, asked);
        if target.is_some() {
            self.forget_switch(&mut record);
        }
        let launch = self.launch(&record, tree, traces, Way::adopted());
        let main_is_alive = launch.tree.main_is_alive();
        if main_is_alive {
            launch.tree.watch()?;
        }
        let incarnation = record.incarnation;
        let claim = Arc::new(LaunchClaim::found(launch));
        let head: Option<Arc<dyn Head>> = main_is_alive.then(|| claim.head()).flatten();
        Ok(match (head, target) {
            (Some(head), Some((target, phase))) => {
                Found::Ready { incarnation, target, phase, claim, head }
            }
            (head, _) => {
                let pid = head.as_ref().map(|head| head.pid());
                tracing::warn!(
                    pid,
                    "a vLLM that an earlier supervisor left, with other settings or without its main process, is ended"
                );
                Found::Remnant { incarnation, claim, head }
            }
        })
    }

    /// What it serves, and how far it has come, if that is what is asked for, or what was switched to from
    /// that.
    fn what_it_serves(&self, record: &ProcessRecord, asked: &Target) -> Option<(Target, Phase)> {
        let settings = self.settings(asked);
        if record.settings == settings {
            return Some((asked.clone(), Phase::Serving));
        }
        let switched = record.switched.as_ref().filter(|it| it.configured == settings)?;
        // Another version of ours may have given it other words.
        let is_whole = record.settings == self.settings(&switched.target);
        is_whole.then(|| (switched.target.clone(), switched.phase))
    }

    /// What was switched to, and is configured now, is a switch no more.
    fn forget_switch(&self, record: &mut ProcessRecord) {
        let is_configured = record.settings == self.settings(&self.recipe.configured);
        if !is_configured || record.switched.take().is_none() {
            return;
        }
        if let Err(error) = self.record.write(record) {
            tracing::warn!(%error, "it cannot be kept that the model is configured by now");
        }
    }

    /// For a launch: a directory that has taken the place of ours may be that of a vLLM whose
    /// supervisor has ended. Nobody would find it any more.
    pub(super) fn spare_another(&self) -> Result<(), Cause> {
        let there = self.state.present().now();
        let mut searched = self.searched.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&searched, &there) {
            return Ok(());
        }
        let wait = |cause| Cause { retry: RetryClass::AfterCleanup, ..cause };
        let Some(left) = self.left().map_err(|error| wait(cannot_own(&error)))? else {
            *searched = there;
            return Ok(());
        };
        for scratch in &left.traces.scratch {
            self.state.launches().let_go(scratch);
        }
        let pids = left.tree.members().map_err(|error| wait(cannot_own(&error)))?;
        let said = format!(
            "{} is another directory than before, and a vLLM of that one runs: end it, or bring the \
             former one back (processes {pids:?})",
            self.state.path().display()
        );
        Err(wait(Cause::new(Code::InvalidConfiguration, said)))
    }

    fn left(&self) -> Result<Option<Left>, ScanError> {
        let record = match self.record.read() {
            Ok(Some(record)) => record,
            Ok(None) => return self.left_by_state(Reason::NoRecord),
            Err(error) => return self.left_without_record(&error),
        };
        // An old record, restored from a backup, may stand for a launch after it.
        let left = self.left_on_record(record)?;
        left.map_or_else(|| self.left_by_state(Reason::NoRecord), |it| Ok(Some(it)))
    }

    fn left_on_record(&self, record: ProcessRecord) -> Result<Option<Left>, ScanError> {
        // Pids of another boot mean nothing; the marker is unique all the same.
        let boot_id = proc_fs::boot_id()?;
        let main = record.main.filter(|_| record.boot_id == boot_id);
        let pids: Vec<u32> = main.map(|(pid, _)| pid).into_iter().collect();
        if self.owner(record.scratch.as_ref(), &pids)? == Owner::Another {
            return Ok(None);
        }
        let tree = ProcessTree::of_other(main, &record.marker)?;
        if let Some(claimed) = record.claimed.filter(|_| record.boot_id == boot_id) {
            tree.claimed_at(claimed);
        }
        let traces = self.traces(&record, record.scratch.iter().cloned().collect());
        if !tree.main_is_alive() {
            let remaining = tree.remaining_in_the_end();
            if remaining.map_err(|error| self.with_a_way_out(error))?.is_empty() {
                traces.remove();
                return Ok(None);
            }
        }
        Ok(Some(Left { record, tree, traces }))
    }

    /// Where the record cannot be read: that is not nothing.
    fn left_without_record(&self, error: &RecordError) -> Result<Option<Left>, ScanError> {
        let path = self.record.path().display().to_string();
        if let RecordError::Unreadable(source) = error
            && system_error::class_of(source).1 == RetryClass::Transient
        {
            // It may be readable the next time.
            return Err(ScanError::new(path, source));
        }
        tracing::error!(%error, path, "the record of an earlier launch cannot be read");
        let left = self.left_by_state(Reason::UnreadableRecord)?;
        if left.is_none() {
            self.set_record_aside();
        }
        Ok(left)
    }

    /// Of a process that may be a stranger's nobody can say more than whoever operates the machine.
    fn with_a_way_out(&self, error: ScanError) -> ScanError {
        if error.kind != ScanErrorKind::Undecided {
            return error;
        }
        let path = self.record.path();
        let said = format!("{}, or remove {} if it is not", error.said, path.display());
        ScanError { said, ..error }
    }

    /// By what all launches of this directory carry: there may be more than one, and more to come,
    /// which are none of what was seen.
    fn left_by_state(&self, reason: Reason) -> Result<Option<Left>, ScanError> {
        let sought = Sought::of_state(&self.state, reason)?;
        let all = ProcessTree::of_all(sought.marked(), None)?;
        if all.remaining_in_the_end()?.is_empty() {
            return Ok(None);
        }
        let mut launches = Vec::new();
        for seen in sought.launches_of(&all.members()?)? {
            if self.owner(seen.scratch.as_ref(), &seen.pids)? == Owner::Us {
                launches.push(seen);
            }
        }
        let Some(latest) = launches.last() else { return Ok(None) };
        let record = ProcessRecord {
            boot_id: proc_fs::boot_id()?,
            incarnation: latest.incarnation,
            marker: latest.marker.clone(),
            claimed: None,
            main: None,
            settings: Vec::new(),
            switched: None,
            scratch: latest.scratch.clone(),
        };
        let marked = Marked::by_any(launches.iter().flat_map(Seen::variables).collect());
        let tree = ProcessTree::of_all(marked, Some(&record.marker))?;
        tree.members()?;
        let scratch = launches.iter().filter_map(|seen| seen.scratch.clone()).collect();
        let traces = self.traces(&record, scratch);
        Ok(Some(Left { record, tree, traces }))
    }

    /// Who owns a launch; if nobody does, we do from now on.
    fn owner(&self, scratch: Option<&PathBuf>, pids: &[u32]) -> Result<Owner, ScanError> {
        // One of before there was such a directory.
        let Some(path) = scratch else { return Ok(Owner::Us) };
        let owner = self.state.launches().take(path, pids.first().copied());
        let owner = owner.map_err(|error| ScanError::new(path.to_string_lossy(), &error))?;
        if owner == Owner::Another {
            tracing::warn!(
                ?pids,
                "a vLLM of another supervisor, who is alive, is left alone: our state directory is a copy \
                 of that one's, or has taken its place"
            );
        }
        Ok(owner)
    }

    /// Nothing of an earlier launch is alive: what stands in the way of a new record goes aside.
    fn set_record_aside(&self) {
        match self.record.set_aside() {
            Ok(path) => {
                tracing::warn!(path = %path.display(), "nothing runs of it; it is kept there");
            }
            Err(error) => tracing::error!(%error, "the unreadable record stays where it is"),
        }
    }
}

fn nothing() -> Found {
    Proof::of(Ok(Vec::new())).map(Found::Nothing).expect("nothing is left where nothing is")
}
