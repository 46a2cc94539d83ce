//! What is said, and what is made of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::rule::{Reach, Weight};
use super::{Diagnosis, Rulebook, Scanner, rulebook, rules};

mod ends;
mod kernel;
mod serving;

use crate::domain::cause::{Code, RetryClass};
use crate::testing::rounds;

const BEGIN: &str = "INFO 04-10 13:40:17 [api_server.py:1034] vLLM API server version 0.32.0\n";
const SERVES: &str = "(APIServer pid=1) INFO:     Application startup complete.\n";
const DIES: &str = "(EngineCore pid=2) ERROR 06-15 16:21:15 [core.py:1197] EngineCore encountered a fatal error.\n";
const ENDS: &str = "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}\n";

/// What may stand before a message, in vLLM 0.8 to 0.33 and by whoever collects it.
const PREFIXES: [&str; 8] = [
    "",
    "[rank0]: ",
    "(EngineCore_0 pid=344) ERROR 10-30 17:26:13 [core.py:708] ",
    "(VllmWorker rank=0 pid=120) ERROR 03-13 09:12:39 [multiproc_executor.py:375] ",
    "\x1b[1;36m(Worker_TP0 pid=624)\x1b[0;0m ERROR 04-19 16:20:49 [multiproc_executor.py:857] ",
    "Jan 29 10:00:40 gpuhost vllm[4711]: (EngineCore pid=2) ",
    "2026-01-29T10:00:40.123456789Z stderr F (APIServer pid=1) ",
    "vllm-1  | ",
];

/// What vLLM and what it is made of are known to say, in their words, and of what cause.
fn signatures() -> Vec<(Code, &'static str)> {
    let rows = include_str!("tests/signatures.tsv").lines().filter(|row| !row.starts_with('#'));
    let known = |row: &'static str| {
        let (code, said) = row.split_once('\t').unwrap();
        (Code::all().find(|it| it.to_string() == code).unwrap(), said)
    };
    rows.map(known).collect()
}

fn book() -> Arc<Rulebook> {
    Arc::new(Rulebook::new().unwrap())
}

fn read(book: &Arc<Rulebook>, log: impl AsRef<[u8]>) -> Option<Diagnosis> {
    let mut scanner = Scanner::new(book);
    scanner.feed(log.as_ref());
    scanner.finish()
}

fn code(book: &Arc<Rulebook>, log: &str) -> Option<Code> {
    read(book, log).map(|it| it.code)
}

#[test]
fn each_signature_is_known_whatever_stands_before_it() {
    let book = book();
    for (wanted, said) in signatures() {
        for prefix in PREFIXES {
            let log = format!("{BEGIN}{prefix}{said}\n{ENDS}");
            let found = read(&book, &log).unwrap();
            assert_eq!(found.code, wanted, "{prefix}{said}");
            assert_eq!(found.line_number, 2, "{prefix}{said}");
        }
    }
}

/// It says so, and goes on: it has asked once more, or done without.
#[test]
fn whatever_was_said_before_it_came_to_serve_is_no_failure() {
    let book = book();
    for (_, said) in signatures() {
        let log = format!("{BEGIN}ERROR 04-10 13:40:25 [x.py:1] {said}\n{said}\n{SERVES}");
        assert_eq!(code(&book, &log), None, "{said}");
    }
}

#[test]
fn what_is_only_a_warning_is_no_cause() {
    let book = book();
    for (_, said) in signatures() {
        let log = format!("{BEGIN}(EngineCore pid=2) WARNING 04-10 13:40:25 [x.py:1] {said}\n");
        assert_eq!(code(&book, &log), Some(Code::Unrecognised), "it says no more than: {said}");
    }
}

#[test]
fn what_is_said_during_a_stop_explains_nothing() {
    let stop = "(APIServer pid=1) INFO 11-23 06:52:13 [launcher.py:254] [shutdown] API server: shutdown triggered\n";
    assert_eq!(code(&book(), &format!("{BEGIN}{SERVES}{stop}{DIES}")), None);
}

