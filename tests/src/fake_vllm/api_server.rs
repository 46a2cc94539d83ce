//! The API server, the process that a supervisor starts: brings the engine up, then serves HTTP,
//! and ends with exit code 0 more often than it should.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::pin::pin;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Signal;
use tokio::net::TcpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::arguments::Arguments;
use super::child::{Orders, Role, Stage, set_comm};
use super::crew::{Crew, Report};
use super::http::{self, Request};
use super::link::{Answer, Order};
use super::log::{self, Log};
use super::plan::{Plan, Quirk, Step};
use super::program::freeze;
use super::signals::{StopSignals, die_by};
use super::transcript;
use super::worker::after;

/// Backlog of the listening socket, uvicorn's default.
const BACKLOG: u32 = 2048;

/// How the process ends.
enum Ending {
    Exit(u8),
    /// By SIGINT, as Python does after a `KeyboardInterrupt` that nobody caught.
    Interrupted,
}

pub(super) async fn run(arguments: Arguments, plan: Plan) -> ExitCode {
    let launched = Instant::now();
    set_comm("vllm");
    let mut server = ApiServer::new(arguments, plan);
    let loaded = match server.plan.exit_while_loading {
        None => server.load().await,
        Some(exit) => timeout_at(launched + exit.after, server.load()).await.unwrap_or_else(|_| {
            server.log.print_with(transcript::API_FAILED_TO_START, &[("failed", "{}".to_owned())]);
            Err(Ending::Exit(exit.code))
        }),
    };
    let ending = match loaded {
        Ok(socket) => server.serve(socket).await,
        Err(ending) => ending,
    };
    // As Python's finalizers do: no orderly end leaves an engine behind.
    server.engine.destroy().await;
    match ending {
        Ending::Exit(code) => ExitCode::from(code),
        Ending::Interrupted => die_by(Signal::INT),
    }
}

struct ApiServer {
    arguments: Arguments,
    plan: Plan,
    log: Log,
    engine: Crew,
    /// The write end of the resource tracker's pipe, open as long as this process runs.
    tracker_pipe: Option<io::PipeWriter>,
}

impl ApiServer {
    fn new(arguments: Arguments, plan: Plan) -> Self {
        let log = Log::with(vec![
            ("model", arguments.model().to_owned()),
            ("address", arguments.address().to_string()),
            ("arguments", arguments.as_python()),
        ]);
        Self { arguments, plan, log, engine: Crew::new(), tracker_pipe: None }
    }

    /// Everything up to the socket that is ready to listen.
    async fn load(&mut self) -> Result<TcpSocket, Ending> {
        // Signals that nobody asks for: deaf from the first moment.
        let _deaf = self.plan.has(Quirk::IgnoresSigterm).then(StopSignals::listen);
        sleep(self.plan.share_of_load_time(10)).await;
        self.plan.pass(Step::FrontImports).await;
        self.log.print(transcript::API_IMPORTED);
        let socket = self.bind()?;
        let mut stops = StopSignals::listen();
        self.log.print(transcript::API_CONFIGURED);
        if self.plan.has(Quirk::FloodsLog) {
            log::flood();
        }
        self.start_helpers().expect("a pipe can be made");
        self.wait_for_engine(&mut stops).await?;
        self.ask_engine().await?;
        Ok(socket)
    }

