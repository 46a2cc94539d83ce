//! What vLLM's Python and its packages can have about them that makes a warm launch impossible, or
//! another thing than a cold one.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use vllm_supervisor::ServiceState::Running;
use vllm_supervisor::config::LaunchPolicy;
use vllm_supervisor::{LaunchKind, LaunchMethod};
use vllm_supervisor_tests::fake_venv::{FakeVenv, IN_WARM_PROCESS};
use vllm_supervisor_tests::fake_vllm::fake_vllm;
use vllm_supervisor_tests::process_table::Process;
use vllm_supervisor_tests::scenario::{Scenario, Server, Victim};

use super::{comes_back, distrusted, forgiving, server, serving};
use crate::FAKE;

/// It serves, launched cold by the first launch, and nothing is said against warm launches.
async fn serves_cold_at_once(venv: &FakeVenv) {
    let scenario = serving(venv).await;
    let present = scenario.wait_for(Running).await;
    assert_eq!((present.launch, present.incarnation.get()), (Some(LaunchKind::Cold), 1));
    assert_eq!(distrusted(&scenario), [], "{}", scenario.story());
    assert_eq!(comes_back(&scenario).await, Some(LaunchKind::Cold), "{}", scenario.story());
    scenario.end().await;
}

#[tokio::test]
async fn an_interpreter_that_runs_no_text_launches_cold() {
    let does = "echo 'unknown option -c' >&2; exit 64";
    serves_cold_at_once(&FakeVenv::of(FAKE).whose_python_given_a_text(does)).await;
}

#[tokio::test]
async fn an_interpreter_that_does_not_know_the_syntax_launches_cold() {
    let does = "echo 'SyntaxError: invalid syntax' >&2; exit 1";
    serves_cold_at_once(&FakeVenv::of(FAKE).whose_python_given_a_text(does)).await;
}

#[tokio::test]
async fn an_interpreter_that_speaks_another_language_launches_cold() {
    let does = "printf 'not JSON' >&0; exec sleep 600";
    serves_cold_at_once(&FakeVenv::of(FAKE).whose_python_given_a_text(does)).await;
}

#[tokio::test]
async fn a_vllm_that_ends_when_it_is_only_imported_launches_cold() {
    let source = format!("if {IN_WARM_PROCESS}: raise RuntimeError('not like this')");
    serves_cold_at_once(&FakeVenv::of(FAKE).with_module("picky", &source)).await;
}

#[tokio::test]
async fn a_vllm_that_cannot_be_imported_without_a_thread_launches_cold() {
    let source = thread("busy");
    serves_cold_at_once(&FakeVenv::of(FAKE).with_module("busy", &source)).await;
}

#[tokio::test]
async fn a_vllm_that_hangs_while_it_is_only_imported_serves_in_the_end() {
    let source = format!("if {IN_WARM_PROCESS}: __import__('time').sleep(600)");
    let venv = FakeVenv::of(FAKE).with_module("hanging", &source);
    let server = server(&venv).with_patience(Duration::from_secs(150));
    let scenario = Scenario::configure(server, forgiving).await;
    scenario.start_service().await;
    let present = scenario.wait_for(Running).await;
    assert_eq!(present.launch, Some(LaunchKind::Cold), "{}", scenario.story());
    scenario.end().await;
}

fn thread(name: &str) -> String {
    format!(
        "if {IN_WARM_PROCESS}:\n    import threading\n    wait = threading.Event().wait\n    \
         threading.Thread(target=wait, daemon=True, name='{name}').start()\n"
    )
}

/// Says in a file that a warm process has imported it, and does something there.
fn lesson(at: &Path, does: &str) -> String {
    let at = at.display();
    format!("if {IN_WARM_PROCESS}:\n    open('{at}', 'a').close()\n    {does}\n")
}

/// What a warm process has learnt of this name is of no use; it is left out, and launches are warm.
async fn is_left_out(does: &str) {
    let mark = tempfile::tempdir().expect("a directory");
    let mark = mark.path().join("imported");
    std::fs::create_dir_all(mark.parent().expect("a directory")).expect("a directory");
    let venv = FakeVenv::of(FAKE).with_lesson("fine", "");
    let venv = venv.with_lesson("useless", &lesson(&mark, does));
    let scenario = serving(&venv).await;
    scenario.wait_until_processes(|_| mark.exists()).await;
    let lessons = || {
        let files = std::fs::read_dir(venv.path("cache/warm")).into_iter().flatten().flatten();
        let texts = files.map(|file| std::fs::read_to_string(file.path()).unwrap_or_default());
        texts.collect::<String>()
    };
    // A launch that came before would be cold: what is imported in part is not forked.
    scenario.wait_until_processes(|_| !lessons().contains("vllm.useless")).await;
    assert_eq!(comes_back(&scenario).await, Some(LaunchKind::Warm), "{}", scenario.story());
    assert!(lessons().contains("vllm.fine"), "{}", lessons());
    assert!(!lessons().contains("vllm.useless"), "{}", lessons());
    assert_eq!(distrusted(&scenario), [], "{}", scenario.story());
    scenario.end().await;
}

