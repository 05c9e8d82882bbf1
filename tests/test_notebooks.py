"""Notebook files: those of version 1 are read and stripped; a strip takes the records, and nothing else, in one step."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from llm_magics import ScriptedModel, Session, cli, notebooks
from llm_magics.errors import OptionError
from llm_magics.kernel.magics.threads import in_conversation
from llm_magics.kernel.page.notebook import bundle_of
from llm_magics.notebooks import read_notebook, saved_transcripts, strip, transcript_holders
from llm_magics.segments import TextSegment, ToolSegment
from llm_magics.transcript import MIME_TYPE, Transcript
from llm_magics.views.html import transcript_html

RECORDS = Path(__file__).parent / "records"
OLD = sorted(RECORDS.glob("v1-*.ipynb"))


def threads(path: Path) -> dict[str, list[Transcript]]:
    saved = saved_transcripts(read_notebook(path))
    names = dict.fromkeys(trace.thread for trace in saved)
    return {name: in_conversation([trace for trace in saved if trace.thread == name]) for name in names}


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Path], Path]:
    return lambda path: Path(shutil.copy(path, tmp_path / path.name))


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A small notebook with one recorded turn."""
    session = Session(ScriptedModel(["Blue."]), system="A word of the system.", record=True)
    trace = session.ask("A secret question?").trace
    document = nbformat.v4.new_notebook(metadata={"custom": {"z": 1, "a": 2}})
    output = nbformat.v4.new_output("display_data", data=bundle_of(trace))
    document.cells.append(nbformat.v4.new_markdown_cell("# Héading\n\nand more", id="one"))
    document.cells.append(nbformat.v4.new_code_cell("%%chat\nA question", id="two", outputs=[output], execution_count=7))
    nbformat.write(document, tmp_path / "talk.ipynb")
    return tmp_path / "talk.ipynb"


# --- version 1 ----------------------------------------------------------------------------------------------------------------


def test_three_notebooks_of_version_1_are_here_and_valid() -> None:
    assert [path.stem for path in OLD] == ["v1-plain", "v1-threads", "v1-tools"]
    for path in OLD:
        nbformat.validate(nbformat.read(path, 4))
        versions = {holder[key]["version"] for holder, key, _ in transcript_holders(read_notebook(path))}
        assert versions == {1}


def test_version_1_s_turns_open_with_their_messages_tools_and_pictures() -> None:
    (turns,) = threads(RECORDS / "v1-tools.ipynb").values()
    assert [trace.text for trace in turns] == ["The tallest are 3 m and 2 m.", "Here they are.", "Nobody knows."]
    assert [tool.name for trace in turns for tool in trace.tools] == ["tallest", "draw_trees", "felled"]
    assert [tool.state for trace in turns for tool in trace.tools] == ["done", "done", "failed"]
    assert any("image/png" in output for trace in turns for tool in trace.tools for output in tool.outputs)
    assert turns[0].settings["system"] == "You know trees."


def test_version_1_s_threads_keep_their_order_and_leave_stale_turns_out() -> None:
    found = threads(RECORDS / "v1-threads.ipynb")
    assert [trace.prompt for trace in found["main"]] == ["first", "second, anew", "sampled", "after the restart"]
    assert [trace.prompt for trace in found["side"]] == ["elsewhere"]


def test_version_1_s_prompts_are_left_behind_and_its_token_ids_kept_in_memory() -> None:
    (turns,) = threads(RECORDS / "v1-plain.ipynb").values()
    assert all(step.token_ids and step.recording["text"] for trace in turns for step in trace.steps)
    assert not any(key in step.record for trace in turns for step in trace.steps for key in ("prompt", "prompt_token_ids"))
    again = [trace.to_json() for trace in turns]
    assert {turn["version"] for turn in again} == {2}
    assert "Name a colour." not in json.dumps(again[1:])
    assert [Transcript.from_json(turn).prompt for turn in again] == [trace.prompt for trace in turns]


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_version_1_is_restored_and_goes_on(path: Path) -> None:
    for turns in threads(path).values():
        session = Session(ScriptedModel(["And on."]))
        session.restore(turns)
        assert len(session.turns) == len(turns)
        assert session.history[0].text == turns[0].prompt
        assert session.ask("Go on.").text == "And on."


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_version_1_is_stripped_to_what_is_read(path: Path, copy: Callable[[Path], Path]) -> None:
    stripped = copy(path)
    told = strip(stripped)
    assert told.turns == len(list(transcript_holders(read_notebook(path))))
    assert (told.recorded, told.unreadable) == (0, 0)
    assert told.n_bytes == path.stat().st_size - stripped.stat().st_size > 0
    before, after = nbformat.read(path, 4), nbformat.read(stripped, 4)
    nbformat.validate(after)
    for old, new in zip(before.cells, after.cells, strict=True):
        assert (old.id, old.source, old.cell_type, old.metadata) == (new.id, new.source, new.cell_type, new.metadata)
        for was, now in zip(old.get("outputs", []), new.get("outputs", []), strict=True):
            assert {k: v for k, v in was.data.items() if "llm-magics" not in k} == {
                k: v for k, v in now.data.items() if "llm-magics" not in k
            }
    for holder, key, _ in transcript_holders(read_notebook(stripped)):
        assert (holder[key]["version"], holder[key]["prompt"]) == (2, "")
        assert not holder[key].keys() & {"steps", "settings"}


