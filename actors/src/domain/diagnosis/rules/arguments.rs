//! vLLM does not take what it was told. Seen in vLLM 0.8 to 0.33.

use crate::domain::cause::Code::ArgumentsRejected;
use crate::domain::diagnosis::rule::Rule;

pub(in crate::domain::diagnosis) const RULES: &[Rule] = &[
    // argparse, `utils/argparse_utils.py`; exit status 2.
    Rule::root(ArgumentsRejected, r"^(?:vllm|vllm serve|api_server\.py)[^:]*: error: (?P<what>.+)")
        .saying("vLLM does not know these arguments: {what}")
        .curing("correct extra_args: this version of vLLM says `{what}`"),
    Rule::root(ArgumentsRejected, r"\berror: (?P<what>unrecognized arguments: .+|argument --?[\w-]+(?:/-\w)?: .+)")
        .saying("vLLM does not know these arguments: {what}")
        .curing("correct extra_args: this version of vLLM says `{what}`"),
    // `entrypoints/openai/api_server.py`, `validate_api_server_args`.
    Rule::root(ArgumentsRejected, r"invalid (?P<kind>tool call|reasoning) parser: (?P<name>\S+) \(chose from (?P<known>[^)]*)\)")
        .saying("this vLLM has no {kind} parser `{name}`")
        .curing("choose another {kind} parser in extra_args, one of {known}"),
    Rule::root(ArgumentsRejected, r"invalid (?:tool call|reasoning) parser"),
    Rule::root(ArgumentsRejected, r"--enable-auto-tool-choice requires --tool-call-parser")
        .curing("add --tool-call-parser to extra_args"),
    // `config/model.py`, `_get_and_verify_max_len`.
    Rule::root(ArgumentsRejected, r"User-specified max_model_len \((?P<wanted>\d+)\) is greater than the derived max_model_len \([^)]*?=(?P<most>[\d.]+)")
        .saying("--max-model-len {wanted} is more than the {most} that the model was made for")
        .curing("lower --max-model-len to {most}, or set VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 in env"),
    Rule::root(ArgumentsRejected, r"User-specified max_model_len \(\d+\) is greater than the derived"),
    Rule::root(ArgumentsRejected, r"max_num_batched_tokens \(\d+\) (?:is smaller than max_model_len|must be greater than or equal to max_num_seqs)"),
    // `envs.py`: Kubernetes sets VLLM_PORT for a service of the name `vllm`.
    Rule::root(ArgumentsRejected, r"VLLM_PORT '(?P<uri>[^']*)' appears to be a URI")
        .saying("VLLM_PORT is `{uri}`, as Kubernetes sets it for a service named vllm")
        .curing("set enableServiceLinks: false in the pod, or give the service another name"),
    Rule::root(ArgumentsRejected, r"Sleep mode is not supported on current platform"),
    Rule::root(ArgumentsRejected, r"(?:The supplied chat template|chat template) .*(?:does not exist|looks like a file path, but)"),
    // pydantic 2: what it says of one value.
    Rule::consequence(ArgumentsRejected, r"^\s*(?:Value error, )?(?P<what>.+?)\s*\[type=\w+, input_value=")
        .saying("vLLM does not accept its settings: {what}"),
];
