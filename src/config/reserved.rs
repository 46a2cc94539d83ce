//! What `extra_args` and `env` may not have: what a setting of ours decides, and what would make
//! vLLM a server that we do not find, or processes that we do not own.
//!
//! Read from vLLM 0.32.0 (`entrypoints/launchers/cli_args.py`, `engine/arg_utils.py`,
//! `config/parallel.py`, `envs.py`). `tests/vllm` compares the flags with those of a real one.

use std::net::IpAddr;

use super::argument::Argument;

/// Flags that are refused for one reason.
#[derive(Debug)]
pub(super) struct Rule {
    /// In all their spellings, but for abbreviations.
    flags: &'static [&'static str],
    /// With which values.
    when: When,
    /// What is wrong, after the name of the flag.
    pub(super) fault: &'static str,
    /// What to do.
    pub(super) help: &'static str,
}

/// With which values a flag is refused.
#[derive(Clone, Copy, Debug)]
enum When {
    Always,
    /// With one of these.
    Is(&'static [&'static str]),
    /// With a number below 1.
    BelowOne,
}

const SET_BY_US: &str = "is set by the supervisor";
const ELSEWHERE: &str = "makes vLLM listen where it is not looked for";
const ONE_OF_MANY: &str = "makes vLLM one part of a server of several";
const WHOLE: &str = "remove it: what is supervised is a whole vLLM on this machine, of several engines with `--data-parallel-size`";
const NO_SERVER: &str = "starts engines without a server, so nothing would ever answer";

/// Every flag that is refused.
const RULES: &[Rule] = &[
    always(&["--model"], SET_BY_US, "set `providers.vllm.model` instead"),
    always(&["--host"], SET_BY_US, "set `providers.vllm.host` instead"),
    always(&["--port"], SET_BY_US, "set `providers.vllm.port` instead"),
    always(
        &["--tensor-parallel-size", "-tp"],
        SET_BY_US,
        "set `providers.vllm.gpu.tensor_parallel_size` instead",
    ),
    always(
        &["--pipeline-parallel-size", "-pp"],
        SET_BY_US,
        "set `providers.vllm.gpu.pipeline_parallel_size` instead",
    ),
    always(
        &["--gpu-memory-utilization", "--device-memory-utilization"],
        SET_BY_US,
        "set `providers.vllm.gpu.memory_utilization` instead",
    ),
    always(&["--api-key"], SET_BY_US, "set VLLM_API_KEY in the environment instead"),
    always(&["--hf-token"], SET_BY_US, "set HF_TOKEN in the environment instead"),
    always(
        &["--config"],
        "takes further flags from a file, which could be any",
        "remove it: write the flags themselves in `providers.vllm.extra_args`",
    ),
    always(&["--help", "-h"], "makes vLLM print its help and end", "remove it"),
    always(&["--uds"], ELSEWHERE, "remove it: vLLM is asked over TCP, at `host` and `port`"),
    always(&["--grpc"], ELSEWHERE, "remove it: vLLM is asked over HTTP, at `host` and `port`"),
    always(
        &[
            "--ssl-keyfile",
            "--ssl-certfile",
            "--ssl-ca-certs",
            "--ssl-cert-reqs",
            "--ssl-ciphers",
            "--enable-ssl-refresh",
        ],
        "makes vLLM speak TLS, and it is asked in plain HTTP",
        "remove it: leave `host` at loopback, and let a proxy on this machine speak TLS",
    ),
    Rule {
        flags: &["--root-path"],
        // A path below it is found without it, and then at no other (Starlette, `get_route_path`).
        when: When::Is(&["/v1", "/v1/models", "/health", "/metrics"]),
        fault: "hides a path at which vLLM is asked",
        help: "use a path of its own, such as `/llm`",
    },
    always(&["--headless"], NO_SERVER, WHOLE),
    Rule {
        flags: &["--api-server-count", "-asc"],
        when: When::BelowOne,
        fault: NO_SERVER,
        help: "remove it, or give a number from 1",
    },
    always(
        &[
            "--nnodes",
            "-n",
            "--node-rank",
            "-r",
            "--master-addr",
            "--master-port",
            "--data-parallel-size-local",
            "-dpl",
            "--data-parallel-address",
            "-dpa",
            "--data-parallel-rank",
            "-dpn",
            "--data-parallel-start-rank",
            "-dpr",
            "--data-parallel-external-lb",
            "-dpe",
            "--data-parallel-hybrid-lb",
            "-dph",
        ],
        ONE_OF_MANY,
        WHOLE,
    ),
    always(
        &["--data-parallel-multi-port-external-lb", "-dpm"],
        "starts a supervisor of vLLM's own, with servers at ports that are not looked at",
        WHOLE,
    ),
    Rule {
        flags: &["--distributed-executor-backend", "--data-parallel-backend", "-dpb"],
        when: When::Is(&["ray", "external_launcher"]),
        fault: "leaves it to another program to start and end the workers",
        help: "use `mp`, or remove it: what is supervised is what vLLM itself starts",
    },
];

