"""How many threads compute: cores, affinity, and the quotas of control groups, read from trees like those of real machines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from llm_magics.engine.native.cpus import Cpus, cpu_quota, cpus, default_threads, group_directories

# The lines of /proc/self/mountinfo that matter, as they are on machines of each kind.
V2 = "29 22 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "34 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:11 - cgroup cgroup rw,cpu,cpuacct"
V1_MEMORY = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:12 - cgroup cgroup rw,memory"
DISK = "23 1 254:0 / / rw,relatime - ext4 /dev/vda rw"


def tree(root: Path, groups: str, mounts: str) -> Path:
    """Lay a process's own files below ``root``."""
    write(root, "/proc/self/cgroup", groups)
    write(root, "/proc/self/mountinfo", mounts)
    return root


def write(root: Path, path: str, text: str) -> None:
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


@pytest.mark.parametrize(
    ("group", "levels", "quota"),
    [
        ("/", {"/": "max 100000"}, None),
        ("/", {}, None),  # the root group has no such file
        ("/", {"/": "200000 100000"}, 2.0),  # a container that sees its own group as the root
        ("/user.slice/jupyter-a.service", {"/user.slice/jupyter-a.service": "150000 100000"}, 1.5),
        ("/pods/pod7/c1", {"/pods/pod7/c1": "max 100000", "/pods/pod7": "400000 100000", "/pods": "max 100000"}, 4.0),
        ("/pods/pod7/c1", {"/pods/pod7/c1": "800000 100000", "/pods/pod7": "100000 50000", "/pods": "900000 100000"}, 2.0),
        ("/../outside", {"/": "300000 100000", "/outside": "100000 100000"}, 3.0),
        ("/a", {"/a": "not what it should be"}, None),
    ],
)
def test_version_2_the_least_quota_of_all_levels_counts(
    tmp_path: Path, group: str, levels: dict[str, str], quota: float | None
) -> None:
    root = tree(tmp_path, f"0::{group}\n", f"{DISK}\n{V2}\n")
    for level, text in levels.items():
        write(root, f"/sys/fs/cgroup{level}/cpu.max", text + "\n")
    assert cpu_quota(root) == quota


@pytest.mark.parametrize(
    ("levels", "quota"),
    [
        ({"": ("-1", "100000")}, None),
        ({"": ("-1", "100000"), "/docker": ("-1", "100000"), "/docker/ab": ("250000", "100000")}, 2.5),
        ({"": ("-1", "100000"), "/docker": ("50000", "25000"), "/docker/ab": ("900000", "100000")}, 2.0),
        ({"/docker/ab": ("100000", "0")}, None),
    ],
)
def test_version_1_the_least_quota_of_all_levels_counts(
    tmp_path: Path, levels: dict[str, tuple[str, str]], quota: float | None
) -> None:
    root = tree(tmp_path, "6:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n0::/\n", f"{V1}\n{V1_MEMORY}\n")
    for level, (given, period) in levels.items():
        write(root, f"/sys/fs/cgroup/cpu,cpuacct{level}/cpu.cfs_quota_us", f"{given}\n")
        write(root, f"/sys/fs/cgroup/cpu,cpuacct{level}/cpu.cfs_period_us", f"{period}\n")
    assert cpu_quota(root) == quota


def test_a_container_that_has_its_own_group_mounted_looks_there() -> None:
    mounts = V1.replace("0:31 / /", "0:31 /docker/ab /")
    assert list(group_directories("4:cpu,cpuacct:/docker/ab/inner\n", mounts)) == [
        "/sys/fs/cgroup/cpu,cpuacct/inner",
        "/sys/fs/cgroup/cpu,cpuacct",
    ]
    assert list(group_directories("4:cpu,cpuacct:/elsewhere\n", mounts)) == ["/sys/fs/cgroup/cpu,cpuacct"]


