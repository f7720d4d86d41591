"""Files with which others set up: pinned versions, lower bounds, hooks, the image. Nothing is installed or fetched."""

import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.floors import FLOORS
from tests.pages import ROOT

REQUIREMENTS = ("requirements.txt", "requirements-test.txt")
FAKE_PYTHON = """#!/usr/bin/env bash
# stands for a Python: `-m venv PLACE` makes one whose pip and python keep what they are asked for
set -e
[ "$1 $2" = "-m venv" ]
mkdir -p "$3/bin"
for name in pip python; do
    printf '#!/usr/bin/env bash\\necho "%s $*" >>%q\\n' "$name" "$KEPT/calls" >"$3/bin/$name"
    chmod +x "$3/bin/$name"
done
printf 'cp %q %q %q\\n' "$3/pins.txt" "$3/tests.txt" "$KEPT" >>"$3/bin/pip"
[ -z "$FAILS" ] || echo "exit 3" >>"$3/bin/python"
"""


def required(*names: str) -> list[Requirement]:
    """Return what files of requirements ask for."""
    lines = [line.strip() for name in names for line in (ROOT / name).read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def pinned() -> dict[str, str]:
    """Return version by canonical name of constraints.txt."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pairs = [re.fullmatch(r"([\w.-]+)==([\w.!]+)", line) for line in lines]
    assert all(pairs), "every line is NAME==VERSION, without a path or a build of one machine"
    return {canonicalize_name(pair[1]): pair[2] for pair in pairs}


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_constraints_pin_every_requirement_to_a_version_that_is_allowed():
    versions = pinned()
    asked = {str(one): (canonicalize_name(one.name), one.specifier) for one in required(*REQUIREMENTS)}
    wrong = [one for one, (name, allowed) in asked.items() if versions.get(name, "0") not in allowed]
    assert wrong == []
    assert list(versions) == sorted(versions)


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_every_requirement_is_a_lower_bound(name):
    operators = {str(one): [part.operator for part in one.specifier] for one in required(name)}
    assert {one: found for one, found in operators.items() if found != [">="]} == {}


@pytest.mark.parametrize("fails", ["", "1"])
def test_lower_bounds_are_installed_exactly_and_tested_and_leave_nothing(tmp_path, fails):
    python = executable(tmp_path / "python", FAKE_PYTHON)
    place, kept = tmp_path / "place", tmp_path / "kept"
    place.mkdir()
    kept.mkdir()
    environment = os.environ | {"PYTHON": str(python), "KEPT": str(kept), "FAILS": fails}
    ran = subprocess.run(
        ["bash", ROOT / ".ci" / "lower_bounds", place], env=environment, capture_output=True, text=True
    )
    assert (ran.returncode == 0) == (not fails), ran.stderr
    wanted = [f"{one.name}=={next(iter(one.specifier)).version}" for one in required("requirements.txt")]
    assert (kept / "pins.txt").read_text().split() == wanted
    assert [Requirement(line).name for line in (kept / "tests.txt").read_text().split()] == [
        "pytest", "pytest-xdist", "hypothesis"
    ]  # fmt: skip
    install, test = (kept / "calls").read_text().splitlines()
    assert install.startswith("pip install ") and install.count(" -r ") == 2
    paths = [word for word in test.split() if word.startswith("tests/")]
    assert len(paths) >= 5 and all((ROOT / path).exists() for path in paths)
    assert list(place.iterdir()) == []


def test_a_place_that_is_taken_is_not_emptied(tmp_path):
    (tmp_path / "lower_bounds").mkdir()
    (tmp_path / "lower_bounds" / "mine").touch()
    ran = subprocess.run(["bash", ROOT / ".ci" / "lower_bounds", tmp_path], capture_output=True, text=True)
    assert ran.returncode == 2 and "exists already" in ran.stderr and (tmp_path / "lower_bounds" / "mine").exists()


def test_hooks_of_pre_commit_need_no_network_and_call_what_is_there():
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local" and {hook["language"] for hook in repo["hooks"]} == {"system"}
    entries = {hook["id"]: shlex.split(hook["entry"]) for hook in repo["hooks"]}
    assert entries["ruff-check"][:2] == ["ruff", "check"] and entries["ruff-format"][:2] == ["ruff", "format"]
    assert "ruff" in {one.name for one in required("requirements-test.txt")}
    assert entries["large-files"][0] == "bash" and (ROOT / entries["large-files"][1]).is_file()


def test_files_over_the_limit_are_refused_by_name_and_ours_are_below_it(tmp_path):
    def look(*paths: Path) -> subprocess.CompletedProcess:
        return subprocess.run(["bash", ROOT / ".ci" / "large_files", *paths], capture_output=True, text=True)

    (tmp_path / "small").write_bytes(bytes(500_000))
    (tmp_path / "a large one").write_bytes(bytes(500_001))
    refused = look(tmp_path / "small", tmp_path / "a large one", tmp_path / "deleted")
    assert refused.returncode == 1 and "a large one" in refused.stderr and "small" not in refused.stderr
    folders = [ROOT / name for name in (*FLOORS, "tests", "docs") if (ROOT / name).is_dir()]
    ours = [path for folder in folders for path in folder.rglob("*") if path.suffix != ".pyc"]
    assert len(ours) > 500 and look(*ours).returncode == 0


def instructions() -> list[tuple[str, str]]:
    """Return (instruction, its arguments in one line) of the Dockerfile."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(" ", 1)) for line in joined.splitlines() if line.strip()]


def taken() -> set[str]:
    """Return what .dockerignore lets into the image."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert [line for line in lines if line and line[0] not in "#!"][0] == "*"
    return {line[1:] for line in lines if line.startswith("!")}


def test_the_image_holds_what_the_code_needs_and_only_files_that_exist():
    code = {f"{name}.py" if (ROOT / f"{name}.py").is_file() else name for name in FLOORS} - {"benchmarks"}
    assert taken() == code | {"LICENSE", "requirements.txt", "constraints.txt"}
    assert [name for name in taken() if not (ROOT / name).exists()] == []
    copied = [word for name, words in instructions() if name == "COPY" for word in words.split()[:-1]]
    assert copied and [word for word in copied if word != "." and word not in taken()] == []


def test_the_image_runs_as_a_user_without_rights_on_a_python_that_serves():
    steps = instructions()
    users = [words for name, words in steps if name == "USER"]
    last_copy = max(number for number, (name, _) in enumerate(steps) if name in ("COPY", "RUN"))
    assert len(users) == 1 and users[0] != "root" and steps.index(("USER", users[0])) > last_copy
    (base,) = [words for name, words in steps if name == "FROM"]
    version = re.fullmatch(r"python:(\d+\.\d+)-slim", base)[1]
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert version in SpecifierSet(asked)
    (command,) = [yaml.safe_load(words) for name, words in steps if name == "CMD"]
    assert command[0] == "python" and command[1] in taken()


@pytest.mark.parametrize(("torch", "installs", "code"), [("cuda", 1, 0), ("cpu", 2, 0), ("rocm", 0, 2)])
def test_the_build_argument_chooses_the_build_of_torch_or_is_refused(tmp_path, torch, installs, code):
    executable(tmp_path / "pip", f'#!/usr/bin/env bash\necho "$*" >>{shlex.quote(str(tmp_path / "calls"))}\n')
    assert ("ARG", "TORCH=cuda") in instructions()
    (step,) = [words for name, words in instructions() if name == "RUN" and "pip" in words]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TORCH": torch}
    ran = subprocess.run(["sh", "-c", step], env=environment, capture_output=True, text=True)
    assert ran.returncode == code and ("allowed: cuda, cpu" in ran.stderr) == (code != 0)
    calls = (tmp_path / "calls").read_text().splitlines() if code == 0 else []
    assert len(calls) == installs and all("-c constraints.txt" in call for call in calls)
    assert not calls or "-r requirements.txt" in calls[-1]
