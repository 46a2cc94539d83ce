//! The options: one row each, in the order of the file. What is read, shown, judged and documented
//! follows from here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use vllm_supervisor_actors::domain::gpu::GpuAction;

use super::bounds::Between;
use super::sources::Sources;
use super::values::{Fault, OptionValue};
use super::{Config, ExitPolicy, GpuMonitor, LaunchPolicy, LifecycleMode, ModelReference, Network};

/// An option of the file.
#[derive(Debug)]
pub(super) struct Entry {
    /// Where it stands below the section of the file, and in [`Config`].
    pub(super) key: &'static str,
    /// What it is for: a line that says what may be given, and what else there is to know.
    pub(super) help: &'static str,
    /// Stronger sources than the file.
    pub(super) flag: Option<&'static str>,
    pub(super) variable: Option<&'static str>,
    /// Whether `<key>_seconds` may be given instead.
    pub(super) has_seconds: bool,
    /// Whether it is made of texts, for which numbers may stand as they are written.
    pub(super) takes_texts: bool,
    pub(super) read: fn(&mut Config, &Value, &Sources) -> Result<(), Vec<Fault>>,
    pub(super) json: fn(&Config) -> Value,
    pub(super) judge: fn(&Config) -> Option<Fault>,
    pub(super) schema: fn() -> Value,
}

impl Entry {
    const fn or(mut self, flag: &'static str, variable: &'static str) -> Self {
        self.flag = Some(flag);
        self.variable = Some(variable);
        self
    }

    /// What may be given, in a line.
    pub(super) fn summary(&self) -> &'static str {
        summary(self.help)
    }
}

/// A map of options, by its key; the whole has none.
pub(super) struct Section {
    pub(super) key: &'static str,
    pub(super) help: &'static str,
}

/// The first line of what there is to say.
pub(super) fn summary(help: &'static str) -> &'static str {
    help.split('\n').next().unwrap_or_default()
}

macro_rules! option {
    ($($field:ident).+: $type:ty, $help:literal) => {
        option!($($field).+: $type, |_| None, <$type>::schema, $help)
    };
    ($($field:ident).+: $type:ty, $bounds:expr, $help:literal) => {
        option!(
            $($field).+: $type,
            |config| $bounds.fault(&config.$($field).+),
            || $bounds.narrow(<$type>::schema()),
            $help
        )
    };
    ($($field:ident).+: $type:ty, $judge:expr, $schema:expr, $help:literal) => {
        Entry {
            key: option!(@key $($field).+),
            help: $help,
            flag: None,
            variable: None,
            has_seconds: <$type>::HAS_SECONDS,
            takes_texts: <$type>::TAKES_TEXTS,
            read: |config, value, sources| {
                config.$($field).+ = <$type>::read(value, sources)?;
                Ok(())
            },
            json: |config| config.$($field).+.json(),
            judge: $judge,
            schema: $schema,
        }
    };
    (@key $first:ident $(. $rest:ident)*) => {
        concat!(stringify!($first) $(, ".", stringify!($rest))*)
    };
}

/// Below it, waiting is no waiting, and looking is all that is done.
const SHORTEST: Duration = Duration::from_millis(10);

/// Added to any instant of this machine, a month cannot overflow; nobody means to wait longer.
const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);

const SOME_TIME: Between<Duration> = Between(SHORTEST, MONTH);
const ANY_TIME: Between<Duration> = Between(Duration::ZERO, MONTH);

/// Below it, a restart would run into what the crash before has left behind; and the doubling stops at
/// the other, so that its start cannot be above.
const BACKOFF: Between<Duration> = Between(Duration::from_secs(2), Duration::from_secs(60));

/// Below it, beginning and end of a log say too little; above it, nothing is bounded.
const LOG_BYTES: Between<u64> = Between(1 << 20, 1 << 40);

/// Each log is looked at once a second.
const LOGS: Between<NonZeroU32> =
    Between(NonZeroU32::MIN, NonZeroU32::new(1000).expect("a thousand is not zero"));

const SHARE: Between<f64> = Between(f64::MIN_POSITIVE, 1.0);

pub(super) const SECTIONS: [Section; 4] = [
    Section { key: "", help: "The settings of one vLLM server." },
    Section {
        key: "lifecycle",
        help: "When to start, to give up waiting, to restart and to stop.",
    },
    Section { key: "gpu", help: "How vLLM uses the GPUs, and how they are watched." },
    Section {
        key: "logs",
        help: "How much of vLLM's output is kept.\n\
            It goes to logs/vllm-<launch>.log in the state directory. With these defaults that directory \
            takes at most 2.8 GB: ten logs of 256 MiB, 64 MiB of events, 16 MiB of restarts.\n\
            Secrets are masked in it: HF_TOKEN, VLLM_API_KEY, and of 8 characters or more what variables named \
            like secrets hold and the passwords of addresses. vLLM writes it itself, so that takes up to a \
            second, and waits for the next vllmd where none is running.",
    },
];

