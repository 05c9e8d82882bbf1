"""``%%chat`` in plain IPython, in a real terminal: rich text as it is written, and a row for each tool call."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pexpect = pytest.importorskip("pexpect", reason="a terminal of its own needs a POSIX system")

SCRIPT = '''
from llm_magics import ScriptedModel, ToolCall, tool
shell = get_ipython()
shell.run_line_magic("load_ext", "llm_magics")
@tool(approve="auto")
def weather(city: str) -> str:
    "Tell the weather."
    return "rain"
model = ScriptedModel([ToolCall("weather", '{"city": "Oslo"}'), "It is **cold**.\\n\\n- take an umbrella\\n"])
shell.run_cell_magic("chat", "-m model", "How is the weather?")
'''


APPROVAL = """
import json
from llm_magics import ScriptedModel, ToolCall, tool
shell = get_ipython()
shell.run_line_magic("load_ext", "llm_magics")
@tool(approve="ask")
def login(password: str) -> str:
    "Log in."
    print("logged in with", len(password), "characters")
    return "Hello."
secret = "yrettab-esroh-tcerroc"[::-1]
model = ScriptedModel([ToolCall("login", json.dumps({"password": secret})), "Done."])
shell.run_cell_magic("chat", "-m model -t login", "Log in.")
"""


@pytest.mark.kernel
@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of its own needs a POSIX system")
@pytest.mark.parametrize(("typed", "ran"), [("y", True), ("n", False)])
def test_a_terminal_asks_about_a_call_as_it_is(tmp_path: Path, typed: str, ran: bool) -> None:
    script = tmp_path / "chat.py"
    script.write_text(APPROVAL, encoding="utf-8")
    environment = {**os.environ, "TERM": "xterm", "IPYTHONDIR": str(tmp_path), "NO_COLOR": ""}
    command = f"{sys.executable} -m IPython --no-banner {script}"
    events = {"for this turn: ": f"{typed}\n"}
    shown, status = pexpect.run(
        command, timeout=120, withexitstatus=True, dimensions=(40, 100), env=environment, events=events
    )
    lines = shown.decode("utf-8", "replace")
    assert status == 0, lines
    assert lines.count("correct-horse-battery") == 1, "the question alone shows it as it is"
    assert 'The model wants to run:' in lines
    assert 'login(password="correct-horse-battery")' in lines
    assert ("logged in with 21 characters" in lines) == ran


@pytest.mark.kernel
@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of its own needs a POSIX system")
def test_a_terminal_shows_rich_text_and_tool_rows(tmp_path: Path) -> None:
    script = tmp_path / "chat.py"
    script.write_text(SCRIPT, encoding="utf-8")
    environment = {**os.environ, "TERM": "xterm", "IPYTHONDIR": str(tmp_path), "NO_COLOR": ""}
    command = f"{sys.executable} -m IPython --no-banner {script}"
    shown, status = pexpect.run(command, timeout=120, withexitstatus=True, dimensions=(40, 100), env=environment)
    lines = shown.decode("utf-8", "replace")
    assert status == 0, lines
    assert '→ weather(city="Oslo")' in lines
    assert "\x1b[1mcold\x1b[0m" in lines
    assert "•" in lines
    assert "**cold**" not in lines.split("\x1b[1mcold")[-1]  # what was written meanwhile is gone from the screen
