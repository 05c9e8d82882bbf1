"""The magics, and what registers them: each parses its line and calls what does the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from ..errors import OptionError
from .completion import start_completion
from .gauge import start_gauge
from .options import Spec, near
from .plainly import plainly
from .runtime import Runtime
from .specs import CHAT, COMPARE, LLM, LOAD_MODEL, MODELS, SPECS, THREAD, UNLOAD_MODEL
from .tool_magics import register as register_tools

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_HELD = "_llm_magics_runtime"  # on the shell, so that models outlive %reload_ext


def load(shell: InteractiveShell) -> None:
    """Register the magics on a shell. Loading again replaces them; models and conversations stay."""
    unload(shell)
    runtime = runtime_of(shell)
    magics = Magics(runtime)
    for name, spec in SPECS.items():
        magic = _documented(getattr(magics, name), spec)
        shell.magics_manager.register_function(magic, _kind(spec), name)
    runtime.cells.start()
    runtime.undo.append(runtime.cells.stop)
    runtime.undo.append(register_tools(shell, runtime))
    runtime.undo.append(start_gauge(runtime))
    runtime.undo.append(start_completion(runtime))


def unload(shell: InteractiveShell) -> None:
    """Take the magics away. Models stay resident until the kernel ends or %unload_model."""
    runtime = getattr(shell, _HELD, None)
    if runtime is None:
        return
    while runtime.undo:
        runtime.undo.pop()()
    for name, spec in SPECS.items():
        shell.magics_manager.magics[_kind(spec)].pop(name, None)


def runtime_of(shell: Any) -> Runtime:
    """What this shell's kernel holds, made on first use."""
    runtime = getattr(shell, _HELD, None)
    if runtime is None:
        runtime = Runtime(shell)
        setattr(shell, _HELD, runtime)
    return runtime


class Magics:
    """One method for each magic. Errors of ours show as one sentence, and stop Run All like any other."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    def chat(self, line: str, cell: str) -> None:
        from .chat import chat

        with plainly(interrupted="what came so far is kept."):
            chat(self.runtime, CHAT.parse(self._filled(line)), cell)

    def compare(self, line: str, cell: str) -> None:
        from .compare import compare

        with plainly(interrupted="what came so far is kept."):
            compare(self.runtime, COMPARE.parse(self._filled(line)), cell)

    def load_model(self, line: str) -> None:
        from .loads import load_model

        with plainly():
            load_model(self.runtime, LOAD_MODEL.parse(self._filled(line)))

    def unload_model(self, line: str) -> None:
        with plainly():
            options = UNLOAD_MODEL.parse(line)
            names = list(self.runtime.residents) if options.all else [self.runtime.resident(options.name).name]
            for name in names:
                self.runtime.unload(name)
            self._say(f"Unloaded {', '.join(names) or 'nothing'}.")

    def models(self, line: str) -> None:
        from .loads import show_models

        with plainly():
            MODELS.parse(line)
            show_models(self.runtime)

    def thread(self, line: str) -> None:
        from .conversations import thread_action

        with plainly():
            thread_action(self.runtime, THREAD.parse(line))

    def llm(self, line: str) -> None:
        with plainly():
            options = LLM.parse(line)
            actions: dict[str, Callable[[], None]] = {
                "status": self._status,
                "doctor": self._doctor,
                "strip": lambda: self._strip(options.path),
            }
            if options.action not in actions:
                hint = near(options.action, actions) or f"It can: {', '.join(actions)}."
                raise OptionError(f"%llm cannot {options.action!r}.", hint)
            actions[options.action]()

    def _filled(self, line: str) -> str:
        from .braces import fill

        return fill(line, self.runtime.shell.user_ns)

    def _status(self) -> None:
        from ..views.card import card_bundle

        status = self.runtime.status()
        threads = ", ".join(f"{name} ({n} turns)" for name, n in status["threads"].items())
        rows = [
            ("models", ", ".join(status["models"]) or "none: %load_model NAME"),
            ("answers", status["current_model"]),
            ("threads", threads),
            ("current thread", status["current_thread"]),
            *self.runtime.rules.rows(),
        ]
        self.runtime.shell.display_pub.publish(card_bundle("llm_magics", rows))

    def _doctor(self) -> None:
        from ..models.doctor import report

        self.runtime.shell.display_pub.publish({"text/plain": "\n".join(map(str, report()))})

    def _strip(self, path: str) -> None:
        from .conversations import strip

        strip(self.runtime, path)

    def _say(self, text: str) -> None:
        from ..views.card import card_bundle

        self.runtime.shell.display_pub.publish(card_bundle(text, ()))


def _kind(spec: Spec[Any]) -> Literal["line", "cell"]:
    return "cell" if spec.magic.startswith("%%") else "line"


def _documented(method: Callable[..., None], spec: Spec[Any]) -> Callable[..., None]:
    """A function whose docstring is the magic's help, for ``%%chat?``; lines reach it as they were typed."""

    def magic(*arguments: str) -> None:
        method(*arguments)

    magic.__name__ = spec.magic.lstrip("%")
    magic.__doc__ = spec.help()
    magic.__dict__["_ipython_magic_no_var_expand"] = True
    return magic
