"""Pulling a model: from the hub, from wheels, through every trouble, and never more than once."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from llm_magics.errors import DownloadError, ModelNotFoundError
from llm_magics.store import catalog, hub, locate, progress
from llm_magics.store.catalog import CatalogEntry, HubFile, WheelMember, WheelParts
from llm_magics.store.fetch import pull
from llm_magics.store.stores import models_dir

from .hub_stand_in import HubStandIn, hub_stand_in

CONTENT = bytes(range(256)) * 40_000  # 10 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
REPO, FILE = "maker/Small-GGUF", "small-q4.gguf"


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own, where no model lies, no token is known and pip sees no index."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LLM_MAGICS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    for name in ("LLM_MAGICS_MODELS", "HF_TOKEN", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "OLLAMA_MODELS", "LLAMA_CACHE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    with hub_stand_in() as server:
        server.files[f"{REPO}/{FILE}"] = CONTENT
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


ENTRY = CatalogEntry("small", FILE, "MIT", (HubFile(REPO, FILE),), size=len(CONTENT), sha256=SHA256)
PARTS = WheelParts(tuple(WheelMember(f"small-part{n}", "1.0", f"*/part{n}.bin") for n in (1, 2, 3)))


def know(monkeypatch: pytest.MonkeyPatch, *entries: CatalogEntry) -> None:
    """Make this the catalogue."""
    for module in (catalog, locate):
        monkeypatch.setattr(module, "catalog", lambda: entries)


def write_wheels(index: Path, content: bytes = CONTENT, parts: int = 3) -> None:
    index.mkdir(exist_ok=True)
    share = -(-len(content) // parts)
    for n in range(1, parts + 1):
        info = f"small_part{n}-1.0.dist-info"
        with zipfile.ZipFile(index / f"small_part{n}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"small_part{n}/data/part{n}.bin", content[(n - 1) * share : n * share])
            wheel.writestr(f"small_part{n}/__init__.py", "raise SystemExit('a wheel was imported')")
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: small-part{n}\nVersion: 1.0\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")


def left_behind() -> list[str]:
    """Whatever a finished pull leaves besides the model and its lock."""
    found = (models_dir() / ".partial").rglob("*")
    return [p.name for p in found if not p.name.endswith(".lock")]


# --- from the hub -----------------------------------------------------------------------------------------------------------


def test_a_file_of_the_hub_is_fetched_verified_and_then_found_without_it(stand_in: HubStandIn) -> None:
    told: list[tuple[int, int]] = []
    found = pull(f"{REPO}:{FILE}", lambda what, done, total: told.append((done, total)))
    assert found.path.read_bytes() == CONTENT
    assert found.sha256 == SHA256
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert told == sorted(told)
    requests = stand_in.requests
    assert pull(f"{REPO}:{FILE}").path == found.path
    assert stand_in.requests == requests


def test_an_address_and_a_quantisation_mean_the_same_file(stand_in: HubStandIn) -> None:
    stand_in.files[f"{REPO}/mmproj-q4.gguf"] = b"a projector"
    stand_in.files[f"{REPO}/small-q8.gguf"] = b"another"
    first = pull(f"{REPO}:Q4")
    assert first.path.name == FILE
    requests = stand_in.requests
    assert pull(f"https://huggingface.co/{REPO}/resolve/main/{FILE}?download=true").path == first.path
    assert pull(f"{REPO}:Q4").path == first.path
    assert stand_in.requests == requests


def test_a_quantisation_that_fits_several_files_lists_them(stand_in: HubStandIn) -> None:
    stand_in.files[f"{REPO}/small-q4-large.gguf"] = b"another"
    with pytest.raises(ModelNotFoundError, match=r"2 files .*small-q4\.gguf, small-q4-large\.gguf"):
        pull(f"{REPO}:q4")


def test_a_catalogue_entry_comes_from_its_hub(stand_in: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, ENTRY)
    found = pull("SMALL")
    assert (found.entry, found.verified, found.path.parent) == (ENTRY, True, models_dir())
    assert left_behind() == []


def test_an_unverified_entry_is_checked_against_the_hubs_hash(stand_in: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, replace(ENTRY, size=None, sha256=None))
    assert pull("small").sha256 == SHA256
    shutil.rmtree(models_dir())
    stand_in.etags[FILE] = "0" * 64
    with pytest.raises(DownloadError, match="did not arrive intact"):
        pull("small")
    assert left_behind() == []


def test_a_small_file_is_checked_by_its_git_hash(stand_in: HubStandIn) -> None:
    git = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT, usedforsecurity=False).hexdigest()
    stand_in.etags[FILE] = git
    assert pull(f"{REPO}:{FILE}").sha256 == SHA256


def test_another_file_under_the_catalogues_name_is_not_fetched(stand_in: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, replace(ENTRY, sha256="1" * 64))
    with pytest.raises(DownloadError, match="is not the catalogue's file"):
        pull("small")
    assert stand_in.requests == 0


def test_a_broken_download_goes_on_where_it_stopped(stand_in: HubStandIn) -> None:
    chunk = 10 << 20  # what the hub's client writes at once
    content = CONTENT * 3
    stand_in.files[f"{REPO}/{FILE}"] = content
    stand_in.serve_only = chunk + 5000
    with pytest.raises(DownloadError, match="did not serve"):
        pull(f"{REPO}:{FILE}")
    stand_in.serve_only = None
    stand_in.gets.clear()
    assert pull(f"{REPO}:{FILE}").path.read_bytes() == content
    assert [asked for _, asked, _ in stand_in.gets] == [f"bytes={chunk}-"]


def test_a_new_version_on_the_hub_is_not_glued_to_half_of_the_old(stand_in: HubStandIn) -> None:
    old, new = CONTENT * 2, CONTENT[::-1] * 2
    stand_in.files[f"{REPO}/{FILE}"] = old
    stand_in.serve_only = len(old) * 3 // 4
    with pytest.raises(DownloadError):
        pull(f"{REPO}:{FILE}")
    stand_in.serve_only = None
    stand_in.files[f"{REPO}/{FILE}"] = new
    assert pull(f"{REPO}:{FILE}").path.read_bytes() == new


def test_a_gated_repository_wants_a_token_and_says_how_to_get_in(stand_in: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.gated.add(REPO)
    with pytest.raises(DownloadError, match="gated") as refused:
        pull(f"{REPO}:{FILE}")
    assert "HF_TOKEN" in refused.value.next_action
    monkeypatch.setenv("HF_TOKEN", "good")
    assert pull(f"{REPO}:{FILE}").path.is_file()


def test_a_token_is_not_sent_to_the_host_that_bodies_come_from(stand_in: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.redirect = True
    monkeypatch.setenv("HF_TOKEN", "good")
    assert pull(f"{REPO}:{FILE}").path.read_bytes() == CONTENT
    assert stand_in.gets == [(f"/cdn/{REPO}/{FILE}", "", "")]


@pytest.mark.parametrize(
    ("name", "says"), [(f"{REPO}:no.gguf", "has no file no.gguf"), ("no/such:x.gguf", "has no repository")]
)
def test_what_the_hub_does_not_have_is_named(stand_in: HubStandIn, name: str, says: str) -> None:
    with pytest.raises(DownloadError, match=says):
        pull(name)


def test_all_parts_of_a_split_model_are_fetched(stand_in: HubStandIn) -> None:
    names = [f"big-{n:05}-of-00003.gguf" for n in (1, 2, 3)]
    stand_in.files |= {f"{REPO}/{name}": name.encode() * 99 for name in names}
    found = pull(f"{REPO}:{names[0]}")
    assert [p.name for p in found.parts] == names
    assert found.size == sum(len(name) * 99 for name in names)
    found.parts[1].unlink()
    stand_in.gets.clear()
    with pytest.raises(Exception, match="missing"):
        locate.locate(f"{REPO}:{names[0]}")


def test_two_processes_that_pull_at_once_fetch_it_once(stand_in: HubStandIn, tmp_path: Path) -> None:
    code = f"from llm_magics.store.fetch import pull; print(pull('{REPO}:{FILE}').path)"
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = {process.communicate(timeout=120)[0].strip() for process in started}
    assert len(outputs) == 1
    assert Path(outputs.pop()).read_bytes() == CONTENT
    assert stand_in.requests == 1


def test_who_waits_for_another_process_is_told(stand_in: HubStandIn) -> None:
    lock = FileLock(models_dir().joinpath(*REPO.split("/"), ".partial", f"{FILE}.lock"))
    Path(lock.lock_file).parent.mkdir(parents=True)
    told: list[str] = []

    def tell(what: str, done: int, total: int, /) -> None:
        told.append(what)
        if "another process" in what:
            lock.release()

    lock.acquire()
    assert pull(f"{REPO}:{FILE}", tell).path.is_file()
    assert told[0] == f"{REPO}:{FILE}: another process is fetching it"


def test_a_full_disk_is_noticed_before_anything_is_fetched(stand_in: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    with pytest.raises(DownloadError, match=r"0\.0 GB free") as refused:
        pull(f"{REPO}:{FILE}")
    assert "LLM_MAGICS_CACHE" in refused.value.next_action
    assert stand_in.requests == 0


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, stand_in: HubStandIn) -> None:
    (tmp_path / "cache").write_text("a file where the directory should be")
    with pytest.raises(DownloadError, match="cannot be written"):
        pull(f"{REPO}:{FILE}")


# --- from wheels ------------------------------------------------------------------------------------------------------------


def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")


def test_wheels_are_put_together_where_no_hub_can_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, replace(ENTRY, sources=(HubFile(REPO, FILE), PARTS)))
    unreachable(monkeypatch)
    write_wheels(tmp_path / "index")
    told: list[int] = []
    found = pull("small", lambda what, done, total: told.append(done))
    assert found.path.read_bytes() == CONTENT
    assert found.verified
    assert told[-1] == len(CONTENT)
    assert left_behind() == []


def test_a_hub_that_accepts_and_says_nothing_does_not_hold_us_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, replace(ENTRY, sources=(HubFile(REPO, FILE), PARTS)))
    monkeypatch.setattr(hub, "_PATIENCE", 0.2)
    write_wheels(tmp_path / "index")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{mute.getsockname()[1]}")
        assert pull("small").verified


def test_wheels_that_came_are_kept_until_the_others_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, replace(ENTRY, sources=(PARTS,)))
    write_wheels(tmp_path / "index")
    third = tmp_path / "index" / "small_part3-1.0-py3-none-any.whl"
    third.rename(tmp_path / "later.whl")
    with pytest.raises(DownloadError, match=r"could not fetch small-part3 1\.0"):
        pull("small")
    (tmp_path / "later.whl").rename(third)
    for n in (1, 2):
        (tmp_path / "index" / f"small_part{n}-1.0-py3-none-any.whl").unlink()
    assert pull("small").verified


def test_wheels_with_another_content_are_refused_and_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, replace(ENTRY, sources=(PARTS,)))
    write_wheels(tmp_path / "index", CONTENT[::-1])
    with pytest.raises(DownloadError, match="is not the catalogue's file"):
        pull("small")
    assert left_behind() == []
    write_wheels(tmp_path / "index", CONTENT + b"more")
    with pytest.raises(DownloadError, match="has more bytes than"):
        pull("small")


def test_a_damaged_wheel_is_fetched_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, replace(ENTRY, sources=(PARTS,)))
    write_wheels(tmp_path / "index")
    shelf = models_dir() / ".partial" / f"{FILE}.wheels"
    shelf.mkdir(parents=True)
    (shelf / "small_part1-1.0-py3-none-any.whl").write_bytes(b"half of a wheel")
    assert pull("small").verified


def test_when_every_source_fails_each_ones_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, replace(ENTRY, sources=(HubFile(REPO, FILE), PARTS)))
    unreachable(monkeypatch)
    with pytest.raises(DownloadError) as refused:
        pull("small")
    assert "(1) The hub did not serve" in refused.value.what
    assert "(2) pip could not fetch small-part1 1.0" in refused.value.what


def test_a_wheel_without_a_known_hash_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, replace(ENTRY, sources=(PARTS,), sha256=None))
    write_wheels(tmp_path / "index")
    with pytest.raises(DownloadError, match="cannot be verified"):
        pull("small")


# --- what is there already --------------------------------------------------------------------------------------------------


def test_what_is_on_this_machine_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, ENTRY)
    unreachable(monkeypatch)
    monkeypatch.setenv("LLM_MAGICS_MODELS", str(tmp_path))
    (tmp_path / FILE).write_bytes(CONTENT)
    assert pull("small").path == tmp_path / FILE


def test_a_damaged_file_in_our_own_cache_is_replaced(stand_in: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, ENTRY)
    models_dir().mkdir(parents=True)
    (models_dir() / FILE).write_bytes(CONTENT[::-1])
    assert pull("small").path.read_bytes() == CONTENT


def test_a_name_that_nobody_knows_is_not_looked_for_on_the_network(stand_in: HubStandIn) -> None:
    with pytest.raises(ModelNotFoundError, match="No model is called"):
        pull("nosuchmodel")
    assert stand_in.requests == 0
