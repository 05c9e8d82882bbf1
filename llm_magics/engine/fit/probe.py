"""Try a model in a child process, where a crash is harmless, and let llama.cpp plan there how much memory it takes.

A file of unknown origin can pass all our checks and still make llama.cpp abort on a failed assertion. So a child loads the file
once, with a tiny context on the CPU, and evaluates one token; the outcome is remembered for the file. The same child can load a
model *without* its weights (``no_alloc``) and plan a context's buffers without allocating them.

The child (``python -m llm_magics.engine.fit.probe``) reads one JSON request per line and answers with one line. Its stderr is
llama.cpp's log, each line with its level, so that the last line of a child that died is known.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from llm_magics.engine.native.child import end_with_parent, last_line, parse_log, python_command, start_child, status_text
from llm_magics.engine.native.cpus import default_threads
from llm_magics.engine.native.diagnosis import Line, asserts, fails_on_device, lacks_memory, load_error
from llm_magics.engine.values import EngineConfig
from llm_magics.errors import EngineError, MemoryFitError, ModelError, ModelFileError, OptionError
from llm_magics.files import recall, remember

_NO_NUMBERS = "its weights give results that are not numbers"
_SECONDS_PER_GB = 30.0  # to read a file that is in no cache, from a slow disk


class TrialError(EngineError):
    """A child failed, perhaps not because of the file: it was killed, took too long, or could not start."""


class DeviceError(TrialError):
    """A child failed at a GPU."""


class _Proven(ModelFileError):
    """The file makes llama.cpp fail each time, on any machine: the only refusal that is remembered."""


def try_model(paths: Sequence[Path], timeout: float | None = None) -> None:
    """Load all parts of a model in a child and evaluate a token; return at once if the same files were tried before.

    ``timeout`` in seconds; None depends on the file's size. Raises the error of a load (ModelFileError, UnsupportedModelError,
    MemoryFitError); ModelFileError with llama.cpp's last line if the file kills the child; TrialError if the child is killed,
    cannot start, or does not answer in time.
    """
    from llm_magics.engine.native.llama import version

    key = f"outcome of a trial with llama-cpp-python {version()}"
    outcome = recall(paths).get(key)
    if outcome is None:
        size = sum(p.stat().st_size for p in paths)
        try:
            with Child(paths[0], 60 + _SECONDS_PER_GB * size / 1e9 if timeout is None else timeout) as child:
                child.ask({"do": "evaluate", "path": str(paths[0])})
        except _Proven as error:
            remember(paths, **{key: json.dumps([error.what, error.next_action])})
            raise
        remember(paths, **{key: "[]"})
    elif outcome != "[]":
        raise ModelFileError(*json.loads(outcome))


class Child:
    """A child process that loads models. Use as a context manager; the child ends with the block."""

    command: ClassVar[tuple[str, ...]] = python_command("llm_magics.engine.fit.probe")

    def __init__(self, path: Path, timeout: float) -> None:
        self._name, self._timeout = path.name, timeout
        self._read = 0  # bytes of the log
        self._log = tempfile.TemporaryFile("w+b")  # noqa: SIM115  # closed in __exit__; a full pipe would block the child
        self._process = start_child(self.command, self._log, text=True, encoding="utf-8")

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def ask(self, request: dict[str, Any]) -> list[Line]:
        """Send one request; return llama.cpp's log of it. Raises as :func:`try_model` does."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            self._process.kill()

        late = threading.Timer(self._timeout, expire)
        late.start()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            late.cancel()
        self._log.seek(self._read)
        said = self._log.read()
        self._read += len(said)
        lines = parse_log(said.decode("utf-8", "replace"))
        if not answer:
            on_device = request["do"] == "plan" and request["config"]["n_gpu_layers"] != 0
            raise self._died(lines, on_device=on_device, timed_out=expired.is_set())
        told = json.loads(answer)
        if not told["ok"]:
            raise self._refused(told["why"], lines)
        return lines

    def _died(self, lines: list[Line], *, on_device: bool, timed_out: bool) -> ModelError:
        status = self._process.wait()
        how = f"did not answer within {self._timeout:g} s" if timed_out else f"died ({status_text(status)})"
        what = f"A trial load of {self._name} in a child process {how}; its last log line: {last_line(lines) or 'none'}"
        if timed_out or status == -9:  # SIGKILL: the system sends it when memory runs out
            return TrialError(what, "Try again when the machine has time and memory to spare.")
        if lacks_memory(lines):
            return MemoryFitError(what, "Free some memory, or choose a smaller model or context.")
        if on_device or fails_on_device(lines):
            advice = "The GPU may be full or broken; load with --gpu-layers 0, or when the GPU is free."
            exclusive = "If it is in exclusive mode and this kernel uses it: --in-kernel --gpu-layers N."
            return DeviceError(what, f"{advice} {exclusive}")
        if any(text.startswith("Traceback (most recent call last)") for _, text in lines):
            return TrialError(what, "llama-cpp-python does not run in a child process; install it again.")
        if asserts(lines):
            return _Proven(what, "The file is damaged, or of a kind that this llama.cpp cannot run; choose another.")
        return ModelFileError(what, "The file may be damaged, or of a kind that this llama.cpp cannot run; choose another.")

    def _refused(self, why: str, lines: list[Line]) -> ModelError | OptionError:
        again = "Download it again, or check it against its sha256."
        if why == _NO_NUMBERS:
            return _Proven(f"{self._name} is damaged: {why}.", again)
        if why and not lacks_memory(lines):
            return ModelFileError(f"{self._name} cannot be run: {why}.", again)
        error = load_error(self._name, lines)
        return error if isinstance(error, ModelError | OptionError) else ModelFileError(str(error))


