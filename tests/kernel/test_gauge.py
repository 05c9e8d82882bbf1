"""What the page is told of loaded models: after cells, and of a GPU every few moments without one."""

from __future__ import annotations

import itertools
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from llm_magics.engine.fit import memory
from llm_magics.engine.fit.memory import Gpu
from llm_magics.kernel import gauge
from llm_magics.kernel.gauge import Gauge


class Link:
    """Keeps what was sent; ``arrived`` is set with each."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.arrived = threading.Condition()

    def tell(self, kind: str, **data: Any) -> None:
        assert kind == "models"
        with self.arrived:
            self.sent.append(data)
            self.arrived.notify_all()

    def wait_for(self, n: int) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.sent) >= n, 20)


def runtime(*devices: str) -> Any:
    info = SimpleNamespace(buffers=[(device, "model", 10) for device in devices], description="tiny")
    model = SimpleNamespace(engine=SimpleNamespace(info=info), context_size=64, name="tiny")
    residents = {"tiny": SimpleNamespace(name="tiny", model=model)}
    return SimpleNamespace(shell=None, link=Link(), residents=residents, threads={}, current_model="tiny")


@pytest.fixture(autouse=True)
def page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauge, "parent_metadata", lambda shell: {"cellId": "c"})
    monkeypatch.setattr(gauge, "SECONDS", 0.01)


def test_a_model_on_the_host_is_told_once_and_nobody_looks_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "nvidia_gpus", lambda: pytest.fail("there is no need to look"))
    given = runtime("CPU_Mapped", "CUDA_Host")
    told = Gauge(given)
    told.cell_ended()
    told.cell_ended()
    assert [(sent["models"][0]["memory"], sent["gpus"]) for sent in given.link.sent] == [({"host": 20}, [])]
    assert told._watch is None


def test_a_gpu_is_told_of_while_no_cell_runs_and_only_where_it_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([5, 5, 5, 80])
    monkeypatch.setattr(memory, "nvidia_gpus", lambda: (Gpu("H", "0", 100, 141, busy=next(looks, None)),))
    given = runtime("CUDA0", "CPU")
    told = Gauge(given)
    told.cell_ended()
    given.link.wait_for(3)
    told.stop()
    assert [sent["gpus"][0]["busy"] for sent in given.link.sent] == [5, 80, None]
    assert given.link.sent[0]["gpus"] == [{"name": "H", "used": 41, "total": 141, "busy": 5}]
    assert given.link.sent[0]["models"][0]["memory"] == {"CUDA0": 10, "host": 10}


def test_it_falls_silent_some_time_after_the_last_cell_and_begins_again_with_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = itertools.count(1)
    monkeypatch.setattr(memory, "nvidia_gpus", lambda: (Gpu("H", "0", 100, 141, busy=next(busy)),))
    monkeypatch.setattr(gauge, "LISTENS", 0.1)
    given = runtime("CUDA0")
    told = Gauge(given)
    told.cell_ended()
    watch = told._watch
    assert watch is not None
    watch.join(20)
    assert not watch.is_alive()
    assert given.link.sent[-1]["gpus"][0]["busy"] is None  # what is not looked at any more is not told
    told.cell_begins()
    given.link.wait_for(len(given.link.sent) + 20)  # for as long as the cell runs
    told.stop()


def test_without_a_page_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauge, "parent_metadata", lambda shell: {})
    given = runtime("CUDA0")
    told = Gauge(given)
    told.cell_ended()
    assert not given.link.sent
    assert told._watch is None
