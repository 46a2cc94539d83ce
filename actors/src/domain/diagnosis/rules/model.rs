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
    Rule::consequence(ModelUnsupported, r"Model architectures \[[^\]]*\] failed to be inspected|Error in inspecting model architecture"),
    // transformers.
    Rule::root(ModelUnsupported, r"model type `?(?P<kind>[\w.-]+)`? but Transformers does not recognize this architecture")
        .saying("the installed transformers does not know the model type {kind}")
        .curing("upgrade transformers and vLLM, or choose another model"),
    Rule::root(ModelUnsupported, r"does not recognize this architecture"),
    Rule::root(ModelUnsupported, r"requires you to execute (?:the configuration file|custom code)|contains custom code|set the option `?trust_remote_code=True|loading this model requires.*trust[-_]remote[-_]code|--trust-remote-code")
        .saying("the model brings code of its own, which vLLM does not run unasked")
        .curing("read that code, then add --trust-remote-code to extra_args"),
    // `model_executor/layers/quantization`.
    Rule::root(ModelUnsupported, r"Min(?:imum)? capability: (?P<least>\d+)\.?.*[Cc]urrent capability: (?P<present>\d+)")
        .saying("the quantisation of the model needs a GPU of compute capability {least}, and this one has {present}")
        .curing("choose a model with another quantisation, or a newer GPU"),
    Rule::root(ModelUnsupported, r"Quantization scheme is not supported for|Unknown quantization method|Unsupported quantization|Cannot find the config file for \w+|Quantization method specified in the model config .* does not match|quantization is not supported|is not supported for quantization"),
    Rule::root(ModelUnsupported, r"(?i)bfloat16 is only supported on GPUs with compute capability of at least")
        .curing("add `--dtype half` to extra_args"),
    Rule::root(ModelUnsupported, r"Head size \d+ is not supported|head_size \d+ is not supported|Unsupported head size"),
    Rule::root(ModelUnsupported, r"does not support (?:LoRA|pipeline parallelism|tensor parallelism|the? \w+ (?:task|runner))"),
    Rule::root(ModelUnsupported, r"(?:This model does not|The model does not) support"),
    // `model_loader/default_loader.py`, `weight_utils.py`.
    Rule::root(ModelFilesBroken, r"Cannot find any model weights with `?(?P<path>[^`\s]+)`?")
        .saying("there are no weights in {path}"),
    Rule::root(ModelFilesBroken, r"Weight files referenced in index but missing|Not found (?:any )?weight files"),
    Rule::root(ModelFilesBroken, r"SafetensorError|Error while deserializing header|InvalidHeaderDeserialization|MetadataIncompleteBuffer|HeaderTooLarge|incomplete metadata, file not fully covered")
        .saying("a file of weights is cut off or damaged")
        .curing("delete the model's .safetensors files (in the Hub's cache: the blob) and download them again"),
    Rule::root(ModelFilesBroken, r"PytorchStreamReader failed|UnpicklingError|invalid magic number|is not a valid GGUF"),
    Rule::root(ModelFilesBroken, r"Following weights were not initialized from checkpoint|There is no module or parameter named|Attempted to load weight .* into parameter|size mismatch for|^KeyError: '(?:model\.|language_model\.|transformer\.)?layers\.\d+\."),
    Rule::root(ModelFilesBroken, r"the config file at '(?P<path>[^']+)' is not a valid JSON file")
        .saying("{path} is not valid JSON"),
    Rule::consequence(ModelFilesBroken, r"JSONDecodeError"),
    Rule::root(ModelFilesBroken, r"does not appear to have a file named (?P<file>\S+?)[.,]?(?:\s|$)")
        .saying("the model has no {file}"),
    Rule::root(ModelFilesBroken, r"Should have a `model_type` key in its config\.json"),
    Rule::root(ModelFilesBroken, r"Couldn't instantiate the backend tokenizer|Can't load tokenizer for|Unable to load vocabulary from file|Found \d+ files matching the pattern|Make sure that a Mistral tokenizer is present|(?:Tokenizer|tokenizer) class \S+ does not exist")
        .saying("the model has no tokenizer that can be loaded")
        .curing("add the model's tokenizer files, or name another with --tokenizer in extra_args"),
];
