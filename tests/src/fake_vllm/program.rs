//! Where every process of the stand-in begins: which of them am I?

use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use super::arguments::{Arguments, Usage};
use super::child::{Orders, Role, Stage};
use super::log::Log;
use super::plan::FakeVllm;
use super::{api_server, engine_core, resource_tracker, signals, transcript, worker};

/// The belt: no process of the stand-in lives longer.
pub(super) const LIFETIME: Duration = Duration::from_secs(600);

/// The whole program: the API server when started by hand, one of its helpers when it started
/// itself.
pub fn run() -> ExitCode {
    signals::behave_like_python();
    let Some(orders) = Orders::of_this_process() else { return run_api_server() };
    match (&orders.role, orders.stage) {
        // It ends with the last holder of its pipe, so it needs no belt, and with one it might go
        // before those whose segments it has to remove.
        (Role::ResourceTracker, _) => block_on(resource_tracker::run()),
        (Role::Grandchild, _) => {
            put_on_belt();
            rustix::process::setsid().ok();
            freeze()
        }
        (_, Stage::Importing) => block_on(orders.import_and_take_title()),
        (Role::EngineCore, Stage::Titled) => {
            put_on_belt();
            block_on(engine_core::run(orders))
        }
        (Role::Worker { .. }, Stage::Titled) => {
            put_on_belt();
            block_on(worker::run(orders))
        }
    }
}

fn run_api_server() -> ExitCode {
    put_on_belt();
    let plan = FakeVllm::of_this_launch();
    match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => block_on(api_server::run(arguments, plan)),
        Err(Usage { unrecognized }) => {
            // Flags are read after the imports, as in the real one.
            block_on(async { tokio::time::sleep(plan.share_of_load_time(10)).await });
            Log::default().print_with(transcript::UNKNOWN_FLAG, &[("flags", unrecognized)]);
            ExitCode::from(2)
        }
    }
}

/// Stops the calling thread for ever, and with it a current-thread runtime: what a process does
/// that is stuck in a call of the driver. Handlers are still there, but nobody runs them.
pub(super) fn freeze() -> ! {
    loop {
        std::thread::park();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("an event loop can be made").block_on(future)
}

/// Has the kernel end this process when its lifetime is over, even if it is frozen.
fn put_on_belt() {
    std::thread::spawn(|| {
        let (_never, nothing) = mpsc::channel::<Infallible>();
        nothing.recv_timeout(LIFETIME).ok();
        kill_process(getpid(), Signal::KILL).ok();
    });
}
