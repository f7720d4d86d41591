"""A path that a user names is what is meant, or one error says what stands there."""

import os

import pytest

from utils.errors import ConfigError
from utils.paths import existing_file, user_path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\0b", "NUL"),
        ("~nobody_of_this_name/x", "home folder"),
        ("x" * 300, "cannot be used"),
        ("loop/x", "cannot be used"),
    ],
)
def test_a_name_that_no_file_system_takes(tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    os.symlink("loop", "loop")
    with pytest.raises(ConfigError, match=f"--flag: .*{words}"):
        user_path(text, "--flag")


def test_a_file_is_told_from_a_folder_and_from_nothing(tmp_path):
    file = tmp_path / "file"
    file.touch()
    assert existing_file(file) == file
    for path, words in ((tmp_path, "is a folder"), (tmp_path / "no", "no file")):
        with pytest.raises(ConfigError, match=words):
            existing_file(path, "KEY")
