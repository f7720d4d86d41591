"""A user's text file is read whole, or one error says what is wrong and where."""

import os

import pytest

from utils.errors import DataError
from utils.text_files import MAX_LINE, numbered_lines, read_text


def test_a_byte_order_mark_is_no_text(tmp_path):
    file = tmp_path / "list.txt"
    file.write_bytes("a.jpg 1\n\nübung.jpg 2\n".encode("utf-8-sig"))
    assert [line for _, line in numbered_lines(file)] == ["a.jpg 1", "übung.jpg 2"]
    assert [where for where, _ in numbered_lines(file)] == [f"{file}:1", f"{file}:3"]


def test_lines_end_where_an_editor_ends_them_and_not_at_characters_within_a_name(tmp_path):
    file = tmp_path / "list.txt"
    file.write_bytes("a\u2028b.jpg 1\r\nc\fd\x85e.jpg 2\rf.jpg 3".encode())
    lines = [("1", "a\u2028b.jpg 1"), ("2", "c\fd\x85e.jpg 2"), ("3", "f.jpg 3")]
    assert list(numbered_lines(file)) == [(f"{file}:{number}", line) for number, line in lines]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"ok\n\xff\xfe", ":2: not UTF-8"),
        ("a b".encode("utf-16-le"), ":1: holds a NUL"),
        (b"one\ntwo\0\n", ":2: holds a NUL"),
        (b"one\n" + b"x" * (MAX_LINE + 1), ":2: a line of 65,537 characters"),
    ],
)
def test_what_is_no_text_is_named_with_its_line(tmp_path, content, words):
    file = tmp_path / "list.txt"
    file.write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_text(file)


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "nothing"])
def test_what_is_no_file_is_named(tmp_path, kind):
    place = tmp_path / "list.txt"
    if kind == "a folder":
        place.mkdir()
    elif kind == "a pipe":
        os.mkfifo(place)
    with pytest.raises(DataError, match="list: no file" if kind == "nothing" else kind):
        read_text(place, "list")
