"""docs/cluster.md: every script runs with stand-ins for SLURM's commands, and what it starts is sound."""

import os
import subprocess
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from configs import load_cfg
from tests.pages import ROOT, blocks_of
from tools.launch.arguments import parse_args
from utils.commands import config_parser

PAGE = ROOT / "docs" / "cluster.md"
SCRIPTS = [block.text for block in blocks_of(PAGE) if block.language == "sh"]
JOBS = [text for text in SCRIPTS if text.startswith("#!")]
STAND_IN = '#!/usr/bin/env bash\nprintf "%s\\n" "$(basename "$0")" "$@" "--end--" >>"$CALLS"\n'
NODES = '#!/usr/bin/env bash\nprintf "node7\\nnode8\\n"\n'
SLURM = {"SLURM_JOB_ID": "42", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_ARRAY_TASK_ID": "3"}


def started_by(script: str, folder: Path) -> list[list[str]]:
    """Run a script with stand-ins; return the words of each call that it made, the program first."""
    (folder / "bin").mkdir()
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").touch()
    for name in ("srun", "hf", "tar", "scontrol"):
        (folder / "bin" / name).write_text(NODES if name == "scontrol" else STAND_IN)
        (folder / "bin" / name).chmod(0o755)
    places = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "CALLS": str(folder / "calls")}
    environment = os.environ | SLURM | places | {"SLURM_TMPDIR": str(folder / "local")}
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment, check=True)
    calls = (folder / "calls").read_text() if (folder / "calls").exists() else ""
    return [call.splitlines() for call in calls.split("--end--\n") if call]


@pytest.mark.parametrize("script", JOBS, ids=range(len(JOBS)))
def test_a_job_starts_one_command_whose_flags_and_keys_exist(script, tmp_path, monkeypatch):
    ((program, *words),) = started_by(script, tmp_path)
    assert program == "srun"
    monkeypatch.chdir(ROOT)
    if words[0] == "torchrun":
        args = get_args_parser().parse_args(words[1:])
        own = config_parser("train.py", "").parse_args(args.training_script_args)
        cfg = load_cfg(own.config_file, own.opts)
        assert args.training_script == "train.py" and cfg.MODEL.DIST_TRAIN
        assert cfg.SOLVER.IMS_PER_BATCH % (int(args.nproc_per_node) * int(args.nnodes.split(":")[0])) == 0
        assert args.rdzv_endpoint in ("", "node7:29500")
        assert f"--gpus-per-node={args.nproc_per_node}" in script
    else:
        assert words[:2] == ["python", "run_phased_loss.py"]
        args = parse_args(words[2:])
        for config in (name for group in args.config for name in group):
            load_cfg(config, args.opts)
        assert ("3" in map(str, args.seeds)) == ("--array" in script)


@pytest.mark.parametrize("script", [text for text in SCRIPTS if text not in JOBS])
def test_lines_for_a_job_run(script, tmp_path):
    for program, *words in started_by(script, tmp_path):
        assert program in ("tar", "hf") and words


def test_options_of_sbatch_are_written_as_it_reads_them():
    options = {line for script in JOBS for line in script.splitlines() if line.startswith("#SBATCH")}
    assert options and all(line.startswith("#SBATCH --") and " = " not in line for line in options)
    assert all(script.count("#SBATCH --requeue") == 1 for script in JOBS)
