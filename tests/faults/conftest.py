"""Every test of faults is counted; commands run as real processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import TINY_YAML
from tests.faults.events import code
from tests.faults.processes import Processes
from tests.faults.runs import Places
from tests.faults.tally import counted, tally

__all__ = ["counted", "tally"]


@pytest.fixture(scope="session")
def processes() -> Iterator[Processes]:
    """Starts commands; what it imports is imported once."""
    started = Processes()
    yield started
    started.close()


@pytest.fixture(scope="session")
def unbroken(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory, processes: Processes) -> Places:
    """An experiment that was trained and tested without a break; the names of the events lie beside it."""
    folder = tmp_path_factory.mktemp("unbroken")
    places = Places(folder / "tiny.yml", folder)
    places.config.write_text(TINY_YAML.format(root=tiny_root, output=places.run))
    for module, argv in (("train", places.training), ("test", places.testing(places.run / "transformer_2.pth"))):
        ended = processes.run(module, argv, before=code(0, folder / f"{module}.json"))
        assert ended.code == 0, ended.output
    return places
