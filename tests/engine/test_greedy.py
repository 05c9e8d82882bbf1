"""The engine says what llama-cpp-python's own Llama says: token for token, greedy, from a cold cache."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest

from llm_magics.engine.hosts import open_engine
from llm_magics.engine.values import EngineConfig, Finished, GenerateRequest, SamplerSettings

pytestmark = pytest.mark.model

PROMPTS = [
    "Write a Python function that reverses a list.",
    "Why is the sky blue?",
    "List five animals that live in the sea, then five that live in the desert.",
    "Translate to German: the weather is nice today.",
    "What is 17 times 23? Think step by step.",
    'Return a JSON object with the keys "name" and "age".',
    "Erzähle mir eine kurze Geschichte über einen Leuchtturm.",
    "数を一から十まで書いてください。",
    "Explain recursion to a child.",
    "SELECT name FROM users WHERE",
    "Summarise: " + "The committee met on Tuesday and talked about the bridge. " * 12,
    "def fibonacci(n):",
    "Write a haiku about autumn.",
    "Give me a recipe for pancakes with exact amounts.",
    "🙂🙃🙂 continue the pattern",
    "Who wrote Don Quixote, and when?",
    "Fix this sentence: he go to school yesterday.",
    "What comes after Monday?",
    "Compare Rust and Go in one paragraph.",
    "x" * 300,
]


def reference(path: Path, prompts: Sequence[Sequence[int]], n: int, eog: Sequence[int]) -> list[tuple[int, ...]]:
    """Greedy tokens from Llama.generate, up to an end token, each from a cold cache."""
    from llama_cpp import Llama

    model = Llama(str(path), n_ctx=1024, n_batch=128, n_ubatch=128, n_threads=2, n_threads_batch=2, verbose=False)
    found = []
    with closing(model):
        for prompt in prompts:
            model.reset()
            tokens = []
            for token in islice(model.generate(list(prompt), temp=0.0, repeat_penalty=1.0), n):
                if token in eog:
                    break
                tokens.append(token)
            found.append(tuple(tokens))
    return found


def compare(path: Path, n_prompts: int, n: int) -> None:
    config = EngineConfig(str(path), 1024, n_batch=128, n_ubatch=128, n_threads=2, flash_attention="off", deterministic=True)
    with closing(open_engine(config)) as engine:
        chat = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
        prompts = [engine.tokenize(chat.format(text), special=True) for text in PROMPTS[:n_prompts]]
        found = []
        for prompt in prompts:
            end = list(engine.submit(GenerateRequest(prompt, SamplerSettings(temperature=0), max_tokens=n)))[-1]
            assert isinstance(end, Finished)
            assert end.n_cached == 0
            found.append(end.ids)
        eog = engine.info.eog
    assert found == reference(path, prompts, n, eog)
    assert any(len(ids) == n for ids in found)


def test_smollm_greedy_ids_equal_llama_cpp_pythons(smollm: Path) -> None:
    compare(smollm, n_prompts=20, n=24)


def test_qwen_greedy_ids_equal_llama_cpp_pythons(qwen: Path) -> None:
    compare(qwen, n_prompts=8, n=16)
