"""``%%tool`` and ``%tools``: cells as tools, and lists, tests and explanations of tools."""

from __future__ import annotations

from collections.abc import Callable, Collection
from html import escape

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class

from llm_magics.errors import OptionError
from llm_magics.events import ToolEnd, ToolProgress
from llm_magics.kernel.cells.cellrun import displays_into
from llm_magics.kernel.cells.celltool import Cell, CellTool
from llm_magics.kernel.options.tools import TOOL, TOOLS, read_header
from llm_magics.kernel.page.widgets import ShellAsker
from llm_magics.kernel.runtime import Runtime
from llm_magics.messages import ToolCall
from llm_magics.segments import Step, TextSegment, ToolSegment
from llm_magics.session.history import Turn
from llm_magics.tools.define.registry import registered
from llm_magics.tools.define.tool import Tool
from llm_magics.tools.policy import Asker, Gate, Limits
from llm_magics.tools.results import shorten
from llm_magics.tools.run.deadline import Clock
from llm_magics.tools.run.execute import Runner
from llm_magics.views.secrets.secrets import masked_data, masked_text

from .registration import documented, plainly

_RAW = 2_000  # characters of a model's text that %tools why shows


@magics_class
class ToolMagics(Magics):
    """The magics about tools. The book of cells must be attached, see :func:`start_tools`."""

    def __init__(self, shell: InteractiveShell, runtime: Runtime) -> None:
        super().__init__(shell)
        self.runtime = runtime
        self.book = runtime.cells

    @cell_magic
    @documented(TOOL)
    def tool(self, line: str, cell: str) -> None:
        with plainly(self.runtime):
            current = self.book.current
            made = self.book.define(read_header(line), Cell(cell, current.id, current.tags, current.parent))
            self._show([made])

    @line_magic
    @documented(TOOLS)
    def tools(self, line: str) -> None:
        action, _, rest = line.strip().partition(" ")
        actions: dict[str, Callable[[str], None]] = {
            "": self._list, "list": self._list, "test": self._test, "why": self._why, "set": self._set, "forget": self._forget,
        }  # fmt: skip
        with plainly(self.runtime):
            TOOLS.parse_question(line)  # --help; the rest is read as typed
            TOOLS.action(action, actions)(rest.strip())

    def _list(self, rest: str) -> None:
        self.book.refresh()
        self._show(tuple(registered))

    def _test(self, rest: str) -> None:
        from llm_magics.tools.builtin.selection import select  # the toolbox needs pydantic

        name, _, arguments = rest.partition(" ")
        if not name:
            raise OptionError("%tools test needs a tool's name.", "Write %tools test NAME {json}.")
        tool = select(registered, name)[0]
        end = test(tool, arguments.strip() or "{}", self.runtime.asker, self._print)
        for bundle in end.outputs:
            self.runtime.shell.display_pub.publish(masked_data(dict(bundle)))
        self._print(f"{end.state} in {end.seconds:.2f} s; the model reads:\n{end.result.content}\n")
        for warning in end.warnings:
            self._print(f"({warning})\n")

    def _why(self, rest: str) -> None:
        thread = self.runtime.threads.get(self.runtime.latest_thread)
        self._print(explain(thread.session.turns[-1] if thread is not None and thread.session.turns else None) + "\n")

    def _set(self, rest: str) -> None:
        from llm_magics.tools.builtin.selection import select

        name, _, members = rest.partition(" ")
        names = [member.strip() for member in members.split(",") if member.strip()]
        if not name or not names:
            raise OptionError("%tools set needs a name and tools.", "Write %tools set NAME a,b,c.")
        registered.define_set(name, [tool.name for tool in select(registered, ",".join(names))])

    def _forget(self, rest: str) -> None:
        registered.discard(registered[rest])

    def _show(self, tools: Collection[Tool]) -> None:
        rules, barred = self.runtime.rules, ", barred by the rules of this kernel"
        policies = [policy(tool) + ("" if rules.allows_tool(tool.name) else barred) for tool in tools]
        rows = [(tool.name, tool.signature.text, origin(tool), how) for tool, how in zip(tools, policies, strict=True)]
        if not rows:
            self._print("No tool is registered. Decorate a function with @tool, or begin a cell with %%tool NAME(...).\n")
            return
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        plain = "\n".join("  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]) for row in rows)
        self.runtime.shell.display_pub.publish({"text/plain": plain, "text/html": _table(rows)})

    def _print(self, text: str) -> None:
        print(masked_text(text), end="")  # noqa: T201 (a magic's own output)


def test(tool: Tool, arguments: str, asker: Asker, say: Callable[[str], None]) -> ToolEnd:
    """Run a tool like a model's call: with the same checks, policy and limits."""
    limits = Limits()
    runner = Runner({tool.name: tool}, Gate(), asker, Clock(limits.seconds), limits.result_chars)
    for event in runner.run([ToolCall(tool.name, arguments, id="test")]):
        if isinstance(event, ToolProgress):
            say(event.text)
        if isinstance(event, ToolEnd):
            return event
    raise AssertionError("a call that ended without a ToolEnd")


def origin(tool: Tool) -> str:
    if isinstance(tool, CellTool):
        return "cell, on a copy of the namespace" if tool.scratch else "cell"
    module = getattr(tool.function, "__module__", "") or ""
    return "this notebook" if module == "__main__" else module


def policy(tool: Tool) -> str:
    """A tool's options in a few words."""
    options = tool.options
    words: list[str] = [options.approve]
    words += [f"timeout {options.timeout:g} s"] if options.timeout else []
    words += [f"{options.max_chars:,} characters"] if options.max_chars else []
    words += ["in parallel"] if options.thread_safe else []
    words += ["may repeat"] if options.repeats else []
    words += ["mocked"] if options.mocked else []
    return ", ".join(words)


def _table(rows: list[tuple[str, str, str, str]]) -> str:
    left = "style='text-align:left'"
    head = "".join(f"<th {left}>{name}</th>" for name in ("tool", "source", "approve"))
    body = "".join(
        f"<tr><td {left}><code>{escape(name + signature)}</code></td><td {left}>{escape(source)}</td>"
        f"<td {left}>{escape(rule)}</td></tr>"
        for name, signature, source, rule in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def start_tools(shell: InteractiveShell, runtime: Runtime) -> Callable[[], None]:
    """Attach the book of cells, and let sessions ask for approval; return what ends that."""
    runtime.cells.attach()
    runtime.asker = ShellAsker(shell)
    stop_displays = displays_into(shell)

    def stop() -> None:
        runtime.cells.detach()
        stop_displays()

    return stop


_ANSWER = "This was read as an answer: there is no tool call in it."
_NOTHING = "Nothing of this is an answer or a tool call."


def explain(turn: Turn | None) -> str:
    """Explain why tools were or were not called in a turn."""
    if turn is None:
        return "There is no turn yet: ask something with %%chat first."
    trace = turn.trace
    lines = [f"Turn {trace.turn} with {trace.model}, thread {trace.thread}: {shorten(trace.prompt, 200)!r}", _offered(turn)]
    for number, step in enumerate(trace.steps):
        calls = [segment for segment in trace.tools if segment.step == number]
        lines += ["", f"Step {number + 1} ended with {step.finish_reason!r}. The model wrote:", _raw(turn, step, number)]
        said = any(segment.step == number for segment in trace.segments if isinstance(segment, TextSegment))
        lines += [_call(call) for call in calls] or [_ANSWER if said else _NOTHING]
        lines += [f"Note: {note}" for note in step.notes]
    if not trace.steps:
        lines.append("The model finished no step.")
    return "\n".join(lines)


def _offered(turn: Turn) -> str:
    settings = turn.settings
    if settings is None:
        return "This turn was restored from a notebook, so the tools that were offered are not known."
    if not settings.tools:
        return "No tool was offered (%%chat -t chooses, @tool and %%tool register)."
    names = ", ".join(f"{tool.name}{tool.signature.text}" for tool in settings.tools)
    return f"Offered: {names}\nTool choice: {settings.tool_choice}"


def _raw(turn: Turn, step: Step, number: int) -> str:
    """The step's text as the model wrote it; the visible text if the step has no record of it."""
    raw = step.recording.get("text")
    if not isinstance(raw, str):
        segments = [s for s in turn.trace.segments if getattr(s, "step", -1) == number]
        raw = "".join(s.arguments if isinstance(s, ToolSegment) else getattr(s, "text", "") for s in segments)
    return "\n".join(f"    {line}" for line in shorten(raw, _RAW).split("\n"))


def _call(call: ToolSegment) -> str:
    if call.state == "cut":
        return f"{call.name}: the call was cut off before it was complete, so it did not run."
    how = f"recovered from {call.recovered}" if call.recovered else "written as the model's template wants it"
    trust = ", and asked about because it may be a quotation" if call.ask is not None and not call.trusted else ""
    why = "".join(f" {warning}" for warning in call.warnings)
    return f"{call.name}({call.arguments}): a call, {how}{trust}; {call.state}.{why}"
