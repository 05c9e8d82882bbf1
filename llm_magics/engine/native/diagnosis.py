"""Turns llama.cpp's log of a failure into an error that says whose fault it is, and what to do next.

Only error lines count, matched as whole sentences of llama.cpp's sources (0.3.36): a tensor or an architecture may be named
"out of memory", and an unrelated warning may come before the error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from llm_magics.errors import LLMMagicsError, MemoryFitError, ModelFileError, OptionError, UnsupportedModelError

Line = tuple[int, str]  # level, text
WARNING, ERROR = 3, 4  # levels

# e.g. "llama_model_load: error loading model: error loading model hyperparameters: key not found in model: llama.block_count"
_WHERE = re.compile(
    r"^(?:\w+: )?(?:error loading model: )?(?:error loading model (?:hyperparameters|vocabulary): )?"
    r"(?:failed to initialize the context: )?"
)
_MEMORY = re.compile(
    r"unable to allocate \S+ buffer$"  # weights, e.g. "unable to allocate CUDA0 buffer"
    r"|failed to allocate (?:\S+ )?buffer (?:of size|for kv cache)|failed to allocate (?:compute|graph|output)\b"
    r"|failed to allocate +[\d.]+ (?:MB|bytes)|failed to reserve (?:initial output buffer|graph)|failed to create ggml context"
    r"|insufficient memory \(|allocating [\d.]+ MiB on device \d+: |mmap failed: Cannot allocate memory"
    r"|terminate called after throwing an instance of 'std::bad_alloc'|(?:what\(\): +)?std::bad_alloc$"
    r"|encountered bad_alloc error|MemoryError\b|vector::_M_default_append$|(?:CUDA|ROCm|SYCL|Vulkan) error: out of memory"
)
_DEVICE = re.compile(
    r"(?:CUDA|ROCm|MUSA|SYCL|CANN|cuBLAS|hipBLAS) error|ggml_vulkan: |vk::|ggml_metal|failed to initialize \S+ backend"
)
_UNSUPPORTED = re.compile(
    r"(?:unknown|unsupported) model architecture: '|unknown pre-tokenizer type: '|unknown tokenizer: '"
    r"|CLIP cannot be used as main model|tensor '.*' has invalid ggml type \d+\. should be in \["
    r"|GGUFv1 is no longer supported|this GGUF file is version \d+ but"
)
_CACHE = re.compile(
    r"[KV] cache type \S+ with block size \d+ does not divide|quantized V cache (?:requires|was requested)"
    r"|model does not support different K"
)
_DISK = re.compile(r"(?:read|seek|lseek|ftell) error: |failed to open ")
_ASSERTION = re.compile(r"\S+:\d+: GGML_ASSERT\(")  # e.g. "ggml.c:4014: GGML_ASSERT(a->ne[2] == b->ne[0]) failed"


def causes(lines: Iterable[Line]) -> list[str]:
    """The error lines, each without the prefixes of the functions that pass it on."""
    found = [_WHERE.sub("", text.strip(), count=1) for level, text in lines if level >= ERROR and text.strip()]
    return [cause for cause in found if cause not in ("failed to load model", "")]


def lacks_memory(lines: Iterable[Line]) -> bool:
    return any(map(_MEMORY.match, causes(lines)))


def fails_on_device(lines: Iterable[Line]) -> bool:
    """Whether a GPU or its driver failed."""
    return any(map(_DEVICE.match, causes(lines)))


def asserts(lines: Iterable[Line]) -> bool:
    """Whether one of llama.cpp's assertions ended the process."""
    return any(_ASSERTION.match(text.strip()) for _, text in lines)


def error_lines(lines: Iterable[Line]) -> str:
    """The last three error lines, else warnings; without "failed to load model" if another line says more."""
    known = list(lines)
    for wanted in (ERROR, WARNING):
        if found := [line.strip() for level, line in known if level == wanted and line.strip()]:
            telling = [line for line in found if "failed to load model" not in line] or found
            return "; ".join(dict.fromkeys(telling[-3:]))
    return ""


def load_error(path: str, lines: list[Line]) -> LLMMagicsError:
    """Turn the log of a failed load into the error that names what is wrong."""
    said = error_lines(lines) or "llama.cpp gave no reason"
    name = os.path.basename(path)
    found = causes(lines)
    if any(map(_MEMORY.match, found)):
        return MemoryFitError(
            f"There is not enough memory to load {name}: {said}.",
            "Unload another model, choose a smaller one, a smaller context, or fewer GPU layers.",
        )
    if any(map(_UNSUPPORTED.match, found)):
        return UnsupportedModelError(
            f"This llama.cpp cannot run {name}: {said}.",
            "A newer llama-cpp-python may know this architecture; otherwise choose another model.",
        )
    if any(map(_CACHE.match, found)):
        return OptionError(f"{name} does not support this KV cache: {said}.", "Load it with another KV type (--kv f16).")
    if any(map(_DISK.match, found)):
        return ModelFileError(f"{name} cannot be read: {said}.", "Check that the file exists and is readable. Check the disk.")
    return ModelFileError(f"{name} cannot be loaded: {said}.", "The file may be damaged or incomplete; fetch it again.")
