//! What fails while vLLM serves, and what ends it.

use super::*;

/// The traceback of a request has all of the words.
#[test]
fn a_request_that_fails_is_no_failure_of_the_server() {
    let book = book();
    let survives = |said: &str| book.rule_for(said.as_bytes()).unwrap().reach != Reach::Always;
    for (_, said) in signatures().into_iter().filter(|(_, said)| survives(said)) {
        let log = format!(
            "{BEGIN}{SERVES}(APIServer pid=1) ERROR:    Exception in ASGI application\n\
             (APIServer pid=1) Traceback (most recent call last):\n\
             (APIServer pid=1)   File \"x.py\", line 1, in f\n(APIServer pid=1) {said}\n\
             (APIServer pid=1) INFO:     127.0.0.1:1 - \"GET /health HTTP/1.1\" 200 OK\n"
        );
        assert_eq!(code(&book, &log), None, "{said}");
    }
}

/// An image could not be fetched, hours before a worker was killed.
#[test]
fn the_end_of_what_served_is_not_put_down_to_what_a_start_fails_of() {
    let book = book();
    let failed = "ConnectError: Temporary failure in name resolution\nValueError: x [type=value_error, input_value=1]\n";
    let log = format!("{BEGIN}{SERVES}{failed}{DIES}");
    assert_eq!(code(&book, &log), Some(Code::EngineDied));
}

#[test]
fn the_end_of_what_served_is_put_down_to_what_was_said_shortly_before_it() {
    let book = book();
    let memory = "(Worker pid=3) ERROR 06-15 16:21:15 [x.py:1] torch.OutOfMemoryError: CUDA out of memory.\n";
    let between = |lines: usize| "(APIServer pid=1) INFO:     GET /health\n".repeat(lines);
    let log = |lines| format!("{BEGIN}{SERVES}{memory}{}{DIES}", between(lines));
    assert_eq!(code(&book, &log(10)), Some(Code::InsufficientGpuMemory));
    assert_eq!(code(&book, &log(1000)), Some(Code::EngineDied));
    let after = format!("{BEGIN}{SERVES}{DIES}{memory}");
    assert_eq!(code(&book, &after), Some(Code::InsufficientGpuMemory));
}

#[test]
fn an_engine_that_dies_of_an_unknown_exception_while_it_serves_has_died() {
    let log =
        format!("{BEGIN}{SERVES}{DIES}(EngineCore pid=2) ZeroDivisionError: division by zero\n");
    let found = read(&book(), log).unwrap();
    assert_eq!(
        (found.code, found.line.as_str()),
        (Code::EngineDied, "ZeroDivisionError: division by zero")
    );
}

/// Where it is killed before it can say more.
#[test]
fn an_end_that_is_told_as_a_warning_is_one_and_a_fault_in_native_code_explains_it() {
    let ends = "(APIServer pid=1) WARNING 11-28 00:04:57 [core_client.py:817] [shutdown] MPClient: engine core exited unexpectedly; starting cleanup\n";
    let fault = "!!!!!!! Segfault encountered !!!!!!!\n  File \"<unknown>\", line 0, in ffi_call\n";
    let told = |said: &str| read(&book(), format!("{BEGIN}{said}"));
    for log in [format!("{SERVES}{ends}"), format!("{SERVES}{fault}{ends}"), fault.to_owned()] {
        assert_eq!(told(&log).unwrap().code, Code::EngineDied, "{log}");
    }
    let line = told(&format!("{SERVES}{fault}{ends}")).unwrap().line;
    assert_eq!(line, "!!!!!!! Segfault encountered !!!!!!!");
    assert_eq!(told(&format!("{SERVES}{fault}")), None, "a helper has made it");
    let stopping = "(APIServer pid=1) INFO:     Shutting down FastAPI HTTP server.\n";
    assert_eq!(told(&format!("{SERVES}{stopping}{ends}")), None, "it was stopped");
}

/// As of the head size that the CPU does not have (vLLM 0.32).
#[test]
fn the_first_exception_of_an_engine_shortly_before_the_end_of_what_served_is_what_it_died_of() {
    let worker =
        "(Worker pid=3) ERROR 06-15 16:21:15 [x.py:1] RuntimeError: Unsupported: head_dim=16\n";
    let engine = "(EngineCore pid=2) ERROR 06-15 16:21:15 [x.py:1] ZeroDivisionError: came of it\n";
    let front = "(APIServer pid=1) ERROR 06-15 16:21:15 [x.py:1] ZeroDivisionError: of a request\n";
    let between = |lines: usize| "(APIServer pid=1) INFO:     GET /health\n".repeat(lines);
    let told = |said: &str| {
        let found = read(&book(), format!("{BEGIN}{SERVES}{said}{DIES}")).unwrap();
        assert_eq!(found.code, Code::EngineDied);
        found.line
    };
    let unsupported = "RuntimeError: Unsupported: head_dim=16";
    assert_eq!(told(&format!("{front}{worker}{worker}{engine}{}", between(300))), unsupported);
    for (survived_before, died_before) in [(400, 0), (380, 30)] {
        let (before, after) = (between(survived_before), between(died_before));
        assert_eq!(told(&format!("{engine}{before}{worker}{after}")), unsupported);
    }
    assert_eq!(told(&format!("{worker}{}", between(400))), "EngineCore encountered a fatal error.");
    assert_eq!(told(front), "EngineCore encountered a fatal error.");
    // It stops thereupon.
    let log = format!(
        "{BEGIN}{SERVES}{worker}{DIES}(APIServer pid=1) INFO:     Shutting down FastAPI HTTP server.\n"
    );
    let found = read(&book(), log).unwrap();
    assert_eq!((found.code, found.line.as_str()), (Code::EngineDied, unsupported));
    assert_eq!(code(&book(), &format!("{BEGIN}{SERVES}{worker}")), None);
}
