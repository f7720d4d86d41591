"""Real child processes: what they print arrives line by line, and all of them end with the launch."""

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

import run_phased_loss
from tools.launch import children as launch_children
from tools.launch.children import Children, Interrupted
from tools.launch.places import Place
from tools.launch.screen import Listener, Screen, say

ROOT = Path(run_phased_loss.__file__).parent
DEVICE, PREFIX = Place(1, "6"), "[gpu 1 | x, seed 0] "


def listener(prefix: str = PREFIX) -> Listener:
    return Screen(verbose=True).listen("x", prefix)


def run(code: str, place: Place = DEVICE, prefix: str = PREFIX, folder: Path = ROOT) -> int:
    """Run Python code as the only child of a launch that shows everything; returns its exit code."""
    with Children(folder) as children:
        return children.run([sys.executable, "-c", code], place, listener(prefix))


def wait_for(*files: Path) -> None:
    deadline = time.monotonic() + 30
    while not all(file.exists() for file in files):
        assert time.monotonic() < deadline, f"no {files}"
        time.sleep(0.02)


@pytest.mark.parametrize(("place", "prefix"), [(Place(), ""), (DEVICE, PREFIX)])
def test_a_child_runs_in_the_given_folder_and_its_exit_code_comes_back(tmp_path, place, prefix):
    code = f"import os, sys; sys.exit(5 if os.getcwd() == {str(tmp_path)!r} else 6)"
    assert run(code, place, prefix, tmp_path) == 5


def test_the_lines_of_a_child_without_a_prefix_come_as_they_are(capsys):
    assert run("import sys; print('out'); print('err', file=sys.stderr)", Place(), "") == 0
    assert capsys.readouterr() == ("out\n", "err\n")


def test_each_line_comes_after_the_prefix_on_its_own_stream(capsys):
    run("import sys; print('one\\n\\ntwo'); print('three', file=sys.stderr); print('four', end='')")
    start = PREFIX.rstrip()
    assert capsys.readouterr() == (f"{PREFIX}one\n{start}\n{PREFIX}two\n{PREFIX}four\n", f"{PREFIX}three\n")


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"10 %\r50 %\r100 %\n", "100 %"),
        (b"50 %\r100 %\r\n", "100 %"),
        (b"50 %\r     \rdone\n", "done"),
        (b"50 %\r     \r", "50 %"),
        (b"Gr\xc3\xbc\xc3\x9fe \xff\n", "Gr\u00fc\u00dfe \\xff"),
    ],
)
def test_of_a_progress_bar_the_last_state_is_shown_and_odd_bytes_stop_nothing(capsys, written, shown):
    run(f"import sys; sys.stdout.buffer.write({written!r}); print('after', file=sys.stderr)")
    assert capsys.readouterr() == (f"{PREFIX}{shown}\n", f"{PREFIX}after\n")


def test_a_megabyte_on_each_stream_neither_blocks_nor_gets_lost(capsys):
    run("import sys\nfor i in range(8192):\n  print('o' * 127)\n  print('e' * 127, file=sys.stderr)")
    out, err = capsys.readouterr()
    assert out == f"{PREFIX}{'o' * 127}\n" * 8192 and err == f"{PREFIX}{'e' * 127}\n" * 8192


def test_what_a_killed_child_printed_last_is_shown(capsys):
    assert run("import os; print('last words'); os.kill(os.getpid(), 9)") == -9
    assert capsys.readouterr().out == f"{PREFIX}last words\n"


