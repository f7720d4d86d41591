"""Random damage to weight files and training states: refused in one line, or used without a crash.

REID_FUZZ_SECONDS sets how long the slow part goes on, REID_FUZZ_SEED where it starts.
"""

import copy
import io
import os
import pickle
import random
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as safetensors_bytes
from torch import nn

from model import make_model
from model.weights.load import load_weights
from tests.faults.states import Run, go_on, make_run, read_state, write_state
from tests.model.builds import TINY_VIT, make_cfg, make_tiny
from utils.checkpoint import load_file, read_provenance, read_weights, save_weights
from utils.errors import ConfigError, DataError

pytestmark = [pytest.mark.filterwarnings("ignore")]
SLOWEST = 20.0  # seconds of one try
OPCODES = sorted(pickle._Unpickler.dispatch)
ODD_NAMES = (  # of weights, also of other projects
    *("", ".", " ", "base.", "base.blocks.", "base.blocks.x.weight", "base.blocks.99999999999999999999.x", "b1."),
    *("b1.0.norm1.weight", "b1.x", "b2.0.x", "pos_embed", "base.pos_embed", "dist_token", "patch_embed.proj.weight"),
    *(
        "base.sie_embed",
        "lora_a",
        "base.blocks.0.attn.qkv.lora_a",
        "x.lora_scale",
        "visual.conv1.weight",
        "head.weight",
    ),
    *("module.", "model.x", "bottleneck_9.weight", "clip_model.x", "fuse_fc.weight", "clip_fingerprint"),
)
ODD_VALUES: tuple[Callable[[random.Random], Any], ...] = (  # what may stand where something else should
    *(lambda _: None, lambda _: True, lambda _: -1, lambda _: 2**70, lambda _: float("nan"), lambda _: 1e308),
    *(lambda _: "x", lambda _: b"x", lambda _: [], lambda _: {}, lambda _: (), lambda _: {3: 4}, lambda _: 1j),
    *(lambda _: torch.ones(()), lambda _: torch.ones(0), lambda _: torch.ones(3).bool(), lambda _: [torch.ones(2)]),
    lambda draw: torch.ones([draw.randrange(4) for _ in range(draw.randrange(4))]),
    lambda draw: torch.ones(24).to(draw.choice((torch.half, torch.double, torch.int32, torch.complex64, torch.uint8))),
    lambda _: torch.zeros(1).expand(2**20, 2**20),
    lambda _: torch.eye(3).to_sparse(),
    lambda _: torch.ones(4, device="meta"),
    lambda _: torch.arange(24.0)[::2],
    lambda _: {"x": {"y": [1, {"z": torch.ones(2)}]}},
)


def file_of(weights: dict[str, torch.Tensor], **options: object) -> bytes:
    stream = io.BytesIO()
    torch.save(weights, stream, **options)
    return stream.getvalue()


