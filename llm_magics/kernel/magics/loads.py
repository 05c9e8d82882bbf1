"""``%load_model`` and ``%models``, and their cards and tables."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from llm_magics.errors import OptionError
from llm_magics.kernel.options.specs import LoadOptions
from llm_magics.kernel.page.request import parent_metadata
from llm_magics.kernel.rules import Rules, names_of
from llm_magics.kernel.runtime import Resident, Runtime, names_of_model
from llm_magics.models.base import Model
from llm_magics.models.remote.address import is_address, read_address
from llm_magics.views.card import bar_text, bytes_text, card_bundle, note_bundle, table_bundle

if TYPE_CHECKING:
    from llm_magics.engine.fit.memory import FreeMemory
    from llm_magics.models.loading import Prepared
    from llm_magics.store.catalog import CatalogEntry

_MOST_OTHERS = 10  # models that are not on this disk, in a list without a search word
_WITH_CONTEXT = 1.2  # memory with a KV cache and buffers, as a multiple of the weights
# a dry run's name -> the kind in EngineInfo.buffers
_KINDS = {
    "weights": "model", "KV cache": "kv", "recurrent state": "recurrent", "compute buffers": "compute", "output": "output"
}  # fmt: skip


class Bar:
    """A progress line that is updated, and at last replaced by a card. A later load again, because the model's own process has
    died, has its line in the cell that runs then."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._publish = shell.display_pub.publish
        self._over = False
        self._begin()

    def _begin(self) -> None:
        self._id = f"llm-magics-load-{time.monotonic_ns()}"
        self._shown = False
        self._last = self._part = 0.0

    def bytes(self, what: str, done: int, total: int, /) -> None:
        self._draw(bar_text(what, done, total))

    def loading(self, name: str, part: float) -> bool:
        if part < self._part:  # an earlier load was broken off
            self._begin()
        self._part = part
        self._draw(f"loading {name}{' again' if self._over else ''}  {part:.0%}")
        if self._over and part >= 1:
            self.end(note_bundle(f"{name} was loaded again, because its process had died."))
        return True

    def end(self, bundle: dict[str, Any]) -> None:
        self._publish(bundle, transient={"display_id": self._id}, update=self._shown)
        self._over = True
        self._begin()

    def _draw(self, line: str) -> None:
        now = time.monotonic()
        # a front end without cell ids (nbclient) ignores updates, and would keep the bar for ever
        if parent_metadata(self._shell).get("cellId") and now - self._last > 0.2:
            self._last = now
            self._publish({"text/plain": line}, transient={"display_id": self._id}, update=self._shown)
            self._shown = True


def load_model(runtime: Runtime, options: LoadOptions) -> None:
    """Load a model, with a progress line and then a card; with ``dry_run`` only show what it would take."""
    held = runtime.shell.user_ns.get(options.name)
    rules = runtime.rules
    if isinstance(held, Model):
        resident = runtime.find_model(options.name)
        rules.check_model(resident.names)
        rules.check_server(resident.server)
        resident = runtime.add(options.alias or options.name, held, options.ttl)
        runtime.shell.display_pub.publish(card_bundle(f"{resident.name} is the current model", model_rows(resident)))
        return
    options = runtime.defaults.for_load(options)
    alias = options.alias
    if alias and not alias.replace("-", "_").replace(".", "_").isidentifier():
        raise OptionError(f"{alias!r} is not a valid model name.", "Use letters, digits, '-', '_' and '.'.")
    if is_address(options.name):
        _load_from_server(runtime, options, rules)
        return
    from llm_magics.models.loading import open_prepared, prepare_as

    known_as = names_of(options.name)
    rules.check_model(known_as)
    bar = Bar(runtime.shell)
    _make_room(runtime, options)
    prepared = prepare_as(options, options.name, bar.bytes)
    if options.dry_run:
        bar.end(card_bundle(f"Loading {prepared.file.name} would take", estimate_rows(prepared), "Nothing was loaded."))
        return
    name = alias or prepared.file.name
    model = open_prepared(prepared, name, lambda part: bar.loading(name, part))
    resident = runtime.add(name, model, options.ttl, known_as)
    bar.end(card_bundle(f"{name} is loaded", model_rows(resident)))


