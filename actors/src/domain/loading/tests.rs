//! What the tracker makes of lines that vLLM has printed; long ones are cut short.

use super::*;
use LoadStatus::{Capturing, Compiling, Loading, Warming};

/// vLLM 0.32.0, CPU: five shards, `torch.compile`, a minute of silence in the middle.
const SHARDED_COMPILED: &str = "\
Triton is installed, but doesn't include CPU backend. Disabling Triton.
(APIServer pid=31355) INFO 11-23 07:48:26 [api_utils.py:347]  ▄▄ ▄█ █     █     █ ▀▄▀ █  version 0.32.0
(APIServer pid=31355) INFO 11-23 07:48:26 [api_utils.py:286] non-default args: {'model_tag': '/models/shards'
(APIServer pid=31355) INFO 11-23 07:48:26 [model.py:733] Resolved architecture: LlamaForCausalLM
(EngineCore pid=31699) INFO 11-23 07:48:43 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: model='/models/shards'
(Worker pid=32012) INFO 11-23 07:49:00 [cpu_model_runner.py:68] Starting to load model /models/shards...
Loading safetensors checkpoint shards:   0% Completed | 0/5 [00:00<?, ?it/s]
Loading safetensors checkpoint shards:  40% Completed | 2/5 [00:00<00:00,  9.47it/s]
Loading safetensors checkpoint shards:  80% Completed | 4/5 [00:00<00:00,  9.19it/s]
Loading safetensors checkpoint shards: 100% Completed | 5/5 [00:00<00:00, 10.96it/s]
(Worker pid=32012) INFO 11-23 07:49:01 [default_loader.py:501] Loading weights took 0.46 seconds
(Worker pid=32012) INFO 11-23 07:49:02 [cpu_model_runner.py:87] Warming up model for the compilation...
(EngineCore pid=31699) INFO 11-23 07:50:03 [shm_broadcast.py:871] No available shared memory broadcast block found in 60 seconds.
(Worker pid=32012) INFO 11-23 07:50:08 [decorators.py:743] [backbone] saved AOT compiled function to /home/user/.cache/vllm
(Worker pid=32012) INFO 11-23 07:50:14 [monitor.py:91] [backbone] Initial profiling/warmup run took 6.21 s
(Worker pid=32012) INFO 11-23 07:50:15 [cpu_model_runner.py:91] Warming up done.
(EngineCore pid=31699) INFO 11-23 07:50:15 [kv_cache_utils.py:2327] CPU KV cache size: 10,880 tokens, Maximum concurrency for 512 tokens per request: 21.25x
(EngineCore pid=31699) INFO 11-23 07:50:17 [core.py:402] init engine (profile, create kv cache, warmup model) took 75.41 s
(APIServer pid=31355) INFO 11-23 07:50:18 [entry.py:140] Starting vLLM server on http://127.0.0.1:8132
INFO:     Started server process [31355]
INFO:     Waiting for application startup.
INFO:     Application startup complete.";

/// vLLM 0.24.0, CPU: the same phases in other words and with other prefixes.
const OLDER: &str = "\
(APIServer pid=9367) INFO 11-23 08:09:14 [api_utils.py:339]  ▄▄ ▄█ █     █     █ ▀▄▀ █  version 0.24.0
(EngineCore pid=9924) INFO 11-23 08:09:41 [core.py:114] Initializing a V1 LLM engine (v0.24.0) with config: model='/models/tiny'
(Worker pid=10165) INFO 11-23 08:09:54 [cpu_model_runner.py:113] Starting to load model /models/tiny...
(Worker pid=10165) Loading safetensors checkpoint shards:   0% Completed | 0/1 [00:00<?, ?it/s]
(Worker pid=10165) Loading safetensors checkpoint shards: 100% Completed | 1/1 [00:00<00:00, 355.21it/s]
(EngineCore pid=9924) INFO 11-23 08:10:27 [kv_cache_utils.py:2146] GPU KV cache size: 1,048,576 tokens
(EngineCore pid=9924) INFO 11-23 08:10:29 [core.py:344] init engine (profile, create kv cache, warmup model) took 34.34 s
(APIServer pid=9367) INFO 11-23 08:10:30 [api_server.py:581] Starting vLLM server on http://127.0.0.1:8140
(APIServer pid=9367) INFO:     Application startup complete.";

/// vLLM 0.28.0, CPU: an architecture that it does not know.
const REFUSED: &str = "\
(APIServer pid=6350) INFO 11-23 08:04:32 [api_utils.py:333]  ▄▄ ▄█ █     █     █ ▀▄▀ █  version 0.28.0
(APIServer pid=6350) INFO 11-23 08:04:32 [api_utils.py:272] non-default args: {'model_tag': '/models/badarch'";

fn tracker() -> LoadTracker {
    LoadTracker::new(ModelId::new("org/model").unwrap(), SystemTime::UNIX_EPOCH)
}

/// The steps that a log leads through, and whether it says that the server listens.
fn follow(log: &str) -> (Vec<(u8, LoadStatus)>, bool) {
    let (mut tracker, mut steps, mut listens) = (tracker(), Vec::new(), false);
    for news in log.lines().flat_map(|line| tracker.read(line)) {
        match news {
            LoadNews::Progressed(progress) => steps.push((progress.percent, progress.status)),
            LoadNews::Listens => listens = true,
            LoadNews::Began | LoadNews::Stands(_) => {}
        }
    }
    (steps, listens)
}

#[test]
fn a_start_goes_through_its_phases_in_order() {
    let (steps, listens) = follow(SHARDED_COMPILED);
    let loading = [2, 3, 6, 12, 20, 34, 48, 55].map(|percent| (percent, Loading));
    let compiling = [58, 70].map(|percent| (percent, Compiling));
    let warming = [74, 75, 78, 96, 98, 99].map(|percent| (percent, Warming));
    assert_eq!(steps, [&loading[..], &compiling, &warming].concat());
    assert!(listens);
}

#[test]
fn an_older_vllm_is_understood_as_well() {
    let (steps, listens) = follow(OLDER);
    let percents: Vec<u8> = steps.iter().map(|step| step.0).collect();
    assert_eq!(percents, [2, 12, 20, 55, 78, 96, 98, 99]);
    assert!(listens);
}

#[test]
fn a_start_that_fails_never_listens() {
    assert_eq!(follow(REFUSED), (vec![(2, Loading), (3, Loading)], false));
}

#[test]
fn a_load_never_runs_backwards_even_if_its_log_does() {
    let backwards: Vec<&str> = SHARDED_COMPILED.lines().rev().collect();
    for log in [format!("{SHARDED_COMPILED}\n{OLDER}"), backwards.join("\n")] {
        let (steps, _) = follow(&log);
        assert!(steps.is_sorted_by(|before, after| before.0 < after.0), "{steps:?}");
    }
}

#[test]
fn the_first_output_is_news_once() {
    let mut tracker = tracker();
    assert!(tracker.read("  ").is_empty(), "white space says nothing");
    assert_eq!(tracker.read("Disabling Triton."), [LoadNews::Began]);
    assert!(tracker.read("Disabling Triton.").is_empty());
}

#[test]
fn the_heartbeat_of_a_hang_is_no_sign_of_life() {
    let heartbeat = SHARDED_COMPILED.lines().find(|line| line.contains("shm_broadcast")).unwrap();
    let mut tracker = tracker();
    tracker.read("Disabling Triton.");
    assert!(tracker.read(heartbeat).is_empty());
}

#[test]
fn shards_are_counted_and_phases_are_guessed() {
    let mut tracker = tracker();
    let mut is_known = |line: &str| {
        tracker.read(line);
        tracker.progress().is_progress_known
    };
    assert!(!is_known("Starting to load model /models/shards..."));
    assert!(is_known("Loading safetensors checkpoint shards:  40% Completed | 2/5 [00:00<00:00]"));
    assert!(!is_known("Starting torch.compile"));
}

#[test]
fn the_bar_of_graph_captures_is_read() {
    let bar = "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  45%|████▌     | 30/67 [00:02<00:02, 14.3it/s]";
    assert_eq!(follow(bar).0, [(86, Capturing)]);
    let second =
        "Capturing CUDA graphs (decode, FULL):   3%|▎         | 1/35 [00:00<00:04,  8.1it/s]";
    assert_eq!(follow(&format!("{bar}\n{second}")).0, [(86, Capturing)]);
}

#[test]
fn a_bar_without_a_sensible_number_says_nothing() {
    for bar in ["Loading safetensors checkpoint shards:", "Capturing CUDA graphs: 450%|", "%"] {
        assert!(follow(bar).0.is_empty(), "{bar}");
    }
}

#[test]
fn a_download_is_measured_if_its_size_is_known() {
    let download = |bytes, total| {
        let model = ModelId::new("org/model").unwrap();
        ModelLoadProgress::downloading(model, bytes, total, SystemTime::UNIX_EPOCH)
    };
    let half = download(1 << 39, Some(1 << 40));
    assert_eq!((half.percent, half.is_progress_known), (50, true));
    assert_eq!(half.status, LoadStatus::Downloading);
    assert_eq!(download(5, Some(4)).percent, 100);
    assert_eq!(download(0, Some(0)).percent, 0);
    let endless = download(1 << 20, None);
    assert_eq!((endless.percent, endless.is_progress_known), (0, false));
}

#[test]
fn only_what_has_ended_has_an_end() {
    let model = ModelId::new("org/model").unwrap();
    let loading = ModelLoadProgress::loading(model, 100, SystemTime::UNIX_EPOCH);
    assert_eq!((loading.percent, loading.completed_at), (99, None));
    let end = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(9);
    let failed = loading.clone().failed();
    assert_eq!((failed.percent, failed.completed_at), (99, None));
    let complete = loading.complete(end);
    assert_eq!((complete.percent, complete.status), (100, LoadStatus::Loaded));
    assert_eq!(complete.completed_at, Some(end));
}

#[test]
fn a_download_is_a_part_of_the_load_and_never_turns_it_back() {
    let mut tracker = tracker();
    tracker.read("INFO Starting to load model org/a...");
    let mut percents = Vec::new();
    let mut takes = |news: Option<LoadNews>| match news {
        Some(LoadNews::Progressed(progress)) => percents.push((progress.percent, progress.status)),
        None => {}
        Some(other) => panic!("{other:?}"),
    };
    let total = Some(1000);
    for bytes in [1, 2, 500, 400, 1000, 1001] {
        takes(tracker.downloaded(Download { bytes, total }));
    }
    let status = LoadStatus::Downloading;
    assert_eq!(percents, [(20, status), (30, status), (40, status)]);
    assert_eq!(tracker.progress().bytes_downloaded, 1001);
    assert!(tracker.progress().is_progress_known);
    tracker.read("Loading safetensors checkpoint shards:  20% Completed | 1/5");
    assert_eq!((tracker.progress().status, tracker.progress().percent), (Loading, 40));
    tracker.read("Loading safetensors checkpoint shards:  60% Completed | 3/5");
    assert_eq!((tracker.progress().status, tracker.progress().percent), (Loading, 41));
    assert_eq!(tracker.progress().bytes_downloaded, 1001, "what has come has come");
    assert_eq!(tracker.downloaded(Download { bytes: 2000, total: None }), None);
}

#[test]
fn a_download_of_unknown_size_says_how_much_has_come() {
    let mut tracker = tracker();
    let news = tracker.downloaded(Download { bytes: 7, total: None });
    let Some(LoadNews::Progressed(progress)) = news else { panic!("{news:?}") };
    assert_eq!((progress.bytes_downloaded, progress.total_bytes), (7, None));
    assert!(!progress.is_progress_known);
    assert_eq!(tracker.downloaded(Download { bytes: 9, total: None }), None);
    assert_eq!(tracker.progress().bytes_downloaded, 9);
    let news = tracker.downloaded(Download { bytes: 8, total: Some(100) });
    let Some(LoadNews::Progressed(progress)) = news else { panic!("{news:?}") };
    let came = (progress.bytes_downloaded, progress.total_bytes);
    assert_eq!(came, (9, Some(100)), "how much there will be is news, and what has come has come");
    assert_eq!(tracker.downloaded(Download { bytes: 9, total: None }), None);
    assert_eq!(tracker.progress().total_bytes, Some(100));
}
