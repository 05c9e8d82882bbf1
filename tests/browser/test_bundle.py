"""The extension that is installed is the one whose source lies here."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import llm_magics

SOURCE = Path(__file__).parents[2] / "labextension"
REBUILD = "Rebuild and reinstall it: cd labextension && jlpm build:prod && cd .. && pip install -e ."


def source_hash() -> str:
    """The hash that ``stamp.mjs`` writes beside the bundle."""
    files = ["package.json", "yarn.lock"]
    for folder in ("schema", "src", "style"):
        files += [f"{folder}/{path.name}" for path in (SOURCE / folder).iterdir()]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file}\n".encode())
        digest.update((SOURCE / file).read_text(encoding="utf-8").encode())
    return digest.hexdigest()


def test_the_installed_bundle_is_not_stale() -> None:
    installed = Path(sys.prefix) / "share" / "jupyter" / "labextensions" / "llm-magics"
    assert (installed / "sources.sha256").read_text().strip() == source_hash(), REBUILD


def test_jupyter_lists_the_extension_as_enabled_and_sound() -> None:
    command = [sys.executable, "-m", "jupyter", "labextension", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = [line for line in (listed.stdout + listed.stderr).splitlines() if "llm-magics" in line]
    assert "enabled" in line
    assert "OK" in line


def test_the_extension_has_the_package_s_version() -> None:
    assert json.loads((SOURCE / "package.json").read_text())["version"] == llm_magics.__version__
