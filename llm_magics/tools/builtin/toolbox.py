"""Ready-made tools, all opt-in: name them with ``%%chat -t calculate,...`` or pass them to ``Session(tools=...)``.

Access to a folder of scripts, a folder of files or a search service is off until :func:`configure` allows it.
"""

from __future__ import annotations

import json
import platform
import shlex
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from llm_magics.errors import ToolError
from llm_magics.tools.define.tool import Tool, make_tool
from llm_magics.tools.results import ToolOutput, shorten, to_json
from llm_magics.tools.results import render as render_value

from . import arithmetic, scripts


@dataclass(frozen=True, slots=True)
class ToolboxSettings:
    """What the toolbox may access; see :func:`configure`."""

    scripts: Path | None = None
    venvs: tuple[Path, ...] = ()
    files: Path | None = None
    search: str = ""
    script_seconds: float = 60.0
    script_bytes: int = 200_000


settings = ToolboxSettings()


def configure(
    *,
    scripts: str | Path | None = None,
    venvs: Iterable[str | Path] | None = None,
    files: str | Path | None = None,
    search: str | None = None,
    script_seconds: float | None = None,
    script_bytes: int | None = None,
) -> ToolboxSettings:
    """Allow the toolbox to access a folder or service; an argument that is left out changes nothing.

    Args:
        scripts: folder whose scripts ``execute_python`` may run.
        venvs: virtual environments that ``execute_python`` may use.
        files: folder whose files ``read_file`` may read.
        search: URL of a SearXNG instance or of any JSON search; ``{query}`` and ``{num_results}`` in it are filled in.
        script_seconds: time limit of a script.
        script_bytes: output limit of a script.

    Raises ToolError if a folder does not exist, or the URL is not http or https.
    """
    global settings
    changes: dict[str, Any] = {"search": search, "script_seconds": script_seconds, "script_bytes": script_bytes}
    changes |= {
        "scripts": None if scripts is None else _folder(scripts),
        "venvs": None if venvs is None else tuple(_folder(venv) for venv in venvs),
        "files": None if files is None else _folder(files),
    }
    if search and urllib.parse.urlsplit(search).scheme not in ("http", "https"):
        raise ToolError(f"{search!r} is not the URL of a search service.", "Give one that begins with https://.")
    settings = replace(settings, **{name: value for name, value in changes.items() if value is not None})
    return settings


def _folder(given: str | Path) -> Path:
    folder = Path(given).expanduser().resolve()
    if not folder.is_dir():
        raise ToolError(f"There is no folder {str(given)!r}.", "Make it first, or check the path.")
    return folder


# --- calculate ----------------------------------------------------------------------------------------------------------------


def _calculate(expression: str) -> int | float | str:
    """Calculate the value of an arithmetic expression exactly.

    Args:
        expression: the arithmetic to compute, e.g. "15 * 23 + 47", "sqrt(144) + 2^3" or "hex(255)". ^ is power.
    """
    return arithmetic.evaluate(expression)


# --- execute_python -----------------------------------------------------------------------------------------------------------


def _as_line(given: Any) -> Any:
    """Accept a list of arguments instead of a line."""
    if isinstance(given, list) and all(isinstance(word, (str, int, float)) for word in given):
        return shlex.join(str(word) for word in given)
    return given


def _execute_python(
    script_name: str, arguments: Annotated[str, BeforeValidator(_as_line)] = "", venv_path: str = ""
) -> Generator[str, None, ToolOutput]:
    """Run a Python script by its name and return what it prints.

    Args:
        script_name: file name of the script, e.g. "report.py".
        arguments: command-line arguments, separated by spaces, e.g. "--count 3 Oslo".
        venv_path: virtual environment to run it in; empty for the default one.
    """
    if settings.scripts is None:
        raise ToolError("No folder of scripts is open.", "Call toolbox.configure(scripts=FOLDER) first.")
    name = script_name if script_name.endswith(".py") else f"{script_name}.py"
    path = scripts.inside(settings.scripts, name, "script")
    python = scripts.interpreter(venv_path, settings.venvs)
    command = [python, str(path), *scripts.split(arguments)]
    printed: list[str] = []
    code = 0
    for item in scripts.run(command, settings.scripts, settings.script_seconds, settings.script_bytes):
        if isinstance(item, int):
            code = item
        else:
            printed.append(item)
            yield item
    text = "".join(printed).rstrip() or "(the script printed nothing)"
    return ToolOutput(f"{text}\n(the script failed with exit code {code})" if code else text, is_error=code != 0)


