"""llama-server, built from the source that a release of llama-cpp-python carries: ``make llama-server``.

One CMake tree, in the cache folder of this package, so that it is built once per release of llama-cpp-python.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from llm_magics.files import cache_dir

_PATIENCE = 600.0  # seconds for a server to load its model while others use the machine
_OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release", "BUILD_SHARED_LIBS": "OFF", "LLAMA_BUILD_TESTS": "OFF", "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_APP": "OFF", "LLAMA_BUILD_UI": "OFF", "LLAMA_USE_PREBUILT_UI": "OFF", "LLAMA_OPENSSL": "OFF",
}  # fmt: skip


def binary() -> Path:
    """Where llama-server is, or will be."""
    name = "llama-server.exe" if sys.platform == "win32" else "llama-server"
    return cache_dir() / "llama-server" / version("llama-cpp-python") / name


def build(jobs: int = 2) -> Path:
    """Build llama-server, unless it is there; 10 to 20 minutes on two cores."""
    made = binary()
    if made.exists():
        return made
    if shutil.which("cmake") is None:
        raise SystemExit("cmake was not found. Install it: pip install cmake")
    tree = made.parent / "tree"
    tree.mkdir(parents=True, exist_ok=True)
    source = _source(tree)
    options = [f"-D{name}={value}" for name, value in _OPTIONS.items()]
    subprocess.run(["cmake", "-S", source, "-B", tree / "build", *options], check=True)
    subprocess.run(
        ["cmake", "--build", tree / "build", "--target", "llama-server", "--config", "Release", "-j", str(jobs)], check=True
    )
    (found,) = [path for path in (tree / "build" / "bin").rglob(made.name) if path.is_file()]
    shutil.move(found, made)
    shutil.rmtree(tree)
    return made


def _source(tree: Path) -> Path:
    """Fetch and unpack llama.cpp as the installed release of llama-cpp-python has it."""
    release = f"llama-cpp-python=={version('llama-cpp-python')}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"]
    subprocess.run([*pip, "--dest", tree, release], check=True)
    (archive,) = tree.glob("llama_cpp_python-*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(tree, filter="data")
    archive.unlink()
    (source,) = tree.glob("llama_cpp_python-*/vendor/llama.cpp")
    return source


@contextmanager
def serving(model: Path, *options: str) -> Iterator[str]:
    """A llama-server with this model; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [binary(), "-m", model, "--host", "127.0.0.1", "--port", str(port), *options]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(process, port)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        assert process.poll() is None, f"llama-server ended with {process.returncode}"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("llama-server did not start")


if __name__ == "__main__":
    began = time.monotonic()
    print(f"{build()}: {time.monotonic() - began:.0f} s")
