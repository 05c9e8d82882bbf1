"""How OpenMP's threads wait: what libgomp itself says that it read, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm_magics.engine.native import openmp
from llm_magics.engine.native.library import cpu_library
from llm_magics.engine.native.openmp import SPINS, Waiting, loaded, runtime_of, waiting
from tests.engine.tiny_gguf import tiny_model

linux_libgomp = pytest.mark.skipif(
    sys.platform != "linux" or runtime_of(cpu_library()) != "libgomp", reason="this llama.cpp is not built with libgomp"
)

REPORT = """
import json, os, subprocess, sys
from llm_magics.engine.native import openmp
from llm_magics.engine.native.library import cpu_library
from llm_magics.engine.native.openmp import waiting
from dataclasses import asdict
asked = [sys.executable, "-c", "import os; print('GOMP_SPINCOUNT' in os.environ)"]
child = subprocess.run(asked, capture_output=True, text=True)
print(json.dumps({**asdict(waiting(cpu_library())), "left": "GOMP_SPINCOUNT" in os.environ, "inherited": child.stdout.strip()}))
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in an environment with no OpenMP settings but these; libgomp prints what it reads when it is loaded."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    clean |= {"OMP_DISPLAY_ENV": "VERBOSE", **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean, timeout=120)


def told(ran: subprocess.CompletedProcess[str]) -> dict[str, object]:
    return dict(json.loads(ran.stdout.splitlines()[-1]))


@linux_libgomp
def test_libgomp_reads_our_setting_and_nobody_else_does() -> None:
    ran = run(REPORT)
    assert ran.stderr.count(f"GOMP_SPINCOUNT = '{SPINS}'") == 1
    said = told(ran)
    assert (said["chosen_by"], said["settings"]) == ("us", [f"GOMP_SPINCOUNT={SPINS}"])
    assert said["left"] is False
    assert said["inherited"] == "False"


@linux_libgomp
@pytest.mark.parametrize(
    ("name", "value"), [("OMP_WAIT_POLICY", "passive"), ("OMP_WAIT_POLICY", "active"), ("GOMP_SPINCOUNT", "4711")]
)
def test_a_setting_of_the_user_is_kept(name: str, value: str) -> None:
    ran = run(REPORT, **{name: value})
    assert f"{name} = '{value.upper()}'" in ran.stderr
    assert f"GOMP_SPINCOUNT = '{SPINS}'" not in ran.stderr
    said = told(ran)
    assert (said["chosen_by"], said["settings"]) == ("user", [f"{name}={value}"])


@linux_libgomp
def test_a_setting_that_only_other_libraries_read_does_not_stop_ours() -> None:
    assert told(run(REPORT, KMP_BLOCKTIME="0"))["chosen_by"] == "us"


@linux_libgomp
def test_a_libgomp_that_was_there_before_is_told() -> None:
    ran = run("import ctypes; ctypes.CDLL('libgomp.so.1')\n" + REPORT)
    assert f"GOMP_SPINCOUNT = '{SPINS}'" not in ran.stderr
    said = told(ran)
    assert said["chosen_by"] == "nobody"
    assert "libgomp.so.1" in str(said["earlier"])
    assert said["left"] is False


@linux_libgomp
def test_a_copy_of_libgomp_that_another_package_brings_is_not_ours(tmp_path: Path) -> None:
    """Wheels carry a copy under a name of its own (libgomp-a34b3233.so.1); llama.cpp still loads the system's."""
    of_openmp = "from llm_magics.engine.native.openmp import loaded"
    find = f"import ctypes; ctypes.CDLL('libgomp.so.1'); {of_openmp}; print(*loaded('libgomp'))"
    system = run(find).stdout.strip()
    copy = tmp_path / "libgomp-a34b3233.so.1"
    copy.write_bytes(Path(system).read_bytes().replace(b"libgomp.so.1\0", b"libgomX.so.1\0"))
    ran = run(f"import ctypes; ctypes.CDLL({str(copy)!r})\n" + REPORT)
    assert told(ran)["chosen_by"] == "us"
    assert ran.stderr.count(f"GOMP_SPINCOUNT = '{SPINS}'") == 1