# --- get_system_info ----------------------------------------------------------------------------------------------------------


def _get_system_info(info_type: Literal["cpu", "memory", "disk", "gpu", "all"] = "all") -> dict[str, Any]:
    """Get information about the computer this notebook runs on: CPU, memory, disk or GPU.

    Args:
        info_type: which part to report on.
    """
    parts = {"cpu": _cpu, "memory": _memory, "disk": _disk, "gpu": _gpu}
    return {name: part() for name, part in parts.items() if info_type in (name, "all")}


def _cpu() -> dict[str, Any]:
    import psutil

    return {
        "model": platform.processor() or platform.machine(),
        "cores": psutil.cpu_count(logical=False),
        "threads": psutil.cpu_count(),
        "percent_used": psutil.cpu_percent(interval=0.1),
    }


def _memory() -> dict[str, Any]:
    import psutil

    memory = psutil.virtual_memory()
    return {"total_gb": _gb(memory.total), "available_gb": _gb(memory.available), "percent_used": memory.percent}


def _disk() -> dict[str, Any]:
    import psutil

    disk = psutil.disk_usage(str(Path.cwd()))
    return {"total_gb": _gb(disk.total), "free_gb": _gb(disk.free), "percent_used": disk.percent}


def _gpu() -> list[dict[str, Any]] | str:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return "no NVIDIA GPU found"
    try:
        return [_one_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())] or "no NVIDIA GPU found"
    finally:
        pynvml.nvmlShutdown()


def _one_gpu(nvml: Any, index: int) -> dict[str, Any]:
    device = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(device)
    name = nvml.nvmlDeviceGetName(device)
    return {
        "name": name.decode() if isinstance(name, bytes) else name,
        "memory_total_gb": _gb(memory.total),
        "memory_free_gb": _gb(memory.free),
        "percent_used": nvml.nvmlDeviceGetUtilizationRates(device).gpu,
    }


def _gb(size: int) -> float:
    return round(size / 1024**3, 1)


# --- web_search ---------------------------------------------------------------------------------------------------------------

_MAX_ANSWER = 2_000_000  # bytes of a search service's answer
_SNIPPET = 300


