"""A kernel for the tests of the link to the page."""

from __future__ import annotations

import pytest

from .fake_kernel import FakeKernel


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel()
