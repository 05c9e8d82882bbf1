"""How long OpenMP's threads spin before they sleep; set while their library is loaded.

llama.cpp's threads wait for each other several hundred times in each token, and a waiting thread spins: in GCC's libgomp, for
milliseconds. On a shared machine, spinning threads keep the cores from the threads that they wait for: two kernels on two cores
decode 10 to 30 times slower than one. ``SPINS`` rounds take some microseconds, as long as nearly every wait of a single kernel.

libgomp reads its environment once, when it is loaded. So the setting is in the environment only then, and the user's programs
do not inherit it. If another package has loaded the library before, the setting comes too late; :func:`waiting` says so.
LLVM's and Intel's libraries read ``KMP_BLOCKTIME``; Visual C++'s has no such setting.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SPINS = 300
SETTING = "GOMP_SPINCOUNT"
_OF_THE_USER = (SETTING, "OMP_WAIT_POLICY")  # either one is the user's choice

Runtime = Literal["libgomp", "libomp", "libiomp5", "vcomp", ""]
# The name in the file of llama.cpp's CPU code, e.g. "libgomp.so.1", "@rpath/libomp.dylib", "VCOMP140.DLL"
_RUNTIMES: tuple[tuple[bytes, Runtime], ...] = (
    (b"libgomp", "libgomp"),
    (b"libiomp5", "libiomp5"),
    (b"libomp", "libomp"),
    (b"vcomp140", "vcomp"),
    (b"VCOMP140", "vcomp"),
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """How llama.cpp's threads wait for each other in this process.

    ``runtime`` is the OpenMP library, empty if llama.cpp has its own threads. ``settings`` are the environment variables in
    force, e.g. ``("GOMP_SPINCOUNT=300",)``. ``chosen_by`` "nobody" means the library's default. ``earlier`` is the file of a
    libgomp that was loaded before llama.cpp, so that our setting came too late.
    """

    runtime: Runtime
    settings: tuple[str, ...] = ()
    chosen_by: Literal["us", "user", "nobody"] = "nobody"
    earlier: str = ""


_ours = False  # whether a libgomp was loaded while our setting was in the environment
_earlier: tuple[str, ...] = ()


@contextmanager
def short_spins() -> Iterator[None]:
    """Load llama.cpp's libraries inside this block; it restores the environment."""
    global _ours, _earlier
    if sys.platform != "linux" or any(name in os.environ for name in _OF_THE_USER):
        yield
        return
    before = loaded("libgomp")
    os.environ[SETTING] = str(SPINS)
    try:
        yield
    finally:
        os.environ.pop(SETTING, None)
    _ours = _ours or loaded("libgomp") > before
    _earlier = () if _ours else tuple(sorted(before))


def waiting(library: Path) -> Waiting:
    """How llama.cpp's threads wait; ``library`` is the file of its CPU code."""
    runtime = runtime_of(library)
    if runtime == "libgomp" and not loaded("libgomp") and loaded("libomp"):
        runtime = "libomp"  # conda's libgomp.so.1 may be a link to LLVM's library
    theirs = _OF_THE_USER if runtime == "libgomp" else ("KMP_BLOCKTIME", "OMP_WAIT_POLICY")
    settings = tuple(f"{name}={os.environ[name]}" for name in theirs if name in os.environ)
    if runtime == "libgomp" and _ours:
        return Waiting(runtime, (f"{SETTING}={SPINS}",), "us")
    if runtime in ("", "vcomp") or not settings:
        return Waiting(runtime, earlier=", ".join(_earlier) if runtime == "libgomp" else "")
    return Waiting(runtime, settings, "user")


def runtime_of(library: Path) -> Runtime:
    """The OpenMP library that a shared library names in its bytes, on any system."""
    content = library.read_bytes()  # one or two megabytes
    return next((runtime for name, runtime in _RUNTIMES if name in content), "")


def loaded(name: str, maps: Path = Path("/proc/self/maps")) -> frozenset[str]:
    """The shared libraries of that name in this process, e.g. "/usr/lib/libgomp.so.1"; empty except on Linux."""
    try:
        lines = maps.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    paths = (line.split(maxsplit=5)[5] for line in lines if line.count(" ") >= 5 and "/" in line)
    return frozenset(path for path in paths if path.rpartition("/")[2].startswith(name))
