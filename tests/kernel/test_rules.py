"""What a teacher fixed in the configuration holds against magics and page; what a user set in the page can only tighten it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from traitlets.config import Application, Config

from llm_magics import ScriptedModel
from llm_magics.errors import LLMMagicsError, OptionError
from llm_magics.kernel.rules import DEFAULTS, LLMMagics, Rules, configured, names_of
from llm_magics.kernel.runtime import Runtime
from llm_magics.models.remote.address import read_address
from llm_magics.session.settings import TurnSettings
from llm_magics.tools.define.tool import as_tool
from llm_magics.tools.policy import Limits

from .front_end import Page
from .notebook import Notebook, notebook

USUAL = TurnSettings()


def rules(**said: Any) -> Rules:
    return Rules.of(said, "the test")


# --- one set of rules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("floor", "asked", "usual", "holds"),
    [
        ("auto", None, None, None),
        ("auto", "auto", None, "auto"),
        ("auto", "deny", None, "deny"),
        ("ask", None, None, "ask"),
        ("ask", "ask", None, "ask"),
        ("ask", "deny", None, "deny"),
        ("ask", None, "auto", "ask"),
        ("ask", None, "deny", "deny"),
        ("deny", None, None, "deny"),
        ("ask", "auto", None, OptionError),
        ("deny", "ask", None, OptionError),
        ("deny", "auto", "deny", OptionError),
    ],
)
def test_approval_never_falls_below_its_floor(floor: str, asked: str | None, usual: Any, holds: Any) -> None:
    given = {} if asked is None else {"approve": asked}
    turn = lambda: rules(approve=floor).for_turn(given, TurnSettings(approve=usual))  # noqa: E731
    if holds is OptionError:
        with pytest.raises(OptionError, match=f"--approve {asked} is looser.*at least {floor}"):
            turn()
    else:
        assert turn().get("approve") == holds


def test_limits_take_the_smaller_number_and_keep_what_no_rule_names() -> None:
    held = rules(max_steps=4, max_seconds=60).for_turn({}, TurnSettings(limits=Limits(steps=2, tokens=100, seconds=None)))
    assert held["limits"] == Limits(steps=2, tokens=100, seconds=60)
    assert "limits" not in rules().for_turn({}, USUAL)


def test_a_limit_of_calls_holds_for_recovered_ones_too_and_loosens_neither() -> None:
    held = [rules(max_calls=most).for_turn({}, TurnSettings())["limits"] for most in (5, 20, 50)]
    assert [(one.calls, one.recovered_calls) for one in held] == [(5, 5), (20, 8), (32, 8)]
    turn = TurnSettings().override(**rules(max_calls=20).for_turn({"max_calls": 12}, TurnSettings()))
    assert (turn.limits.calls, turn.limits.recovered_calls) == (12, 12)


@pytest.mark.parametrize(
    ("rule", "option"), [("max_steps", "max_steps"), ("max_calls", "max_calls"), ("max_tokens", "max_tokens")]
)
def test_asking_for_more_than_a_limit_is_refused_and_for_less_is_not(rule: str, option: str) -> None:
    assert rules(**{rule: 5}).for_turn({option: 5}, USUAL)[option] == 5
    with pytest.raises(OptionError, match=f"--{option.replace('_', '-')} 6 is more than .* 5"):
        rules(**{rule: 5}).for_turn({option: 6}, USUAL)


def lookup(word: str) -> str:
    "Look a word up."
    return word


def plot(column: str) -> str:
    "Plot a column."
    return column


def test_a_tool_that_is_barred_is_not_offered_and_refused_by_name() -> None:
    tools = (as_tool(lookup), as_tool(plot))
    held = rules(allowed_tools=["look*"])
    assert [tool.name for tool in held.tools_for(tools, named=False)] == ["lookup"]
    with pytest.raises(OptionError, match=r"'plot'.*They allow look\*"):
        held.tools_for(tools, named=True)
    assert rules().tools_for(tools, named=True) == tools


def test_the_stricter_word_of_two_holds() -> None:
    teacher = rules(approve="ask", allowed_models=["smollm2-*"], max_steps=5, max_tokens=100)
    pupil = rules(approve="auto", allowed_models=["*-135m", "qwen*"], max_steps=9, max_seconds=10)
    for both in (teacher.tightened(pupil), pupil.tightened(teacher)):
        assert both.approve == "ask"
        assert both.limits == {"steps": 5, "tokens": 100, "seconds": 10}
        both.check_model(["smollm2-135m"])
        for name in ("qwen3-4b", "smollm2-360m"):
            with pytest.raises(OptionError, match=name):
                both.check_model([name])


@pytest.mark.parametrize(
    ("pattern", "name", "allowed"),
    [
        ("smollm2-*", "smollm2-135m", True),
        ("*-135m", "/home/me/evil-135m", False),
        ("/srv/models/*", "/srv/models/a.gguf", True),
        ("/srv/models/*", "/srv/other/a.gguf", False),
        ("Qwen/*", "Qwen/Qwen3-4B-GGUF:Q4_K_M", True),
        ("*", "/anywhere/a.gguf", True),
        ("SmolLM2-*", "smollm2-135m", False),
    ],
)
def test_a_pattern_without_a_slash_means_no_file(pattern: str, name: str, allowed: bool) -> None:
    held = rules(allowed_models=[pattern])
    if allowed:
        held.check_model([name])
    else:
        with pytest.raises(OptionError, match="do not allow"):
            held.check_model([name])


@pytest.mark.parametrize(
    ("said", "about"),
    [
        ({"aprove": "ask"}, "aprove"),
        ({"approve": "maybe"}, "approve"),
        ({"allowed_models": 7}, "allowed_models"),
        ({"max_steps": -1}, "max_steps"),
        ({"max_seconds": "long"}, "max_seconds"),
    ],
)
def test_rules_that_cannot_be_understood_are_an_error_and_not_no_rules(said: Mapping[str, Any], about: str) -> None:
    with pytest.raises(OptionError, match=f"the test.*{about}"):
        Rules.of(said, "the test")


def test_the_command_line_s_words_are_read_like_the_configuration_s() -> None:
    application = Application()
    application.parse_command_line(
        ["--LLMMagics.approve=ask", "--LLMMagics.allowed_tools=calculate", "--LLMMagics.max_steps=3"]
    )
    read = configured(SimpleNamespace(config=application.config))
    assert (read.approve, read.tools, read.limits) == ("ask", (("calculate",),), {"steps": 3})
    assert configured(SimpleNamespace(config=Config())) == Rules()
    assert configured(SimpleNamespace()) == Rules()


def test_a_file_is_known_by_its_path_and_never_by_a_name_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smollm2-135m").write_bytes(b"GGUF")
    assert names_of("smollm2-135m") == ((tmp_path / "smollm2-135m").resolve().as_posix(),)
    assert "qwen2.5-coder-0.5b" in names_of("qwen2.5-coder-0.5b")
    assert names_of("owner/repo:file.gguf") == ("owner/repo:file.gguf",)


def test_the_settings_editor_knows_the_same_rules_with_the_same_defaults() -> None:
    schema = json.loads((Path(__file__).parents[2] / "labextension" / "schema" / "settings.json").read_text(encoding="utf-8"))
    shown = {name: setting["default"] for name, setting in schema["properties"]["rules"]["properties"].items()}
    traits = LLMMagics.class_traits(config=True)
    assert shown == {name: LLMMagics().trait_defaults(name) for name in traits if name not in DEFAULTS}
    assert Rules.of(shown, "the test") == Rules()
    assert all(trait.help for trait in traits.values())


def test_servers_are_allowed_by_host_or_by_host_and_port_and_their_models_by_address() -> None:
    held = rules(allowed_servers=["*.lab.org", "localhost:8080"])
    for url in ("http://gpu.lab.org/v1", "https://a.b.lab.org:9/v1", "http://localhost:8080/v1"):
        held.check_server(read_address(url).names)
    for url in ("http://lab.org/v1", "http://localhost:8081/v1", "http://lab.org.evil.example/v1", "http://127.0.0.1:8080/v1"):
        with pytest.raises(OptionError, match=r"do not allow the server .*They allow \*\.lab\.org, localhost:8080"):
            held.check_server(read_address(url).names)
    held.check_server(())
    with pytest.raises(OptionError):
        held.tightened(rules(allowed_servers=["localhost"])).check_server(("gpu.lab.org", "gpu.lab.org:80"))
    rules().check_server(("anywhere.example", "anywhere.example:443"))
    lesson = rules(allowed_models=["smollm2-*", "http://gpu.lab.org/v1/qwen*"])
    lesson.check_model(("http://gpu.lab.org/v1/qwen3-8b",))
    with pytest.raises(OptionError):
        lesson.check_model(("http://evil.example/v1/smollm2-135m",))


def test_a_loaded_model_keeps_the_name_that_rules_know_whatever_it_is_called_here() -> None:
    runtime = Runtime(SimpleNamespace(user_ns={}, execution_count=1))
    runtime.add("mine", ScriptedModel(["yes"], name="mine"), names=("smollm2-135m",))
    runtime.add("smollm2-fake", ScriptedModel(["yes"], name="other"))
    held = rules(allowed_models=["smollm2-*"])
    held.check_model(runtime.find_model("mine").names)
    with pytest.raises(OptionError, match="'other'"):
        held.check_model(runtime.find_model("smollm2-fake").names)


# --- in a kernel ------------------------------------------------------------------------------------------------------------

SCRIPT = """from llm_magics import ScriptedModel, ToolCall, tool
@tool(approve="auto")
def lookup(word: str) -> str:
    "Look a word up."
    return word.upper()