    /// Takes the address without listening yet: until then connections are refused.
    fn bind(&self) -> Result<TcpSocket, Ending> {
        let address = self.arguments.address();
        let bound = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }
        .and_then(|socket| {
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            Ok(socket)
        });
        bound.map_err(|_| self.port_in_use())
    }

    fn port_in_use(&self) -> Ending {
        self.log.print(transcript::PORT_IN_USE);
        Ending::Exit(1)
    }

    /// Resource tracker, then the grandchild if there is to be one, then the engine. Only the
    /// engine and what it starts inherit the tracker's pipe.
    fn start_helpers(&mut self) -> io::Result<()> {
        let (tracker_end, our_end) = io::pipe()?;
        let engine = Orders {
            role: Role::EngineCore,
            stage: Stage::Importing,
            plan: self.plan.clone(),
            model: self.arguments.model().to_owned(),
            served_model: self.arguments.served_model().to_owned(),
            world_size: self.plan.workers.unwrap_or(self.arguments.world_size()).max(1),
            tracker_pipe: our_end.as_raw_fd(),
            engine_segment: None,
        };
        drop(engine.for_role(Role::ResourceTracker).start(tracker_end));
        if self.plan.has(Quirk::LeavesGrandchild) || self.plan.has(Quirk::LeavesStranger) {
            drop(engine.for_role(Role::Grandchild).start(std::fs::File::open("/dev/null")?));
        }
        fcntl_setfd(&our_end, FdFlags::empty())?;
        self.tracker_pipe = Some(our_end);
        self.engine.hire(&engine);
        Ok(())
    }

    /// The first `KeyboardInterrupt` in this phase is swallowed, the second one ends it (vLLM 0.32,
    /// `network_utils.py`). SIGTERM raises one; so does SIGINT, but for the first, which only asks
    /// asyncio to cancel something that does not listen.
    async fn wait_for_engine(&mut self, stops: &mut StopSignals) -> Result<(), Ending> {
        let (mut sigints, mut interrupts) = (0, 0);
        loop {
            tokio::select! {
                signal = stops.next() => {
                    sigints += u32::from(signal == Signal::INT);
                    let first_sigint = signal == Signal::INT && sigints == 1;
                    interrupts += u32::from(self.heeds(signal) && !first_sigint);
                    if interrupts == 2 {
                        return Err(Ending::Interrupted);
                    }
                }
                report = self.engine.next() => match report {
                    Report::Answered(_) => return Ok(()),
                    Report::Exited { status, .. } => {
                        let failed = [("failed", failed_processes(status))];
                        self.log.print_with(transcript::API_FAILED_TO_START, &failed);
                        return Err(Ending::Exit(1));
                    }
                },
            }
        }
    }

    /// What can be asked of the engine is asked before anything is served. One that has left in order
    /// by then never answers, and the front waits for it for ever (vLLM 0.32, observed after a SIGTERM
    /// of an engine that loaded).
    async fn ask_engine(&mut self) -> Result<(), Ending> {
        self.engine.tell_all(Order::Describe).await;
        loop {
            match self.engine.next().await {
                Report::Answered(Answer::Described) => return Ok(()),
                Report::Answered(_) => {}
                Report::Exited { status, .. } if status.success() => {
                    self.log.print(transcript::ENGINE_DEAD);
                    freeze();
                }
                Report::Exited { status, .. } => {
                    let failed = [("failed", failed_processes(status))];
                    self.log.print_with(transcript::API_FAILED_TO_START, &failed);
                    return Err(Ending::Exit(1));
                }
            }
        }
    }

    async fn serve(&mut self, socket: TcpSocket) -> Ending {
        let mut stops = StopSignals::listen();
        self.log.print(transcript::API_SERVING);
        let Ok(listener) = socket.listen(BACKLOG) else { return self.port_in_use() };
        let (to_engine, mut requests) = mpsc::unbounded_channel();
        let service = http::Service::new(&self.arguments, &self.plan, to_engine);
        let (stop, stopped) = oneshot::channel();
        let http = http::serve(listener, service.clone(), stopped);
        let mut pending: BTreeMap<u64, oneshot::Sender<String>> = BTreeMap::new();
        let exit = self.plan.exit_when_serving;
        let mut exit_due = pin!(after(exit.map(|exit| exit.after)));
        let mut hang_due = pin!(after(self.plan.api_hangs_after));
        // Dropping `pending` and `requests` gives whoever waits for the engine an error.
        loop {
            tokio::select! {
                biased;
                () = &mut hang_due => freeze(),
                () = &mut exit_due => return Ending::Exit(exit.map_or(0, |exit| exit.code)),
                signal = stops.next() => if self.heeds(signal) {
                    self.stop_engine().await;
                    drop((pending, requests, stop));
                    http.join_all().await;
                    self.log.print(transcript::SHUTDOWN_ENDS);
                    return Ending::Exit(0);
                },
                report = self.engine.next() => match report {
                    Report::Answered(Answer::Completed { number, text }) => {
                        pending.remove(&number).map(|reply| reply.send(text));
                    }
                    Report::Answered(_) => {}
                    Report::Exited { status, .. } => {
                        drop((pending, requests));
                        service.declare_engine_dead();
                        return self.follow_engine(status, http).await;
                    }
                },
                Some(Request { number, tokens, reply }) = requests.recv() => {
                    pending.insert(number, reply);
                    self.engine.tell_all(Order::Complete { number, tokens }).await;
                }
            }
        }
    }

    fn heeds(&self, signal: Signal) -> bool {
        signal != Signal::TERM || !self.plan.has(Quirk::IgnoresSigterm)
    }

    /// With the default `--shutdown-timeout` of 0 the engine is sent SIGTERM and, in the same
    /// breath, SIGKILL.
    async fn stop_engine(&mut self) {
        self.log.print(transcript::SHUTDOWN_BEGINS);
        self.engine.signal_all(Signal::TERM);
        let engine_pid = self.engine.pid(0).as_raw_pid().to_string();
        self.log.print_with(transcript::ENGINE_FORCE_KILLED, &[("engine_pid", engine_pid)]);
        for worker in self.engine.destroy().await {
            let pid = worker.pid.as_raw_pid().to_string();
            let values = [("title", worker.title), ("worker_pid", pid)];
            self.log.print_with(transcript::WORKER_FORCE_KILLED, &values);
        }
    }

    /// First `/health` is 503, then nobody listens, then this process exits with 0 as if all were
    /// well. There is no delay after an engine that left in order.
    async fn follow_engine<T: 'static>(&self, status: ExitStatus, http: JoinSet<T>) -> Ending {
        let died = Instant::now();
        let notice = if status.success() { Duration::ZERO } else { self.plan.engine_death_notice };
        let said_why = status.code().is_some_and(|code| code != 0);
        if !said_why {
            self.log.print(transcript::ENGINE_LOST);
        }
        self.log.print(transcript::ENGINE_DEAD);
        sleep_until(died + notice * 9 / 10).await;
        drop(http);
        sleep_until(died + notice).await;
        self.log.print(transcript::UVICORN_EXIT);
        if said_why {
            self.log.print(transcript::CLIENT_CLEANUP);
        }
        Ending::Exit(0)
    }
}

/// The dead processes as vLLM lists them. An engine that reported its failure before it exited is
/// not in the list.
fn failed_processes(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("{{'EngineCore': -{signal}}}"),
        None => "{}".to_owned(),
    }
}
