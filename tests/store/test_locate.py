"""Finding a model's file: by every kind of name, in every place where one may lie."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from llm_magics.errors import ModelFileError, ModelNotFoundError
from llm_magics.store import catalog, locate, stores
from llm_magics.store.catalog import CatalogEntry, HubFile
from llm_magics.store.locate import hub_file, near_names
from llm_magics.store.stores import models_dir

CONTENT = b"GGUF, as far as finding it goes"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HUB = HubFile("Maker/Model-GGUF", "model-q4.gguf")
ENTRY = CatalogEntry("model-1b", "model-q4.gguf", "MIT", (HUB,), ("model",), size=len(CONTENT), sha256=SHA256)
UNVERIFIED = CatalogEntry("other-7b", "other-q4.gguf", "MIT", (HubFile("Maker/Other", "other-q4.gguf"),))


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setattr(Path, "home", lambda: home)
    monkeypatch.setenv("LLM_MAGICS_CACHE", str(tmp_path / "cache"))
    for name in ("LLM_MAGICS_MODELS", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "LLAMA_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    monkeypatch.setattr(stores.sys, "platform", "linux")
    for module in (catalog, locate):
        monkeypatch.setattr(module, "catalog", lambda: (ENTRY, UNVERIFIED))


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def put_in_ollama(root: Path, name: str, tag: str, content: bytes = CONTENT) -> Path:
    digest = hashlib.sha256(content).hexdigest()
    layers = [
        {"mediaType": "application/vnd.ollama.image.template", "digest": f"sha256:{'0' * 64}"},
        {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"},
    ]
    put(root / "manifests" / "registry.ollama.ai" / "library" / name / tag, json.dumps({"layers": layers}).encode())
    return put(root / "blobs" / f"sha256-{digest}", content)


def put_in_hub_cache(root: Path, repo: str, file: str, commit: str = "abc", content: bytes = CONTENT) -> Path:
    base = root / f"models--{repo.replace('/', '--')}"
    blob = put(base / "blobs" / hashlib.sha256(content).hexdigest(), content)
    link = base / "snapshots" / commit / file
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(blob)
    return link


# where a file may lie: put it there and say where
PLACES = {
    "LLM_MAGICS_MODELS": lambda tmp: put(tmp / "mine" / ENTRY.file),
    "llm_magics": lambda tmp: put(models_dir() / ENTRY.file),
    "Hugging Face": lambda tmp: put_in_hub_cache(tmp / "home" / ".cache" / "huggingface" / "hub", HUB.repo, HUB.file),
    "llama.cpp": lambda tmp: put(tmp / "home" / ".cache" / "llama.cpp" / ENTRY.file),
    "LM Studio": lambda tmp: put(tmp / "home" / ".lmstudio" / "models" / "Maker" / "Model-GGUF" / ENTRY.file),
    "Ollama": lambda tmp: put_in_ollama(tmp / "ollama", "model", "1b"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["model-1b", "MODEL"])
def test_a_catalogue_model_is_found_wherever_it_lies(
    place: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_MAGICS_MODELS", str(tmp_path / "mine"))
    path = PLACES[place](tmp_path)
    found = locate.locate(name)
    assert (found.path, found.source, found.entry, found.verified) == (path, place, ENTRY, True)
    assert found.name == "model-1b"


def test_the_users_own_directory_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_MAGICS_MODELS", str(tmp_path / "mine"))
    paths = {place: put_there(tmp_path) for place, put_there in PLACES.items()}
    assert locate.locate("model-1b").path == paths["LLM_MAGICS_MODELS"]


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("Hugging Face", "Maker/Model-GGUF:model-q4.gguf"),
        ("Hugging Face", "hf.co/maker/model-gguf:Q4"),
        ("Hugging Face", "https://huggingface.co/Maker/Model-GGUF/blob/main/model-q4.gguf"),
        ("llama.cpp", "model-q4.gguf"),
        ("LM Studio", "model-q4"),
        ("LM Studio", "Maker/Model-GGUF:model-q4.gguf"),
        ("Ollama", "model:1b"),
    ],
)
def test_other_programs_models_answer_to_the_names_they_have_there(place: str, name: str, tmp_path: Path) -> None:
    path = PLACES[place](tmp_path)
    found = locate.locate(name)
    assert (found.path, found.source) == (path, place)


def test_ollamas_latest_needs_no_tag(tmp_path: Path) -> None:
    path = put_in_ollama(tmp_path / "ollama", "llama9", "latest", b"weights")
    assert locate.locate("llama9").path == locate.locate("llama9:latest").path == path


def test_the_hubs_current_version_is_preferred_to_older_ones(tmp_path: Path) -> None:
    root = tmp_path / "home" / ".cache" / "huggingface" / "hub"
    put_in_hub_cache(root, "Maker/Other", "other-q4.gguf", "aaa", b"old")
    new = put_in_hub_cache(root, "Maker/Other", "other-q4.gguf", "bbb", b"new")
    put(root / "models--Maker--Other" / "refs" / "main", b"bbb")
    assert locate.locate("other-7b").path == new


def test_a_path_is_a_path_and_is_recognised(tmp_path: Path) -> None:
    path = put(tmp_path / "elsewhere" / ENTRY.file)
    found = locate.locate(path)
    assert (found.path, found.entry, found.verified, found.source) == (path, ENTRY, True, "path")
    assert locate.locate(str(put(tmp_path / "my own.gguf"))).name == "my own"


def test_a_file_of_the_right_name_and_the_wrong_content_is_passed_over_and_told(tmp_path: Path) -> None:
    put(models_dir() / ENTRY.file, CONTENT[::-1])
    put(tmp_path / "home" / ".cache" / "llama.cpp" / ENTRY.file, CONTENT + b"!")
    with pytest.raises(ModelNotFoundError) as refused:
        locate.locate("model-1b")
    assert "is not the catalogue's" in refused.value.what
    assert f"has {len(CONTENT) + 1} bytes, not {len(CONTENT)}" in refused.value.what
    assert "llm-magics pull model-1b" in refused.value.next_action


def test_a_changed_file_is_hashed_anew(tmp_path: Path) -> None:
    path = put(tmp_path / ENTRY.file)
    assert locate.locate(path).verified
    put(path, CONTENT[::-1])
    assert not locate.locate(path).verified


def test_an_unverified_entrys_file_is_not_called_verified(tmp_path: Path) -> None:
    put(models_dir() / UNVERIFIED.file)
    found = locate.locate("other-7b")
    assert (found.entry, found.sha256, found.verified) == (UNVERIFIED, None, False)


@pytest.mark.parametrize(
    ("name", "says", "advises"),
    [
        ("modell-1b", "No model is called", "model-1b"),
        ("mod", "No model is called", "model"),
        ("other9", "No model is called", "other-7b"),
        ("xyz", "No model is called", "pull --list"),
        ("model-1b", "in the catalogue, but not on this machine", "llm-magics pull model-1b"),
        ("Maker/New:new.gguf", "Maker/New:new.gguf is not on this machine", "llm-magics pull Maker/New:new.gguf"),
        ("~nosuchuser/file.gguf", "There is no file", "Check the path"),
        ("x" * 5000, "No model is called", "pull --list"),
        ("a\0b", "No model is called", "pull --list"),
        ("no/such/file.gguf", "There is no file", "owner/repository:file.gguf"),
        ("", "No model was named", "path"),
    ],
)
def test_what_is_not_found_is_refused_with_what_to_do(name: str, says: str, advises: str) -> None:
    with pytest.raises(ModelNotFoundError) as refused:
        locate.locate(name)
    assert says in refused.value.what
    assert advises in refused.value.next_action


def test_the_default_is_whatever_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "mine.gguf")
    monkeypatch.setenv("LLM_MAGICS_DEFAULT_MODEL", str(path))
    assert locate.locate("Default").path == path
    monkeypatch.delenv("LLM_MAGICS_DEFAULT_MODEL")
    with pytest.raises(ModelNotFoundError, match=r"qwen2\.5-coder-0\.5b"):
        locate.locate("default")


def test_near_names_know_other_programs_models_too(tmp_path: Path) -> None:
    put_in_ollama(tmp_path / "ollama", "mistral", "7b", b"weights")
    assert "mistral:7b" in near_names("mistral-7b")


def test_split_models_are_found_by_their_first_part(tmp_path: Path) -> None:
    parts = [put(tmp_path / f"big-{n:05}-of-00003.gguf") for n in (1, 2, 3)]
    found = locate.locate(parts[0])
    assert (found.parts, found.name, found.size) == (tuple(parts), "big", 3 * len(CONTENT))
    with pytest.raises(ModelFileError, match="part 2 of a split GGUF"):
        locate.locate(parts[1])
    parts[2].unlink()
    with pytest.raises(ModelFileError, match=r"1 of them are missing beside it: big-00003-of-00003\.gguf"):
        locate.locate(parts[0])


@pytest.mark.parametrize(
    ("manifest"), [b"", b"{", b"[]", b'{"layers": 3}', b'{"layers": [{"mediaType": "x"}]}', b'{"layers": []}'], ids=range(6)
)
def test_a_store_in_disorder_is_passed_over(manifest: bytes, tmp_path: Path) -> None:
    put(tmp_path / "ollama" / "manifests" / "host" / "library" / "name" / "tag", manifest)
    (tmp_path / "home" / ".cache" / "huggingface" / "hub" / "models--x--y" / "snapshots").mkdir(parents=True)
    with pytest.raises(ModelNotFoundError):
        locate.locate("model-1b")


def test_projectors_and_later_parts_are_no_models(tmp_path: Path) -> None:
    put(models_dir() / "mmproj-model.gguf")
    put(models_dir() / "big-00002-of-00002.gguf")
    assert list(stores.stored_files()) == []


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("a/b:c.gguf", HubFile("a/b", "c.gguf")),
        ("a/b:sub/c.gguf", HubFile("a/b", "sub/c.gguf")),
        ("https://hf.co/a/b/resolve/main/c.gguf?download=true", HubFile("a/b", "c.gguf")),
        ("a/b", None),
        ("../..:a.gguf", None),
        ("llama3:8b", None),
        ("C:/models/a.gguf", None),
        ("a/b/c:d", None),
    ],
)
def test_only_a_hub_file_is_read_as_one(text: str, meaning: HubFile | None) -> None:
    assert hub_file(text) == meaning