/// Flags that are allowed, though another could be meant by them if they did not exist.
const ALLOWED: [&str; 2] = ["--data-parallel-size", "-dp"];

const fn always(flags: &'static [&'static str], fault: &'static str, help: &'static str) -> Rule {
    Rule { flags, when: When::Always, fault, help }
}

/// vLLM's flags that `extra_args` may not have, some of them with certain values only. A flag has
/// all its spellings, but for abbreviations: these are recognised and refused as well.
pub fn reserved_flags() -> impl Iterator<Item = &'static str> {
    RULES.iter().flat_map(|rule| rule.flags).copied()
}

/// The reserved flag that vLLM would take an argument for, given the next one.
pub(super) fn flag(argument: &str, next: Option<&String>) -> Option<(&'static str, &'static Rule)> {
    let argument = Argument::read(argument)?;
    if ALLOWED.into_iter().any(|flag| argument.is(flag)) {
        return None;
    }
    let all = || RULES.iter().flat_map(|rule| rule.flags.iter().map(move |flag| (*flag, rule)));
    // Another flag may begin with the whole of one.
    let exact = all().find(|(flag, _)| argument.is(flag));
    let (flag, rule) = exact.or_else(|| all().find(|(flag, _)| argument.may_be(flag)))?;
    let value = argument.value(next);
    let is_refused = match rule.when {
        When::Always => true,
        When::Is(values) => value.is_some_and(|value| values.contains(&value)),
        When::BelowOne => value.and_then(|value| value.parse().ok()).is_some_and(|n: i64| n < 1),
    };
    is_refused.then_some((flag, rule))
}

/// What is wrong with a variable of this value for vLLM, and what to do.
pub(super) fn variable(
    name: &str,
    value: &str,
    host: IpAddr,
) -> Option<(&'static str, &'static str)> {
    match name {
        "VLLM_PORT" => Some((
            "vLLM takes this for the first of its internal ports",
            "set `providers.vllm.port` for the HTTP port, and remove this",
        )),
        // Without these, sockets, shared memory and processes of vLLM could not be found.
        "VLLM_RPC_BASE_PATH" | "SPT_NOENV" => Some((OURS, "remove it")),
        _ if name.starts_with("VLLMD_") => Some((OURS, "remove it")),
        "VLLM_DP_SIZE"
        | "VLLM_DP_RANK"
        | "VLLM_DP_RANK_LOCAL"
        | "VLLM_DP_MASTER_IP"
        | "VLLM_DP_MASTER_PORT" => Some((ONE_OF_MANY, WHOLE)),
        "VLLM_PROCESS_NAME_PREFIX" if value.is_empty() || value.contains([' ', '/', '.', ':']) => {
            Some((
                "vLLM's processes could not be told apart by such titles",
                "use a word without blanks, `/`, `.` and `:`, or remove it",
            ))
        }
        // It opens `/collective_rpc` and the like, which run code and ask for no key.
        "VLLM_SERVER_DEV_MODE" if value.trim() != "0" && !host.is_loopback() => Some((
            "whoever reaches `host` could run code in vLLM, without a key",
            "use a loopback `host` (127.0.0.1), or remove it",
        )),
        _ => None,
    }
}

const OURS: &str = "the supervisor sets this itself, to find what belongs to vLLM";