def _load_from_server(runtime: Runtime, options: LoadOptions, rules: Rules) -> None:
    """Load a model that is on a server. The rules are asked before anything is sent, and again once its name is known."""
    from llm_magics.models.remote.discovery import unlisted
    from llm_magics.models.remote.model import connect
    from llm_magics.models.remote.settings import ServerSettings

    address, settings = read_address(options.name), ServerSettings.of(options)
    rules.check_server(address.names)
    if options.model:
        rules.check_model((f"{address.base}/{options.model}",))
    model = connect(options.name, settings, options.alias)
    with ExitStack() as unless_added:
        unless_added.callback(model.close)
        resident, note = Resident(model.name, model, names=names_of_model(model)), unlisted(model.about)
        rules.check_model(resident.names)
        title = f"{model.name} is loaded"
        if options.dry_run:
            title, note = f"Loading {model.name} would use", f"{note} Nothing was loaded.".strip()
        else:
            resident = runtime.add(model.name, model, options.ttl)
            unless_added.pop_all()
    runtime.shell.display_pub.publish(card_bundle(title, model_rows(resident), note))


def _make_room(runtime: Runtime, options: LoadOptions) -> None:
    """Unload the model of the same name, before free memory is counted; not for a dry run."""
    from llm_magics.store.catalog import find

    entry = find(options.name)
    name = options.alias or (entry.name if entry else options.name)
    if name in runtime.residents and not options.dry_run:
        runtime.unload(name)


def model_rows(resident: Resident) -> list[tuple[str, str]]:
    from psutil import virtual_memory

    model: Any = resident.model
    rows = [("context", f"{model.context_size:,} tokens" if model.context_size else "")]
    idle = ("unloaded when idle for", f"{resident.ttl:g} s" if resident.ttl else "")
    info = getattr(getattr(model, "engine", None), "info", None)
    if info is None:
        own = getattr(model, "rows", None) or [("kind", type(model).__name__)]
        return [*own, *rows, idle]
    layers = f"{info.n_gpu_layers} of {info.n_layers + 1} on the GPU" if info.n_gpu_layers else "all on the CPU"
    used = sum(size for _, _, size in info.buffers)
    return [
        ("model", f"{info.description}, {bytes_text(info.size)}"),
        ("context", f"{info.n_ctx:,} tokens" + (f" (trained for {info.n_ctx_train:,})" if info.n_ctx_train else "")),
        ("layers", layers),
        ("memory", f"{bytes_text(used)}, {bytes_text(virtual_memory().available)} of host memory free" if used else ""),
        ("runs in", place_of(model) if model.own_process else ""),
        ("chat template", _template_text(model)),
        idle,
        ("loaded in", f"{info.load_seconds:.1f} s" if info.load_seconds else ""),
    ]


def place_of(model: Any) -> str:
    """What runs the model, e.g. "this kernel", or the address of its server."""
    own, address = getattr(model, "own_process", 0), getattr(model, "address", None)
    if address is not None:
        return f"the server {address.base}"
    return f"its own process (pid {own})" if own else "this kernel"


def estimate_rows(prepared: Prepared) -> list[tuple[str, str]]:
    config, estimate = prepared.plan.config, prepared.plan.estimate
    rows = [("file", f"{prepared.file.path.name}, {bytes_text(prepared.file.size)}"), ("context", f"{config.n_ctx:,} tokens")]
    rows += [(name, bytes_text(estimate.of(kind))) for name, kind in _KINDS.items() if estimate.of(kind)]
    for device in ("host", *(d.name for d in estimate.devices)):
        rows.append((f"in all on {device}", bytes_text(estimate.needs(device))))
    place = "its own process" if prepared.settings.isolates(config) else "this kernel"
    return [*rows, ("layers on the GPU", str(config.n_gpu_layers)), ("runs in", place)]