@linux_libgomp
def test_the_child_that_tries_models_is_set_too() -> None:
    ran = run("import io, sys; sys.stdin = io.StringIO(); from llm_magics.engine.fit.probe import main; main()")
    assert ran.stderr.count(f"GOMP_SPINCOUNT = '{SPINS}'") == 1


@linux_libgomp
def test_the_engine_in_a_child_process_is_set_too(tmp_path: Path) -> None:
    model = tiny_model().write(tmp_path / "tiny.gguf")
    script = tmp_path / "child.py"
    script.write_text(
        "import sys\n"
        "from llm_magics.engine.hosts import pipe\n"
        "from llm_magics.engine.values import EngineConfig\n"
        "class Told(pipe.EngineProcess):\n"
        "    def _keep_log(self, pipe):\n"
        "        sys.stderr.write(pipe.read().decode())\n"
        "pipe.EngineProcess = Told\n"
        "if __name__ == '__main__':\n"
        f"    engine = pipe.PipeEngine(EngineConfig({str(model)!r}, n_ctx=64))\n"
        "    logger = engine._process._logger\n"
        "    engine.close()\n"
        "    logger.join(60)\n"
    )
    ran = run(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')")
    assert ran.stderr.count(f"GOMP_SPINCOUNT = '{SPINS}'") == 1


@pytest.mark.parametrize(
    ("content", "runtime"),
    [
        (b"\x7fELF..libgomp.so.1\0..", "libgomp"),
        (b"..@rpath/libomp.dylib\0..", "libomp"),
        (b"..libiomp5.so\0..", "libiomp5"),
        (b"MZ..VCOMP140.DLL\0..", "vcomp"),
        (b"MZ..vcomp140.dll\0..", "vcomp"),
        (b"MZ..KERNEL32.dll\0..", ""),
    ],
)
def test_the_runtime_is_read_off_the_library_of_any_system(tmp_path: Path, content: bytes, runtime: str) -> None:
    library = tmp_path / "ggml-cpu"
    library.write_bytes(content)
    assert runtime_of(library) == runtime


def test_llvms_library_has_a_setting_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "libggml-cpu.dylib"
    library.write_bytes(b"@rpath/libomp.dylib\0")
    monkeypatch.delenv("KMP_BLOCKTIME", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert waiting(library) == Waiting("libomp")
    monkeypatch.setenv("KMP_BLOCKTIME", "0")
    assert waiting(library) == Waiting("libomp", ("KMP_BLOCKTIME=0",), "user")


def test_a_libgomp_that_is_a_link_to_llvms_library_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "libggml-cpu.so"
    library.write_bytes(b"libgomp.so.1\0")
    monkeypatch.delenv("KMP_BLOCKTIME", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    mapped = {"libomp": frozenset({"/opt/conda/lib/libomp.so"})}
    monkeypatch.setattr(openmp, "loaded", lambda name: mapped.get(name, frozenset()))
    assert waiting(library) == Waiting("libomp")


def test_a_system_without_a_list_of_loaded_libraries_has_none(tmp_path: Path) -> None:
    assert loaded("libgomp", tmp_path / "maps") == frozenset()


def test_loaded_libraries_are_read_off_the_memory_map(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.write_text(
        "7f00-7f01 r--p 00000000 fe:00 42                         /opt/my libs/libgomp.so.1.0.0\n"
        "7f01-7f02 r-xp 00001000 fe:00 42                         /opt/my libs/libgomp.so.1.0.0\n"
        "7f02-7f03 r--p 00000000 fe:00 43                         /usr/lib/libc.so.6\n"
        "7f03-7f04 rw-p 00000000 00:00 0 \n"
        "7ffd-7ffe rw-p 00000000 00:00 0                          [stack]\n"
    )
    assert loaded("libgomp", maps) == {"/opt/my libs/libgomp.so.1.0.0"}
