"""A loaded GGUF file and its vocabulary.

Each pointer, id and size is checked first, because llama.cpp ends the process at a wrong one. Any thread may tokenize.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Callable
from typing import Any

from llm_magics.engine.values import EngineConfig
from llm_magics.errors import EngineError, ModelNotFoundError, OptionError, UnsupportedModelError

from . import llama
from .diagnosis import load_error
from .library import lib

Progress = Callable[[float], "bool | None"]
_ALL_LAYERS = 10_000
_SIZE_LABEL = re.compile(r"[\dx.]+[KMBT][\w.-]{0,12}")  # e.g. "0.5B", "8x7B", "30B-A3B"


def parameters_text(n: int) -> str:
    """E.g. ``135M``, ``0.5B``, ``7.6B``, ``33B``."""
    if n < 3e8:
        return f"{n / 1e6:.0f}M"
    return f"{n / 1e9:.1f}B" if n < 9.95e9 else f"{n / 1e9:.0f}B"


class Model:
    def __init__(self, config: EngineConfig, progress: Progress | None = None) -> None:
        if not os.path.isfile(config.path):
            raise ModelNotFoundError(f"There is no file {config.path}.", "Check the path, or give a catalogue name.")
        # Both are held to free the model. Long calls have their own lock: to tokenize megabytes takes seconds, in which the
        # engine's thread needs its pieces.
        self._lock, self._tokenizing = threading.Lock(), threading.Lock()
        self._pointer: Any = None
        relay = ProgressRelay(progress)
        with llama.captured_log() as lines:
            if config.n_gpu_layers != 0 and not llama.supports_gpu():
                raise _no_gpu(config)
            params = model_params(config, relay)
            self._pointer = lib.llama_model_load_from_file(os.fsencode(config.path), params)
        self.log = lines
        try:
            relay.raise_stored()
            if not self._pointer:
                raise load_error(config.path, lines)
            self._read_vocabulary()
        except BaseException:
            self.free()
            raise

    def _read_vocabulary(self) -> None:
        if not lib.llama_model_has_decoder(self._pointer) or lib.llama_model_has_encoder(self._pointer):
            raise UnsupportedModelError("This model does not generate text from left to right.", "Choose a decoder-only model.")
        self._vocab = llama.must(lib.llama_model_get_vocab(self._pointer), "read the vocabulary")
        self.n_vocab = int(lib.llama_vocab_n_tokens(self._vocab))
        self.bos = int(lib.llama_vocab_bos(self._vocab))
        self.eos = int(lib.llama_vocab_eos(self._vocab))
        self.adds_bos = bool(lib.llama_vocab_get_add_bos(self._vocab))
        self.recurrent = bool(lib.llama_model_is_recurrent(self._pointer) or lib.llama_model_is_hybrid(self._pointer))
        self.n_swa = int(lib.llama_model_n_swa(self._pointer))
        self.n_params = int(lib.llama_model_n_params(self._pointer))
        self.n_layers = int(lib.llama_model_n_layer(self._pointer))
        self._pieces: list[bytes | None] = [None] * self.n_vocab
        control = lib.LLAMA_TOKEN_ATTR_CONTROL
        special = control | lib.LLAMA_TOKEN_ATTR_USER_DEFINED
        attrs = [llama.vocab_get_attr(self._vocab, token) for token in range(self.n_vocab)]
        specials = [token for token, attr in enumerate(attrs) if attr & special]
        self.control_tokens = tuple((self.piece(token).decode("utf-8", "replace"), token) for token in specials)
        enders = {*specials, self.eos, int(lib.llama_vocab_eot(self._vocab))} - {-1}
        self.eog = tuple(sorted(token for token in enders if llama.vocab_is_eog(self._vocab, token)))

    @property
    def cuttable(self) -> bool:
        """Whether any end of a sequence can be forgotten, so that a wrong guess can be taken back."""
        return not self.recurrent and not self.n_swa

    @property
    def pointer(self) -> Any:
        """The model for calls into llama.cpp. Raises EngineError after :meth:`free`."""
        if not self._pointer:
            raise EngineError("This model was closed.", "Load it again.")
        return self._pointer

    @property
    def vocab(self) -> Any:
        return self.pointer and self._vocab

    def piece(self, token: int) -> bytes:
        if not 0 <= token < self.n_vocab:
            raise EngineError(f"There is no token {token}: ids go from 0 to {self.n_vocab - 1}.")
        found = self._pieces[token]
        if found is None:
            with self._lock:
                found = self._pieces[token] = self._read_piece(token)
        return found

    def _read_piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        n = llama.token_to_piece(self.vocab, token, buffer, len(buffer), 0, True)
        if n < 0:
            buffer = ctypes.create_string_buffer(-n)
            n = llama.token_to_piece(self.vocab, token, buffer, len(buffer), 0, True)
        return buffer.raw[: max(n, 0)]

    def tokenize(self, text: str, *, special: bool) -> tuple[int, ...]:
        data = text.encode("utf-8", "replace")
        room = len(data) + 16
        with self._tokenizing:
            while True:
                buffer = (ctypes.c_int32 * room)()
                n = lib.llama_tokenize(self.vocab, data, len(data), buffer, room, False, special)
                if n >= 0:
                    return tuple(buffer[:n])
                room = -n

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the file's scalar metadata as text, in the file's order."""
        by_key, by_value = lib.llama_model_meta_key_by_index, lib.llama_model_meta_val_str_by_index
        count = lib.llama_model_meta_count(self.pointer)
        return tuple((_text(by_key, self.pointer, i), _text(by_value, self.pointer, i)) for i in range(count))

    def description(self) -> str:
        """E.g. "qwen2 0.5B Q4_K - Medium". The size is the file's label, or counted: llama.cpp infers 1B from the layers."""
        buffer = ctypes.create_string_buffer(256)
        lib.llama_model_desc(self.pointer, buffer, len(buffer))
        words = buffer.value.decode("utf-8", "replace").split(" ", 2)
        label = dict(self.metadata()).get("general.size_label", "")
        size = label if _SIZE_LABEL.fullmatch(label) else parameters_text(self.n_params)
        return " ".join([words[0], size, *words[2:]])

    def free(self) -> None:
        with self._tokenizing, self._lock:
            pointer, self._pointer = self._pointer, None
            if pointer:
                lib.llama_model_free(pointer)


