"""The steps of mybinder.org, taken here: postBuild in a fresh virtual environment, then a conversation within 2 GB."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MEMORY = 2 << 30

CONVERSATION = """
import resource
from llm_magics import Session, load_model
model = load_model("default", ctx=2048)
reply = Session(model).ask("Say hello.", max_tokens=8)
print("MODEL", model.name)
print("TOKENS", reply.usage.completion_tokens)
print("KIB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_the_files_are_those_that_repo2docker_reads() -> None:
    for script in ("postBuild", "start"):
        path = ROOT / "binder" / script
        assert path.read_text().startswith("#!/usr/bin/env bash\n")
        assert os.access(path, os.X_OK)
    assert (ROOT / "binder" / "start").read_text().rstrip().endswith('exec "$@"')
    packages = (ROOT / "binder" / "apt.txt").read_text().split()
    assert all(re.fullmatch(r"[a-z0-9.+-]+", package) for package in packages)
    assert "python=3" in (ROOT / "binder" / "environment.yml").read_text()


@pytest.mark.model
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform != "linux", reason="mybinder.org is Linux")
def test_post_build_in_a_fresh_environment_ends_in_a_conversation_within_2_gb(smollm: Path, tmp_path: Path) -> None:
    fresh = tmp_path / "venv"
    venv.create(fresh, with_pip=True)
    # pip's cache has the llama-cpp-python that was compiled for these tests; the model lies where the fixture found it
    environment = os.environ | {
        "PATH": f"{fresh / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "BINDER_PIP_OPTIONS": "",
        "LLM_MAGICS_MODELS": str(smollm.parent),
        "LLM_MAGICS_CACHE": str(tmp_path / "cache"),
        "VIRTUAL_ENV": str(fresh),
    }
    run = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True, "check": False}
    built = subprocess.run([ROOT / "binder" / "postBuild"], **run)  # type: ignore[call-overload]
    assert built.returncode == 0, built.stdout[-4000:] + built.stderr[-4000:]
    assert "smollm2-135m" in built.stdout

    start = [ROOT / "binder" / "start", "python", "-c", CONVERSATION]
    talked = subprocess.run(start, **run | {"cwd": tmp_path})  # type: ignore[call-overload]
    assert talked.returncode == 0, talked.stderr[-4000:]
    said = dict(line.split(" ", 1) for line in talked.stdout.splitlines() if " " in line)
    assert said["MODEL"] == "smollm2-135m"
    assert int(said["TOKENS"]) > 0
    assert int(said["KIB"]) * 1024 < MEMORY