class Fuzzer:
    """Damages small files by seeded draws and counts what became of them."""

    def __init__(self, folder: Path, run: Run, seed: int) -> None:
        self.folder, self.run, self.draw = folder, run, random.Random(seed)
        self.layer, self.model = nn.Linear(3, 2), make_tiny("MODEL.JPM", True)
        self.whole = copy.deepcopy(self.model.state_dict())
        weights = self.layer.state_dict()
        save_weights(weights, folder / "sound.pth", {"schema": 1, "config": "MODEL: {NAME: transformer}"})
        zipped = (folder / "sound.pth").read_bytes()
        old = file_of({"state_dict": weights, "epoch": 3}, _use_new_zipfile_serialization=False)
        self.files = (zipped, old, safetensors_bytes(dict(weights)))
        self.state_file = (folder / "state_last.pth").read_bytes()
        self.state = read_state(folder / "state_last.pth")
        self.count: Counter[str] = Counter()
        self.slowest = 0.0

    def bits_of_weights(self) -> None:
        """Some bits of a weight file, or its end."""
        self._weights(self._damaged(bytearray(self.draw.choice(self.files))))

    def pickle_of_weights(self) -> None:
        """Some bytes of the pickle in a weight file, whose checksums are right."""
        self._weights(self._repickled(self.files[0]))

    def names_of_weights(self) -> None:
        """Names, shapes and types of some weights of a whole model."""
        weights = dict(self.whole)
        if self.draw.random() < 0.5:
            weights = {name.removeprefix("base."): value for name, value in weights.items()}
        for _ in range(self.draw.choice((1, 1, 2, 5))):
            name = self.draw.choice(list(weights))
            value = weights.pop(name)
            odd = torch.ones([self.draw.randrange(4) for _ in range(self.draw.randrange(5))])
            doubled = torch.cat([value, value]) if value.dim() else value
            other = self.draw.choice(
                (value, odd, doubled, value[..., None], value.half(), value.double(), value.bool())
            )
            weights[self.draw.choice((name, self.draw.choice(ODD_NAMES)))] = other
        path = self.folder / "names.pth"
        torch.save(weights, path)
        use = ("self", "finetune", "imagenet", "")[self.draw.randrange(4)]
        opts = (*TINY_VIT, "MODEL.JPM", True, "MODEL.PRETRAIN_PATH", str(path), "MODEL.PRETRAIN_CHOICE", use)
        self._try(lambda: make_model(make_cfg(*opts), 5, 0, 0) if use else self.model.load_param(str(path)))

    def bits_of_a_state(self) -> None:
        """Some bits of a state, or its end."""
        self._resume(self._damaged(bytearray(self.state_file)))

    def pickle_of_a_state(self) -> None:
        """Some bytes of the pickle in a state."""
        self._resume(self._repickled(self.state_file))

    def entries_of_a_state(self) -> None:
        """Some entries of a state become something else, go, or change places."""
        state = copy.copy(self.state)
        for _ in range(self.draw.choice((1, 1, 2, 3))):
            state = self._with_another_entry(state)
        stream = io.BytesIO()
        torch.save(state, stream)
        self._resume(stream.getvalue())

    def _damaged(self, content: bytearray) -> bytes:
        if self.draw.random() < 0.3:
            return bytes(content[: self.draw.randrange(len(content))])
        for _ in range(self.draw.choice((1, 1, 3, 30))):
            content[self.draw.randrange(len(content))] ^= 1 << self.draw.randrange(8)
        return bytes(content)

    def _repickled(self, content: bytes) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w") as new:
            for name in old.namelist():
                part = bytearray(old.read(name))
                for _ in range(self.draw.choice((1, 1, 2, 5)) if name.endswith("data.pkl") else 0):
                    place = self.draw.randrange(len(part))
                    byte = self.draw.choice((self.draw.randrange(256), self.draw.choice(OPCODES)))
                    part[place : place + self.draw.randrange(2)] = bytes([byte])
                new.writestr(name, bytes(part))
        return stream.getvalue()

    def _with_another_entry(self, tree: Any) -> Any:
        """Return a copy of a tree with one entry changed; what is not changed is shared."""
        is_inner = isinstance(tree, (dict, list)) and len(tree)
        if not is_inner or self.draw.random() < 0.1:
            return self.draw.choice(ODD_VALUES)(self.draw)
        tree = copy.copy(tree)
        key = self.draw.choice(list(tree) if isinstance(tree, dict) else range(len(tree)))
        chance = self.draw.random()
        if chance < 0.1:
            del tree[key]
        elif chance < 0.2 and isinstance(tree, dict):
            other = self.draw.choice(list(tree))
            tree[key], tree[other] = tree[other], tree[key]
        else:
            tree[key] = self._with_another_entry(tree[key])
        return tree

    def _weights(self, content: bytes) -> None:
        path = self.folder / self.draw.choice(("x.pth", "x.safetensors"))
        path.write_bytes(content)

        def use() -> None:
            read_provenance(path)
            load_weights(self.layer, read_weights(path, "KEY"), "KEY", lambda name: "")
            self.layer(torch.ones(1, 3))

        self._try(use)

    def _resume(self, content: bytes) -> None:
        folder = self.folder / "resumed"
        folder.mkdir(exist_ok=True)
        (folder / "state_last.pth").write_bytes(content)
        self._try(lambda: go_on(folder, run=self.run))

    def _try(self, use: Callable[[], object]) -> None:
        started = time.perf_counter()
        try:
            use()
            self.count["used"] += 1
        except (ConfigError, DataError) as error:
            assert "\n" not in str(error)
            self.count["refused"] += 1
        self.slowest = max(self.slowest, time.perf_counter() - started)


KINDS = (
    "bits_of_weights",
    "pickle_of_weights",
    "names_of_weights",
    "bits_of_a_state",
    "pickle_of_a_state",
    "entries_of_a_state",
)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """The folder of a sound state, and a run."""
    folder = tmp_path_factory.mktemp("fuzz")
    write_state(folder)
    return folder, make_run(folder)


@pytest.mark.parametrize(("kind", "tries"), list(zip(KINDS, (100, 80, 8, 10, 10, 15), strict=True)))
def test_damage_is_refused_or_does_no_harm(start, tally, kind, tries):
    fuzzer = Fuzzer(*start, seed=1)
    for _ in range(tries):
        getattr(fuzzer, kind)()
    tally(f"random damage: {kind.replace('_', ' ')}", tries, sum(fuzzer.count.values()))
    assert fuzzer.slowest < SLOWEST and fuzzer.count["refused"] > tries // 3


@pytest.mark.slow
def test_damage_for_minutes_is_refused_or_does_no_harm(start, tally):
    seed, seconds = int(os.environ.get("REID_FUZZ_SEED", time.time())), float(os.environ.get("REID_FUZZ_SECONDS", 120))
    fuzzer, until, tries = Fuzzer(*start, seed=seed), time.monotonic() + seconds, Counter()
    while time.monotonic() < until:
        kind = fuzzer.draw.choice(KINDS)
        getattr(fuzzer, kind)()
        tries[kind] += 1
    print(f"seed {seed}: tried {dict(tries)}, {dict(fuzzer.count)}, the slowest took {fuzzer.slowest:.1f} s")
    for kind, number in tries.items():
        tally(f"random damage: {kind.replace('_', ' ')}", number, number)
    assert fuzzer.slowest < SLOWEST


def test_a_sound_file_of_the_fuzzer_is_used(start):
    fuzzer = Fuzzer(*start, seed=1)
    for content in fuzzer.files:
        fuzzer._weights(content)
    fuzzer._resume(fuzzer.state_file)
    assert fuzzer.count == {"used": 4}
    assert load_file(start[0] / "state_last.pth", "KEY").keys() == fuzzer.state.keys()