#[test]
fn a_clients_words_are_no_words_of_vllms() {
    let book = book();
    let asks = |words: &str| {
        format!(
            "(APIServer pid=1) INFO 06-15 16:21:15 [logger.py:1] Received request: prompt: '{words}'\n"
        )
    };
    let died = format!(
        "{DIES}(EngineCore pid=2) ERROR 06-15 16:21:15 [x.py:1] CUDA error: an illegal memory access was encountered\n"
    );
    for words in [
        "Waiting for application shutdown",
        "vLLM API server version",
        "Application startup complete",
    ] {
        let log = format!("{BEGIN}{SERVES}{}{died}{}", asks(words), asks(words));
        assert_eq!(code(&book, &log), Some(Code::EngineDied), "{words}");
    }
    let said =
        "(APIServer pid=1) ERROR 06-15 16:21:15 [x.py:1] bad request: EngineDeadError in Python\n";
    assert_eq!(code(&book, &format!("{BEGIN}{SERVES}{said}")), None);
}

#[test]
fn what_a_progress_bar_has_written_over_hides_nothing() {
    let bar = "model-00001-of-00004.safetensors:  10%|#         | 0.4/4G\r".repeat(1000);
    let log =
        format!("{BEGIN}{bar}(EngineCore pid=2) torch.OutOfMemoryError: CUDA out of memory.\n");
    let book = book();
    assert_eq!(code(&book, &log), Some(Code::InsufficientGpuMemory));
    let mut scanner = Scanner::new(&book);
    log.as_bytes().chunks(1000).for_each(|part| scanner.feed(part));
    assert_eq!(scanner.finish().unwrap().code, Code::InsufficientGpuMemory);
}

#[test]
fn a_launch_that_fails_at_once_after_another_has_ended_is_another() {
    let book = book();
    let stopped = format!(
        "{BEGIN}{SERVES}INFO:     Waiting for application shutdown.\nINFO:     Application shutdown complete.\n"
    );
    let refused = "usage: vllm serve [-h] [--trust-remote-code]\nvllm serve: error: unrecognized arguments: --foo\n";
    let library =
        "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory\n";
    for before in [&stopped, &format!("{BEGIN}{SERVES}")] {
        assert_eq!(code(&book, &format!("{before}{refused}")), Some(Code::ArgumentsRejected));
        assert_eq!(code(&book, &format!("{before}{library}")), Some(Code::GpuUnavailable));
    }
}

#[test]
fn what_was_asked_for_once_more_is_no_cause() {
    let retried = "'HTTP Error 429 Too Many Requests' thrown while requesting HEAD https://huggingface.co/a/b\nRetrying in 1s [Retry 1/5].\n\
        [W315 10:00:00.1 socket.cpp:752] [c10d] The client socket has failed to connect to [::]:29500 (errno: 97).\n";
    let log = format!("{BEGIN}{retried}torch.OutOfMemoryError: CUDA out of memory.\n");
    assert_eq!(code(&book(), &log), Some(Code::InsufficientGpuMemory));
}

#[test]
fn what_the_kernel_says_after_the_end_is_believed() {
    let ended = format!("{BEGIN}{SERVES}{DIES}INFO:     Waiting for application shutdown.\n");
    let book = book();
    assert_eq!(
        code(&book, &format!("{ended}      Reason:       OOMKilled\n")),
        Some(Code::KilledForMemory)
    );
    let fault = "[ 1.2] NVRM: Xid (PCI:0000:65:00): 79, pid='<unknown>'\n";
    assert_eq!(code(&book, &format!("{ended}{fault}")), Some(Code::GpuFault));
    assert_eq!(code(&book, &format!("{ended}\"OOMKilled\": false\n")), Some(Code::EngineDied));
}