const MODEL: Entry = option!(
    model: ModelReference,
    "The model: `namespace/name` on the Hugging Face Hub, a directory, a `.gguf` file, or an address \
     (`s3://`, `gs://`, `az://`, `hf://`).\nA path is absolute, or starts with `./`, `../` or `~/`; another \
     one that exists is taken for a path, too, as by vLLM. It has no default; vllmd does not start without \
     one."
)
.or("--model", "VLLM_MODEL");

/// Of a server that is not ours it is whatever name that lists.
fn read_model(config: &mut Config, value: &Value, sources: &Sources) -> Result<(), Vec<Fault>> {
    let is_ours = config.lifecycle.mode == LifecycleMode::Managed;
    config.model = match value.as_str().filter(|_| !is_ours) {
        Some(name) => ModelReference::Listed(name.to_owned()),
        None => ModelReference::read(value, sources)?,
    };
    Ok(())
}

/// What the meaning of others depends on is read before them.
pub(super) fn in_order_of_reading() -> impl Iterator<Item = &'static Entry> {
    let (first, others): (Vec<_>, Vec<_>) =
        OPTIONS.iter().partition(|entry| entry.key == "lifecycle.mode");
    first.into_iter().chain(others)
}

pub(super) const OPTIONS: &[Entry] = &[
    Entry { read: read_model, ..MODEL },
    option!(
        host: IpAddr,
        "The address vLLM listens on. Other than loopback needs `VLLM_API_KEY` in the environment."
    ),
    option!(port: u16, "The TCP port vLLM listens on, 1 to 65535.").or("--port", "VLLM_PORT"),
    option!(
        vllm_binary: Option<Vec<String>>,
        "The program that starts vLLM and its first arguments: a command line split at white space, or a list \
         of its words.\nUnset: `vllm`, else `python3 -m vllm.entrypoints.openai.api_server`, from PATH."
    ),
    option!(
        extra_args: Vec<String>,
        "Further arguments for vLLM, such as `[\"--max-model-len\", 4096]`.\nWhat is set from this file (the \
         model, the port, the parallel sizes, …) is not allowed here, nor what vLLM could not be found or \
         owned with: TLS, `--uds`, `--grpc`, `--headless`, `--config`, Ray, several machines, and the like."
    ),
    option!(
        env: BTreeMap<String, String>,
        "Environment variables for vLLM, on top of those of the supervisor, such as \
         `{CUDA_VISIBLE_DEVICES: \"0,1\"}`.\nNo secrets: these come from the supervisor's own environment."
    ),
    option!(
        network: Network,
        "Whether vLLM may ask the Hugging Face Hub: `online`, or `airgapped`.\nAirgapped it gets \
         `HF_HUB_OFFLINE` and `TRANSFORMERS_OFFLINE`, and a model that is not whole in the local cache is \
         refused before a launch, with what is missing."
    ),
    option!(
        lifecycle.mode: LifecycleMode,
        "Who owns the life of vLLM: `managed` (vllmd), `monitored` (another manager, such as systemd), or \
         `external` (nobody we know).\nOf the last two vllmd starts, stops and restarts nothing: it asks the \
         server at `host` and `port` how it is, and tells. `model` is then the name that `/v1/models` lists, \
         and what says how vLLM is launched means nothing."
    ),
    option!(
        lifecycle.monitored_unit: Option<String>,
        "The unit that systemd runs vLLM as, such as `vllm.service`, in mode `monitored`.\nIt is asked over \
         the system's D-Bus what the unit is doing, and only a process of the unit is taken for vLLM. Unset: \
         checks of health alone decide."
    ),
    option!(
        lifecycle.launch: LaunchPolicy,
        "How vLLM is started: `cold`, from nothing, `warm`, forked from a process that has imported what \
         vLLM imports, or `auto`.\nThat process is kept while the service runs; cold where there is none. It \
         takes about 1 GB, most of it shared with vLLM. A small model on a CPU is then served again about a \
         second after its restart began. `auto`: warm, for as long as nothing speaks against it: a launch \
         that fails, or answers otherwise, where one made from nothing does not. Proven on CPUs only; on a \
         GPU the engine and its workers start anew."
    ),
    option!(
        lifecycle.start_timeout: Duration,
        SOME_TIME,
        "The longest silence between launch and the server's first sign of life, such as `30s`."
    ),
    option!(
        lifecycle.model_load_timeout: Duration,
        SOME_TIME,
        "The longest time without progress while the model loads, such as `5m`.\nProgress is bytes, a log \
         line, a shard, CPU or disk activity. A download that moves is never killed."
    ),
    option!(
        lifecycle.health_check_interval: Duration,
        SOME_TIME,
        "The time from one health check to the next while running, such as `60s`."
    ),
    option!(
        lifecycle.max_consecutive_failures: NonZeroU32,
        "How many failed health checks in a row mean that vLLM is dead, at least 1."
    ),
    option!(
        lifecycle.max_restarts_per_minute: NonZeroU32,
        "How many restarts are tried in any 60 seconds, at least 1.\nOne more, and vllmd gives up."
    ),
    option!(
        lifecycle.restart_backoff: Duration,
        BACKOFF,
        "The wait before the first restart, `2s` to `60s`; it doubles with each restart, up to 60 seconds."
    ),
    option!(
        lifecycle.stable_after: Duration,
        ANY_TIME,
        "How long vLLM must be healthy for the backoff to start afresh, such as `60s`."
    ),
    option!(
        lifecycle.stop_on_exit: ExitPolicy,
        "`true`: nothing of vLLM survives vllmd, whatever ends it. `false`: vLLM lives on, and the next run \
         adopts it."
    ),
    option!(
        lifecycle.shutdown_grace_period: Duration,
        ANY_TIME,
        "The time vLLM has to end by itself before it is killed, such as `10s`."
    ),
    option!(
        lifecycle.model_load_max_retries: u32,
        "How often a model load is tried again after a failure that may pass, in a row; 0 for never.\nThat \
         vLLM is killed while it loads does not count here: `max_restarts_per_minute` bounds that, and one \
         more launches than that, at least five, in a row that never serve."
    ),
    option!(
        gpu.memory_utilization: f64,
        SHARE,
        "The share of each GPU's memory that vLLM may use, above 0 and at most 1."
    ),
    option!(
        gpu.tensor_parallel_size: NonZeroU32,
        "Over how many GPUs each layer is split, at least 1."
    ),
    option!(
        gpu.pipeline_parallel_size: NonZeroU32,
        "Over how many groups of GPUs the layers are spread, at least 1."
    ),
    option!(
        gpu.monitor: GpuMonitor,
        "What GPUs are read with: `auto` takes what is found, `nvml` takes NVIDIA's library alone, `amd` what \
         the kernel shows of AMD's in sysfs, `off` reads nothing.\nWithout a GPU vLLM is run all the same, \
         and the log says why none is watched."
    ),
    option!(
        gpu.sample_interval: Duration,
        SOME_TIME,
        "The time from one reading of the GPUs to the next, such as `1s`."
    ),
    option!(
        gpu.library: Option<PathBuf>,
        "NVIDIA's management library, as an absolute path.\nUnset: libnvidia-ml.so.1, where the loader looks."
    ),
    option!(
        gpu.xid_actions: BTreeMap<u32, GpuAction>,
        "What is done about Xid errors of NVIDIA's GPUs, by their numbers, other than NVIDIA prescribes, such \
         as `{109: restart_application}`.\n`none`: they are left alone. `restart_application`: vLLM is asked \
         whether it lives. `reset_gpu`, `reboot`, `contact_support`: vLLM is ended, and nothing is run on \
         that GPU until the driver says that it is well, or the machine was rebooted."
    ),
    option!(
        logs.max_bytes: u64,
        LOG_BYTES,
        "The room on the disk that the log of one launch may take, in bytes, from 1048576 (1 MiB) to \
         1099511627776 (1 TiB).\nThe middle of a longer one is dropped, with a line that says so; its \
         beginning and its end stay. It becomes a hole in the file: `ls -l` shows all that vLLM ever wrote, \
         `du` and `ls -s` the room that it takes."
    ),
    option!(
        logs.keep: NonZeroU32,
        LOGS,
        "Of how many launches the logs are kept, the present one included, 1 to 1000."
    ),
];

/// Every key that the file may have below the section.
pub(super) fn keys() -> impl Iterator<Item = String> {
    let sections = SECTIONS.iter().map(|it| it.key.to_owned());
    sections.chain(OPTIONS.iter().flat_map(|entry| {
        let twin = entry.has_seconds.then(|| format!("{}_seconds", entry.key));
        [Some(entry.key.to_owned()), twin].into_iter().flatten()
    }))
}
