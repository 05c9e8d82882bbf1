"""``%%compare``: one question to several models, or to one model with several settings, outside of any conversation."""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from llm_magics.errors import OptionError
from llm_magics.kernel.options.braces import fill
from llm_magics.kernel.options.specs import CompareOptions
from llm_magics.kernel.runtime import Runtime, Thread

from .chat import Asked, keeping, prepare
from .sidebyside import Answer, columns_view, replies_of, run

if TYPE_CHECKING:
    from llm_magics.session.session import Reply

_MOST = 16
_SHORT = {"temperature": "temp"}


def compare(runtime: Runtime, options: CompareOptions, body: str) -> list[Reply]:
    """Run the cell for each column; return the Replies. Raises LLMMagicsError; nothing was sent if the cell is at fault."""
    columns, common, seeds = options.columns(), options.common, options.values.get("seed", ())
    if len(columns) < 2:
        raise OptionError("There is nothing to compare.", "Give an option twice, e.g. -m A -m B or --temp 0 --temp 1.")
    if len(columns) > _MOST:
        raise OptionError(f"The options make {len(columns)} columns.", f"Compare at most {_MOST}.")
    text = fill(body, runtime.shell.user_ns)
    asked = [prepare(runtime, chosen, text) for _, chosen in columns]
    seed = seeds[0] if len(seeds) == 1 else random.SystemRandom().getrandbits(32)
    thread = runtime.enter(asked[0].thread, asked[-1].resident.model)
    answers = [_answer(own, one, thread, seed, bool(common.thread)) for (own, _), one in zip(columns, asked, strict=True)]
    note = "" if len(seeds) > 1 else f"All with seed {seed}. "
    turns = [answer.turn for answer in answers]
    runtime.made_aside(asked[0].cell, turns, answers[0].session)
    view = None if common.quiet else columns_view(runtime, asked[0].options, asked[0].cell)
    with keeping(runtime, common, answers[0].session, turns, lambda: replies_of(answers)), ExitStack() as in_use:
        for one in asked:
            in_use.enter_context(runtime.using(one.resident))
        return run(answers, asked[0].text, view, f"{note}No conversation has changed.")


def _answer(own: Mapping[str, Any], asked: Asked, thread: Thread, seed: int, on_top: bool) -> Answer:
    before = thread.session.turns if on_top else ()
    session = thread.session.fork(f"{thread.name}/compare", turns=before, model=asked.resident.model)
    overrides = asked.overrides if "seed" in own else {**asked.overrides, "seed": seed}
    record = {"cell": asked.cell, "aside": True, "system": session.settings.system, "options": dict(own)}
    return Answer(_heading(own), session, uuid.uuid4().hex[:12], overrides, None, record)


def _heading(own: Mapping[str, Any]) -> str:
    """E.g. ``qwen2.5-coder-0.5b · temp 0``."""
    parts = []
    for name, value in own.items():
        shown = ("off", "on")[value] if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
        shown = shown if len(shown) <= 40 else f"{shown[:39]}…"
        parts.append(shown if name == "model" else f"{_SHORT.get(name, name.replace('_', ' '))} {shown}")
    return " · ".join(parts)