@tool(approve="auto")
def plot(column: str) -> str:
    "Plot a column."
    return column
def model_of(name):
    return ScriptedModel([ToolCall("lookup", '{"word": "a"}'), "Done."] * 20, name=name)
model, other = model_of("lesson-model"), model_of("other-model")"""
LESSON = 'c = get_config()\nc.LLMMagics.approve = "ask"\nc.LLMMagics.allowed_models = ["lesson-*"]\n' \
    'c.LLMMagics.allowed_tools = ["lookup"]\nc.LLMMagics.max_steps = 4\n'  # fmt: skip


@pytest.fixture(scope="module")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A kernel whose IPython is configured for a lesson."""
    home = tmp_path_factory.mktemp("ipython")
    (home / "profile_default").mkdir()
    (home / "profile_default" / "ipython_config.py").write_text(LESSON, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "IPYTHONDIR", str(home))
        with notebook(SCRIPT) as opened:
            yield opened


pytestmark = pytest.mark.kernel


def settle(opened: Notebook, page: Page, **settings: Any) -> None:
    """Say what a page says of its user's settings, and wait until the kernel has it."""
    page.tell(**settings)
    check = "from llm_magics.kernel.page.live import link_of\nimport time\nlink = link_of(get_ipython().kernel)\n"
    session = opened.client.session.session
    opened.must(f"{check}while link.rules({session!r}, '').settings != {settings!r}: time.sleep(0.01)")


