"""How many threads compute: the physical cores that this process may use.

Affinity (``taskset``, cpusets, some batch systems) names the processors of a process. A quota of its control group (containers,
Kubernetes, JupyterHub's spawners) limits its processor time: "2 CPUs" means 200 ms in each period of 100 ms. With more threads,
a process is stopped for the rest of each period. Control groups nest; the least limit counts.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class Cpus:
    """The cores of a machine, the processors of this process, and its quota in CPUs (None without a limit)."""

    physical: int
    allowed: int
    quota: float | None = None

    @property
    def threads(self) -> int:
        """How many threads to compute with. A part of a CPU counts as one, or that part would stay idle."""
        limit = self.allowed if self.quota is None else min(self.allowed, math.ceil(self.quota))
        return max(1, min(self.physical, limit))


def cpus() -> Cpus:
    """Look at this process now. Without affinity (macOS) or control groups (only on Linux), all cores count."""
    import psutil

    process = psutil.Process()
    allowed = len(process.cpu_affinity() or ()) if hasattr(process, "cpu_affinity") else 0
    allowed = allowed or os.cpu_count() or 1
    return Cpus(psutil.cpu_count(logical=False) or allowed, allowed, cpu_quota())


def default_threads() -> int:
    return cpus().threads


def cpu_quota(root: Path = Path("/")) -> float | None:
    """The CPUs of time that this process may use; None if no control group limits it."""
    limits = map(_limit, control_groups("cpu", root))
    return min((limit for limit in limits if limit is not None), default=None)


def control_groups(controller: str, root: Path = Path("/")) -> list[Path]:
    """The directories of the control groups that may limit this process in "cpu" or "memory"; none on other systems."""
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace")
        mounts = (root / "proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [root / directory.lstrip("/") for directory in group_directories(groups, mounts, controller)]


def group_directories(groups: str, mounts: str, controller: str = "cpu") -> Iterator[str]:
    """Yield the directories of a process's control groups, each followed by its parents.

    ``groups`` is ``/proc/self/cgroup``, e.g. "0::/user.slice/x" (version 2) or "4:cpu,cpuacct:/docker/ab" (version 1);
    ``mounts`` is ``/proc/self/mountinfo``.
    """
    paths = _group_paths(groups, controller)
    for version, top, mounted_at in _group_mounts(mounts, controller):
        if version not in paths:
            continue
        # To a container, its own group is the mount's root. Groups outside (another path, "/..") are invisible.
        inside = PurePosixPath(paths[version])
        parts = inside.relative_to(top).parts if inside.is_relative_to(top) else ()
        for n in range(0 if ".." in parts else len(parts), -1, -1):
            yield str(PurePosixPath(mounted_at, *parts[:n]))


def _group_paths(groups: str, controller: str) -> dict[int, str]:
    """The process's group in the version 2 hierarchy, and in the version 1 hierarchy of this controller."""
    paths: dict[int, str] = {}
    for line in groups.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            paths[2] = path
        elif controller in controllers.split(","):
            paths[1] = path
    return paths


# e.g. "34 31 0:31 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct"
_MOUNT = re.compile(r"\S+ \S+ \S+ (\S+) (\S+) .*?- (cgroup2?) \S+ (\S+)")
_OCTAL = re.compile(r"\\([0-7]{3})")  # e.g. "\040" is a space


def _group_mounts(mounts: str, controller: str) -> Iterator[tuple[int, str, str]]:
    """(version, the group at the mount's root, the mount point) of each hierarchy that may have this controller."""
    for line in mounts.splitlines():
        match = _MOUNT.match(line)
        if match is None:
            continue
        top, mounted_at = (_OCTAL.sub(lambda code: chr(int(code[1], 8)), text) for text in match.group(1, 2))
        if match[3] == "cgroup2":
            yield 2, top, mounted_at
        elif controller in match[4].split(","):
            yield 1, top, mounted_at


def _limit(directory: Path) -> float | None:
    """One control group's own quota in CPUs, or None. ``cpu.max`` (version 2) has e.g. "200000 100000" or "max 100000"."""
    try:
        if (directory / "cpu.max").exists():
            quota, period = (directory / "cpu.max").read_text().split()
        else:
            quota, period = ((directory / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # "max" is not a number; a controller may be off at this level
        return None
