"""What a function tool displays (``display(...)``, inline figures) belongs to its call, as its prints do."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from IPython.core.interactiveshell import InteractiveShell

from llm_magics.tools.run.capture import Sink, surroundings

from .cellrun import Displayed, put


def displays_into(shell: InteractiveShell) -> Callable[[], None]:
    """Have displays of running tools go to their call's outputs; gives what ends that."""

    @contextlib.contextmanager
    def caught(sink: Sink) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # the shell's publisher is one for all threads: swapping it would catch others' displays
            return
        with put(shell, "display_pub", Displayed(sink.outputs)):
            yield

    surroundings.append(caught)
    return lambda: surroundings.remove(caught)
