"""The table of load options: by name for ``load_model``, by spelling for ``%load_model``, as fields for the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from llm_magics.engine.values import EngineConfig, FlashAttention, KVType, Speculation
from llm_magics.errors import OptionError
from llm_magics.options import Number, configured, described, json_object, numbers, option, options_of, whole

Auto: TypeAlias = Literal["auto"]

_SLOTS = 8  # sequences by default; all share one cache, so one more costs almost no memory
_MIB = 2**20
SEED: Any = ("--seed", "a cell that is run again gives the same answer", whole(0, 2**32 - 1), "N")
SECONDS: Any = (Number(0.1), "SECONDS")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSettings:
    """How to load a model, in tokens or layers; ``"auto"`` is as much as fits. See also each option's line below.

    ``ctx`` None is "auto", unless the kernel's configuration has a default. ``slots`` "auto" is 8, or 1 for a deterministic
    model. ``speculation`` "auto" guesses on a CPU, where it was measured to help, if the model's memory can take back a wrong
    guess. Every guess, also a draft model's, is checked, so only the speed changes. ``park_memory`` and ``park_disk`` are the
    MiB for states of conversations that lost their slot. A state is as private as its conversation, so by default none goes to
    disk. ``device_sampling`` saves copies when many sequences run.

    For a model on a server, ``ctx`` and ``slots`` say what the server has, if it does not tell.
    """

    ctx: int | Auto | None = option(None, "--ctx --ctx-size", "context in tokens", whole(32), "N|auto", free="auto", old="-c",
        loads="both", config="n_ctx", trait="Context in tokens for %load_model without --ctx; 0 is as much as fits.")
    gpu_layers: int | Auto = option("auto", "--gpu-layers -ngl --n-gpu-layers", "layers on the GPU; -1 is all", whole(-1),
        "N|auto", free="auto", config="n_gpu_layers")
    tensor_split: tuple[float, ...] = option((), "--tensor-split -ts", "share of each GPU, e.g. 3,1", numbers, "A,B")
    main_gpu: int = option(0, "--main-gpu -mg", "the GPU to use if the model is not split", whole(0), "N", config="main_gpu")
    kv: KVType = option("f16", "--kv -ctk -ctv --cache-type", "type of the KV cache", choices=get_args(KVType),
        config="kv_type")
    flash_attn: FlashAttention = option("auto", "--flash-attn -fa", "flash attention", choices=get_args(FlashAttention),
        config="flash_attention")
    threads: int | None = option(None, "--threads", "CPU threads", whole(1), "N", old="-t", config="n_threads")
    batch: int = option(512, "--batch -b --batch-size", "prompt tokens evaluated at once", whole(1), "N",
        config="n_batch n_ubatch")
    slots: int | Auto = option("auto", "--slots -np --parallel", "answers given at once", whole(1), "N|auto", free="auto",
        config="n_slots", loads="both")
    template: str | Path | None = option(None, "--template --chat-template-file", "a chat template instead of the model's own",
        str, "FILE")
    chat_template_kwargs: Mapping[str, Any] = option(dict, "--chat-template-kwargs", "variables for the template", json_object,
        "JSON", loads="both")
    speculation: Speculation = option("auto", "--speculation", "guess that text repeats itself, and check (auto: on a CPU)",
        choices=get_args(Speculation), config="speculation")
    draft: str | Path = option("", "--draft -md --model-draft", "a small model of the same family that guesses", str, "NAME",
        complete="catalog")
    context_shift: bool = option(False, "--context-shift",
        "drop the oldest turns when the context is full, instead of failing")
    park_memory: int = option(256, "--park-memory", "host memory for threads that lost their slot", whole(0), "MIB", unit=_MIB,
        config="park_memory")
    park_disk: int = option(0, "--park-disk", "disk space for them behind that; by default none", whole(0), "MIB", unit=_MIB,
        config="park_disk")
    device_sampling: bool = option(False, "--device-sampling", "draw tokens on the GPU if a request allows it",
        config="device_sampling")
    deterministic: bool = option(False, "--deterministic", "one answer at a time, nothing reused, batches of one shape",
        config="deterministic")
    seed: int | None = option(None, *SEED, loads="both")
    isolated: bool = option(False, "--isolated", "run the model in a process of its own, so that a crash spares this kernel")
    in_kernel: bool = option(False, "--in-kernel", "run it in this kernel, also on a GPU, where --isolated is the default")
    model: str = option("", "--model", "on a server: its name for the model; not needed if it lists one", str, "NAME",
        loads="server")
    api_key_env: str = option("", "--api-key-env", "on a server: the environment variable that holds the key", str, "VARIABLE",
        loads="server")
    connect_timeout: float = option(10.0, "--connect-timeout", "on a server: longest wait for a connection", *SECONDS,
        loads="server")
    first_timeout: float = option(300.0, "--first-timeout", "on a server: longest wait for the first token", *SECONDS,
        loads="server")
    gap_timeout: float = option(60.0, "--gap-timeout", "on a server: longest wait between two tokens", *SECONDS,
        loads="server")

    def __post_init__(self) -> None:
        from llm_magics.engine.fit.gguf_check import check_cache

        if self.isolated and self.in_kernel:
            raise OptionError("A model runs in a process of its own or in this kernel.", "Leave --isolated or --in-kernel out.")
        for one in options_of(type(self)):
            one.check(getattr(self, one.field))
        check_cache(self.kv, self.flash_attn)

    def check_place(self, place: Literal["here", "server"]) -> None:
        """Raise OptionError if an option is given that means nothing for a model in this ``place``."""
        for one in options_of(LoadSettings):
            if one.names and one.loads not in (place, "both") and getattr(self, one.field) not in (one.default, {}):
                if place == "here":
                    raise OptionError(f"{one.names[0]} is for a model on a server.", "Give the server's address as its name.")
                raise OptionError(f"{one.names[0]} is for a model on this machine.", "Leave it out: the server decides that.")

    def config(self, path: Path) -> EngineConfig:
        """The engine's configuration; :func:`~llm_magics.engine.fit.plan.plan` decides each "auto"."""
        given: dict[str, Any] = {"tensor_split": tuple(self.tensor_split)}
        if self.slots == "auto" and not self.deterministic:
            given["n_slots"] = _SLOTS
        return EngineConfig(path=str(path), **given, **configured(self))

    def isolates(self, config: EngineConfig) -> bool:
        """Whether the engine gets a process of its own: by default on a device, because a device's error ends the process."""
        return self.isolated or (not self.in_kernel and bool(config.n_gpu_layers or config.draft_gpu_layers))


def load_settings(**given: Any) -> LoadSettings:
    """Settings by name; raises OptionError for a name that is not one."""
    known = [f.name for f in fields(LoadSettings)]
    if unknown := [name for name in given if name not in known]:
        raise OptionError(f"A load has no setting {unknown[0]!r}.", f"It has: {', '.join(known)}.")
    return LoadSettings(**given)


LoadSettings.__doc__ = f"{LoadSettings.__doc__}\n{described(LoadSettings)}\n"
