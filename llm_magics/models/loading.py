"""From a name to a resident model: find the file, check it, see that it fits, load it, analyse its template."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path, PurePath
from typing import Any

from llm_magics.engine.fit.gguf import Gguf
from llm_magics.engine.fit.gguf_check import check_context, read_model
from llm_magics.engine.fit.plan import Plan, plan
from llm_magics.engine.fit.probe import DeviceError, try_model
from llm_magics.engine.hosts import open_engine
from llm_magics.engine.values import EngineConfig
from llm_magics.errors import ModelFileError, OptionError, TemplateError, UnsupportedModelError
from llm_magics.store.fetch import pull
from llm_magics.store.locate import ModelFile
from llm_magics.store.progress import Progress, silent

from .base import Sampling
from .local import Identity, LocalModel
from .remote.address import is_address
from .settings import LoadSettings, load_settings

# GGUF key -> sampling setting: the recommendations of the model's makers
_RECOMMENDED = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
    "general.sampling.min_p": "min_p",
    "general.sampling.penalty_repeat": "repeat_penalty",
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checked model with a plan for its memory; nothing is loaded yet."""

    file: ModelFile
    gguf: Gguf
    plan: Plan
    settings: LoadSettings


def prepare(name: str | Path, progress: Progress = silent, **settings: Any) -> Prepared:
    """Find (or download) and check a model's file, and plan its memory; ``--dry-run`` shows the plan.

    Args:
        name: catalogue name, path, hub ``repo:file``, or a model in another program's cache.
        progress: receives the progress of the download.
        settings: the fields of :class:`LoadSettings`, e.g. ``ctx=8192, gpu_layers="auto", kv="q8_0"``.

    Raises OptionError, ModelNotFoundError, DownloadError, ModelFileError, UnsupportedModelError, MemoryFitError; EngineError
    if llama.cpp or a GPU fails.
    """
    return prepare_as(load_settings(**settings), name, progress)


def prepare_as(chosen: LoadSettings, name: str | Path, progress: Progress = silent) -> Prepared:
    """Like :func:`prepare`, with the settings as one value."""
    chosen.check_place("here")
    file, gguf = _vetted(name, progress)
    if isinstance(chosen.ctx, int):
        check_context(gguf, chosen.ctx)
    auto_context, auto_layers = not isinstance(chosen.ctx, int), chosen.gpu_layers == "auto"
    config = chosen.config(file.path)
    try:
        planned = plan(gguf, config, auto_context=auto_context, auto_layers=auto_layers)
    except DeviceError:  # a GPU in exclusive mode that this kernel uses refuses the child that plans
        if auto_layers or not chosen.in_kernel:
            raise
        planned = plan(gguf, replace(config, n_gpu_layers=0), auto_context=auto_context)
        planned = replace(planned, config=replace(planned.config, n_gpu_layers=config.n_gpu_layers))
    if chosen.draft:
        planned = _with_draft(planned, gguf, chosen.draft, progress)
    return Prepared(file, gguf, planned, chosen)


def _vetted(name: str | Path, progress: Progress) -> tuple[ModelFile, Gguf]:
    """A model's file and its checked header. A file that is not exactly the catalogue's is first loaded by a child process; the
    outcome is remembered."""
    file = pull(name, progress)
    gguf = read_model(file.path)
    if not file.verified:
        try_model(gguf.paths)
    return file, gguf


def _with_draft(planned: Plan, large: Gguf, name: str | Path, progress: Progress) -> Plan:
    """Add a draft model: wholly on the GPU if the large model is, otherwise on the CPU. It must fit in the remaining memory."""
    file, gguf = _vetted(name, progress)
    config = planned.config
    layers = -1 if config.n_gpu_layers < 0 or config.n_gpu_layers > int(large.arch("block_count", 1)) else 0
    small = plan(gguf, replace(config, path=str(file.path), n_gpu_layers=layers, speculation="off"), planned.rest)
    return replace(planned, config=replace(config, draft=small.config.path, draft_gpu_layers=small.config.n_gpu_layers))


