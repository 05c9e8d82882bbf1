"""The toolbox: what it computes and reads, and that hostile arguments reach nothing outside."""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
import venv
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from llm_magics import ScriptedModel, Session
from llm_magics.errors import ToolError
from llm_magics.messages import ToolCall
from llm_magics.tools.builtin import toolbox


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolbox, "settings", toolbox.ToolboxSettings())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inner = tmp_path / "open"
    inner.mkdir()
    (inner / "hello.py").write_text("import sys\nprint('hello', *sys.argv[1:])\n")
    (inner / "fails.py").write_text("raise SystemExit(3)\n")
    (inner / "floods.py").write_text("while True: print('x' * 1000)\n")
    (inner / "notes.txt").write_text("one\ntwo\nthree\n")
    (inner / "binary.bin").write_bytes(bytes(range(256)))
    (tmp_path / "secret.txt").write_text("the secret")
    (tmp_path / "outside.py").write_text("open('ran', 'w')\n")
    toolbox.configure(scripts=inner, files=inner, script_seconds=20, script_bytes=50_000)
    return inner


def run(name: str, arguments: str) -> Any:
    """Call a tool as a model would; give its segment of the trace."""
    session = Session(ScriptedModel([ToolCall(name, arguments), "done"]), toolbox.READY.values(), approve="auto")
    return session.ask("go").trace.tools[0]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("15 * 23 + 47", 392), ("sqrt(144) + 2^3", 20), ("2^3^2", 512), ("2**10", 1024), ("-2^2", -4),
        ("10 / 4", 2.5), ("0.1 + 0.2", 0.3), ("7 // 2", 3), ("7 % 4", 3), ("hex(42 * 18)", "0x2f4"), ("log(e)", 1),
        ("sin(pi / 2)", 1),
        ("factorial(5)", 120), ("round(2.567, 2)", 2.57), ("3 × 4 ÷ 2", 6), ("max(1, 2, 3)", 3), ("sum([1, 2])", 3),
        ("math.sqrt(16)", 4), ("15*3=", 45), ("1e3", 1000),
    ],
)  # fmt: skip
def test_calculate_gives_the_value(expression: str, value: object) -> None:
    assert toolbox.calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "9^9^9^9", "10**5000 * 10**5000", "factorial(10^6)", "1/0", "__import__('os')", "().__class__", "'a' * 9",
        "[1] * 10**9",
        "lambda: 1", "x", "open('/etc/passwd')", "(" * 3000, "1 if True else 2", "sqrt(-1)", "(-8)^0.5", "",
        "1\0", "True", "2j",
        "f(x=1)", "sqrt(2", "comb(10^9, 5)", "inf - inf > 0", "exec('1')",
    ],
)  # fmt: skip
def test_calculate_refuses_what_is_no_arithmetic_or_too_large(expression: str) -> None:
    with pytest.raises(ToolError):
        toolbox.calculate(expression)


def test_a_script_runs_by_name_with_its_arguments_as_a_list(folder: Path) -> None:
    line = '{"script_name": "hello", "arguments": "a \'b c\' $HOME; ls"}'
    assert run("execute_python", line).result == "hello a b c $HOME; ls"
    assert run("execute_python", '{"script_name": "hello.py", "arguments": ["x", 2]}').result == "hello x 2"


def test_a_script_that_fails_or_floods_is_an_error_result(folder: Path) -> None:
    failed = run("execute_python", '{"script_name": "fails.py"}')
    assert (failed.state, "exit code 3" in failed.result) == ("failed", True)
    flooded = run("execute_python", '{"script_name": "floods.py"}')
    assert (flooded.state, "more than 50,000 bytes" in flooded.result) == ("failed", True)


def test_a_script_that_hangs_is_stopped(folder: Path) -> None:
    (folder / "hangs.py").write_text("import time\ntime.sleep(1000)\n")
    toolbox.configure(script_seconds=0.5)
    hung = run("execute_python", '{"script_name": "hangs.py"}')
    assert (hung.state, "did not end in time" in hung.result) == ("failed", True)


def test_a_script_does_not_see_the_keys_of_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-123")
    (folder / "env.py").write_text("import os\nprint(os.environ.get('SOME_API_KEY'))\n")
    assert run("execute_python", '{"script_name": "env.py"}').result == "None"


def test_files_are_read_in_pieces(folder: Path) -> None:
    assert run("read_file", '{"path": "notes.txt"}').result == "one\ntwo\nthree"
    assert run("read_file", '{"path": "notes.txt", "first_line": 2, "max_lines": 1}').result == "two\n(1 more lines)"
    assert "not a text file" in run("read_file", '{"path": "binary.bin"}').result
    assert "There are: " in run("read_file", '{"path": "nope.txt"}').result


def test_what_reaches_outside_is_off_until_it_is_opened() -> None:
    calls = [("execute_python", '{"script_name": "x"}'), ("read_file", '{"path": "x"}'), ("web_search", '{"query": "x"}')]
    for name, arguments in calls:
        segment = run(name, arguments)
        assert (segment.state, "toolbox.configure" in segment.result) == ("failed", True)


def test_system_info_tells_what_was_asked() -> None:
    assert set(json.loads(run("get_system_info", '{"info_type": "memory"}').result)) == {"memory"}
    assert set(json.loads(run("get_system_info", "{}").result)) == {"cpu", "memory", "disk", "gpu"}
    assert run("get_system_info", '{"info_type": "passwords"}').state == "failed"


def test_search_addresses_carry_the_query_escaped() -> None:
    assert toolbox.search_url("https://s.example", "a b&c=/", 3) == "https://s.example/search?q=a%20b%26c%3D%2F&format=json"
    assert toolbox.search_url("https://s.example/?x={query}&n={num_results}", "q", 3) == "https://s.example/?x=q&n=3"
    with pytest.raises(ToolError, match="https"):
        toolbox.configure(search="file:///etc/passwd")


