"""``%thread``: show, fork, reset and export conversations, and restore them from a saved notebook; ``%llm strip``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llm_magics.errors import OptionError
from llm_magics.kernel.options.specs import THREAD, ThreadOptions
from llm_magics.kernel.runtime import Runtime, Thread
from llm_magics.notebooks import read_notebook, saved_transcripts
from llm_magics.notebooks import strip as strip_notebook
from llm_magics.plural import counted
from llm_magics.transcript import Transcript
from llm_magics.views.card import table_bundle
from llm_magics.views.secrets.secrets import masked
from llm_magics.views.text.lines import ENDINGS
from llm_magics.views.text.plain import transcript_markdown

_HEAD = 60  # characters of a message in %thread's table


def thread_action(runtime: Runtime, options: ThreadOptions) -> None:
    actions = {action.__name__: action for action in (show, use, fork, pick, reset, export, restore)} | {"list": list_threads}
    THREAD.action(options.action, actions)(runtime, options)


def show(runtime: Runtime, options: ThreadOptions) -> None:
    thread = runtime.known_thread(options.thread or options.name)
    rows = []
    for turn in thread.session.turns:
        trace = turn.trace
        calls = f" [{counted(len(trace.tools), 'tool call')}]" if trace.tools else ""
        tokens = f"{trace.usage.completion_tokens:,}"
        rows.append([turn.id, _head(trace.prompt), _head(trace.text) + calls, ENDINGS[trace.state] or "done", tokens])
    system = thread.session.settings.system
    note = f"thread {thread.name!r}, {counted(len(rows), 'turn')}" + (f"; system prompt: {_head(system)}" if system else "")
    runtime.shell.display_pub.publish(table_bundle(["turn", "you", "answer", "ended", "tokens"], rows, note))


def list_threads(runtime: Runtime, options: ThreadOptions) -> None:
    rows = [
        [("* " if name == runtime.current_thread else "  ") + name, f"{len(thread.session.turns)}", thread.session.model.name]
        for name, thread in runtime.threads.items()
    ]
    note = "" if rows else "No thread yet."
    runtime.shell.display_pub.publish(table_bundle(["thread (* current)", "turns", "model"], rows, note))


def use(runtime: Runtime, options: ThreadOptions) -> None:
    runtime.current_thread = runtime.known_thread(_needed(options, "thread")).name
    runtime.say(f"Now in thread {runtime.current_thread!r}.")


def fork(runtime: Runtime, options: ThreadOptions) -> None:
    source = runtime.known_thread(options.thread)
    name = options.name or next(n for n in (f"{source.name}-{i}" for i in range(2, 10_000)) if n not in runtime.threads)
    if name in runtime.threads:
        raise OptionError(f"Thread {name!r} already exists.", "Choose another name, or %thread reset that one.")
    runtime.threads[name] = Thread(name, source.session.fork(name))
    runtime.current_thread = name
    n_turns = counted(len(source.session.turns), "turn")
    runtime.say(f"Now in thread {name!r}, which begins with {n_turns} of {source.name!r}.")


def pick(runtime: Runtime, options: ThreadOptions) -> None:
    thread = runtime.known_thread(options.thread)
    if thread.samples is None:
        raise OptionError(f"The newest turn of {thread.name!r} has one answer.", "%%chat --samples 5 asks for several.")
    if not options.name.isdecimal():
        raise OptionError("%thread pick needs the number of an answer.", "The first answer is 1.")
    thread.samples.pick(int(options.name))
    runtime.say(f"Thread {thread.name!r} continues with answer {options.name}.")


def reset(runtime: Runtime, options: ThreadOptions) -> None:
    thread = runtime.known_thread(options.thread or options.name)
    thread.session.reset()
    runtime.say(f"Thread {thread.name!r} is empty again.")


def export(runtime: Runtime, options: ThreadOptions) -> None:
    thread = runtime.known_thread(options.thread)
    path = Path(options.name or f"{thread.name}.json").expanduser()
    traces = [masked(turn.trace) for turn in thread.session.turns]
    if path.suffix == ".md":
        text = "\n\n---\n\n".join(f"**You:** {trace.prompt}\n\n{transcript_markdown(trace)}" for trace in traces) + "\n"
    else:
        text = json.dumps([trace.to_json() for trace in traces], ensure_ascii=False, indent=1) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OptionError(f"{path} cannot be written: {error}.", "Choose another file.") from error
    runtime.say(f"Wrote {counted(len(traces), 'turn')} to {path}.")


def restore(runtime: Runtime, options: ThreadOptions) -> None:
    path = notebook_path(runtime.shell, options.name)
    saved = [t for t in saved_transcripts(read_notebook(path)) if not options.thread or t.thread == options.thread]
    if not saved:
        raise OptionError(f"{path.name} has no saved conversation.", "Save the notebook after its %%chat cells have run.")
    found: dict[str, int] = {}
    for name in dict.fromkeys(trace.thread for trace in saved):
        turns = in_conversation([trace for trace in saved if trace.thread == name])
        model = runtime.resident().model
        thread = runtime.enter(runtime.thread(name, model), model)
        thread.session.restore(turns)
        thread.systems = {t.turn: str(t.settings["system"]) for t in turns if "system" in t.settings}
        if thread.systems:
            thread.session.configure(system=thread.system_at(thread.session.turns))
        for trace in turns:
            thread.made(str(trace.settings.get("cell") or ""), trace.turn, -1)
        found[name] = len(turns)
    runtime.current_thread = runtime.latest_thread = saved[-1].thread
    runtime.say("Restored " + ", ".join(f"{counted(n, 'turn')} of thread {name!r}" for name, n in found.items()) + ".")


def in_conversation(traces: Iterable[Transcript]) -> list[Transcript]:
    """Put one thread's saved turns in order, by their ``after``; turns of replaced conversations drop out. Without ``after``,
    which ``strip`` removes, they keep the notebook's order."""
    traces = list(traces)
    if any("after" not in trace.settings for trace in traces):
        return traces
    following = {str(trace.settings["after"]): trace for trace in traces}
    ordered: list[Transcript] = []
    while (trace := following.pop(ordered[-1].turn if ordered else "", None)) is not None:
        ordered.append(trace)
    return ordered


def notebook_path(shell: Any, given: str = "") -> Path:
    """The notebook's file: the given one, or this kernel's own as the server or VS Code names it."""
    said = given or os.environ.get("JPY_SESSION_NAME") or shell.user_ns.get("__vsc_ipynb_file__") or ""
    if not said:
        raise OptionError("This kernel does not know the file of its notebook.", "Give the file's path.")
    path = Path(str(said)).expanduser()
    if not path.is_file():
        raise OptionError(f"There is no notebook {path}.", "Check the path.")
    return path


def strip(runtime: Runtime, path_given: str = "") -> None:
    """Remove the records (prompts, settings, token ids) from a notebook's file; the visible answers stay."""
    runtime.say(str(strip_notebook(notebook_path(runtime.shell, path_given))))


def _needed(options: ThreadOptions, what: str) -> str:
    if not options.name:
        raise OptionError(f"%thread {options.action} needs the name of a {what}.", f"Write %thread {options.action} NAME.")
    return options.name


def _head(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _HEAD else line[: _HEAD - 1] + "…"
