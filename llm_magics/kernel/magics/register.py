"""The magics and their registration; each magic parses its line and calls the module that does the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, magics_class

from llm_magics.kernel.gauge import start_gauge
from llm_magics.kernel.options import specs
from llm_magics.kernel.page.live import link_of
from llm_magics.kernel.page.shown import start_shown
from llm_magics.kernel.runtime import Runtime

from .completion import start_completion
from .registration import magic, register, start_one_line
from .tools import ToolMagics, start_tools

_NO_MODEL = "none: %load_model NAME"
_RULES_FROM = {
    "kernel": "this kernel's configuration",
    "told": "this kernel's configuration and this page's settings",
    "silent": "this kernel's configuration and a page's last settings; every call needs approval: this page does not answer",
    "none": "this kernel's configuration alone: no page with the llm_magics extension has answered",
}
_KEPT = "the answer so far is kept."
_HELD = "_llm_magics_runtime"  # an attribute of the shell, so that models survive %reload_ext


def load(shell: InteractiveShell) -> None:
    """Register the magics on a shell. Loading again replaces them; models and conversations stay."""
    unload(shell)
    runtime = runtime_of(shell)
    link_of(getattr(shell, "kernel", None))  # now, while it can see which cell runs
    runtime.undo += [start_tools(shell, runtime), start_gauge(runtime), start_completion(runtime)]
    runtime.undo += [start_one_line(shell), start_shown(shell), start_offers(runtime)]
    runtime.undo += [register(shell, magics) for magics in (LanguageModelMagics(shell, runtime), ToolMagics(shell, runtime))]


def unload(shell: InteractiveShell) -> None:
    """Remove the magics. Models stay loaded until the kernel ends or %unload_model."""
    runtime = getattr(shell, _HELD, None)
    while runtime is not None and runtime.undo:
        runtime.undo.pop()()


def runtime_of(shell: Any) -> Runtime:
    """The runtime of this shell's kernel, made on first use."""
    runtime = getattr(shell, _HELD, None)
    if runtime is None:
        runtime = Runtime(shell)
        setattr(shell, _HELD, runtime)
    return runtime


def start_offers(runtime: Runtime) -> Callable[[], None]:
    """Offer, below a cell that failed, the action that fixes it, if there is one; return what ends it."""

    def offer(_: Any) -> None:
        action, runtime.offer = runtime.offer, None
        if action is not None and getattr(runtime.shell, "kernel", None) is not None:  # a terminal has shown it in words
            from llm_magics.views.card import action_bundle

            runtime.shell.display_pub.publish(action_bundle(action.label, action.code))

    runtime.shell.events.register("post_run_cell", offer)
    return lambda: runtime.shell.events.unregister("post_run_cell", offer)


@magics_class
class LanguageModelMagics(Magics):
    """One method for each magic. An LLMMagicsError shows as one sentence, and stops Run All."""

    def __init__(self, shell: InteractiveShell, runtime: Runtime) -> None:
        super().__init__(shell)
        self.runtime = runtime

    @magic(specs.CHAT, _KEPT)
    def chat(self, options: specs.ChatOptions, text: str) -> None:
        from .chat import chat

        chat(self.runtime, options, text)

    @magic(specs.COMPARE, _KEPT)
    def compare(self, options: specs.CompareOptions, text: str) -> None:
        from .compare import compare

        compare(self.runtime, options, text)

    @magic(specs.LOAD_MODEL)
    def load_model(self, options: specs.LoadOptions) -> None:
        from .loads import load_model

        load_model(self.runtime, options)

    @magic(specs.UNLOAD_MODEL)
    def unload_model(self, options: specs.UnloadOptions) -> None:
        names = list(self.runtime.residents) if options.all else [self.runtime.resident(options.name).name]
        for name in names:
            self.runtime.unload(name)
        self.runtime.say(f"Unloaded {', '.join(names) or 'nothing'}.")

    @magic(specs.MODELS)
    def models(self, options: specs.ModelsOptions) -> None:
        from .loads import show_models

        show_models(self.runtime, options.search)

    @magic(specs.THREAD)
    def thread(self, options: specs.ThreadOptions) -> None:
        from .threads import thread_action

        thread_action(self.runtime, options)

    @magic(specs.LLM)
    def llm(self, options: specs.LlmOptions) -> None:
        specs.LLM.action(options.action, {"status": self._status, "doctor": self._doctor, "strip": self._strip})(options.path)

    def _status(self, _: str) -> None:
        from llm_magics.plural import counted
        from llm_magics.views.card import card_bundle

        from .loads import place_of

        runtime = self.runtime
        threads = (f"{name} ({counted(len(thread.session.turns), 'turn')})" for name, thread in runtime.threads.items())
        models = (f"{r.name} {'on' if r.server else 'in'} {place_of(r.model)}" for r in runtime.residents.values())
        rows = [
            ("models", ", ".join(models) or _NO_MODEL),
            ("answers", runtime.current_model),
            ("threads", ", ".join(threads)),
            ("current thread", runtime.current_thread),
            *self.runtime.defaults.rows(),
            *self.runtime.rules.rows(),
            ("rules from", _RULES_FROM[said.standing if (said := self.runtime.page_rules) else "kernel"]),
        ]
        self.runtime.shell.display_pub.publish(card_bundle("llm_magics", rows))

    def _doctor(self, _: str) -> None:
        from llm_magics.doctor.report import report

        places = {r.name: getattr(r.model, "own_process", 0) for r in self.runtime.residents.values()}
        found = report(self.runtime.defaults.model, {name: pid for name, pid in places.items() if pid})
        self.runtime.shell.display_pub.publish({"text/plain": "\n".join(map(str, found))})

    def _strip(self, path: str) -> None:
        from .threads import strip

        strip(self.runtime, path)