def test_where_both_versions_are_mounted_both_are_read(tmp_path: Path) -> None:
    hybrid = V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
    root = tree(tmp_path, "4:cpu:/a\n0::/b\n", f"{V1.replace('cpu,cpuacct', 'cpu')}\n{hybrid}\n")
    write(root, "/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "600000\n")
    write(root, "/sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n")
    write(root, "/sys/fs/cgroup/unified/b/cpu.max", "300000 100000\n")
    assert cpu_quota(root) == 3.0


def test_spaces_in_a_mount_point_are_understood() -> None:
    mounts = V2.replace("/sys/fs/cgroup", "/my\\040groups")
    assert list(group_directories("0::/\n", mounts)) == ["/my groups"]


def test_a_system_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    """macOS and Windows: there is no /proc at all."""
    assert cpu_quota(tmp_path) is None


def test_a_system_without_affinity_counts_all_its_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(psutil.Process, "cpu_affinity", raising=False)  # as on macOS
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert cpus().allowed == 12


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or (os.cpu_count() or 1) < 2, reason="no affinity, or one processor")
def test_a_real_process_that_may_use_one_processor_computes_on_one_thread() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from llm_magics.engine.native.cpus import cpus; print(cpus().allowed, cpus().threads)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["1", "1"]


@pytest.mark.parametrize(
    ("physical", "allowed", "quota", "threads"),
    [
        (64, 128, None, 64),
        (64, 128, 2.0, 2),
        (64, 128, 2.5, 3),
        (64, 128, 0.2, 1),
        (64, 3, 8.0, 3),
        (2, 2, 16.0, 2),
        (4, 8, None, 4),
    ],
)
def test_threads_follow_the_least_of_cores_affinity_and_quota(
    physical: int, allowed: int, quota: float | None, threads: int
) -> None:
    assert Cpus(physical, allowed, quota).threads == threads


def test_a_real_context_computes_on_as_many_threads_as_the_quota_grants(monkeypatch: pytest.MonkeyPatch, smollm: Path) -> None:
    """What reaches llama.cpp, not only what the function says."""
    from contextlib import closing

    import llm_magics.engine.native.cpus as module
    from llm_magics.engine.hosts import open_engine
    from llm_magics.engine.native.library import lib
    from llm_magics.engine.values import EngineConfig

    monkeypatch.setattr(module, "cpu_quota", lambda: 1.0)
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda _: list(range(8)), raising=False)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 8)
    with closing(open_engine(EngineConfig(str(smollm), n_ctx=256))) as engine:
        pointer = engine.core.context.pointer  # type: ignore[attr-defined]
        assert (lib.llama_n_threads(pointer), lib.llama_n_threads_batch(pointer)) == (1, 1)


CPU_GROUPS = Path("/sys/fs/cgroup/cpu")  # of version 1; where version 2 is mounted, the groups are systemd's


@pytest.mark.skipif(not os.access(CPU_GROUPS / "cpu.cfs_quota_us", os.W_OK), reason="no control groups that this user may make")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor is all there is")
def test_a_real_control_group_is_found_by_a_process_in_it() -> None:
    outer = CPU_GROUPS / f"llm-magics-test-{os.getpid()}"
    inner = outer / "inner"
    inner.mkdir(parents=True)
    try:
        (outer / "cpu.cfs_period_us").write_text("100000")
        (outer / "cpu.cfs_quota_us").write_text("100000")
        enter = f"open({str(inner / 'cgroup.procs')!r}, 'w').write('0')"
        code = f"{enter}; from llm_magics.engine.native.cpus import cpus; found = cpus(); print(found.quota, found.threads)"
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert ran.stdout.split() == ["1.0", "1"]
    finally:
        inner.rmdir()
        outer.rmdir()


def test_default_threads_is_at_least_one_and_no_more_than_the_cores() -> None:
    assert 1 <= default_threads() <= (os.cpu_count() or 1)