# --- pictures -----------------------------------------------------------------------------------------------------------------

PICTURE = "iVBORw0K" * 400


def drawn() -> Transcript:
    """A turn with two pictures, one of them twice, and text that looks like one."""
    calls = [ToolSegment(at, "draw", f"c{at}", "{}", "done", outputs=({"image/png": data, "text/plain": "a plot"},), result="-")
             for at, data in enumerate((PICTURE + "AA==\n", "/9j/AAAA", PICTURE + "AA==\n"))]  # fmt: skip
    table = ToolSegment(3, "table", "c3", "{}", "done", outputs=({"text/html": "<td>x</td>", "image/gif": "R0lG"},), result="-")
    told = TextSegment('<img src="data:image/png;base64,AAAA">')
    return Transcript("t1", "main", "m", "draw", "stop", (told, *calls, table))


def test_a_picture_stands_once_in_a_saved_cell_and_is_read_back() -> None:
    bundle = json.loads(json.dumps(bundle_of(drawn())))
    assert json.dumps(bundle).count(PICTURE) == 2  # the page shows it twice
    assert PICTURE not in json.dumps(bundle[MIME_TYPE])
    notebook = {"cells": [{"outputs": [{"data": bundle}]}]}
    (read,) = saved_transcripts(notebook)
    assert [tool.outputs[0].get("image/png") for tool in read.tools] == [PICTURE + "AA==", "/9j/AAAA", PICTURE + "AA==", None]
    assert transcript_html(read) == bundle["text/html"]
    assert read.tools[3].outputs == drawn().tools[3].outputs


@pytest.mark.parametrize("pointer", [{"html": 99}, {"html": -1}, {"html": "0"}, {"html": True}, {}, [], None, 3])
def test_what_points_to_no_picture_is_left_as_it_is(pointer: Any) -> None:
    bundle = json.loads(json.dumps(bundle_of(drawn())))
    segment = bundle[MIME_TYPE]["segments"][1]
    segment["outputs"] = [{"image/png": pointer, "text/plain": "a plot"}]
    (read,) = saved_transcripts({"cells": [{"outputs": [{"data": bundle}]}]})
    assert read.tools[0].outputs[0]["image/png"] == pointer
    assert "a plot" in transcript_html(read)


def test_strip_leaves_the_pictures(tmp_path: Path) -> None:
    output = nbformat.v4.new_output("display_data", data=bundle_of(drawn()))
    path = tmp_path / "drawn.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("%%chat", outputs=[output])]), path)
    (before,) = saved_transcripts(read_notebook(path))
    strip(path)
    (after,) = saved_transcripts(read_notebook(path))
    assert after.tools == before.tools


# --- strip --------------------------------------------------------------------------------------------------------------------


