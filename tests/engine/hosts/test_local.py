"""What only an engine in this process can show: loading and its errors, interrupts, memory, forks and threads."""

from __future__ import annotations

import gc
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from llm_magics.engine.fit.gguf import read_gguf
from llm_magics.engine.fit.memory import estimate
from llm_magics.engine.hosts import open_engine
from llm_magics.engine.run.sequence import RUN_AHEAD
from llm_magics.engine.values import Engine, EngineConfig, Finished, GenerateRequest, Prefill, SamplerSettings, Tokens
from llm_magics.errors import EngineError, ModelFileError, ModelNotFoundError, OptionError, UnsupportedModelError
from tests.engine.guides import Recorder
from tests.engine.tiny_gguf import tiny_model

pytestmark = pytest.mark.model

GREEDY = SamplerSettings(temperature=0)


@pytest.fixture(scope="module")
def config(smollm: Path) -> EngineConfig:
    return EngineConfig(str(smollm), n_ctx=1024)


@pytest.fixture(scope="module")
def engine(config: EngineConfig) -> Iterator[Engine]:
    with closing(open_engine(replace(config, n_ctx=4096))) as engine:
        yield engine


def answer(engine: Engine, text: str = "Name three rivers.", n: int = 8) -> Finished:
    prompt = engine.tokenize(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n", special=True)
    end = list(engine.submit(GenerateRequest(prompt, GREEDY, max_tokens=n)))[-1]
    assert isinstance(end, Finished)
    return end


# --- loading ----------------------------------------------------------------------------------------------------------------


def test_progress_rises_to_one(config: EngineConfig) -> None:
    seen: list[float] = []
    open_engine(config, seen.append).close()
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_progress_can_cancel_the_load(config: EngineConfig) -> None:
    with pytest.raises(EngineError, match="cancelled"):
        open_engine(config, lambda fraction: False)


def test_what_progress_raises_is_raised(config: EngineConfig) -> None:
    def interrupted(fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_engine(config, interrupted)
    with closing(open_engine(config)) as engine:
        assert answer(engine, n=2).ids


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        open_engine(EngineConfig(str(tmp_path / "nowhere.gguf")))


@pytest.mark.parametrize("size", [0, 3, 100, 100_000, 5_000_000])
def test_a_truncated_file_is_an_error_in_llama_cpps_own_words(smollm: Path, tmp_path: Path, size: int) -> None:
    file = tmp_path / "cut.gguf"
    with smollm.open("rb") as source:
        file.write_bytes(source.read(size))
    with pytest.raises(ModelFileError) as caught:
        open_engine(EngineConfig(str(file)))
    assert "cut.gguf" in str(caught.value)
    assert "no reason" not in str(caught.value)


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    def text(value: bytes) -> bytes:
        return struct.pack("<Q", len(value)) + value

    header = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text(b"general.architecture") + struct.pack("<I", 8) + text(b"quux")
    file = tmp_path / "quux.gguf"
    file.write_bytes(header)
    with pytest.raises(UnsupportedModelError, match="quux"):
        open_engine(EngineConfig(str(file)))


BAD_CONFIGS = {
    "n_batch": {"n_batch": 0},
    "n_ubatch": {"n_ubatch": 0},
    "n_slots": {"n_slots": 0},
    "n_ctx": {"n_ctx": -1},
    "n_threads": {"n_threads": 0},
    "one sequence": {"deterministic": True, "n_slots": 2},
}


@pytest.mark.parametrize(("message", "changes"), BAD_CONFIGS.items(), ids=list(BAD_CONFIGS))
def test_a_size_that_makes_no_sense_is_refused(config: EngineConfig, message: str, changes: dict[str, int]) -> None:
    with pytest.raises(OptionError, match=message):
        open_engine(replace(config, **changes))


def test_a_cache_type_that_a_model_cannot_have_is_refused_by_name(tmp_path: Path) -> None:
    file = tiny_model().write(tmp_path / "tiny.gguf")  # its heads are smaller than a quantised block
    chosen = EngineConfig(str(file), n_ctx=64, kv_type="q8_0")
    with pytest.raises(OptionError, match="does not support this KV cache"):
        open_engine(chosen)
    with pytest.raises(OptionError, match="does not support this KV cache"):
        estimate(read_gguf(file), chosen)


def test_gpu_layers_without_a_gpu_build_are_refused(config: EngineConfig) -> None:
    from llm_magics.engine.native.llama import supports_gpu

    if supports_gpu():
        pytest.skip("this llama.cpp can use a GPU")
    with pytest.raises(OptionError, match="GPU"):
        open_engine(replace(config, n_gpu_layers=-1))


def test_a_small_context_is_kept_small(config: EngineConfig) -> None:
    with closing(open_engine(replace(config, n_ctx=64))) as engine:
        assert engine.info.n_ctx == 64  # llama.cpp rounds it up to 256 in silence
        end = list(engine.submit(GenerateRequest((5,) * 60, SamplerSettings(temperature=0, logit_bias=((99, 1000.0),)))))[-1]
    assert isinstance(end, Finished)
    assert (end.reason, len(end.ids), end.n_ctx) == ("length", 5, 64)


@pytest.mark.parametrize("changes", [{"kv_type": "q8_0"}, {"flash_attention": "off"}, {"n_ubatch": 32}, {"use_mmap": False}])
def test_other_options_load_and_answer(config: EngineConfig, changes: dict[str, object]) -> None:
    with closing(open_engine(replace(config, **changes))) as engine:
        assert len(answer(engine).ids) == 8


def test_nothing_is_printed(smollm: Path) -> None:
    code = (
        "from llm_magics.engine.hosts import open_engine\n"
        "from llm_magics.engine.values import *\n"
        f"engine = open_engine(EngineConfig({str(smollm)!r}, n_ctx=256))\n"
        "list(engine.submit(GenerateRequest((1, 2, 3), max_tokens=3)))\n"
        "engine.submit(GenerateRequest((1, 2, 3)))\n"  # still running when the interpreter exits
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


# --- memory -----------------------------------------------------------------------------------------------------------------


LOAD_FIVE_TIMES = """
import gc, psutil, sys
from llm_magics.engine.hosts import open_engine
from llm_magics.engine.values import EngineConfig, GenerateRequest

def anonymous():
    gc.collect()
    return sum(m.anonymous for m in psutil.Process().memory_maps())

def cycle():
    engine = open_engine(EngineConfig(sys.argv[1], n_ctx=1024))
    list(engine.submit(GenerateRequest((1, 2, 3), max_tokens=8)))
    engine.close()

cycle()  # what the first one leaves is the library's own
before = anonymous()
for _ in range(5):
    cycle()
print(anonymous() - before, any(m.path == sys.argv[1] for m in psutil.Process().memory_maps()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc through psutil")
def test_five_loads_and_unloads_leave_nothing_behind(smollm: Path) -> None:
    command = [sys.executable, "-c", LOAD_FIVE_TIMES, str(smollm.resolve())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    growth, mapped = done.stdout.split()
    assert mapped == "False"
    assert int(growth) < 20 * 2**20


def test_an_engine_nobody_holds_is_freed(config: EngineConfig) -> None:
    before = {thread for thread in threading.enumerate() if thread.name == "llm-magics-engine"}
    engine = open_engine(config)
    (new,) = {thread for thread in threading.enumerate() if thread.name == "llm-magics-engine"} - before
    del engine
    gc.collect()
    new.join(30)
    assert not new.is_alive()


# --- interrupts -------------------------------------------------------------------------------------------------------------


def test_cancelling_in_prefill_stops_before_the_batch_is_done(engine: Engine) -> None:
    prompt = tuple(random.Random(1).choices(range(1000, 30_000), k=3000))
    expected = answer(engine).ids
    generation = engine.submit(GenerateRequest(prompt, GREEDY))
    assert isinstance(next(generation), Prefill)
    time.sleep(0.3)  # let the first batch of 512 begin; here it takes about a second
    generation.cancel()  # type: ignore[attr-defined]
    events = list(generation)
    end = events[-1]
    assert isinstance(end, Finished)
    assert (end.reason, end.ids) == ("interrupted", ())
    assert all(isinstance(event, Prefill) and event.done < 3000 for event in events[:-1])
    assert answer(engine).ids == expected


def test_cancelling_while_generating_ends_as_interrupted(engine: Engine) -> None:
    prompt = engine.tokenize("Once upon a time", special=False)
    ban = SamplerSettings(temperature=0, logit_bias=tuple((token, float("-inf")) for token in engine.info.eog))
    generation = engine.submit(GenerateRequest(prompt, ban, guide=Recorder()))
    seen = [next(generation) for _ in range(6)]
    generation.cancel()  # type: ignore[attr-defined]
    rest = list(generation)
    end = rest[-1]
    assert isinstance(end, Finished)
    assert (end.reason, end.events) == ("interrupted", ("finish interrupted",))
    assert sum((event.ids for event in [*seen, *rest] if isinstance(event, Tokens)), ()) == end.ids


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX signal")
def test_interrupts_at_random_moments_leave_right_next_answers(engine: Engine) -> None:
    expected = answer(engine).ids
    prompt = tuple(random.Random(2).choices(range(1000, 30_000), k=700))
    delays = random.Random(3)
    interrupted = 0
    for _ in range(25):
        timer = threading.Timer(delays.uniform(0, 0.8), os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        try:
            with closing(engine.submit(GenerateRequest(prompt, GREEDY))) as generation:
                for _ in generation:
                    pass
            timer.join()
            time.sleep(0.01)
        except KeyboardInterrupt:
            interrupted += 1
        assert answer(engine).ids == expected
    assert interrupted == 25


def test_a_slow_consumer_bounds_how_far_the_engine_runs_ahead(config: EngineConfig) -> None:
    with closing(open_engine(config)) as engine:
        ban = SamplerSettings(temperature=0, logit_bias=tuple((token, float("-inf")) for token in engine.info.eog))
        slow = engine.submit(GenerateRequest((1, 2, 3), ban))
        while (waiting := slow._channel.queue.qsize()) < RUN_AHEAD:  # type: ignore[attr-defined]
            time.sleep(0.2)
        time.sleep(0.5)
        assert slow._channel.queue.qsize() == waiting == RUN_AHEAD  # type: ignore[attr-defined]
        end = list(slow)[-1]
    assert isinstance(end, Finished)
    assert (end.reason, end.n_past) == ("length", 1025)  # it went on to the context's end once somebody listened


def test_a_consumer_that_never_reads_gives_its_slot_to_others(config: EngineConfig) -> None:
    with closing(open_engine(replace(config, n_ctx=2048))) as engine:
        ban = SamplerSettings(temperature=0, logit_bias=tuple((token, float("-inf")) for token in engine.info.eog))
        asleep = engine.submit(GenerateRequest((1, 2, 3), ban, max_tokens=RUN_AHEAD + 50, conversation="asleep"))
        assert len(answer(engine, n=4).ids) == 4  # while the other one waits, full, for somebody to read it
        assert asleep._channel.queue.qsize() >= RUN_AHEAD  # type: ignore[attr-defined]
        end = list(asleep)[-1]
        again = list(engine.submit(GenerateRequest((1, 2, 3), ban, max_tokens=RUN_AHEAD + 50)))[-1]
    assert isinstance(end, Finished)
    assert isinstance(again, Finished)
    assert len(end.ids) == RUN_AHEAD + 50
    assert end.ids == again.ids


# --- who may use it ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork_the_child_gets_an_error_and_the_parent_goes_on(engine: Engine) -> None:
    child = os.fork()
    if child == 0:
        try:
            engine.submit(GenerateRequest((1, 2)))
        except EngineError as error:
            os._exit(17 if "fork" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
    assert answer(engine).ids


def test_closing_while_many_run_ends_them_all(config: EngineConfig) -> None:
    engine = open_engine(config)
    running = [engine.submit(GenerateRequest((1, 2, 3 + i), GREEDY)) for i in range(4)]
    next(running[0])
    engine.close()
    ends = [list(generation)[-1] for generation in running]
    assert [end.reason for end in ends if isinstance(end, Finished)] == ["interrupted"] * 4


@pytest.mark.parametrize("sampler", [GREEDY, SamplerSettings(top_k=1)], ids=["the same again", "drawn"])
def test_turns_and_re_runs_evaluate_exactly_what_is_new(engine: Engine, sampler: SamplerSettings) -> None:
    """Twenty turns that each go on from the last, every fourth asked again: the engine's own counter, token by token.

    Asked again, a greedy prompt is evaluated as it was the first time, so that the same comes out; any other costs one token.
    """
    history: tuple[int, ...] = ()
    cached: tuple[int, ...] = (-1,)
    for turn in range(20):
        asked = history + engine.tokenize(f"<|im_start|>user\nSay {turn}<|im_end|>\n<|im_start|>assistant\n", special=True)
        evaluated = 0
        for again in (False, True) if turn % 4 == 0 else (False,):
            generation = engine.submit(GenerateRequest(asked, sampler, max_tokens=6, conversation="c"))
            end = list(generation)[-1]
            assert isinstance(end, Finished)
            same = (i for i, (a, b) in enumerate(zip(asked, cached, strict=False)) if a != b)
            common = next(same, min(len(asked), len(cached)))
            if turn:
                whole = again and sampler is GREEDY
                assert end.n_evaluated == (evaluated if whole else len(asked) - min(common, len(asked) - 1))
            evaluated = end.n_evaluated
            # An end token was sampled but not evaluated, and so was the last token where the limit ended the answer.
            cached = asked + (end.ids if end.reason == "stop" else end.ids[:-1])
        history = asked + end.ids + engine.tokenize("<|im_end|>\n", special=True)
    assert end.n_cached > end.n_evaluated