def load_model(
    name: str | Path,
    *,
    alias: str = "",
    progress: Progress = silent,
    loading: Callable[[float], bool | None] | None = None,
    **settings: Any,
) -> LocalModel:
    """Load a model, into this process or one of its own, and keep it until ``close()``. ``name`` and ``settings`` are as for
    :func:`prepare`. For a server's address see :func:`~llm_magics.models.remote.model.connect_model`.

    Args:
        alias: the model's name; by default the catalogue's or the file's name.
        progress: receives the progress of the download, in bytes.
        loading: receives the progress of the load, from 0 to 1; returning False cancels it. It is called again if the model's
            own process has died and the next request loads the model again.

    Raises the errors of :func:`prepare`, and TemplateError if the model has no working chat template.
    """
    if is_address(name):
        raise OptionError("A server's model is not loaded into this process.", "Use llm_magics.connect_model(URL, model=...).")
    return open_prepared(prepare(name, progress, **settings), alias, loading)


def open_prepared(prepared: Prepared, alias: str = "", loading: Callable[[float], bool | None] | None = None) -> LocalModel:
    """Load a prepared model."""
    from llm_magics.chat.format import ChatFormat

    settings, file = prepared.settings, prepared.file
    source = _template(prepared)  # before the weights, so that an unreadable template fails at once
    engine = open_engine(prepared.plan.config, loading, isolated=settings.isolates(prepared.plan.config))
    with ExitStack() as on_failure:  # even an interrupt must free the weights
        on_failure.callback(engine.close)
        if settings.context_shift and not engine.info.can_shift:
            what = f"{file.path.name} cannot shift its context: its memory cannot forget a part of the prompt."
            raise UnsupportedModelError(what, "Load it without context_shift.")
        format = ChatFormat.from_template(source, bos_token=engine.info.bos_text, eos_token=engine.info.eos_text)
        model = LocalModel(
            alias or file.name,
            engine,
            format,
            identity=Identity(file.path.name, file.sha256, file.size, _telling(prepared.plan.config)),
            sampling=_recommended(prepared.gguf, settings.seed),
            template_kwargs=settings.chat_template_kwargs,
            context_shift=settings.context_shift,
        )
        on_failure.pop_all()
    return model


def _telling(config: EngineConfig) -> dict[str, Any]:
    """The settings of a model for a record: those that are not the default, without this machine's folders."""
    usual = {f.name: f.default for f in fields(EngineConfig)}
    here = ("path", "park_directory")
    told = {name: value for name, value in asdict(config).items() if value != usual[name] and name not in here}
    return told | ({"draft": PurePath(config.draft).name} if config.draft else {})


def _template(prepared: Prepared) -> str:
    """The source of the chat template: the user's file, or the GGUF's own."""
    if (chosen := prepared.settings.template) is not None:
        try:
            return Path(chosen).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError(f"The chat template {chosen} cannot be read: {error}.") from error
    source, name = prepared.gguf.metadata.get("tokenizer.chat_template", ""), prepared.file.path.name
    if not isinstance(source, str):
        raise ModelFileError(f"{name} has a chat template that is not text.", "Give one with --template FILE.")
    if not source.strip():
        what = f"{name} has no chat template: it is a base model, not one made for chat."
        raise TemplateError(what, "Load its Instruct variant, or give a template with --template FILE.")
    return source


def _recommended(gguf: Gguf, seed: int | None) -> Sampling:
    """The makers' recommended settings, as far as the file has numbers for them."""
    given = {setting: gguf.metadata.get(key) for key, setting in _RECOMMENDED.items()}
    numbers: dict[str, Any] = {setting: value for setting, value in given.items() if isinstance(value, (int, float))}
    return Sampling(**numbers, seed=seed)
