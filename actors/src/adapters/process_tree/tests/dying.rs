//! Deaths of others than the main process, and whose they are said to be.

use super::*;

#[tokio::test]
async fn every_death_in_the_tree_is_told_at_once_with_how_it_came() {
    // The shell is their parent, not we.
    let script = "sh -c 'while [ ! -e $GATE ]; do sleep 0.01; done; exit 3' & exec sleep 600";
    for plant in [Planted::new, Planted::ungrouped] {
        let directory = tempfile::tempdir().unwrap();
        let gate = directory.path().join("gate");
        let planted = plant(&format!("export GATE={}; {script}", gate.display()));
        let mut deaths = planted.tree.deaths();
        let shell = |pid: &u32| {
            let words = proc_fs::command_line(*pid).unwrap().unwrap_or_default();
            words.starts_with("sh -c while")
        };
        until("it is seen", || planted.pids().iter().any(shell)).await;
        let pid = planted.pids().into_iter().find(shell).unwrap();

        std::fs::write(&gate, "").unwrap();

        // The sleeps that it started die as well.
        let death = loop {
            let death = in_time(deaths.next_death()).await;
            if death.pid == pid {
                break death;
            }
        };
        assert_eq!((death.role, death.exit), (Role::Helper, Exit::Code(3)));
    }
}

/// A fork shows the title of its parent until it has another: a compiler that an engine is about to
/// execute is no engine, and neither is a worker. It is vLLM's own once it has kept that title.
#[tokio::test]
async fn who_shows_the_title_of_his_parent_has_none_of_his_own() {
    let fork = Fork::that_ends_by("exit 3").await;
    until("it is known for one of vLLM's", || fork.role() == Some(Role::Untitled)).await;
    assert_eq!(fork.end().await, (Role::Untitled, Exit::Code(3)));
}

#[tokio::test]
async fn a_fork_that_has_executed_something_since_it_was_looked_at_is_no_engine() {
    let fork = Fork::that_ends_by("exec sh -c 'exit 3'").await;
    assert_eq!(fork.end().await, (Role::Helper, Exit::Code(3)));
}

/// One that shows the title of its parent, an engine, and ends when it may.
struct Fork {
    planted: Planted,
    deaths: Box<dyn DeathSource>,
    pid: u32,
    directory: tempfile::TempDir,
}

impl Fork {
    async fn that_ends_by(deed: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let gate = directory.path().join("gate");
        let script = directory.path().join("engine.sh");
        let child = format!("while [ ! -e {} ]; do sleep 0.01; done; {deed}", gate.display());
        std::fs::write(&script, format!("({child}) & wait; exec sleep 600")).unwrap();
        let rename = format!("exec -a x::EngineCore bash {}", script.display());
        let planted = Planted::new(&format!("exec bash -c '{rename}'"));
        let deaths = planted.tree.deaths();
        let is_fork = |pid: &u32| {
            let words = proc_fs::command_line(*pid).unwrap().unwrap_or_default();
            *pid != planted.main() && words.starts_with("x::EngineCore")
        };
        until("it is seen", || planted.pids().iter().any(is_fork)).await;
        let pid = planted.pids().into_iter().find(is_fork).unwrap();
        Self { planted, deaths, pid, directory }
    }

    fn role(&self) -> Option<Role> {
        let roster = self.planted.tree.watched.roster();
        roster.members().find(|member| member.held.pid == self.pid).map(|member| member.role)
    }

    /// What it was, and how it ended.
    async fn end(mut self) -> (Role, Exit) {
        std::fs::write(self.directory.path().join("gate"), "").unwrap();
        loop {
            let death = in_time(self.deaths.next_death()).await;
            if death.pid == self.pid {
                return (death.role, death.exit);
            }
        }
    }
}