class Service(BaseHTTPRequestHandler):
    """A search service: results as SearXNG words them at /search, as somebody else does at /other, and no JSON elsewhere."""

    answers: ClassVar[dict[str, Any]] = {
        "/search": {"query": "q", "results": [{"title": f"T{n}", "url": f"https://{n}.example", "content": "s" * 900}
                                              for n in range(9)]},
        "/other": [{"name": "N", "link": "https://n.example", "snippet": "short"}, {"no": "address"}],
    }  # fmt: skip

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(self.answers[path]).encode() if path in self.answers else b"<html>")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_any_service_that_answers_in_json_can_be_searched(service: str) -> None:
    toolbox.configure(search=service)
    found = json.loads(run("web_search", '{"query": "a & b", "num_results": 3}').result)
    assert [hit["title"] for hit in found] == ["T0", "T1", "T2"]
    assert len(found[0]["snippet"]) < 400
    toolbox.configure(search=service + "/other?find={query}&n={num_results}")
    assert json.loads(run("web_search", '{"query": "x"}').result) == [
        {"title": "N", "url": "https://n.example", "snippet": "short"}
    ]


def test_a_search_that_fails_is_a_readable_result(service: str) -> None:
    for address in (service + "/nothing?q={query}", "http://127.0.0.1:9/search?q={query}"):
        toolbox.configure(search=address)
        failed = run("web_search", '{"query": "x"}')
        assert (failed.state, "did not answer" in failed.result) == ("failed", True)


def test_a_script_runs_in_a_declared_virtual_environment_and_in_no_other(folder: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "mine", with_pip=False)
    (folder / "where.py").write_text("import sys\nprint(sys.prefix)\n")
    toolbox.configure(venvs=[tmp_path / "mine"])
    for given in ("mine", str(tmp_path / "mine")):
        ran = run("execute_python", json.dumps({"script_name": "where", "venv_path": given}))
        assert (ran.state, ran.result) == ("done", str(tmp_path / "mine"))
    for given in ("../mine", "/usr", "", "mine/../mine"):
        ran = run("execute_python", json.dumps({"script_name": "where", "venv_path": given}))
        assert ran.result != str(tmp_path / "mine")
        assert ran.state == ("failed" if given else "done")


def test_namespace_tools_look_names_up_and_evaluate_nothing() -> None:
    namespace = {"xs": [1, 2, 3], "_hidden": 1, "text": "hello", "module": json}
    tools = {tool.name: tool for tool in toolbox.namespace_tools(namespace)}
    assert tools["list_variables"]() == {"xs": "list of length 3", "text": "str of length 5"}
    assert tools["read_variable"]("xs") == [1, 2, 3]
    assert "mean 2" in tools["describe_variable"]("xs")
    for name in ("_hidden", "xs[0]", "xs.__class__", "module", "__import__('os')"):
        with pytest.raises(ToolError):
            tools["read_variable"](name)


HOSTILE_TEXTS = [
    "../secret.txt", "../../etc/passwd", "/etc/passwd", "..\\secret.txt", "open/../../secret.txt", "link.txt", "a\0b", "\0",
    "; touch ran", "$(touch ran)", "`touch ran`", "| touch ran", "&& touch ran", "> ran", "../outside.py", "../outside",
    "~/.ssh/id_rsa", "file:///etc/passwd", "C:\\Windows\\win.ini", "\\\\host\\share", "x" * 5000, "\u202e", "-c import os", "",
    "{query}", "%2e%2e/secret.txt", "notes.txt/../../secret.txt", "__import__('os').system('touch ran')", "\n", "CON",
]  # fmt: skip
HOSTILE_VALUES: list[Any] = [
    10**400, -(10**400), 1e308, [], {}, [[[[[]]]]], {"a": {"b": {}}}, None, True, ["../outside.py"],
    {"script_name": "x"}, "9^9^9^9^9",
]  # fmt: skip
FIELDS = {
    "execute_python": ("script_name", "venv_path"), "read_file": ("path",), "calculate": ("expression",),
    "get_system_info": ("info_type",),
}  # fmt: skip


def hostile_calls() -> Iterator[tuple[str, str]]:
    """At least 200 sets of arguments, each naming one tool."""
    for (name, names), value in itertools.product(FIELDS.items(), [*HOSTILE_TEXTS, *HOSTILE_VALUES]):
        for field in names:
            given = {"script_name": "hello.py"} if field == "venv_path" else {}
            fine = (field == "venv_path" and value == "") or (name == "calculate" and type(value) in (int, float))
            if not fine:  # no environment is the default one, and a number is its own value
                yield name, json.dumps({**given, field: value})
    yield from ((name, text) for name in FIELDS for text in ("[" * 20_000, "{", "null", "[1]", '"x"', '{"nope": 1}'))


def test_two_hundred_hostile_argument_sets_touch_nothing_and_start_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "link.txt").symlink_to(folder.parent / "secret.txt")
    started: list[Any] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kwargs: started.append(args))
    before = sorted(path.name for path in folder.parent.rglob("*"))
    cases = list(hostile_calls())
    assert len(cases) >= 200
    for name, arguments in cases:
        segment = run(name, arguments)
        assert (segment.state, segment.is_error) == ("failed", True), (name, arguments[:80], segment.result)
        assert "the secret" not in segment.result
        assert "Traceback" not in segment.result
    assert started == []
    assert sorted(path.name for path in folder.parent.rglob("*")) == before


def test_the_toolbox_has_a_short_public_name() -> None:
    from llm_magics import tools

    assert tools.toolbox is toolbox
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tools.nothing  # noqa: B018 (an attribute that there is not)