#[test]
fn secrets_and_what_a_terminal_would_obey_are_not_told() {
    let said = "vllm: error: unrecognized arguments: --api-key sk-secret hf_abcdefghijkl \u{9b}31m\u{202e} http://me:secret@x/";
    let found = read(&book(), format!("{said}\n")).unwrap();
    let all = format!("{} {} {}", found.summary, found.remedy, found.line);
    assert!(found.line.contains("--api-key *** *** 31m http://me:***@x/"), "{}", found.line);
    assert!(!all.contains("secret") && !all.contains("hf_abc"), "{all}");
    let address = "vllm: error: unrecognized arguments: http://127.0.0.1:8000/x?y=a@b";
    let found = read(&book(), format!("{address}\n")).unwrap();
    assert!(found.line.contains("http://127.0.0.1:8000/x?y=a@b"), "no secret: {}", found.line);
}

#[test]
fn of_several_launches_the_last_counts() {
    let book = book();
    let failed = format!("{BEGIN}OSError: [Errno 98] Address already in use\n");
    assert_eq!(code(&book, &format!("{failed}{BEGIN}{SERVES}")), None);
    assert_eq!(code(&book, &format!("{BEGIN}{SERVES}{failed}")), Some(Code::PortInUse));
}

#[test]
fn an_exception_that_no_rule_knows_is_quoted_and_not_what_came_of_it() {
    let log = format!(
        "{BEGIN}(Worker pid=3) ERROR 01-01 00:00:00 [x.py:1] WorkerProc failed to start.\n\
         (Worker pid=3) ERROR 01-01 00:00:00 [x.py:1] ZeroDivisionError: division by zero\n\
         (EngineCore pid=2) ERROR 01-01 00:00:00 [x.py:1] EngineCore failed to start.\n{ENDS}"
    );
    let found = read(&book(), log).unwrap();
    assert_eq!((found.code, found.line_number), (Code::Unrecognised, 3), "it is a plugin's own");
    assert_eq!(found.line, "ZeroDivisionError: division by zero");
}

#[test]
fn an_exception_that_nobody_knows_is_a_failure_and_what_only_ends_tells_of_none() {
    let said = |rest: &str| {
        let found = read(&book(), format!("{BEGIN}{rest}")).unwrap();
        assert_eq!(found.code, Code::Unrecognised, "no rule is for: {rest}");
        found.summary
    };
    let tells_of_none = said("");
    assert!(tells_of_none.contains("tells of no failure"));
    assert_eq!(said("INFO 04-10 13:40:25 [x.py:1] on it goes\n"), tells_of_none);
    let failed = ["ZeroDivisionError: no", "something has failed", "ZeroDivisionError: no\nand on"];
    for failed in failed {
        assert_ne!(said(&format!("{failed}\n")), tells_of_none, "{failed}");
    }
}

#[test]
fn what_a_traceback_quotes_of_a_program_is_not_what_happened() {
    let log = format!(
        "{BEGIN}Traceback (most recent call last):\n  File \"x.py\", line 1, in f\n    \
         raise OSError(\"[Errno 28] No space left on device\")\n           ^^^^\nValueError: something else\n"
    );
    let found = read(&book(), log).unwrap();
    assert_eq!(
        (found.code, found.line.as_str()),
        (Code::Unrecognised, "ValueError: something else")
    );
}

#[test]
fn another_programs_log_is_not_recognised() {
    let book = book();
    for log in [
        "",
        "\n\n",
        "2026/01/01 00:00:00 [error] 7#7: *1 connect() failed (111: Connection refused) while connecting to upstream",
        "thread 'main' panicked at src/main.rs:1:1:\nindex out of bounds",
        "npm ERR! code ELIFECYCLE\nnpm ERR! errno 1",
        "PANIC: could not locate a valid checkpoint record\nLOG: database system is shut down",
        "Hello, world",
    ] {
        let found = read(&book, log).unwrap();
        assert_eq!(found.code, Code::Unrecognised, "it is not vLLM's: {log}");
        assert_eq!(found.class, RetryClass::Transient);
        assert!(log.trim().is_empty() || found.line_number > 0, "{log}");
    }
}