def test_a_process_that_a_child_leaves_behind_does_not_hold_the_launch(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(launch_children, "DRAIN_S", 0.3)
    pid = tmp_path / "pid"
    grandchild = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    code = f"import subprocess, sys, pathlib, time; subprocess.Popen([sys.executable, '-c', {grandchild!r}])\n"
    code += f"while not pathlib.Path({str(pid)!r}).exists(): time.sleep(0.02)\nprint('done')"
    start = time.monotonic()
    assert run(code) == 0 and time.monotonic() - start < 30
    wait_for(pid)
    os.kill(int(pid.read_text()), signal.SIGKILL)
    assert f"{PREFIX}done\n" in capsys.readouterr().out


def test_lines_that_several_threads_print_are_not_mixed():
    class Slow(io.StringIO):
        def write(self, text: str) -> int:
            time.sleep(0.001)  # lets the other thread in
            return super().write(text)

    stream = Slow()
    with ThreadPoolExecutor(2) as pool:
        for name in 50 * "ab":
            pool.submit(say, name * 5, f"[{name}] ", stream)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 100 and all(re.fullmatch(r"\[a\] a{5}|\[b\] b{5}", line) for line in lines)


def test_a_child_on_a_device_sees_only_that_device(capsys):
    run("import os; print(os.environ['CUDA_VISIBLE_DEVICES'])")
    assert capsys.readouterr().out == f"{PREFIX}6\n"


def run_two_that_sleep(
    folder: Path, children: Children, pool: ThreadPoolExecutor, ignoring: bool = False
) -> list[Future]:
    """Start two children that sleep for a minute; returns their ends once both are up."""
    files, ends = [folder / "0", folder / "1"], []
    for gpu, file in enumerate(files):
        code = "import pathlib, signal, time\n"
        code += "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if ignoring else ""
        code += f"pathlib.Path({str(file)!r}).touch(); time.sleep(60)"
        ends.append(pool.submit(children.run, [sys.executable, "-c", code], Place(gpu, str(gpu)), listener()))
    wait_for(*files)
    return ends


@pytest.mark.parametrize("ignoring", [False, True])
def test_an_error_in_the_launch_ends_all_children_and_nothing_starts_after_it(tmp_path, monkeypatch, ignoring):
    if ignoring:
        monkeypatch.setattr(launch_children, "CHILD_GRACE_S", 0.3)
    start = time.monotonic()
    with pytest.raises(OSError, match="full"), ThreadPoolExecutor(2) as pool, Children(ROOT) as children:
        ends = run_two_that_sleep(tmp_path, children, pool, ignoring)
        raise OSError("full")
    assert time.monotonic() - start < 30
    assert all(isinstance(end.exception(), Interrupted) for end in ends)
    late = tmp_path / "late"
    with pytest.raises(Interrupted):
        children.run([sys.executable, "-c", f"open({str(late)!r}, 'w')"], Place(), listener())
    assert not late.exists()


def test_sigterm_ends_all_children_and_the_launch_with_the_shells_code(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, ThreadPoolExecutor(2) as pool, Children(ROOT) as children:
        ends = run_two_that_sleep(tmp_path, children, pool)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        ends[0].result()
    assert caught.value.code == 143 and all(isinstance(end.exception(), Interrupted) for end in ends)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("gpus", ["[Place()]", "[Place(0, '0'), Place(0, '0')]"])
def test_ctrl_c_lets_the_children_say_where_they_stopped(tmp_path, gpus):
    child = (
        "import pathlib, sys, time\nfolder = pathlib.Path(sys.argv[1])\n"
        "try:\n  (folder / 'ready').touch(); time.sleep(60)\n"
        "except KeyboardInterrupt:\n  time.sleep(0.5); print('epoch 3'); (folder / 'done').touch()\n"
    )
    code = (
        "import sys, pathlib\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "from tools.launch.children import Children\nfrom tools.launch.places import Place\n"
        "from tools.launch.screen import Screen\n"
        "with ThreadPoolExecutor(2) as pool, Children(pathlib.Path()) as children:\n"
        f"  ends = [pool.submit(children.run, [sys.executable, '-c', {child!r}, folder], place,\n"
        "    Screen(True).listen('x', place.prefix('x')))\n"
        f"    for place, folder in zip({gpus}, sys.argv[1:])]\n"
        "  for end in ends: end.result()\n"
    )
    folders = [tmp_path / str(number) for number in range(gpus.count("Place"))]
    for folder in folders:
        folder.mkdir()
    launcher = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, folders)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background inherit it ignored
    )
    try:
        wait_for(*(folder / "ready" for folder in folders))
        os.killpg(launcher.pid, signal.SIGINT)  # as a terminal does: to the launcher and to its children
        out, error = launcher.communicate(timeout=30)
    finally:
        launcher.kill()
    assert all((folder / "done").exists() for folder in folders) and "KeyboardInterrupt" in error
    said = "epoch 3\n" if len(folders) == 1 else "[gpu 0 | x] epoch 3\n"
    assert out == said * len(folders)


def test_children_know_their_launch(capsys):
    with Children(ROOT, "my_sweep") as children:
        code = "import os; print(os.environ['REID_LAUNCH'])"
        assert children.run([sys.executable, "-c", code], Place(), listener("")) == 0
    assert capsys.readouterr().out == "my_sweep\n"
