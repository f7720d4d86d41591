"""A path that a user names is what is meant, or one error says what stands there."""

import os

import pytest

from utils.errors import ConfigError
from utils.paths import existing_file, existing_folder, user_path


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


def test_files_and_folders_are_told_apart(tmp_path):
    file = tmp_path / "file"
    file.touch()
    assert existing_file(file) == file and existing_folder(tmp_path) == tmp_path
    for wrong, path, words in (
        (existing_file, tmp_path, "is a folder"),
        (existing_folder, file, "but a file"),
        (existing_file, tmp_path / "no", "no file"),
        (existing_folder, tmp_path / "no", "no folder"),
    ):
        with pytest.raises(ConfigError, match=words):
            wrong(path, "KEY")
