//! supervisord on the same stand-in, for comparison: its state is asked for by XML-RPC every
//! millisecond.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, interval, timeout};
use vllm_supervisor_tests::census::Census;
use vllm_supervisor_tests::fake_vllm::fake_vllm;
use vllm_supervisor_tests::process_table::{Process, resident_kib};
use vllm_supervisor_tests::scenario::free_port;

use crate::Plan;
use crate::command::as_f64;
use crate::figure::{Figure, Unit};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// From one question to the next.
const POLL: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(30);

/// A supervisord that runs the stand-in.
struct Supervisord {
    child: Child,
    port: u16,
    http: reqwest::Client,
    rpc: String,
    census: Census,
    // Last, so that nobody writes there any more.
    _directory: TempDir,
}

impl Supervisord {
    async fn start(plan: &Plan) -> Outcome<Self> {
        let program = installed().await?;
        let directory = tempfile::tempdir()?;
        let (port, rpc_port) = (free_port(), free_port());
        let program_line = format!("{} serve org/tiny --port {port}", plan.fake_vllm);
        let text = configuration(&program_line, directory.path(), rpc_port);
        let file = directory.path().join("supervisord.conf");
        fs::write(&file, text)?;
        let census = Census::of(format!("FIGURES={}", directory.path().display()));
        let (name, value) = fake_vllm().loads_in(Duration::ZERO).environment();
        #[expect(clippy::disallowed_methods, reason = "it is what is measured")]
        let child = Command::new(program)
            .args(["--nodaemon", "--configuration"])
            .arg(&file)
            .env(name, value)
            .env(census.variable().0, census.variable().1)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        let rpc = format!("http://127.0.0.1:{rpc_port}/RPC2");
        Ok(Self { child, port, http, rpc, census, _directory: directory })
    }

    /// Waits until the stand-in serves.
    async fn serves(&self) -> Outcome<()> {
        let url = format!("http://127.0.0.1:{}/health", self.port);
        let answered = async {
            let mut questions = interval(POLL);
            loop {
                questions.tick().await;
                let answer = self.http.get(&url).send().await;
                if answer.is_ok_and(|answer| answer.status().is_success()) {
                    return;
                }
            }
        };
        Ok(timeout(PATIENCE, answered).await?)
    }

    /// Waits until it says that the main process is another one than `before`, or none.
    async fn has_noticed(&self, before: Pid) -> Outcome<()> {
        let before = format!("<name>pid</name>\n<value><int>{}</int>", before.as_raw_pid());
        let noticed = async {
            let mut questions = interval(POLL);
            loop {
                questions.tick().await;
                let is_old = self.info().await?.contains(&before);
                if !is_old {
                    return Ok::<_, Box<dyn Error>>(());
                }
            }
        };
        timeout(PATIENCE, noticed).await?
    }

    async fn info(&self) -> Outcome<String> {
        let call = "<?xml version='1.0'?><methodCall><methodName>supervisor.getProcessInfo\
                    </methodName><params><param><value><string>vllm</string></value></param>\
                    </params></methodCall>";
        let request = self.http.post(&self.rpc).header("content-type", "text/xml").body(call);
        Ok(request.send().await?.error_for_status()?.text().await?)
    }

    /// The living processes of the stand-in, the newest front last.
    fn vllm(&self, title: &str) -> Option<Process> {
        let mut living = self.census.processes();
        living.sort_by_key(|process| process.pid.as_raw_pid());
        living.into_iter().rfind(|process| process.title.contains(title))
    }
}

impl Drop for Supervisord {
    fn drop(&mut self) {
        self.child.start_kill().ok();
        self.census.kill_all();
    }
}

/// With a program that it restarts whenever it ends.
pub(crate) fn configuration(program: &str, directory: &Path, rpc_port: u16) -> String {
    let directory = directory.display();
    format!(
        "[supervisord]\nlogfile={directory}/supervisord.log\npidfile={directory}/pid\n\
         childlogdir={directory}\n\
         [inet_http_server]\nport=127.0.0.1:{rpc_port}\n\
         [rpcinterface:supervisor]\n\
         supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n\
         [program:vllm]\ncommand={program}\nautorestart=true\n\
         startsecs=0\nstartretries=1000\nenvironment=SPT_NOENV=1\n"
    )
}

/// Finds it below the target directory, or installs it there.
pub(crate) async fn installed() -> Outcome<PathBuf> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = crate::target_directory().join("supervisord/venv");
    #[expect(clippy::disallowed_methods, reason = "a script of ours")]
    let mut script = Command::new("bash");
    script.arg(tests.join("bench/install_supervisord.sh")).arg(&directory);
    if script.stdin(Stdio::null()).status().await?.success() {
        Ok(directory.join("bin/supervisord"))
    } else {
        Err("supervisord cannot be installed here".into())
    }
}

/// Death to event, death to served again, what is left behind, and memory.
pub(crate) async fn figures(plan: &Plan) -> Outcome<Vec<Figure>> {
    let mut figures = Vec::new();
    for (victim, title) in [("ApiServer", " serve "), ("Worker", "VLLM::Worker")] {
        let supervisord = Supervisord::start(plan).await?;
        let (mut events, mut recoveries) = (Vec::new(), Vec::new());
        let mut at_first = 0;
        for cycle in 0..plan.few {
            supervisord.serves().await?;
            if cycle == 0 {
                at_first = supervisord.census.processes().len();
            }
            let main = supervisord.vllm(" serve ").ok_or("no front")?.pid;
            let hit = supervisord.vllm(title).ok_or("no victim")?.pid;
            let killed = Instant::now();
            kill_process(hit, Signal::KILL)?;
            supervisord.has_noticed(main).await?;
            events.push(killed.elapsed());
            supervisord.serves().await?;
            recoveries.push(killed.elapsed());
        }
        let left = supervisord.census.processes().len().saturating_sub(at_first);
        let pid = supervisord.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let resident = pid.map_or(0, resident_kib);
        let of = |what: &str| format!("supervisord, {what}");
        figures.push(
            Figure::of_times(
                of(&format!("SIGKILL of {victim} to its notice")),
                Unit::Milliseconds,
                &events,
            )
            .noting("asked every millisecond; vLLM's front follows its worker after 4 to 5 s, the stand-in's after 0.2 s"),
        );
        figures.push(Figure::of_times(
            of(&format!("SIGKILL of {victim} to served again")),
            Unit::Milliseconds,
            &recoveries,
        ));
        figures.push(
            Figure::of(of("processes left behind"), Unit::Count, vec![as_f64(left as u64)])
                .noting(format!("after {} deaths of {victim}", plan.few)),
        );
        if victim == "Worker" {
            let resident = vec![as_f64(resident)];
            figures.push(Figure::of(of("resident while running"), Unit::Megabytes, resident));
        }
    }
    Ok(figures)
}