#[test]
fn what_the_message_says_goes_into_the_remedy() {
    let said = "ValueError: To serve at least one request with the model's max seq len (131072), (12.0 GiB KV cache is needed, which is larger than the available KV cache memory (1.0 GiB). Based on the available memory, the estimated maximum model length is 10880. Try increasing `gpu_memory_utilization`.";
    let found = read(&book(), format!("{BEGIN}{said}\n")).unwrap();
    assert!(found.remedy.contains("--max-model-len to 10880"), "{}", found.remedy);
    assert!(
        found.summary.contains("131072") && found.summary.contains("12.0 GiB"),
        "{}",
        found.summary
    );
    // vLLM says it as a fraction, and does not take it so.
    let said = "ValueError: User-specified max_model_len (99999) is greater than the derived max_model_len (max_position_embeddings=2048.0 or model_max_length=None in model's config.json).";
    let found = read(&book(), format!("{BEGIN}{said}\n")).unwrap();
    assert!(found.remedy.contains("--max-model-len to 2048,"), "{}", found.remedy);
}

/// What a template asks for that its pattern cannot have would never be said.
#[test]
fn each_rule_has_what_its_words_ask_for() {
    for rule in rules::all() {
        let pattern = rulebook::plain(rule.pattern).unwrap();
        let names: BTreeSet<&str> = pattern.capture_names().flatten().collect();
        for template in [rule.summary, rule.remedy].into_iter().flatten() {
            for part in template.split('{').skip(1) {
                let (name, _) = part.split_once('}').unwrap();
                assert!(names.contains(name), "{name} in {template:?} of {}", rule.pattern);
            }
        }
    }
}

/// A rule that nothing is known to match may as well not be there.
#[test]
fn each_rule_is_the_best_for_something() {
    let book = book();
    let used: BTreeSet<&str> = signatures()
        .into_iter()
        .filter_map(|(_, said)| book.rule_for(said.as_bytes()))
        .map(|rule| rule.pattern)
        .collect();
    let causes = rules::all().filter(|rule| rule.weight != Weight::Symptom);
    let idle: Vec<_> = causes.map(|rule| rule.pattern).filter(|it| !used.contains(it)).collect();
    assert!(idle.is_empty(), "{idle:#?}");
}

#[test]
fn a_line_without_an_end_takes_no_room() {
    let book = book();
    let mut scanner = Scanner::new(&book);
    let part = vec![b'x'; 1 << 20];
    for _ in 0..100 {
        scanner.feed(&part);
        assert!(scanner.room() <= 64 << 10, "{}", scanner.room());
    }
    scanner.feed(b"\nvllm\nOSError: [Errno 28] No space left on device\n");
    let found = scanner.finish().unwrap();
    assert_eq!((found.code, found.line_number), (Code::DiskFull, 3));
}

/// Whatever comes, in whatever parts, is read, and read alike; and what is told of it is short.
#[test]
fn parts_make_no_difference() {
    let book = book();
    for _ in rounds() {
        proptest!(|(
            lines in prop::collection::vec(any_line(), 0..40),
            cuts in prop::collection::vec(prop_oneof![1_usize..64, 1_usize..9_000], 1..20),
        )| {
            let log = lines.concat();
            let mut scanner = Scanner::new(&book);
            let (mut rest, mut cuts) = (log.as_slice(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (part, after) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                scanner.feed(part);
                rest = after;
            }
            let told = scanner.finish();
            if let Some(told) = &told {
                let texts = [&told.line, &told.summary, &told.remedy];
                let is_short = |text: &&String| text.chars().count() <= 3000;
                prop_assert!(texts.iter().all(is_short), "{told:?}");
                prop_assert!(!texts.iter().any(|text| text.contains(char::is_control)), "{told:?}");
            }
            prop_assert_eq!(told, read(&book, &log));
        });
    }
}

fn any_line() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        (0..40_000_usize).prop_map(|length| vec![b'x'; length]),
        prop::sample::select(vec![b"\r".to_vec(), b" \r  ".to_vec(), b"\r\n".to_vec()]),
        prop::sample::select(signatures()).prop_map(|(_, said)| format!("{said}\n").into_bytes()),
        prop::sample::select(vec![BEGIN, SERVES, DIES, ENDS]).prop_map(|it| it.as_bytes().to_vec()),
        prop::sample::select(PREFIXES.to_vec()).prop_map(|it| it.as_bytes().to_vec()),
    ]
}
