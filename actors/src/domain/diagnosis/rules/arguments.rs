//! vLLM does not take what it was told. Seen in vLLM 0.8 to 0.33.

use crate::domain::cause::Code::ArgumentsRejected;
use crate::domain::diagnosis::rule::Rule;

pub(in crate::domain::diagnosis) const RULES: &[Rule] = &[
    // argparse, `utils/argparse_utils.py`; exit status 2.
    Rule::root(ArgumentsRejected, r"^(?:vllm|vllm serve|api_server\.py|entry\.py)[^:]*: error: (?P<what>.+)")
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
    Rule::root(ArgumentsRejected, r"User-specified max_model_len \((?P<wanted>\d+)\) is greater than the derived max_model_len \([^)]*?=(?P<most>\d+)")
        .saying("--max-model-len {wanted} is more than the {most} that the model was made for")
        .curing("lower --max-model-len to {most}, or set VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 in env"),
    Rule::root(ArgumentsRejected, r"User-specified max_model_len \(\d+\) is greater than the derived"),
    Rule::root(ArgumentsRejected, r"max_num_batched_tokens \(\d+\) (?:is smaller than max_model_len|must be greater than or equal to max_num_seqs)"),
    // `envs.py`: Kubernetes sets VLLM_PORT for a service of the name `vllm`.
    Rule::root(ArgumentsRejected, r"VLLM_PORT '(?P<uri>[^']*)' appears to be a URI")
        .saying("VLLM_PORT is `{uri}`, as Kubernetes sets it for a service named vllm")
        .curing("set enableServiceLinks: false in the pod, or give the service another name"),
    Rule::root(ArgumentsRejected, r"Sleep mode is not supported on current platform|(?:Unknown|Invalid) attention backend|max_tokens_per_mm_item \(\d+\) is larger than max_num_batched_tokens|VLLM_USE_V1=1 is not supported with|(?:Reasoning|Tool) parser '[^']*' not found|Speculative decoding with draft model is not supported|same vocabulary size|must be of a yaml|Too large swap space|expected target modules in"),
    Rule::root(ArgumentsRejected, r"(?:The supplied chat template|[Cc]hat template).*(?:does not exist|doesn't exist|looks like a file path, but)"),
    // pydantic 2: what it says of one value.
    Rule::consequence(ArgumentsRejected, r"^\s*(?:Value error, )?(?P<what>.+?)\s*\[type=\w+, input_value=")
        .saying("vLLM does not accept its settings: {what}"),
    Rule::root(ArgumentsRejected, r"LoRA rank (?P<rank>\d+) is greater than max_lora_rank (?P<most>\d+)")
        .saying("the LoRA adapter has rank {rank}, and {most} is the most that is allowed")
        .curing("add --max-lora-rank {rank} to extra_args"),
    Rule::root(ArgumentsRejected, r"LoRA is not enabled\. Use --enable-lora")
        .saying("--lora-modules is given, and LoRA is not enabled")
        .curing("add --enable-lora to extra_args"),
    Rule::root(ArgumentsRejected, r"Invalid value '(?P<value>[^']*)' for (?P<name>VLLM_\w+)")
        .saying("{name} is `{value}`, which vLLM does not know")
        .curing("correct {name} in env"),
    Rule::root(ArgumentsRejected, r"invalid literal for int\(\) with base 10: '(?P<uri>tcp://[^']*)'")
        .saying("VLLM_PORT is `{uri}`, as Kubernetes sets it for a service named vllm")
        .curing("set enableServiceLinks: false in the pod, or give the service another name"),
];
