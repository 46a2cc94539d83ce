//! The model is not one that this vLLM can run, or its files are not what they should be.

use crate::domain::cause::Code::{ModelFilesBroken, ModelUnsupported};
use crate::domain::diagnosis::rule::Rule;

pub(in crate::domain::diagnosis) const RULES: &[Rule] = &[
    // `model_executor/models/registry.py`, 0.8 to 0.33.
    Rule::root(ModelUnsupported, r"Model architectures \[(?P<names>[^\]]*)\] are not supported for now")
        .saying("this vLLM does not know the architecture {names}")
        .curing("upgrade vLLM, or choose a model of a supported architecture"),
    Rule::root(ModelUnsupported, r"was supported in vLLM until (?P<version>v?[\d.]+\d)")
        .curing("install vLLM {version}, or choose another model"),
    Rule::consequence(ModelUnsupported, r"No model architectures are specified|Model architectures \[[^\]]*\] failed to be inspected|Error in inspecting model architecture"),
    // transformers.
    Rule::root(ModelUnsupported, r"model type `?(?P<kind>[\w.-]+)`? but Transformers does not recognize this architecture")
        .saying("the installed transformers does not know the model type {kind}")
        .curing("upgrade transformers and vLLM, or choose another model"),
    Rule::root(ModelUnsupported, r"does not recognize this architecture"),
    Rule::root(ModelUnsupported, r"requires you to execute (?:the configuration file|custom code)|contains custom code|set the option `?trust_remote_code=True|loading this model requires.*trust[-_]remote[-_]code|(?:pass|set|use|using|by|with) \S*--trust-remote-code")
        .saying("the model brings code of its own, which vLLM does not run unasked")
        .curing("read that code, then add --trust-remote-code to extra_args"),
    // `model_executor/layers/quantization`.
    Rule::root(ModelUnsupported, r"Min(?:imum)? capability: (?P<least>\d+)\.?.*[Cc]urrent capability: (?P<present>\d+)")
        .saying("the quantisation of the model needs a GPU of compute capability {least}, and this one has {present}")
        .curing("choose a model with another quantisation, or a newer GPU"),
    Rule::root(ModelUnsupported, r"Quantization scheme is not supported for|does not support BitsAndBytes|No compressed-tensors compatible scheme|Unable to find matching target for .*compressed-tensors|ModelOpt currently only supports|not all shards of .* are quantized|quantization is currently not supported|GGUF model with architecture \S+ is not supported|Unknown gguf model_type|Unknown quantization method|Unsupported quantization|Cannot find the config file for \w+|Quantization method specified in the model config .* does not match|quantization is not supported|is not supported for quantization"),
    Rule::root(ModelUnsupported, r"(?i)bfloat16 is only supported on GPUs with compute capability of at least")
        .curing("add `--dtype half` to extra_args"),
    Rule::root(ModelUnsupported, r"No valid attention backend found for|Selected backend \S+ is not valid for this configuration|Head size \d+ is not supported|head_size \d+ is not supported|Unsupported head size"),
    Rule::root(ModelUnsupported, r"does not support (?:LoRA|pipeline parallelism|tensor parallelism|the? \w+ (?:task|runner))"),
    Rule::root(ModelUnsupported, r"(?:This model does not|The model does not) support|has no vLLM implementation and the Transformers implementation is not compatible|Cannot find model module\.|Transformers implementation of .* is not compatible|Pipeline parallelism is not supported for this model|'transformers_modules\."),
    // `lora/lora_model.py`.
    Rule::root(ModelFilesBroken, r"(?P<path>[^\s']+) doesn't contain tensors")
        .saying("the LoRA adapter at {path} has no weights"),
    // `model_loader/default_loader.py`, `weight_utils.py`.
    Rule::root(ModelFilesBroken, r"Cannot find any model weights with `?(?P<path>[^`\s]+)`?")
        .saying("there are no weights in {path}"),
    Rule::root(ModelFilesBroken, r"Weight files referenced in index but missing|Not found (?:any )?weight files"),
    Rule::root(ModelFilesBroken, r"SafetensorError|Error while deserializing header|InvalidHeaderDeserialization|MetadataIncompleteBuffer|HeaderTooLarge|incomplete metadata, file not fully covered")
        .saying("a file of weights is cut off or damaged")
        .curing("delete the model's .safetensors files (in the Hub's cache: the blob) and download them again"),
    Rule::root(ModelFilesBroken, r"exceeds dimension size \(|The size of tensor a \(\d+\) must match|PytorchStreamReader failed|Consistency check failed: file should be of size|UnpicklingError|invalid magic number|is not a valid GGUF"),
    Rule::root(ModelFilesBroken, r"Following weights were not initialized from checkpoint|There is no module or parameter named|Attempted to load weight .* into parameter|size mismatch for|^KeyError: '(?:[\w.]+\.)?layers\.\d+\.|^KeyError: '[\w.]+\.(?:weight|bias|qweight|qzeros|scales|g_idx|\w*scale(?:_inv)?)'"),
    Rule::root(ModelFilesBroken, r"the config file at '(?P<path>[^']+)' is not a valid JSON file")
        .saying("{path} is not valid JSON"),
    // What pydantic says of a file that is read while settings are judged: the header of a file of
    // weights is JSON too. Settings that are no JSON are refused before (`FlexibleArgumentParser`).
    Rule::root(ModelFilesBroken, r"^\s*Value error, (?P<what>(?:Unterminated string|Expecting|Extra data|Invalid)[^\[]*: line \d+ column \d+ \(char \d+\))")
        .saying("a file of the model is cut off, or is no valid JSON: {what}"),
    Rule::consequence(ModelFilesBroken, r"JSONDecodeError|Expecting value: line \d+ column \d+"),
    Rule::root(ModelFilesBroken, r"does not appear to have a file named (?P<file>\S+?)[.,]?(?:\s|$)")
        .saying("the model has no {file}"),
    Rule::root(ModelFilesBroken, r"Should have a `model_type` key in its config\.json|No supported config format found|Could not detect config format|Can't load (?:the configuration of|image processor for|feature extractor for)|Failed to load mistral '"),
    Rule::root(ModelFilesBroken, r"Couldn't instantiate the backend tokenizer|could not parse ModelProto|untagged enum ModelWrapper|^TypeError: not a string|Can't load tokenizer for|Unable to load vocabulary from file|Found \d+ files matching the pattern|Make sure that a Mistral tokenizer is present|(?:Tokenizer|tokenizer) class \S+ does not exist")
        .saying("the model has no tokenizer that can be loaded")
        .curing("add the model's tokenizer files, or name another with --tokenizer in extra_args"),
    // Kernels that this kind of GPU cannot run: triton, FlashAttention, FlashInfer, Marlin.
    Rule::root(ModelUnsupported, r"out of resource: shared memory, Required|FlashAttention only supports Ampere|(?:is|are) only supported (?:on|in) (?:Hopper|Blackwell|FlashAttention)|requires GPUs with sm\d+|type fp8\w+ not supported in this architecture|No compiled \w+ for|Failed to find a kernel that can implement|No supported CUDA architectures found|not supported with FlashAttention on this|does not support fp8 kv-cache|Unsupported architecture")
        .saying("this kind of GPU cannot run what the model or its settings need")
        .curing("choose another quantisation, --kv-cache-dtype or attention backend in extra_args, or a newer GPU"),
];
