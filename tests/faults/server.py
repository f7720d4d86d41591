"""A process that has imported everything and runs commands in children: real processes that start at once.

Each line on its stdin is a request as JSON, each line on its stdout an answer. `start` answers with the child's pid,
`wait` with its exit code (-n: signal n) and what it printed. Started with a request as its argument, it is the command
itself, exec'd.
"""

import importlib
import json
import os
import resource
import sys
from typing import Any, NoReturn

IMPORTED = (
    *("train", "test", "run_phased_loss", "datasets", "processor", "processor.evaluation.outcome", "model"),
    *("processor.provenance", "utils.logger", "solver.update", "tests.faults.events", "datasets.pixel_cache"),
    *(
        "tools.search.__main__",
        "tools.extract",
        "tools.export.__main__",
        "tools.export.exporter",
        "tools.visualize.__main__",
    ),
    *("tools.report", "tools.report.tested", "tools.charts", "tools.search.index", "tools.compare"),
    "tools.report.__main__",
    *("torch.utils.tensorboard.summary", "tensorboard.summary.writer.record_writer"),
)


def run(request: dict[str, Any]) -> NoReturn:
    """Run the command of a request and end as its script does."""
    import torch

    torch.set_num_threads(1)
    main = importlib.import_module(request["module"]).main
    if request["limit"] is not None:  # bytes of a file: what is longer meets EFBIG, as a full disk's ENOSPC
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["limit"], resource.RLIM_INFINITY))
    exec(request["before"])  # what stops it, from this project's own tests
    from utils.errors import run_command

    sys.exit(run_command(main, request["argv"]))


def start(request: dict[str, Any]) -> tuple[int, int]:
    """Return the pid of a child that runs a request, and the end of the pipe that it prints to."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    os.close(reader)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(request["stdout"], os.O_WRONLY) if request["stdout"] else writer, 1)
    os.dup2(writer, 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.argv = [f"{request['module']}.py"]
    run(request)


def main() -> None:
    """Serve requests until stdin ends."""
    for name in IMPORTED:
        importlib.import_module(name)
    running = {}
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            with open(running.pop(request["wait"]), "rb") as stream:
                output = stream.read().decode(errors="replace")
            code = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
            print(json.dumps([code, output]), flush=True)
        else:
            pid, reader = start(request)
            running[pid] = reader
            print(json.dumps(pid), flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run(json.loads(sys.argv[1]))
    main()
