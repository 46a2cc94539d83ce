//! The lines of vLLM's output that say how far a load is, and how far that is.
//!
//! Texts as in vLLM 0.32 (the file is named beside each), looked for as substrings so that the
//! prefixes of 0.8 to 0.32 do not matter. The percentages divide a typical start: they order the
//! phases, they do not promise a time.

use super::LoadStatus;

/// What a line marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// The start of a phase.
    Phase {
        /// How far the load is then.
        percent: u8,
        /// What it is doing then.
        status: LoadStatus,
    },
    /// A count within a phase.
    Count {
        /// How far the load is.
        percent: u8,
        /// What it is doing.
        status: LoadStatus,
    },
    /// The server is about to listen.
    Listens,
}

use LoadStatus::{Capturing, Compiling, Loading, Warming};

const PHASES: [(&str, u8, LoadStatus); 23] = [
    ("version ", 2, Loading),                      // api_utils.py, the banner
    ("non-default args:", 3, Loading),             // api_utils.py
    ("Resolved architecture:", 6, Loading),        // config/model.py
    ("Initializing a V1 LLM engine", 12, Loading), // v1/engine/core.py
    ("Starting to load model", 20, Loading),       // v1/worker/gpu_model_runner.py
    ("Loading weights took", 55, Loading),         // model_loader/default_loader.py
    ("Model loading took", 56, Loading),           // v1/worker/gpu_model_runner.py
    ("Starting torch.compile", 58, Compiling),     // compilation/monitor.py
    ("Warming up model for the compilation", 58, Compiling), // v1/worker/cpu_model_runner.py
    ("Dynamo bytecode transform time", 62, Compiling), // compilation/backends.py
    ("Directly load the compiled graph", 66, Compiling), // compilation/backends.py
    ("Directly load AOT compilation", 66, Compiling), // compilation/decorators.py
    ("Compiling a graph for", 66, Compiling),      // compilation/backends.py
    ("saved AOT compiled function", 70, Compiling), // compilation/decorators.py
    ("torch.compile took", 72, Compiling),         // compilation/monitor.py
    ("torch.compile takes", 72, Compiling),        // the same before 0.18
    ("Initial profiling/warmup run took", 74, Warming), // compilation/monitor.py
    ("Warming up done", 75, Warming),              // v1/worker/cpu_model_runner.py
    ("Available KV cache memory", 76, Warming),    // v1/worker/gpu_worker.py
    ("KV cache size:", 78, Warming),               // v1/core/kv_cache_utils.py
    ("Graph capturing finished", 94, Capturing),   // v1/worker/gpu_model_runner.py
    ("init engine (profile, create kv cache", 96, Warming), // v1/engine/core.py
    ("Starting vLLM", 98, Warming),                // launchers/api_server/entry.py
];

/// Bars: what the line contains, and the percentages that it runs between.
const BARS: [(&str, u8, u8, LoadStatus); 5] = [
    ("Loading safetensors", 20, 55, Loading), // model_loader/weight_utils.py
    ("Multi-thread loading shards", 20, 55, Loading),
    ("Loading pt checkpoint shards", 20, 55, Loading),
    ("Prefetching checkpoint files", 14, 20, Loading),
    ("Capturing CUDA graphs", 80, 94, Capturing), // v1/worker/gpu_model_runner.py
];

pub(super) fn read(line: &str) -> Option<Mark> {
    if line.contains("Application startup complete") {
        return Some(Mark::Listens); // uvicorn/lifespan/on.py, just before listen()
    }
    if let Some((_, from, to, status)) = BARS.iter().find(|bar| line.contains(bar.0)) {
        let share = u32::from(percent_in(line)?);
        let span = u32::from(to - from);
        let percent = from + u8::try_from(span * share / 100).ok()?;
        return Some(Mark::Count { percent, status: *status });
    }
    let (_, percent, status) = PHASES.iter().find(|phase| line.contains(phase.0))?;
    Some(Mark::Phase { percent: *percent, status: *status })
}

/// The number before the first `%`.
fn percent_in(line: &str) -> Option<u8> {
    let before = line.split_once('%')?.0;
    let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok().filter(|percent| *percent <= 100)
}
