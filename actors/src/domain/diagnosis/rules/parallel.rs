//! The sizes that the work is split by do not fit (`config/model.py`, `config/parallel.py`).

use crate::domain::cause::Code::ParallelSizeUnfit;
use crate::domain::diagnosis::rule::Rule;

pub(in crate::domain::diagnosis) const RULES: &[Rule] = &[
    Rule::root(ParallelSizeUnfit, r"Total number of attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size \((?P<size>\d+)\)")
        .saying("{heads} attention heads cannot be split over {size} GPUs")
        .curing("set gpu.tensor_parallel_size to a divisor of {heads}"),
    Rule::root(ParallelSizeUnfit, r"(?:must be divisible by|is not divisible by|not divisible by the) (?:the )?(?:(?:tensor|pipeline|world|TP|tp)\b|ep_size)|^AssertionError: \d+ is not divisible by \d+"),
    Rule::root(ParallelSizeUnfit, r"Tensor parallel size \((?P<size>\d+)\) cannot be larger than the number of available GPUs \((?P<there>\d+)\)")
        .saying("{size} GPUs are wanted, and {there} are there")
        .curing("set gpu.tensor_parallel_size to {there} or less, or let vLLM see more GPUs (CUDA_VISIBLE_DEVICES)"),
    Rule::root(ParallelSizeUnfit, r"World size \((?P<size>\d+)\) is larger than the number of available GPUs \((?P<there>\d+)\)")
        .saying("{size} GPUs are wanted, and {there} are there")
        .curing("lower gpu.tensor_parallel_size or gpu.pipeline_parallel_size to {there} GPUs in all, or let vLLM see more (CUDA_VISIBLE_DEVICES)"),
    Rule::root(ParallelSizeUnfit, r"exceeds the total number of available GPUs|larger than the number of available (?:GPUs|devices)|(?:CUDA|HIP) error: invalid device ordinal|^AssertionError: Invalid device id|No available node types can fulfill resource request|Ray does not allocate any GPUs on the driver node|Cannot provide a placement group|DP adjusted local rank .* is out of bounds"),
    Rule::root(ParallelSizeUnfit, r"(?:input|output)[_ ]size .*is not (?:aligned with|divisible by) .*|can be caused by too large tensor parallel size|not divisible by min_thread_[kn]|Consider reducing tensor_parallel_size")
        .saying("the quantised weights cannot be split over so many GPUs")
        .curing("lower gpu.tensor_parallel_size"),
];
