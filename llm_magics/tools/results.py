"""A tool's result in two forms: short text for the model, and MIME bundles for the person.

Values of pandas, matplotlib or Pillow are recognised without importing these libraries.
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
NOBODY_ASKED = "nobody could be asked to approve this call"  # in the result of a call that needs approval, without a person
READER_CHARS = 100_000  # of one text output in the trace; with more, nobody can open the notebook
_ROWS = 10  # of a table, for the model
_SIGNATURES = {b"\x89PNG\r\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """A tool's outcome: ``text`` for the model, ``outputs`` for the person. A tool may return one to choose both."""

    text: str
    outputs: tuple[MimeBundle, ...] = ()
    is_error: bool = False
    warnings: tuple[str, ...] = ()


def render(value: Any, printed: str = "") -> ToolOutput:
    """Turn a tool's value into an outcome; without a value, the printed text is the result."""
    if isinstance(value, ToolOutput):
        return value
    if value is None:
        return ToolOutput(printed if printed.strip() else "(done, no value)")
    if isinstance(value, str):
        return ToolOutput(value)
    if isinstance(value, BaseException):
        return render_error(value)
    return _table(value) or _picture(value) or _bytes(value) or _data(value)


def render_error(error: BaseException) -> ToolOutput:
    """Describe an exception: in one line for the model, with its traceback for the person."""
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
    """Cut the middle out of a text of more than ``limit`` characters, and say so in its place."""
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    end = text[len(text) - limit + head :]
    return f"{text[:head]}\n[... {len(text) - limit:,} of {len(text):,} characters left out ...]\n{end}"


def cap(output: ToolOutput, max_chars: int) -> ToolOutput:
    """Shorten an outcome to what the model may read and a notebook can hold. A cut shows in the text and as a warning."""
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
    """Write a value as compact JSON; anything that JSON cannot express is written as text."""
    import json

    from pydantic_core import to_jsonable_python

    plain = to_jsonable_python(value, fallback=_plain, inf_nan_mode="constants", bytes_mode="base64", serialize_unknown=True)
    return json.dumps(plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """The list or number of a numpy array or scalar; the repr of anything else."""
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
    """What an object shows under IPython's display protocol, e.g. a chart's ``_repr_mimebundle_``."""
    if isinstance(value, type):
        return {}
    whole, png = getattr(value, "_repr_mimebundle_", None), getattr(value, "_repr_png_", None)
    try:
        if callable(whole):
            found = whole(include=None, exclude=None)
            found = found[0] if isinstance(found, tuple) else found
            return dict(found) if isinstance(found, Mapping) else {}
        data = png() if callable(png) else None
    except Exception:  # a broken repr must not turn a good result into an error
        return {}
    return {"image/png": _encoded(data), "text/plain": repr(value)} if isinstance(data, bytes) else {}


def _is(value: Any, module: str, name: str) -> bool:
    """Whether ``value`` is an instance of a module's class, if that module is imported."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def _table(value: Any) -> ToolOutput | None:
    if _is(value, "pandas", "Series"):
        value = value.to_frame()
    if not _is(value, "pandas", "DataFrame"):
        return None
    rows, columns = value.shape
    kinds = ", ".join(f"{name} ({kind})" for name, kind in value.dtypes.items())
    more = f"\n({counted(rows - _ROWS, 'more row')})" if rows > _ROWS else ""
    body = value.head(_ROWS).to_csv(index=not _is(value.index, "pandas", "RangeIndex"))
    text = f"A table of {counted(rows, 'row')} and {counted(columns, 'column')}: {kinds}\n{body}{more}".strip()
    bundle = {"text/html": value.to_html(max_rows=20, max_cols=20), "text/plain": value.to_string(max_rows=20, max_cols=20)}
    return ToolOutput(text, (bundle,))


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
        pyplot.close(figure)  # otherwise the inline backend shows it again below the cell
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
    """Describe a matplotlib figure in a few lines, for a model that cannot see it."""
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