def show_models(runtime: Runtime, search: str = "") -> None:
    """Show tables of loaded models and of those that can be loaded; ``search`` is "all" or a word to find."""
    from llm_magics.engine.fit.memory import free_memory
    from llm_magics.store.catalog import catalog
    from llm_magics.store.stores import on_disk, stored_files

    publish = runtime.shell.display_pub.publish
    rows = [
        [("* " if r.name == runtime.current_model else "  ") + r.name, dict(model_rows(r)).get("model", type(r.model).__name__),
         place_of(r.model), f"{r.model.context_size:,}" if r.model.context_size else ""]
        for r in runtime.residents.values()
    ]  # fmt: skip
    note = "" if rows else "No model is loaded. Load one: %load_model NAME"
    publish(table_bundle(["loaded (* answers)", "model", "runs in", "context"], rows, note))
    room = free_memory()
    stored = list(stored_files())
    here = {e.name for e in catalog() if on_disk(e, stored)}
    chosen = _chosen(search, here, room)
    known = [[e.name, _size_text(e), "yes" if e.name in here else "", _fit_text(e, room), e.license, e.about] for e in chosen]
    note = "%load_model also takes a path, or a hub OWNER/REPO:FILE. A size with ~ is estimated; --dry-run shows the plan."
    if len(chosen) < len(catalog()):
        note = f"{len(chosen)} of {len(catalog())} models. %models all shows all, %models qwen those with that word. {note}"
    publish(table_bundle(["name", "size", "on this disk", "fits in memory now", "licence", "about"], known, note))
    others = [f for f in stored if not any(on_disk(e, [f]) for e in catalog())]
    if others:
        found = [[f.names[0], bytes_text(f.path.stat().st_size), f.store] for f in others]
        publish(table_bundle(["also on this disk", "size", "from"], found))


def _chosen(search: str, here: Collection[str], room: FreeMemory) -> list[CatalogEntry]:
    """The catalogue entries to list; without ``search`` those that are ``here``, then the smallest of those that fit."""
    from llm_magics.store.catalog import catalog

    first = sorted(catalog(), key=lambda entry: entry.name not in here)
    if not search:
        fit = [e for e in first if e.name not in here and _fit_text(e, room).startswith("yes")]
        return [e for e in first if e.name in here] + sorted(fit, key=lambda e: e.expected_size)[:_MOST_OTHERS]
    word = search.lower()
    found = [e for e in first if word == "all" or word in " ".join((*e.names, e.license, e.about)).lower()]
    if not found:
        raise OptionError(f"No model's name, licence or description contains {search!r}.", "%models all lists every model.")
    return found


def _size_text(entry: CatalogEntry) -> str:
    size = entry.expected_size
    return f"{'~ ' if entry.size is None else ''}{bytes_text(size)}" if size else ""


def _fit_text(entry: CatalogEntry, room: FreeMemory) -> str:
    """Whether the weights and a small context fit into free memory: of a GPU, or else of the host."""
    needed = entry.expected_size * _WITH_CONTEXT
    if not needed:
        return ""
    if any(gpu.free >= needed for gpu in room.gpus):
        return "yes, on a GPU"
    return "yes" if room.host >= needed else "no"


def _template_text(model: Any) -> str:
    """The chat template's tool syntax and reasoning marker, e.g. ``tool calls: json in <tool_call>``."""
    tools, reasoning = model.format.tools, model.format.reasoning
    marker = (tools.section_start or tools.call_start).strip()
    calls = f"tool calls: {tools.shape}" + (f" in {marker}" if marker else "")
    return calls + (f"; reasoning in {reasoning.start.strip()}" if reasoning is not None else "")
