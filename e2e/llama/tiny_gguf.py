"""Writes a language model and an encoder of pictures that llama.cpp loads at once: random weights, one token for each byte of text.

    python tiny_gguf.py FOLDER

`text.gguf` and `eyes.gguf` (`--mmproj`), as https://github.com/ggml-org/ggml/blob/master/docs/gguf.md has them. Nothing is downloaded. What they
answer is printable noise.
"""

import array
import random
import struct
import sys
from pathlib import Path

WIDTH, HIDDEN, HEADS = 64, 128, 2
BYTES = 256
SPECIAL = ["<unk>", "<s>", "</s>"]
# Of the tokenizer's kinds: unknown, control, byte, normal.
UNKNOWN, CONTROL, BYTE, NORMAL = 2, 3, 6, 1
TYPES = {bool: (7, "?"), int: (4, "I"), float: (6, "f")}
ALIGNMENT = 32


def text(value):
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def field(value):
    """A value with its type."""
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    if isinstance(value, list):
        first = value[0]
        kind, code = (8, None) if isinstance(first, str) else TYPES[type(first)]
        items = b"".join(text(item) if code is None else struct.pack("<" + code, item) for item in value)
        return struct.pack("<IIQ", 9, kind, len(value)) + items
    kind, code = TYPES[type(value)]
    return struct.pack("<I" + code, kind, value)


def write(path, fields, tensors):
    """`tensors` by name, each its shape (the innermost dimension first) and its values."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields))
    head += b"".join(text(name) + field(value) for name, value in fields.items())
    data = b""
    for name, (shape, values) in tensors.items():
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(data))
        data += values.tobytes()
        data += bytes(-len(data) % ALIGNMENT)
    path.write_bytes(head + bytes(-len(head) % ALIGNMENT) + data)


def noise(*shape, by=0.02):
    count = 1
    for length in shape:
        count *= length
    return list(shape), array.array("f", (random.gauss(0, by) for _ in range(count)))


def ones(length):
    return [length], array.array("f", [1.0] * length)


def language():
    tokens = SPECIAL + [f"<0x{byte:02X}>" for byte in range(BYTES)] + ["\u2581"]
    kinds = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * BYTES + [NORMAL]
    # What cannot be printed is never said: random bytes are no text.
    shape, said = noise(WIDTH, len(tokens), by=5.0)
    for token in range(len(tokens)):
        if not 32 <= token - len(SPECIAL) < 127:
            said[token * WIDTH : (token + 1) * WIDTH] = array.array("f", [0.0] * WIDTH)
    tensors = {"token_embd.weight": noise(WIDTH, len(tokens)), "output_norm.weight": ones(WIDTH), "output.weight": (shape, said)}
    for block in ("blk.0.", "blk.1."):
        for norm in ("attn_norm", "ffn_norm"):
            tensors[f"{block}{norm}.weight"] = ones(WIDTH)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors[f"{block}{part}.weight"] = noise(WIDTH, WIDTH)
        tensors[f"{block}ffn_gate.weight"] = noise(WIDTH, HIDDEN)
        tensors[f"{block}ffn_up.weight"] = noise(WIDTH, HIDDEN)
        tensors[f"{block}ffn_down.weight"] = noise(HIDDEN, WIDTH)
    fields = {
        "general.architecture": "llama",
        "llama.context_length": 32768,
        "llama.embedding_length": WIDTH,
        "llama.block_count": 2,
        "llama.feed_forward_length": HIDDEN,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": WIDTH // HEADS,
        "llama.vocab_size": len(tokens),
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * len(tokens),
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    return fields, tensors


def eyes():
    side, patch = 56, 14
    places = (side // patch) ** 2 + 1
    tensors = {
        "v.class_embd": noise(WIDTH),
        "v.patch_embd.weight": noise(patch, patch, 3, WIDTH),
        "v.position_embd.weight": noise(WIDTH, places),
    }
    layers = {"v.pre_ln": (), "v.post_ln": (), "mm.0": (WIDTH, WIDTH), "mm.2": (WIDTH, WIDTH)}
    layers |= {f"v.blk.0.{part}": (WIDTH, WIDTH) for part in ("attn_q", "attn_k", "attn_v", "attn_out")}
    layers |= {"v.blk.0.ln1": (), "v.blk.0.ln2": (), "v.blk.0.ffn_up": (WIDTH, HIDDEN), "v.blk.0.ffn_down": (HIDDEN, WIDTH)}
    for name, shape in layers.items():
        tensors[f"{name}.weight"] = noise(*shape or (WIDTH,))
        tensors[f"{name}.bias"] = noise(shape[-1] if shape else WIDTH)
    fields = {
        "general.architecture": "clip",
        "clip.has_vision_encoder": True,
        "clip.projector_type": "mlp",
        "clip.use_gelu": True,
        "clip.vision.image_size": side,
        "clip.vision.patch_size": patch,
        "clip.vision.embedding_length": WIDTH,
        "clip.vision.feed_forward_length": HIDDEN,
        "clip.vision.projection_dim": WIDTH,
        "clip.vision.block_count": 1,
        "clip.vision.attention.head_count": HEADS,
        "clip.vision.attention.layer_norm_epsilon": 1e-5,
        "clip.vision.image_mean": [0.5, 0.5, 0.5],
        "clip.vision.image_std": [0.5, 0.5, 0.5],
    }
    return fields, tensors


random.seed(1)
folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
write(folder / "text.gguf", *language())
write(folder / "eyes.gguf", *eyes())