#[tokio::test]
async fn a_module_that_raises_is_left_out() {
    is_left_out("raise RuntimeError('not like this')").await;
}

#[tokio::test]
async fn a_module_that_ends_the_process_is_left_out() {
    is_left_out("__import__('os').abort()").await;
}

#[tokio::test]
async fn a_module_that_starts_a_thread_is_left_out() {
    let does = "import threading; threading.Thread(\
                target=threading.Event().wait, daemon=True).start()";
    is_left_out(does).await;
}

#[tokio::test]
async fn a_module_that_starts_a_process_is_left_out() {
    is_left_out("import subprocess; subprocess.Popen(['sleep', '600'])").await;
}

#[tokio::test]
async fn a_module_that_hangs_is_left_out() {
    is_left_out("__import__('time').sleep(600)").await;
}

#[tokio::test]
async fn several_modules_that_start_threads_are_left_out_one_after_the_other() {
    let mut venv = FakeVenv::of(FAKE);
    for name in ["first", "second", "third", "fourth"] {
        venv = venv.with_lesson(name, &thread(name));
    }
    let scenario = serving(&venv).await;
    for _ in 0..2 {
        // Whatever is left out meanwhile.
        comes_back(&scenario).await;
    }
    let warm = |living: &[_]| super::warm_process(living).is_some();
    scenario.wait_until_processes(warm).await;
    assert_eq!(comes_back(&scenario).await, Some(LaunchKind::Warm), "{}", scenario.story());
    scenario.end().await;
}

