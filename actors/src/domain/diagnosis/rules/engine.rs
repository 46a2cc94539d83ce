//! Something of vLLM has ended. Mostly that is all it says: the cause stands elsewhere.

use crate::domain::cause::Code::{EngineDied, EngineHung};
use crate::domain::diagnosis::rule::Rule;

pub(in crate::domain::diagnosis) const RULES: &[Rule] = &[
    // `v1/executor/multiproc_executor.py`; the status from 0.27 on.
    Rule::symptom(EngineDied, r"^Worker proc (?P<name>\S+) died unexpectedly(?: \(exit code: (?P<status>-?\d+|None)\))?").fatal(),
    Rule::consequence(EngineDied, r"^Worker proc (?P<name>\S+) died unexpectedly \(exit code: -(?P<signal>\d+)\)")
        .saying("{name} was ended by signal {signal}")
        .fatal(),
    Rule::consequence(EngineDied, r"Failed core proc\(s\): \{[^}]*'(?P<name>[^']+)': -(?P<signal>\d+)")
        .saying("{name} was ended by signal {signal} while it loaded"),
    Rule::symptom(EngineDied, r"^Engine core proc \S+ died unexpectedly|^(?:\[shutdown\] )?(?:[\w.]+: )?engine core exited unexpectedly").fatal(),
    Rule::symptom(EngineDied, r"^EngineCore (?:encountered a fatal error|hit an exception)|^(?:\w+\.)*EngineDeadError\b").fatal(),
    Rule::symptom(EngineDied, r"^(?:\w+ )?[Gg]ot fatal signal from worker processes|^(?:\w+\.)*(?:AsyncEngineDeadError|MQEngineDeadError)\b|^(?:Exception occurred while running API servers: |[\w.]+: )?(?:Background loop (?:has errored|is stopped)|Engine loop has died|Engine process \(pid \d+\) died|(?:MQLLMEngine|AsyncLLMEngine) (?:is already dead|has failed)|Process \S+ \(PID: \d+\) died with exit code)").fatal(),
    Rule::symptom(EngineDied, r"^RuntimeError: Executor failed|Worker failed with error").fatal(),
    Rule::symptom(EngineDied, r"WorkerProc initialization failed|WorkerProc failed to start|EngineCore failed to start|Engine core initialization failed|Engine process failed to start|WorkerProc hit an exception"),
    // Python's `multiprocessing`: a child has closed its end of the pipe.
    Rule::symptom(EngineDied, r"^EOFError\b|ConnectionResetError|BrokenPipeError|Connection closed by peer|failed to recv, got 0 bytes"),
    // A shell, and the C library.
    Rule::consequence(EngineDied, r"^(?:\S+: line \d+: +)?(?:\d+ )?(?:Killed|Segmentation fault|Aborted|Illegal instruction|Floating point exception)\s*(?:\(core dumped\).*|$|\s\s+\S.*)").fatal(),
    // tvm-ffi's own handler, which vLLM brings along; a helper may have made it, and be survived.
    Rule::consequence(EngineDied, r"^!{7} Segfault encountered !{7}")
        .saying("a fault in native code: the stack below it tells where")
        .lasting(),
    Rule::consequence(EngineDied, r"Fatal Python error: (?P<what>Segmentation fault|Aborted|Illegal instruction|\S.*)").fatal(),
    Rule::consequence(EngineDied, r"terminate called after throwing|Signal \d+ \(SIG\w+\) received").fatal(),
    // `v1/executor`: a step that does not end.
    Rule::root(EngineHung, r"RPC call to (?P<what>\w+) timed out")
        .saying("the engine waited in vain for its workers ({what})")
        .fatal(),
];
