"""The report on this machine: what is installed, its hardware, its models, and what to type next."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from llm_magics.engine.fit.memory import FreeMemory, free_memory
from llm_magics.engine.hosts.process import try_process
from llm_magics.engine.native.cpus import cpus
from llm_magics.errors import LLMMagicsError
from llm_magics.store.catalog import catalog, default_model, find
from llm_magics.store.locate import file_at
from llm_magics.store.stores import StoredFile, models_dir, stored_files

_PACKAGES = ("llm_magics", "llama-cpp-python", "llguidance", "ipykernel", "huggingface-hub")
_EXTENSION = "llm-magics"  # as JupyterLab knows it
_LAB = "'llm_magics[lab]'"  # quoted: some shells read the brackets


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; ``advice`` is empty if all is well. ``str()`` is the line as text."""

    topic: str
    found: str
    advice: str = ""

    def __str__(self) -> str:
        arrow = f"\n{'':18}-> {self.advice}" if self.advice else ""
        return f"{self.topic:16}  {self.found}{arrow}"


def report(default: str = "", own: Mapping[str, int] | None = None) -> tuple[Finding, ...]:
    """Inspect everything now; faults are reported, never raised. ``default`` is a kernel's configured default model, ``own``
    its loaded models that have a process of their own, with its id."""
    default = default or default_model()
    memory, models = free_memory(), list(stored_files())
    findings = [*_software(), *_front_end(), *_llama_cpp(memory), *_isolation(memory, own or {})]
    findings += [*_machine(memory), *_models(models, default)]
    if models:
        findings += _template(_first_choice(models, default))
    return (*findings, _next(models, findings, default))


def _software() -> Iterator[Finding]:
    yield Finding("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}")
    for package in _PACKAGES:
        found = _version(package)
        yield Finding(package, found or "not installed", "" if found else f"{sys.executable} -m pip install {package}")


def _front_end() -> Iterator[Finding]:
    """JupyterLab, its extension and widgets, all optional: each line says what happens without it."""
    install = f"{sys.executable} -m pip install {_LAB}"
    lab, widgets = _version("jupyterlab"), _version("ipywidgets")
    elsewhere = "not in this environment; the notebook may run in another JupyterLab, in VS Code or in a terminal"
    yield Finding("JupyterLab", lab or elsewhere, "" if lab else f"To have it here: {install}")
    yield Finding("ipywidgets", widgets or "not here; the extension or a prompt asks for approval")
    yield _extension(needed=bool(lab))


def _extension(*, needed: bool) -> Finding:
    """Whether this environment's JupyterLab finds the extension. ``needed``: there is a JupyterLab here."""
    found, ours = _installed(), _version("llm_magics")
    without = "answers are static HTML, and ipywidgets' buttons or a prompt ask for approval"
    if found is not None and _bundle_version(found) in (ours, ""):
        return Finding("extension", f"{_EXTENSION} {_bundle_version(found)} in {found}")
    if found is not None:
        said = f"{found} has version {_bundle_version(found)}, but llm_magics is {ours}"
        return Finding("extension", said, "Install llm_magics again, then reload the page.")
    if _bundle() is not None:
        said = f"not among this environment's JupyterLab extensions: {without}"
        return Finding("extension", said, "Install llm_magics into JupyterLab's own environment, too." if needed else "")
    said = f"missing: this llm_magics was built without Node, so {without}"
    return Finding("extension", said, "Install Node 20 or newer, then build and install llm_magics again.")


def _bundle() -> Path | None:
    """The extension's bundle inside the package; None if the wheel was built without Node."""
    directory = Path(__file__).parents[1] / "labextension"
    return directory if (directory / "package.json").exists() else None


def _installed() -> Path | None:
    from jupyter_core.paths import jupyter_path

    found = (Path(directory, _EXTENSION) for directory in jupyter_path("labextensions"))
    return next((directory for directory in found if (directory / "package.json").exists()), None)


