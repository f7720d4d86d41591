"""What a bug report needs, as Markdown to paste into an issue: python -m tools.env [--run OUTPUT_DIR]"""

from utils.interrupts import take_over

if __name__ == "__main__":
    take_over()  # Ctrl-C, before the imports that take time

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from utils.clean_text import clean
from utils.commands import OneLineParser, path_flag
from utils.errors import run_command, shown
from utils.tables import markdown
from utils.workers import usable_cores

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ("requirements.txt", "requirements-test.txt")
REQUIRED = re.compile(r"([\w.-]+)(.*)")  # a line of them: the package, what is asked of its version
VARIABLES = (  # that change what is computed, or where; none holds a secret
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "PYTORCH_ALLOC_CONF"),
    *("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ENABLE_MPS_FALLBACK", "NVIDIA_TF32_OVERRIDE", "WORLD_SIZE"),
    *("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TORCH_HOME", "DATASETS_ROOT", "OUTPUT_ROOT", "RUN_TAG_TS"),
)
GIB = 2**30
Row = tuple[str, str]


def main(argv: list[str] | None = None) -> int:
    """Print versions, devices, precision, caches and threads, and what a run folder tells. Returns the exit code 0."""
    parser = OneLineParser(
        prog="python -m tools.env",
        description="Print what a bug report needs, as Markdown. What looks like a password or a token is hidden, the "
        "home folder is ~; read it before you paste it.",
    )
    parser.add_argument("--run", type=path_flag, metavar="OUTPUT_DIR", help="also tell of the run in this folder")
    args = parser.parse_args(argv)
    told, cache = [], ""
    if args.run is not None:
        from tools.run_facts import describe_run, find_run

        run = find_run(args.run)
        told, cache = [describe_run(run)], run.cache
    print(clean("\n".join([*describe_machine(cache), *told])), end="")
    return 0


def describe_machine(cache: str) -> Iterator[str]:
    """Yield the tables of the environment; what cannot be found out says why. `cache`: DATALOADER.CACHE, '' = none."""
    yield table("system", [*system_rows(), *variable_rows()])
    yield table("device", device_rows())
    yield table("caches", [*hub_rows(), *([("DATALOADER.CACHE", folder_size(Path(cache)))] if cache else [])])
    yield table("package", package_rows())


def table(title: str, rows: list[Row]) -> str:
    """Return a Markdown table of two columns, the first of which has that title."""
    return markdown([(title, ""), *rows]) + "\n"


def system_rows() -> list[Row]:
    """Return Python, system, cores, memory, shared memory and free disk."""
    rows = [
        ("Python", f"{platform.python_version()} ({platform.python_implementation()})"),
        ("system", platform.platform()),
        ("CPU cores that this process may use", f"{usable_cores()} of {os.cpu_count()}"),
    ]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        rows.append(("memory", gib(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))))
    for name, path in (("/dev/shm, for the workers of loaders", Path("/dev/shm")), ("disk of this folder", Path.cwd())):
        if path.is_dir():
            usage = shutil.disk_usage(path)
            rows.append((name, f"{gib(usage.free)} free of {gib(usage.total)}"))
    return rows


def variable_rows() -> list[Row]:
    """Return the environment variables of VARIABLES that are set."""
    return [(name, shown(os.environ[name])) for name in VARIABLES if name in os.environ]


def device_rows() -> list[Row]:
    """Return the devices, what MODEL.DEVICE auto and AMP auto take, threads and the commit of this code."""
    try:
        import torch

        from processor.provenance import find_environment
        from utils.device import describe_amp, resolve_device

        device = resolve_device("auto", "0")
        found = find_environment(str(device))
    except (ImportError, OSError) as error:  # a broken installation is what this command is asked for
        return [("torch and its companions cannot be imported", shown(f"{type(error).__name__}: {error}"))]
    rows = [("commit of this code", found["git_commit"] or "no git checkout")]
    # a driver may list cards that torch cannot use
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        card = torch.cuda.get_device_properties(index)
        rows.append((f"cuda:{index}", f"{card.name}, {gib(card.total_memory)}, capability {card.major}.{card.minor}"))
    built_for = f"{torch.version.cuda or 'none'}, {torch.backends.cudnn.version() or 'none'}"
    rows.append(("CUDA and cuDNN of torch", built_for))
    rows.append(("MODEL.DEVICE auto", f"{device} {found['device_name']}".strip()))
    rows.append(("SOLVER.AMP auto", describe_amp("auto", device)))
    rows.append(("threads of torch", f"{found['threads']}, {torch.get_num_interop_threads()} between operations"))
    return rows


def hub_rows() -> list[Row]:
    """Return the folders where hubs keep downloaded weights, with their sizes."""
    try:
        import torch
        from huggingface_hub import constants
    except (ImportError, OSError) as error:
        return [("unknown", shown(f"{type(error).__name__}: {error}"))]
    return [
        ("Hugging Face", folder_size(Path(constants.HF_HUB_CACHE))),
        ("torch hub", folder_size(Path(torch.hub.get_dir()))),
    ]


def package_rows() -> list[Row]:
    """Return each package of the requirements: its version here, and what is asked of it."""
    rows = []
    for name, asked in required_packages():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = "not installed"
        rows.append((name, f"{version} ({asked})"))
    return rows


def required_packages() -> Iterator[tuple[str, str]]:
    """Yield (package, what is asked of its version) of the files of requirements."""
    for name in REQUIREMENTS:
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
            match = REQUIRED.fullmatch(line.strip())
            if match:
                yield match[1], match[2]


def folder_size(folder: Path) -> str:
    """Return a folder's path with the size of the files in it; links count as links, unreadable parts as nothing."""
    folder = folder.expanduser()
    if not folder.is_dir():
        return f"{shown(str(folder))}: none"
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:  # gone meanwhile
                continue
    return f"{shown(str(folder))}: {gib(total)}"


def gib(count: int) -> str:
    """Return a number of bytes in GiB."""
    return f"{count / GIB:.1f} GiB"


if __name__ == "__main__":
    sys.exit(run_command(main))