def _web_search(query: str, num_results: Annotated[int, Field(ge=1, le=20)] = 5) -> list[dict[str, str]]:
    """Search the web and return titles, addresses and snippets.

    Args:
        query: what to search for.
        num_results: how many results to return.
    """
    if not settings.search:
        raise ToolError("Web search is off.", "Call toolbox.configure(search=URL of a SearXNG instance) first.")
    request = urllib.request.Request(search_url(settings.search, query, num_results), headers={"Accept": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:  # configure() has checked the scheme
            answer = json.loads(response.read(_MAX_ANSWER))
    except (urllib.error.URLError, ValueError, OSError) as error:
        raise ToolError(f"The search service did not answer: {error}.", "Try again later, or answer without it.") from error
    found = [_hit(item) for item in _hits(answer)]
    return [hit for hit in found if hit["url"]][:num_results]


def search_url(service: str, query: str, num_results: int) -> str:
    """The URL of a search; a service without ``{query}`` is taken as the address of a SearXNG instance."""
    if "{query}" not in service:
        service = f"{service.rstrip('/').removesuffix('/search')}/search?q={{query}}&format=json"
    return service.replace("{query}", urllib.parse.quote(query, safe="")).replace("{num_results}", str(num_results))


def _hits(answer: Any) -> list[Mapping[str, Any]]:
    """The results in a JSON answer: its first list of objects that have a URL."""
    if isinstance(answer, list):
        objects: list[Mapping[str, Any]] = [item for item in answer if isinstance(item, dict)]
        return objects if any(_hit(item)["url"] for item in objects) else []
    return next(filter(None, map(_hits, answer.values())), []) if isinstance(answer, dict) else []


def _hit(item: Mapping[str, Any]) -> dict[str, str]:
    def first(*names: str) -> str:
        return next((str(item[name]) for name in names if isinstance(item.get(name), str)), "")

    snippet = shorten(first("content", "snippet", "description", "body", "text"), _SNIPPET)
    return {"title": first("title", "name"), "url": first("url", "link", "href"), "snippet": snippet}


# --- read_file ----------------------------------------------------------------------------------------------------------------

_MAX_FILE = 5_000_000


def _read_file(
    path: str, first_line: Annotated[int, Field(ge=1)] = 1, max_lines: Annotated[int, Field(ge=1, le=2000)] = 200
) -> str:
    """Read a text file.

    Args:
        path: name of the file.
        first_line: line to begin with, counted from 1.
        max_lines: how many lines to read.
    """
    if settings.files is None:
        raise ToolError("No folder of files is open.", "Call toolbox.configure(files=FOLDER) first.")
    file = scripts.inside(settings.files, path, "file")
    if file.stat().st_size > _MAX_FILE:
        raise ToolError(f"{path} has {file.stat().st_size:,} bytes.", f"Read a file of at most {_MAX_FILE:,} bytes.")
    try:
        lines = file.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ToolError(f"{path} is not a text file.", "Read another file.") from error
    chosen = lines[first_line - 1 : first_line - 1 + max_lines]
    if not chosen:
        raise ToolError(f"{path} has {len(lines)} lines.", f"Begin with a line up to {max(len(lines), 1)}.")
    rest = len(lines) - (first_line - 1 + len(chosen))
    return "\n".join(chosen) + (f"\n({rest} more lines)" if rest else "")


# --- namespace_tools ----------------------------------------------------------------------------------------------------------


def namespace_tools(mapping: Mapping[str, Any]) -> tuple[Tool, ...]:
    """Make tools that let a model read a namespace: ``list_variables``, ``read_variable``, ``describe_variable``.

    They look up plain names in ``mapping`` (e.g. ``globals()``) when they are called: nothing is evaluated and no attribute is
    read. Names that begin with an underscore, modules, functions and classes are left out.
    """

    def list_variables() -> dict[str, str]:
        """List the variables of the notebook with their types and sizes."""
        return {name: _kind(value) for name, value in mapping.items() if _is_data(name, value)}

    def read_variable(name: str) -> Any:
        """Read the value of a variable of the notebook.

        Args:
            name: name of the variable.
        """
        return _look_up(mapping, name)

    def describe_variable(name: str) -> str:
        """Describe a variable of the notebook: type, size, and statistics where it has any.

        Args:
            name: name of the variable.
        """
        return _describe(_look_up(mapping, name))

    return tuple(make_tool(function) for function in (list_variables, read_variable, describe_variable))


def _is_data(name: str, value: Any) -> bool:
    kind = type(value).__name__
    return not name.startswith("_") and name not in ("In", "Out") and not callable(value) and kind != "module"


def _look_up(mapping: Mapping[str, Any], name: str) -> Any:
    if name not in mapping or not _is_data(name, mapping[name]):
        known = ", ".join(key for key, value in mapping.items() if _is_data(key, value))
        raise ToolError(f"There is no variable {name[:100]!r}.", f"There are: {shorten(known, 1_000) or 'none'}.")
    return mapping[name]


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        return f"{type(value).__name__} of shape {shape}"
    if isinstance(value, (str, bytes, list, tuple, dict, set, frozenset)):
        return f"{type(value).__name__} of length {len(value)}"
    return type(value).__name__


def _describe(value: Any) -> str:
    statistics = getattr(value, "describe", None)  # pandas, polars
    if callable(statistics):
        return f"{_kind(value)}\n{statistics()}\n{render_value(value).text}"
    if isinstance(value, dict):
        return f"{_kind(value)}; keys: {shorten(to_json([str(key) for key in value]), 1_000)}"
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, (int, float)) for item in value):
        return f"{_kind(value)}; min {min(value)}, max {max(value)}, mean {sum(value) / len(value):g}"
    return f"{_kind(value)}: {shorten(render_value(value).text, 500)}"


calculate = make_tool(_calculate, name="calculate", timeout=10.0)
execute_python = make_tool(_execute_python, name="execute_python", approve="ask")
get_system_info = make_tool(_get_system_info, name="get_system_info", timeout=30.0)
web_search = make_tool(_web_search, name="web_search", timeout=60.0, thread_safe=True)
read_file = make_tool(_read_file, name="read_file")

READY: Mapping[str, Tool] = {tool.name: tool for tool in (calculate, execute_python, get_system_info, web_search, read_file)}