class ProgressRelay:
    """Passes llama.cpp's load progress to Python. An exception there stops the load; :meth:`raise_stored` raises it."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._stored: BaseException | None = None
        self.split: Any = None  # the tensor split's array, kept alive here
        self.callback = lib.llama_progress_callback(self._call)

    def _call(self, fraction: float, _: object) -> bool:
        try:
            if self._progress is not None and self._progress(fraction) is False:
                raise EngineError("Loading was cancelled.", "Load the model again when you want it.")
        except BaseException as error:  # also KeyboardInterrupt: ctypes would swallow it
            self._stored = error
        return self._stored is None

    def raise_stored(self) -> None:
        if self._stored is not None:
            raise self._stored


def _no_gpu(config: EngineConfig) -> OptionError:
    return OptionError(
        f"This llama-cpp-python cannot put {'all' if config.n_gpu_layers < 0 else config.n_gpu_layers} layers on a GPU.",
        llama.gpu_advice() or "Load with 0 GPU layers, or install a build of llama-cpp-python for your GPU.",
    )


def model_params(config: EngineConfig, relay: ProgressRelay) -> Any:
    """Return llama.cpp's parameters to load ``config``; ``relay`` must live until the load is over."""
    params = lib.llama_model_default_params()
    params.load_mode = 1 if config.use_mmap else 0
    params.progress_callback = relay.callback
    if config.n_gpu_layers == 0:
        hide_devices(params)
        return params
    params.n_gpu_layers = _ALL_LAYERS if config.n_gpu_layers < 0 else config.n_gpu_layers
    params.main_gpu = config.main_gpu
    if config.tensor_split:
        room = int(lib.llama_max_devices())
        if len(config.tensor_split) > room:
            what = f"The tensor split names {len(config.tensor_split)} devices; this llama.cpp has at most {room}."
            raise OptionError(what, "Give fewer shares.")
        params.tensor_split = relay.split = (ctypes.c_float * room)(*config.tensor_split)
    elif config.main_gpu > 0:
        params.split_mode = lib.LLAMA_SPLIT_MODE_NONE  # llama.cpp reads main_gpu only then
    return params


def hide_devices(params: Any) -> None:
    """Load without any device: even with no layers on a GPU, llama.cpp takes its memory for long prompts, or fails."""
    params.n_gpu_layers = 0
    params.split_mode, params.main_gpu = lib.LLAMA_SPLIT_MODE_NONE, -1


def _text(read: Any, pointer: Any, index: int) -> str:
    room = read(pointer, index, None, 0) + 1
    buffer = ctypes.create_string_buffer(max(room, 1))
    read(pointer, index, buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace")