/// However a vLLM fails when it is forked, a cold one serves instead, and that is kept.
async fn is_distrusted(does: &str, hangs: bool) {
    let venv = FakeVenv::that_when_forked(FAKE, does);
    let scenario = Scenario::configure(server(&venv), |config| {
        forgiving(config);
        if hangs {
            config.lifecycle.start_timeout = Duration::from_secs(1);
            config.lifecycle.model_load_timeout = Duration::from_secs(2);
        }
    })
    .await;
    scenario.start_service().await;
    assert_eq!(venv.launches().len(), 3, "{:?}", venv.launches());
    assert_eq!(distrusted(&scenario), [LaunchMethod::Cold], "{}", scenario.story());
    let kept = std::fs::read_to_string(scenario.state_dir().join("launches.json"));
    assert!(kept.expect("a memory").contains(r#""limit":"cold""#));
    assert_eq!(comes_back(&scenario).await, Some(LaunchKind::Cold), "{}", scenario.story());
    // It is of no use any more.
    scenario.wait_until_processes(|living| super::warm_process(living).is_none()).await;
    scenario.end().await;
}

#[tokio::test]
async fn a_vllm_that_dies_of_a_fault_when_it_is_forked_is_launched_cold() {
    is_distrusted("os.kill(os.getpid(), 11)", false).await;
}

#[tokio::test]
async fn a_vllm_that_exits_when_it_is_forked_is_launched_cold() {
    is_distrusted("sys.exit(1)", false).await;
}

#[tokio::test]
async fn a_vllm_that_ends_well_when_it_is_forked_is_launched_cold() {
    is_distrusted("sys.exit(0)", false).await;
}

#[tokio::test]
async fn a_vllm_that_hangs_when_it_is_forked_is_launched_cold() {
    is_distrusted("import time; time.sleep(600)", true).await;
}

#[tokio::test]
async fn a_vllm_that_does_not_bear_to_wait_is_forked_when_it_is_ordered() {
    let venv = FakeVenv::that_when_forked(FAKE, "was_ordered or sys.exit(3)");
    let scenario = serving(&venv).await;
    scenario.wait_until_processes(|living| living.iter().any(Process::is_ahead)).await;
    let before = scenario.wait_for(Running).await.incarnation.get();
    scenario.kill(Victim::Worker, Signal::KILL);
    let after = scenario.wait_for_successor_of(before).await;
    let warm = Some(LaunchKind::Warm);
    assert_eq!((after.launch, after.incarnation.get()), (warm, before + 2), "{}", scenario.story());
    scenario.wait_until_processes(|_| !distrusted(&scenario).is_empty()).await;
    assert_eq!(distrusted(&scenario), [LaunchMethod::Tree], "{}", scenario.story());
    assert_eq!(comes_back(&scenario).await, warm, "{}", scenario.story());
    assert!(!scenario.processes().iter().any(Process::is_ahead), "{}", scenario.story());
    scenario.end().await;
}

#[tokio::test]
async fn a_vllm_that_answers_otherwise_when_it_is_forked_is_launched_cold() {
    let mark = tempfile::NamedTempFile::new().expect("a file");
    let (_, path) = mark.keep().expect("a file");
    let does =
        format!("os.path.exists('{0}') or os.environ.update(FAKE_VLLM_WORD=' lo')", path.display());
    let venv = FakeVenv::that_when_forked(FAKE, &does);
    let scenario = serving(&venv).await;
    assert_eq!(scenario.wait_for(Running).await.launch, Some(LaunchKind::Warm));
    let kept = || std::fs::read_to_string(scenario.state_dir().join("launches.json"));
    scenario.wait_until_processes(|_| kept().is_ok_and(|it| it.contains(" la"))).await;

    std::fs::remove_file(path).expect("it is there");
    let before = comes_back(&scenario).await;
    assert_eq!(before, Some(LaunchKind::Warm), "{}", scenario.story());
    let wrong = scenario.wait_for(Running).await.incarnation.get();
    let after = scenario.wait_for_successor_of(wrong).await;
    assert_eq!(after.launch, Some(LaunchKind::Cold), "{}", scenario.story());
    scenario.wait_until_processes(|_| !distrusted(&scenario).is_empty()).await;
    assert_eq!(distrusted(&scenario), [LaunchMethod::Cold], "{}", scenario.story());
    assert_eq!(scenario.complete().await, " la".repeat(8));
    assert_eq!(comes_back(&scenario).await, Some(LaunchKind::Cold), "{}", scenario.story());
    scenario.end().await;
}

#[tokio::test]
async fn a_vllm_that_is_to_be_launched_warm_is_launched_so_whatever_comes_of_it() {
    let venv = FakeVenv::that_when_forked(FAKE, "os.abort()");
    let scenario = Scenario::configure(server(&venv), |config| {
        config.lifecycle.launch = LaunchPolicy::Warm;
        config.lifecycle.model_load_max_retries = 1;
    })
    .await;
    assert!(scenario.handle().start().await.is_err());
    assert_eq!(distrusted(&scenario), [], "{}", scenario.story());
    let forked = |launch: &String| launch.starts_with("forked");
    assert!(venv.launches().iter().all(forked), "{:?}", venv.launches());
    scenario.nothing_is_left().await;
    scenario.end().await;
}

#[tokio::test]
async fn no_launch_is_made_of_two_builds_of_vllm() {
    let mut venv = FakeVenv::of(FAKE);
    let scenario = serving(&venv).await;
    scenario.warm_process().await;
    venv.upgrade();
    for _ in 0..3 {
        comes_back(&scenario).await;
    }
    let warm = Some(LaunchKind::Warm);
    assert_eq!(scenario.wait_for(Running).await.launch, warm, "{:?}", venv.launches());
    let launches = venv.launches();
    assert_eq!(launches.len(), 4, "{launches:?}");
    assert_eq!(launches[0], "forked 9.0 9.0 9.0");
    assert!(
        launches[1..].iter().all(|it| it.ends_with("9.1-beta 9.1-beta 9.1-beta")),
        "{launches:?}"
    );
    scenario.end().await;
}

#[tokio::test]
async fn vllm_with_another_environment_is_forked_from_another_process() {
    let venv = FakeVenv::of(FAKE);
    let flavoured = async |flavour: &str| {
        let scenario = Scenario::configure(server(&venv), |config| {
            forgiving(config);
            config.env.insert("FLAVOUR".to_owned(), flavour.to_owned());
        })
        .await;
        scenario.start_service().await;
        let warm = scenario.warm_process().await;
        assert!(warm.has_in_environment(&format!("FLAVOUR={flavour}")));
        let head = scenario.process(Victim::ApiServer);
        assert!(head.has_in_environment(&format!("FLAVOUR={flavour}")));
        assert_eq!(scenario.wait_for(Running).await.launch, Some(LaunchKind::Warm));
        (scenario, warm.pid)
    };
    let ((one, of_one), (other, of_other)) = tokio::join!(flavoured("sweet"), flavoured("sour"));
    assert_ne!(of_one, of_other);
    one.end().await;
    assert_eq!(comes_back(&other).await, Some(LaunchKind::Warm), "{}", other.story());
    other.end().await;
}

#[tokio::test]
async fn what_is_no_script_of_python_is_launched_cold_without_ado() {
    let server = Server::fake(FAKE, &fake_vllm().loads_in(Duration::ZERO));
    let scenario = Scenario::configure(server, forgiving).await;
    scenario.start_service().await;
    assert_eq!(scenario.wait_for(Running).await.launch, Some(LaunchKind::Cold));
    assert!(super::warm_process(&scenario.processes()).is_none());
    scenario.end().await;
}

#[tokio::test]
async fn a_script_of_the_operators_own_is_run_and_not_what_it_is_taken_for() {
    let venv = FakeVenv::of(FAKE);
    let script = std::fs::read_to_string(venv.command()).expect("a script");
    let own = script.replace("import sys\n", "import sys\nimport os\nos.environ['OWN'] = 'yes'\n");
    std::fs::write(venv.command(), own).expect("a script");
    let scenario = serving(&venv).await;
    let present = scenario.wait_for(Running).await;
    assert_eq!(present.launch, Some(LaunchKind::Cold), "{}", scenario.story());
    let head = scenario.process(Victim::ApiServer);
    assert!(head.has_in_environment("OWN=yes"), "{}", scenario.story());
    scenario.end().await;
}
