"""python -m tools.demo: mistakes are one line and code 2, gradio is imported by nobody else, and is told all."""

import json
import os
import subprocess
import sys
from functools import partial

import pytest

from tests import commands
from tests.pages import ROOT
from tools.demo import __main__ as demo

run = partial(commands.run, demo.main)


def refusal(capsys: pytest.CaptureFixture, *words: object) -> str:
    """Return the one line of the command, which ends with code 2."""
    try:
        code = run(*words)
    except SystemExit as end:  # the parser's own errors
        code = end.code
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2 and error.startswith("error: ")
    return error


@pytest.fixture
def with_gradio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command believe that gradio is there; no test here gets as far as to import it."""
    monkeypatch.setattr(demo, "need_packages", lambda *names: None)
    monkeypatch.setattr(demo.metadata, "version", lambda name: "7.0.1")


def test_without_gradio_one_line_says_what_to_install(monkeypatch, capsys):
    found = demo.need_packages.__globals__["importlib"].util.find_spec
    lacks = lambda name: None if name == "gradio" else found(name)  # noqa: E731
    monkeypatch.setattr("importlib.util.find_spec", lacks)
    error = refusal(capsys, "--run", "r", "--gallery", "g")
    assert error == "error: this command needs 'gradio>=6.31': pip install 'gradio>=6.31'"


@pytest.mark.parametrize("version", ["5.49.1", "6.30.2"])
def test_an_old_gradio_is_told(with_gradio, monkeypatch, capsys, version):
    monkeypatch.setattr(demo.metadata, "version", lambda name: version)
    error = refusal(capsys, "--run", "r", "--gallery", "g")
    assert error == f"error: gradio {version} is too old for this command: pip install 'gradio>=6.31'"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gallery", "nowhere"], "--gallery 'nowhere' does not exist"),
        (["--gallery", "PHOTOS", "--index", "i.pkl"], "--index 'i.pkl' must end in .npz"),
        (["--gallery", "PHOTOS", "--port", "0"], "need a whole number of at least 1"),
        (["--gallery", "PHOTOS", "--port", "65536"], "got '65536', need a port of 1 to 65535"),
        (["--gallery", "PHOTOS", "--uploads", "/proc/x"], "--uploads '/proc/x': cannot write there"),
        (["--gallery", "PHOTOS", "--weights", "w.pth"], "one of the two"),
        ([], "--gallery"),
    ],
)
def test_mistakes_are_one_line_and_code_2(
    with_gradio, photos, trained_run, tmp_path, monkeypatch, capsys, words, message
):
    monkeypatch.chdir(tmp_path)
    argv = ["--run", str(trained_run), *(str(tmp_path / "photos") if word == "PHOTOS" else word for word in words)]
    assert message in refusal(capsys, *argv)


IMPORTS = """
import json, sys
from tools.demo import engine, cards, gallery, guard, uploads, __main__
print(json.dumps([name for name in sys.modules if name.split(".")[0] in ("gradio", "starlette", "fastapi", "uvicorn")]))
"""


def test_nothing_but_the_page_itself_imports_gradio():
    ran = subprocess.run([sys.executable, "-c", IMPORTS], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == []


def test_gradio_is_told_all_by_the_command_and_nothing_by_the_environment(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "")
    kept = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False", "GRADIO_TEMP_DIR": str(tmp_path)}
    for name in (*kept, "GRADIO_SHARE", "GRADIO_ALLOWED_PATHS", "GRADIO_SERVER_NAME"):
        monkeypatch.setenv(name, "/")
    demo._set_up_gradio(str(tmp_path))
    assert {name: value for name, value in os.environ.items() if name.startswith("GRADIO_")} == kept
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"


def test_the_extra_is_named_in_its_requirements_and_in_no_others():
    own = (ROOT / "requirements-demo.txt").read_text(encoding="utf-8")
    assert "\ngradio>=6.31\n" in own
    for other in ("requirements.txt", "requirements-test.txt"):
        assert "gradio" not in (ROOT / other).read_text(encoding="utf-8")
