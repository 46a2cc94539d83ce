"""Writes a small Llama model with random weights that a real vLLM loads and serves.

    python3 tiny_model.py DIR [--size tiny|sharded]

`tiny` is 0.7 MB and loads at once, `sharded` is 0.6 GB in five files, which makes vLLM show its
progress bar over checkpoint shards. The same size is the same bytes on every machine. A directory
that is already complete is left as it is; two runs at once wait for each other; a directory that
holds anything else is refused (exit status 2).

The formats are written by hand, because importing torch and transformers would take far longer
than the writing, and a test waits for it. Any Python from 3.10 will do.
"""

import argparse
import fcntl
import json
import os
import random
import struct
from array import array
from math import prod
from pathlib import Path

RECIPE = 1  # Counts up when the files change, so that older directories are written anew.
STAMP = "model.stamp"
END_OF_TEXT = "<|endoftext|>"

# Attention on vLLM 0.32's CPU backend starts with a head size of 32: with 16 the server becomes
# healthy, and its worker dies on the first request.
HEAD_SIZE = 64

SIZES = {
    "tiny": {"hidden": 128, "intermediate": 256, "layers": 2, "shards": 1},
    "sharded": {"hidden": 1024, "intermediate": 2816, "layers": 24, "shards": 5},
}

# One token a byte and the end of the text: the tokenizer and the model agree on every id, so
# whatever random weights choose can be turned back into text.
VOCABULARY = 257


def config(size):
    heads = size["hidden"] // HEAD_SIZE
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        "vocab_size": VOCABULARY,
        "hidden_size": size["hidden"],
        "intermediate_size": size["intermediate"],
        "num_hidden_layers": size["layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": HEAD_SIZE,
        "max_position_embeddings": 2048,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "bos_token_id": VOCABULARY - 1,
        "eos_token_id": VOCABULARY - 1,
    }


def byte_symbols():
    """The printable character that byte-level BPE (as of GPT-2) writes for each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unprintable = [byte for byte in range(256) if byte not in printable]
    symbols = {byte: chr(byte) for byte in printable}
    symbols |= {byte: chr(256 + index) for index, byte in enumerate(unprintable)}
    return [symbols[byte] for byte in range(256)]


def tokenizer():
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    vocabulary = {symbol: byte for byte, symbol in enumerate(byte_symbols())}
    end = {"id": VOCABULARY - 1, "content": END_OF_TEXT, "special": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [end | flags],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary | {END_OF_TEXT: VOCABULARY - 1}, "merges": []},
    }


def tokenizer_config():
    return {
        # transformers 4 and 5 both know this class; 5's own default name is unknown to 4.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "bos_token": END_OF_TEXT,
        "chat_template": "{% for message in messages %}{{ message['content'] }}\n{% endfor %}",
    }


def tensors(size):
    """Yields every weight's name and shape in the order of the model."""
    hidden, intermediate = size["hidden"], size["intermediate"]
    yield "model.embed_tokens.weight", (VOCABULARY, hidden)
    for layer in range(size["layers"]):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", (hidden,)
        for part in "qkvo":
            yield f"{prefix}.self_attn.{part}_proj.weight", (hidden, hidden)
        yield f"{prefix}.post_attention_layernorm.weight", (hidden,)
        yield f"{prefix}.mlp.gate_proj.weight", (intermediate, hidden)
        yield f"{prefix}.mlp.up_proj.weight", (intermediate, hidden)
        yield f"{prefix}.mlp.down_proj.weight", (hidden, intermediate)
    yield "model.norm.weight", (hidden,)


def bfloat16(values):
    """The upper halves of the 32-bit floats, which is what bfloat16 is."""
    raw = struct.pack(f"<{len(values)}f", *values)
    halves = array("H", raw)
    return halves[1::2].tobytes()


class Weights:
    """Hands out reproducible bfloat16 values: a long run of noise, begun again at its end."""

    def __init__(self):
        source = random.Random(0)
        # An odd length, so that no matrix repeats itself row by row.
        self.noise = bfloat16([source.gauss(0.0, 0.05) for _ in range(99_991)])
        self.one = bfloat16([1.0])
        self.position = 0

    def take(self, name, shape):
        length = 2 * prod(shape)
        if "norm" in name:
            return self.one * prod(shape)
        start = self.position
        self.position = (start + length) % len(self.noise)
        repeats = (start + length) // len(self.noise) + 1
        return memoryview(self.noise * repeats)[start : start + length]


def write_shard(path, shapes, weights):
    """One safetensors file: the header's length, the header, the weights one after the other."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes:
        begin, end = end, end + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for name, shape in shapes:
            file.write(weights.take(name, shape))


def write_weights(directory, size):
    shapes, weights, count = list(tensors(size)), Weights(), size["shards"]
    if count == 1:
        write_shard(directory / "model.safetensors", shapes, weights)
        return
    per_shard, index = -(-len(shapes) // count), {}
    for number in range(count):
        name = f"model-{number + 1:05}-of-{count:05}.safetensors"
        shard = shapes[number * per_shard : (number + 1) * per_shard]
        write_shard(directory / name, shard, weights)
        index |= {tensor: name for tensor, _ in shard}
    total = sum(2 * prod(shape) for _, shape in shapes)
    write_json(
        directory / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": index},
    )


def write_json(path, content):
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_model(directory, size):
    write_json(directory / "config.json", config(size))
    write_json(directory / "tokenizer.json", tokenizer())
    write_json(directory / "tokenizer_config.json", tokenizer_config())
    write_weights(directory, size)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    arguments = parser.parse_args()
    directory, stamp = arguments.directory, f"{arguments.size} {RECIPE}\n"

    directory.mkdir(parents=True, exist_ok=True)
    lock = os.open(directory, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)  # Let go at exit.
    stamped = directory / STAMP
    if not stamped.exists() and any(directory.iterdir()):
        parser.error(f"{directory} holds something else; name a new or an empty directory")
    if stamped.exists() and stamped.read_text() == stamp:
        return
    # Until the last file is written, the stamp says whose directory this is and no more.
    stamped.write_text("unfinished\n")
    for old in directory.iterdir():
        if old != stamped:
            old.unlink()
    write_model(directory, SIZES[arguments.size])
    stamped.write_text(stamp)


if __name__ == "__main__":
    main()
