"""Fixtures that several test files share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchsuite.discovery import Catalog, discover


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--weights",
        type=Path,
        metavar="DIR",
        help="published weights to check: DIR/ddpm-cifar10-32 …, DIR/256x256_diffusion_uncond.pt",
    )


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests are small: on them threads cost more than they bring, and the machine may be shared."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def first_party() -> Catalog:
    """What this distribution offers, whatever else is installed in the developer's environment."""
    return discover(keep=lambda point: point.dist is not None and point.dist.name == "benchsuite")