def test_strip_says_what_it_took_and_leaves_the_rest_byte_by_byte(book: Path) -> None:
    before = book.read_text(encoding="utf-8")
    expected = json.loads(before)
    data = expected["cells"][1]["outputs"][0]["data"]
    transcript = data[MIME_TYPE]
    for key in ("settings", "steps"):
        del transcript[key]
    transcript |= {"prompt": "", "recorded": False}
    said = str(strip(book))
    assert "settings of 1 turn," in said
    assert "1 step" in said
    assert "--record kept of 1 turn" in said
    assert book.read_text(encoding="utf-8") == json.dumps(expected, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    assert "secret" not in book.read_text(encoding="utf-8")


def test_a_second_strip_finds_nothing_and_writes_nothing(book: Path) -> None:
    strip(book)
    before = (book.stat().st_mtime_ns, book.read_bytes())
    assert "holds no record" in str(strip(book))
    assert (book.stat().st_mtime_ns, book.read_bytes()) == before


def test_a_foreign_notebook_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "foreign.ipynb"
    text = '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 2}'  # on one line, as nbformat never writes
    path.write_text(text)
    assert "holds no record" in str(strip(path))
    assert path.read_text() == text


def test_what_cannot_be_read_may_hold_anything_and_goes(book: Path) -> None:
    data = json.loads(book.read_text(encoding="utf-8"))
    data["cells"][1]["outputs"][0]["data"][MIME_TYPE] |= {"version": 99}
    book.write_text(json.dumps(data), encoding="utf-8")
    assert "1 record that cannot be read" in str(strip(book))
    after = json.loads(book.read_text(encoding="utf-8"))
    assert MIME_TYPE not in after["cells"][1]["outputs"][0]["data"]


@pytest.mark.skipif(os.name == "nt", reason="permissions and links of POSIX")
def test_permissions_stay_and_a_link_stays_a_link(book: Path, tmp_path: Path) -> None:
    book.chmod(0o640)
    link = tmp_path / "link.ipynb"
    link.symlink_to(book.name)
    strip(link)
    assert link.is_symlink()
    assert stat.S_IMODE(book.stat().st_mode) == 0o640
    assert "secret" not in book.read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.ipynb", "talk.ipynb"]


WRONG = {
    "not JSON": ("{'cells'", "not JSON"),
    "no notebook": ('{"cells": []}', "does not name"),
    "a list": ("[1, 2]", "does not name"),
    "deeply nested": ("[" * 100_000, "not JSON"),
    "not UTF-8": (b'{"nbformat": "\xff"}', "not JSON"),
    "format 3": ('{"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": []}', "format 3.*save it"),
    "format 5": ('{"nbformat": 5, "nbformat_minor": 0, "metadata": {}, "cells": []}', "format 5.*Update"),
    "no cells": ('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}', "no list of cells"),
    "cells of no kind": ('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [3]}', "no list of cells"),
    "invalid": ('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "code"}]}', "not a valid"),
    "no minor": ('{"nbformat": 4, "metadata": {}, "cells": []}', "not a valid"),
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_a_file_that_is_no_good_notebook_is_refused_and_left_as_it_is(content: tuple[str | bytes, str], tmp_path: Path) -> None:
    text, said = content
    path = tmp_path / "wrong.ipynb"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = path.read_bytes()
    with pytest.raises(OptionError, match=said):
        strip(path)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["wrong.ipynb"]


def test_a_missing_and_a_write_protected_file_are_named(book: Path) -> None:
    with pytest.raises(OptionError, match=r"no\.ipynb cannot be read"):
        strip(book.with_name("no.ipynb"))
    before = book.read_bytes()
    book.chmod(0o444)
    with pytest.raises(OptionError, match="write-protected"):
        strip(book)
    assert book.read_bytes() == before


def refuse(times: int) -> Callable[[Any, Any], None]:
    """An ``os.replace`` that a program which has the file open refuses, as on Windows, this many times."""
    left = [times]
    replace = os.replace

    def held(source: Any, target: Any) -> None:
        if left[0]:
            left[0] -= 1
            raise PermissionError(13, "The process cannot access the file because it is being used by another process")
        replace(source, target)

    return held


def test_a_file_that_is_held_for_a_moment_is_tried_again(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebooks, "_PAUSE", 0.0)
    monkeypatch.setattr(os, "replace", refuse(2))
    strip(book)
    assert "secret" not in book.read_text(encoding="utf-8")


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_a_strip_that_fails_leaves_the_file_and_nothing_beside_it(
    book: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    before = book.read_bytes()
    monkeypatch.setattr(notebooks, "_PAUSE", 0.0)
    monkeypatch.setattr(os, step, refuse(100) if step == "replace" else full)
    with pytest.raises(OptionError, match=r"cannot be replaced.*It is unchanged"):
        strip(book)
    assert book.read_bytes() == before
    assert [path.name for path in book.parent.iterdir()] == ["talk.ipynb"]


def test_a_file_that_changes_meanwhile_is_not_overwritten(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = nbformat.writes

    def meanwhile(*arguments: Any, **named: Any) -> Any:
        book.write_text("newer", encoding="utf-8")
        return written(*arguments, **named)

    monkeypatch.setattr(nbformat, "writes", meanwhile)
    with pytest.raises(OptionError, match="Another program"):
        strip(book)
    assert book.read_text(encoding="utf-8") == "newer"


def test_where_folders_cannot_be_opened_and_files_have_no_owner_a_strip_works(
    book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows."""
    opened = os.open

    def files_alone(path: Any, *rest: Any, **named: Any) -> int:
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied")
        return opened(path, *rest, **named)

    monkeypatch.setattr(os, "open", files_alone)
    monkeypatch.delattr(os, "chown")
    strip(book)
    assert "secret" not in book.read_text(encoding="utf-8")


def test_the_command_line_strips_what_it_can_and_names_what_it_cannot(
    book: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["strip", str(book.with_name("no.ipynb")), str(book)]) == 1
    said = capsys.readouterr()
    assert "no.ipynb cannot be read" in said.err
    assert said.out.startswith("Removed from talk.ipynb:")
    assert cli.main(["strip", str(book)]) == 0