# --- in the child ------------------------------------------------------------------------------------------------------------


def main() -> None:
    from llm_magics.engine.native.library import lib

    end_with_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a library's print must not look like an answer

    @lib.llama_log_callback
    def log(level: int, text: bytes, _: object) -> None:  # levels: 1 debug, 2 info, 3 warning, 4 error, 5 continues a line
        os.write(2, text if level == 5 else b"<%d>%b" % (level, text))

    lib.llama_log_set(log, None)
    lib.llama_backend_init()
    for request in sys.stdin:
        why = _answer(lib, json.loads(request))
        answers.write(json.dumps({"ok": why is None, "why": why}) + "\n")
        answers.flush()


def _answer(lib: Any, request: dict[str, Any]) -> str | None:
    """Do one request. Return None, or why it failed; "" if the log says why."""
    if request["do"] == "evaluate":
        return _evaluate(lib, request["path"])
    config = EngineConfig(**request["config"] | {"tensor_split": tuple(request["config"]["tensor_split"])})
    return _plan_buffers(lib, config, overridden=request["overridden"])


def _evaluate(lib: Any, path: str) -> str | None:
    """Evaluate one token on the CPU alone, because a fault of a GPU, or its lack of memory, is not a fault of the file."""
    from llm_magics.engine.native.model import hide_devices

    model_params = lib.llama_model_default_params()
    hide_devices(model_params)
    model = lib.llama_model_load_from_file(os.fsencode(path), model_params)
    if not model:
        return ""
    params = lib.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = 64, 8, 8
    params.n_threads = params.n_threads_batch = min(2, default_threads())
    context = lib.llama_init_from_model(model, params)
    try:
        return _evaluate_token(lib, model, context) if context else ""
    finally:
        if context:
            lib.llama_free(context)
        lib.llama_model_free(model)


def _evaluate_token(lib: Any, model: Any, context: Any) -> str | None:
    if lib.llama_model_has_encoder(model) or not lib.llama_model_has_decoder(model):
        return None  # the engine says that such a model cannot chat
    vocab = lib.llama_model_get_vocab(model)
    first = max(0, lib.llama_vocab_bos(vocab))
    tokens = (lib.llama_token * 1)(first)
    if lib.llama_decode(context, lib.llama_batch_get_one(tokens, 1)) != 0:
        return "it cannot evaluate a token"
    logits = lib.llama_get_logits_ith(context, -1)[: lib.llama_vocab_n_tokens(vocab)]
    return None if all(-1e30 < x < 1e30 for x in logits) else _NO_NUMBERS


def _plan_buffers(lib: Any, config: EngineConfig, *, overridden: bool) -> str | None:
    """Load without weights and plan a context without memory; the log then says how large each buffer would be.

    ``overridden`` sends every weight to the CPU by an override, because llama.cpp logs an overridden tensor's CPU buffer type.
    """
    from llm_magics.engine.native.chains import Attached
    from llm_magics.engine.native.context import context_params
    from llm_magics.engine.native.llama import AbortFlag
    from llm_magics.engine.native.model import ProgressRelay, model_params

    relay = ProgressRelay(None)
    params = model_params(config, relay)
    params.no_alloc, params.load_mode = True, lib.LLAMA_LOAD_MODE_NONE
    overrides = (_Override * 2)()  # ends with an empty one
    if overridden:
        overrides[0] = _Override(b".*", _cpu_buffer_type(lib))
        params.tensor_buft_overrides = ctypes.cast(overrides, ctypes.c_void_p)
    model = lib.llama_model_load_from_file(os.fsencode(config.path), params)
    if not model:
        return ""
    wanted = context_params(model, config, AbortFlag())
    chains = Attached(config.n_slots) if config.device_sampling else None
    if chains is not None:
        chains.write_to(wanted)
    context = lib.llama_init_from_model(model, wanted)
    if context:
        lib.llama_free(context)
    if chains is not None:
        chains.free()
    lib.llama_model_free(model)
    return None if context else ""


class _Override(ctypes.Structure):
    """``llama_model_tensor_buft_override``: tensors whose name matches the pattern go to this buffer type."""

    _fields_ = [("pattern", ctypes.c_char_p), ("buft", ctypes.c_void_p)]


def _cpu_buffer_type(lib: Any) -> int:
    """The address that llama.cpp compares with: a wheel may hold several copies of the library that defines it."""
    function = getattr(lib._lib, "ggml_backend_cpu_buffer_type", None)  # found through libllama's dependencies
    if function is None:  # Windows searches this library only, and has one copy
        function = lib.load_shared_library("ggml-base", Path(lib.__file__).parent / "lib").ggml_backend_cpu_buffer_type
    function.restype = ctypes.c_void_p
    return int(function())


def as_request(config: EngineConfig, *, overridden: bool) -> dict[str, Any]:
    return {"do": "plan", "config": asdict(config), "overridden": overridden}


if __name__ == "__main__":
    main()
