"""Load damaged, truncated and foreign model files as a notebook would, and count how that ends.

    python -m tests.engine.fit.damage [--count 2000] [--seed 11] [--real PATH]

A stand-in for the kernel loads one file after the other: it is read and checked, tried in a child, planned, and what passes is
loaded into the stand-in itself and generates some tokens. The stand-in must never die, no file may take longer than a minute,
and each must load or be refused by one of our own errors that names it. Nothing may be remembered as damaged but what an
assertion of llama.cpp or NaN or infinite results have shown. Exit status 1 where that does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SECONDS = 60  # for one file; many times what any needs
FAULTS = ("KERNEL DIED", "HUNG", "UNNAMED ERROR", "NAMELESS FILE", "NO NEXT ACTION", "WRONGLY REMEMBERED")
_GOOD_REASONS = ("GGML_ASSERT", "not numbers")  # to call a file damaged for good


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one file ended: "loaded", the name of our error, or a fault, with the words it came with."""

    number: int
    kind: str
    end: str
    words: str
    seconds: float

    @property
    def is_fault(self) -> bool:
        return self.end in FAULTS


def outcomes(count: int, seed: int, directory: Path, real: Path | None = None) -> Iterator[Outcome]:
    """Load the files; a stand-in that dies is replaced."""
    at = 0
    while at < count:
        for outcome in _one_stand_in(at, count, seed, directory, real):
            yield outcome
            at = outcome.number + 1


def _one_stand_in(start: int, count: int, seed: int, directory: Path, real: Path | None) -> Iterator[Outcome]:
    command = [sys.executable, "-m", "tests.engine.fit.damage", "--stand-in", str(start), "--count", str(count)]
    command += ["--seed", str(seed), "--directory", str(directory), *(["--real", str(real)] if real else [])]
    environment = os.environ | {"LLM_MAGICS_CACHE": str(directory / "cache")}
    stand_in = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    said: list[str] = []
    readers = [
        threading.Thread(target=_read, args=(stand_in.stdout, lines.put), daemon=True),
        threading.Thread(target=_read, args=(stand_in.stderr, said.append), daemon=True),
    ]
    for reader in readers:
        reader.start()
    begun: dict[str, Any] = {"number": start, "kind": "?"}
    try:
        while True:
            try:
                line = lines.get(timeout=_SECONDS)
            except queue.Empty:
                yield Outcome(begun["number"], begun["kind"], "HUNG", "", _SECONDS)
                return
            if not line:
                break
            begun = json.loads(line)
            if "end" in begun:
                yield Outcome(**begun)
                if begun["number"] == count - 1:
                    return
        readers[1].join(10)
        yield Outcome(begun["number"], begun["kind"], "KERNEL DIED", f"{stand_in.wait()}: {' '.join(said)[-500:]}", 0)
    finally:
        _kill_all(stand_in)
        stand_in.communicate()


def _kill_all(stand_in: subprocess.Popen[str]) -> None:
    """The stand-in and its children: one that is stuck in a file goes on reading it otherwise."""
    if sys.platform == "win32":
        stand_in.kill()
        return
    try:
        os.killpg(stand_in.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # all have ended


def _read(stream: Any, put: Any) -> None:
    for line in stream:
        put(line)
    put("")


# --- the stand-in for a kernel ----------------------------------------------------------------------------------------------


def stand_in(start: int, count: int, seed: int, directory: Path, real: Path | None) -> None:
    """Load the files from ``start`` on; one line before and one behind each."""
    from llm_magics.engine.fit import memory, probe

    from .damaged_files import written_case

    probe.Child = memory.Child = warm(probe.Child)
    for number in range(start, count):
        kind, path = written_case(seed, number, directory, real)
        print(json.dumps({"number": number, "kind": kind}), flush=True)
        begin = time.perf_counter()
        end, words = _end_of(path)
        seconds = round(time.perf_counter() - begin, 2)
        print(json.dumps({"number": number, "kind": kind, "end": end, "words": words, "seconds": seconds}), flush=True)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _end_of(path: Path) -> tuple[str, str]:
    from llm_magics.errors import LLMMagicsError
    from llm_magics.files import recall

    try:
        with closing(_loaded(path)) as engine:
            end, words = _answer(engine)
    except LLMMagicsError as error:
        end = next(kind.__name__ for kind in type(error).__mro__ if not kind.__name__.startswith("_"))
        words = str(error)
        if path.name not in words:
            end = "NAMELESS FILE"
        if not error.next_action:
            end = "NO NEXT ACTION"
    except Exception as error:
        end, words = "UNNAMED ERROR", f"{type(error).__name__}: {error}"
    held = [fact for key, fact in recall([path]).items() if "trial" in key and fact != "[]"] if path.is_file() else []
    end += " (remembered)" if held else ""
    if held and not any(reason in held[0] for reason in _GOOD_REASONS):
        end, words = "WRONGLY REMEMBERED", held[0]
    return end, words


def _loaded(path: Path) -> Any:
    """What ``%load_model`` does, up to the chat template."""
    from llm_magics.engine.hosts import open_engine
    from llm_magics.models.loading import prepare

    return open_engine(prepare(path, gpu_layers=0, slots=2, threads=1).plan.config)


def _answer(engine: Any) -> tuple[str, str]:
    """A few tokens, greedy and drawn."""
    from llm_magics.engine.values import GenerateRequest, SamplerSettings
    from llm_magics.errors import EngineError

    prompt = (engine.tokenize("ab c", special=True) or (0,))[: engine.info.n_ctx]
    for temperature in (0.0, 1.0):
        try:
            list(engine.submit(GenerateRequest(prompt, SamplerSettings(temperature, seed=1), max_tokens=4)))
        except EngineError as error:
            return "loaded, cannot answer", str(error)
    return "loaded", ""


def warm(real: Any) -> Any:
    """Children that try and plan files, one process for many files: starting one takes longer than all the rest."""

    class Warm:
        live: Any = None

        def __init__(self, path: Path, timeout: float) -> None:
            self._path, self._timeout = path, timeout

        def __enter__(self) -> Warm:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def ask(self, request: dict[str, Any]) -> Any:
            if Warm.live is None:
                Warm.live = real(self._path, self._timeout)
            child = Warm.live
            child._name, child._timeout = self._path.name, self._timeout
            try:
                return child.ask(request)
            except Exception:
                if child._process.poll() is not None:
                    child.__exit__(None, None, None)
                    Warm.live = None
                raise

    return Warm


# --- the command ------------------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.engine.fit.damage", description="Load damaged model files.")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--real", type=Path, help="a real model, whose header is damaged as well")
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--stand-in", type=int)
    given = parser.parse_args()
    if given.stand_in is not None:
        stand_in(given.stand_in, given.count, given.seed, given.directory, given.real)
        return 0
    with tempfile.TemporaryDirectory() as directory:
        found = list(_shown(outcomes(given.count, given.seed, Path(directory), given.real)))
    print(f"\n{given.count} files, seed {given.seed}:")
    for end, n in Counter(outcome.end for outcome in found).most_common():
        print(f"{n:6}  {end}")
    print(f"slowest: {max(outcome.seconds for outcome in found):.1f} s")
    return 1 if any(outcome.is_fault for outcome in found) else 0


def _shown(found: Iterator[Outcome]) -> Iterator[Outcome]:
    for outcome in found:
        if outcome.is_fault:
            print(f"{outcome.number} ({outcome.kind}): {outcome.end} {outcome.words}", flush=True)
        elif outcome.number % 100 == 99:
            print(f"{outcome.number + 1} files", flush=True)
        yield outcome


if __name__ == "__main__":
    sys.exit(main())
