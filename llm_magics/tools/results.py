"""What a tool gave, twice: as text for the model, short, and as MIME bundles for the person.

Libraries are recognised by what is already imported: no tool result makes this module import pandas, matplotlib or Pillow.
"""

from __future__ import annotations

import base64
import io
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from llm_magics.errors import LLMMagicsError
from llm_magics.plural import counted

MimeBundle = Mapping[str, Any]
NOBODY_ASKED = "nobody could be asked to approve this call"
"""Why a call that needs a yes did not run where there is no person; in its result."""

READER_CHARS = 100_000  # of one text output in the trace; more makes a notebook that nobody can open
_ROWS = 10  # of a table, for the model
_SIGNATURES = {b"\x89PNG\r\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """A tool's outcome: ``text`` for the model, ``outputs`` for the person. A tool may return one itself to decide both."""

    text: str
    outputs: tuple[MimeBundle, ...] = ()
    is_error: bool = False
    warnings: tuple[str, ...] = ()


def render(value: Any, printed: str = "") -> ToolOutput:
    """Turn a tool's value into an outcome; where there is no value, what it printed is the result."""
    if isinstance(value, ToolOutput):
        return value
    if value is None:
        return ToolOutput(printed if printed.strip() else "(done, no value)")
    if isinstance(value, str):
        return ToolOutput(value)
    if isinstance(value, BaseException):
        return render_error(value)
    for kind in (_table, _picture, _bytes):
        output = kind(value)
        if output is not None:
            return output
    return _data(value)


def render_error(error: BaseException) -> ToolOutput:
    """Word an exception for the model in a line, for the person with its traceback."""
    if isinstance(error, LLMMagicsError):
        return ToolOutput(f"Error: {error}", is_error=True)
    if isinstance(error, SystemExit):
        return ToolOutput(f"Error: the tool asked Python to exit (code {error.code!r}); nothing was stopped.", is_error=True)
    line = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "llm_magics" not in frame.filename.replace("\\", "/").split("/")[:-1]]
    text = "".join([*traceback.format_list(own or frames), *traceback.format_exception_only(error)])
    return ToolOutput(f"Error: {line}", ({"text/plain": shorten(text, READER_CHARS)},), is_error=True)


def shorten(text: str, limit: int) -> str:
    """Cut the middle out of ``text`` where it is longer than ``limit`` characters, and say so."""
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    tail = limit - head
    end = text[-tail:] if tail else ""
    return f"{text[:head]}\n[... {len(text) - limit:,} of {len(text):,} characters left out ...]\n{end}"


def cap(output: ToolOutput, max_chars: int) -> ToolOutput:
    """Hold an outcome to what the model may read and the notebook can carry; a cut is said in the text and as a warning."""
    outputs = tuple(
        {mime: shorten(data, READER_CHARS) if isinstance(data, str) and mime.startswith("text/plain") else data
         for mime, data in bundle.items()}
        for bundle in output.outputs
    )  # fmt: skip
    if len(output.text) <= max_chars:
        return replace(output, outputs=outputs)
    warning = f"The model was given {max_chars:,} of the result's {len(output.text):,} characters."
    if not outputs:
        outputs = ({"text/plain": shorten(output.text, READER_CHARS)},)
    return replace(output, text=shorten(output.text, max_chars), outputs=outputs, warnings=(*output.warnings, warning))