def refused(opened: Notebook, cell: str) -> str:
    ran = opened.run(cell)
    assert not ran.ok
    return str(ran.reply["evalue"])


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("%%chat -m model --approve auto\nhi", "looser than the rules"),
        ("%%chat -m model -t plot\nhi", "do not allow the tool 'plot'"),
        ("%%chat -m model --max-steps 5\nhi", "more than the rules of this kernel allow: 4"),
        ("%%chat -m other\nhi", "do not allow the model 'other-model'"),
        ("%%compare -m model -m other\nhi", "do not allow the model 'other-model'"),
        ("%%chat -m model --n 2 --approve auto\nhi", "looser than the rules"),
        ("%load_model other --as lesson-1", "do not allow the model 'other-model'"),
        ("%load_model smollm2-135m --as lesson-2", "do not allow the model 'smollm2-135m'"),
        ("%load_model smollm2-135m --dry-run", "do not allow the model 'smollm2-135m'"),
    ],
)
def test_a_lesson_s_rules_refuse_what_they_forbid_and_say_so(lesson: Notebook, cell: str, why: str) -> None:
    assert why in refused(lesson, cell)


def test_a_lesson_s_floor_asks_about_a_tool_that_would_run_by_itself(lesson: Notebook) -> None:
    (call,) = lesson.must("%%chat -m model --no-history\nhi").transcript.tools  # nobody is there to ask
    assert call.state == "refused"


def test_a_page_cannot_loosen_a_lesson_and_can_tighten_it(lesson: Notebook) -> None:
    with closing(Page(lesson)) as page:
        settle(lesson, page, approve="auto", allowed_tools=["*"], allowed_models=[], max_steps=50)
        assert "looser than the rules" in refused(lesson, "%%chat -m model --approve auto\nhi")
        assert "allow: 4" in refused(lesson, "%%chat -m model --max-steps 5\nhi")
        settle(lesson, page, max_steps=2, approve="deny")
        assert "allow: 2" in refused(lesson, "%%chat -m model --max-steps 3\nhi")
        settle(lesson, page, approve="sometimes")
        assert "JupyterLab's settings of llm_magics cannot be used" in refused(lesson, "%%chat -m model\nhi")
        settle(lesson, page, default_temperature=2.0)
        assert "has no setting 'default_temperature'" in refused(lesson, "%%chat -m model\nhi")
        settle(lesson, page)


def test_magics_cannot_loosen_a_lesson_by_its_configuration(lesson: Notebook) -> None:
    lesson.run("%config LLMMagics.approve = 'auto'")
    lesson.must("%reload_ext llm_magics")
    assert "looser than the rules" in refused(lesson, "%%chat -m model --approve auto\nhi")


def test_status_and_the_list_of_tools_tell_the_rules(lesson: Notebook) -> None:
    status = str(lesson.must("%llm status").bundles)
    assert "at least ask" in status
    assert "lesson-*" in status
    listed = lesson.must("%tools").bundles[0]["text/plain"].splitlines()
    assert {line.split()[0]: "barred" in line for line in listed} == {"lookup": False, "plot": True}


def test_a_wrong_configuration_stops_the_extension_from_loading() -> None:
    class Shell:
        config = Config({"LLMMagics": {"approve": "perhaps"}})

    from llm_magics.kernel.magics.register import runtime_of

    with pytest.raises(LLMMagicsError, match="LLMMagics in IPython's configuration cannot be used"):
        runtime_of(Shell())