def _bundle_version(directory: Path) -> str:
    try:
        return str(json.loads((directory / "package.json").read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _llama_cpp(memory: FreeMemory) -> Iterator[Finding]:
    try:
        from llm_magics.engine.native import llama
    except (ImportError, OSError, RuntimeError) as error:  # a broken build: a missing library, another CPU's instructions
        advice = "Reinstall it: pip install --force-reinstall --no-cache-dir llama-cpp-python"
        yield Finding("llama.cpp", f"does not load: {error}", advice)
        return
    gpu = llama.supports_gpu()
    yield Finding("llama.cpp", f"loads; it can{'' if gpu else 'not'} use a GPU here", llama.gpu_advice())
    said = llama.lib.llama_print_system_info().decode("utf-8", "replace")  # type: ignore[attr-defined]  # the engine's own import
    features = [name for name, _, value in (item.strip().partition(" = ") for item in said.split("|")) if value == "1"]
    yield Finding("CPU features", ", ".join(f.rpartition(":")[2].strip() for f in features) or "none")
    yield _openmp()
    if not memory.gpus and gpu:
        yield Finding("GPU", "supported by llama.cpp, not NVIDIA")


def _isolation(memory: FreeMemory, own: Mapping[str, int]) -> Iterator[Finding]:
    """Whether the engine can run in a process of its own, tried now, and which models do."""
    wrong = try_process()
    able = f"a model cannot have a process of its own: {wrong}" if wrong else "a model can have a process of its own"
    yield Finding("isolation", able, "Load models with --in-kernel, or install llm_magics again." if wrong else "")
    if any(gpu.exclusive for gpu in memory.gpus):
        said = "a GPU is in exclusive mode: one process at a time may use it"
        advice = "If this kernel uses the GPU too, e.g. through torch: %load_model NAME --in-kernel --gpu-layers N"
        yield Finding("isolation", said, advice)
    if own:
        yield Finding("isolation", ", ".join(f"{name} in its own process (pid {pid})" for name, pid in own.items()))


def _openmp() -> Finding:
    """How threads wait for each other, which decides whether kernels on one machine slow each other down."""
    from llm_magics.engine.native.library import cpu_library
    from llm_magics.engine.native.openmp import SETTING, SPINS, waiting

    found = waiting(cpu_library())
    settings = ", ".join(found.settings)
    if found.runtime == "":
        return Finding("OpenMP", "this llama.cpp does not use it")
    if found.chosen_by == "user":
        return Finding("OpenMP", f"{found.runtime}, with your setting {settings}")
    if found.chosen_by == "us":
        return Finding("OpenMP", f"{found.runtime}; waiting threads soon sleep ({settings}), so kernels can share this machine")
    spin = f"{found.runtime}; waiting threads spin, so kernels that share this machine can slow each other down tenfold"
    if found.runtime == "vcomp":
        advice = "If kernels share this machine: %load_model NAME --threads 2"
        return Finding("OpenMP", f"{spin}; no setting changes that", advice)
    if found.runtime != "libgomp":
        return Finding("OpenMP", spin, "If kernels share this machine, set KMP_BLOCKTIME=0 where Jupyter is started.")
    how = f"set {SETTING}={SPINS} where Jupyter is started."
    if not found.earlier:
        return Finding("OpenMP", spin, f"If kernels share this machine, {how}")
    first = f"another package loaded {found.earlier} before llama.cpp, too early for our setting"
    return Finding("OpenMP", f"{spin}; {first}", f"Restart the kernel and load the model before that package, or {how}")


def _machine(memory: FreeMemory) -> Iterator[Finding]:
    import psutil

    found = cpus()
    quota = "" if found.quota is None else f", and its control group allows the time of {found.quota:g} CPUs"
    allowed = f"this process may run on {found.allowed} processors{quota}"
    yield Finding("CPU", f"{_cpu_name()}, {found.physical} cores; {found.threads} threads compute ({allowed})")
    total = psutil.virtual_memory().total
    yield Finding("memory", f"{memory.host / 1e9:.1f} GB of {total / 1e9:.1f} GB free")
    for gpu in memory.gpus:
        holders = ", ".join(f"{p.name} (pid {p.pid})" for p in gpu.processes)
        free = f"{gpu.free / 1e9:.1f} GB of {gpu.total / 1e9:.1f} GB free"
        yield Finding("GPU", f"{gpu.name}, driver {gpu.driver}, {free}" + (f"; in use by {holders}" if holders else ""))
    place = next(p for p in (models_dir(), *models_dir().parents) if p.exists())
    yield Finding("disk", f"{shutil.disk_usage(place).free / 1e9:.1f} GB free for models in {models_dir()}")


def _models(models: list[StoredFile], default: str) -> Iterator[Finding]:
    for found in models:
        size = found.path.stat().st_size / 1e6
        yield Finding("model", f"{_called(found)} ({size:,.0f} MB, {found.store}: {found.path})")
    if not models:
        yield Finding("model", "none on this machine", f"llm-magics pull {default}")


def _template(name: str) -> Iterator[Finding]:
    from llm_magics.chat.format import ChatFormat
    from llm_magics.chat.show import warnings
    from llm_magics.models.template_source import template_source

    try:
        found = template_source(name)
        said = warnings(ChatFormat.from_template(found.source, found.bos_token, found.eos_token), found.control_tokens)
    except LLMMagicsError as error:
        said = [str(error)]
    yield Finding("chat template", f"{name}: {' '.join(said) or 'understood, without warnings'}")


def _next(models: list[StoredFile], findings: list[Finding], default: str) -> Finding:
    """One thing to type: first fix what is broken, then get a model, then talk to it."""
    broken = next((f for f in findings if f.found.startswith(("not installed", "does not load"))), None)
    if broken:
        return Finding("next", broken.advice)
    if not models:
        return Finding("next", f"llm-magics pull {default}")
    load = f"%load_model {_first_choice(models, default)}"
    return Finding("next", f"in a notebook: %load_ext llm_magics, then {load}, then a cell that begins with %%chat")


def _first_choice(models: list[StoredFile], default: str) -> str:
    """The default model if it is here, under any of its names, else the first stored model."""
    names = [_called(m) for m in models]
    entry = find(default)
    known = entry.name if entry else default
    return known if known in names or file_at(default) else names[0]


def _called(found: StoredFile) -> str:
    """The name to type for a stored file: the catalogue's, else its owner's."""
    return next((e.name for e in catalog() if e.file == found.path.name), found.names[0])


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(x.partition(":")[2].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