def to_json(value: Any) -> str:
    """Write a value as compact JSON; what JSON does not know is written as text."""
    import json

    from pydantic_core import to_jsonable_python

    plain = to_jsonable_python(value, fallback=_plain, inf_nan_mode="constants", bytes_mode="base64", serialize_unknown=True)
    return json.dumps(plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Make an array or a scalar of numpy's kind a list or a number, anything else its repr."""
    to_list = getattr(value, "tolist", None)
    return to_list() if callable(to_list) else repr(value)


def _data(value: Any) -> ToolOutput:
    try:
        text = to_json(value)
    except (ValueError, TypeError, RecursionError):
        text = repr(value)
    bundle = _own_bundle(value)
    return ToolOutput(text, (bundle,) if bundle else ())


def _own_bundle(value: Any) -> MimeBundle:
    """What an object says of itself in IPython's protocol, e.g. a chart's ``_repr_mimebundle_``."""
    whole = getattr(value, "_repr_mimebundle_", None)
    if callable(whole) and not isinstance(value, type):
        try:
            found = whole(include=None, exclude=None)
        except Exception:  # a broken repr must not turn a good result into an error
            return {}
        found = found[0] if isinstance(found, tuple) else found
        return dict(found) if isinstance(found, Mapping) else {}
    png = getattr(value, "_repr_png_", None)
    if callable(png) and not isinstance(value, type):
        try:
            data = png()
        except Exception:  # as above
            return {}
        if isinstance(data, bytes):
            return {"image/png": _encoded(data), "text/plain": repr(value)}
    return {}


def _is(value: Any, module: str, name: str) -> bool:
    """Whether ``value`` is an instance of a class of a module, if that module was ever imported."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def _table(value: Any) -> ToolOutput | None:
    if _is(value, "pandas", "Series"):
        value = value.to_frame()
    if not _is(value, "pandas", "DataFrame"):
        return None
    rows, columns = value.shape
    kinds = ", ".join(f"{name} ({kind})" for name, kind in value.dtypes.items())
    shown = value.head(_ROWS)
    more = f"\n({counted(rows - _ROWS, 'more row')})" if rows > _ROWS else ""
    body = shown.to_csv(index=not _plain_index(value))
    text = f"A table of {counted(rows, 'row')} and {counted(columns, 'column')}: {kinds}\n{body}{more}".strip()
    bundle = {"text/html": value.to_html(max_rows=20, max_cols=20), "text/plain": value.to_string(max_rows=20, max_cols=20)}
    return ToolOutput(text, (bundle,))


def _plain_index(table: Any) -> bool:
    return _is(table.index, "pandas", "RangeIndex")


def _picture(value: Any) -> ToolOutput | None:
    if _is(value, "PIL.Image", "Image"):
        buffer = io.BytesIO()
        (value if value.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I") else value.convert("RGB")).save(buffer, "PNG")
        return _image(f"A picture, {value.width} x {value.height} pixels, mode {value.mode}.", buffer.getvalue())
    figure = value if _is(value, "matplotlib.figure", "Figure") else None
    if figure is None and _is(value, "matplotlib.axes", "Axes"):
        figure = value.get_figure()
    if figure is None:
        return None
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", dpi=96)
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close(figure)  # else the inline backend shows it a second time below the cell
    return _image(describe_figure(figure), buffer.getvalue())


def _image(text: str, png: bytes) -> ToolOutput:
    return ToolOutput(text, ({"image/png": _encoded(png), "text/plain": text},))


def _bytes(value: Any) -> ToolOutput | None:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        return None
    data = bytes(value)
    for start, mime in _SIGNATURES.items():
        if data.startswith(start):
            text = f"A picture ({mime}), {len(data):,} bytes."
            return ToolOutput(text, ({mime: _encoded(data), "text/plain": text},))
    return ToolOutput(f"{len(data):,} bytes, beginning with {data[:32].hex(' ')}")


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def describe_figure(figure: Any) -> str:
    """Say in a few lines what a matplotlib figure shows, for a model that cannot see it."""
    axes = figure.get_axes()
    lines = [f"A figure with {counted(len(axes), 'plot')}."]
    for ax in axes:
        kinds = {"line": ax.lines, "bar": ax.patches, "set of shapes": ax.collections, "image": ax.images}
        several = {"set of shapes": "sets of shapes"}
        drawn = ", ".join(counted(len(d), kind, several.get(kind, "")) for kind, d in kinds.items() if len(d)) or "nothing"
        labels = ", ".join(f"{side} axis: {text}" for side, text in (("x", ax.get_xlabel()), ("y", ax.get_ylabel())) if text)
        title = f'"{ax.get_title()}"' if ax.get_title() else "Untitled plot"
        lines.append(f"{title}: {drawn}{'; ' + labels if labels else ''}.")
    return "\n".join(lines)
