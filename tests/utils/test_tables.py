"""Rows of cells as aligned text and as Markdown."""

from utils.tables import align, markdown, percent

ROWS = [["ID", "name", "value"], ["1", "a|b", "10.5"], ["12", "", "-"]]


def test_text_columns_start_left_and_the_others_end_right():
    assert align(ROWS, left=(1,)).splitlines() == ["ID  name  value", " 1  a|b    10.5", "12            -"]


def test_no_line_ends_in_blanks():
    assert align([["a", "long"], ["b", ""]], left=(0, 1)) == "a  long\nb"


def test_markdown_has_a_head_and_escapes_the_separator():
    assert markdown(ROWS).splitlines() == [
        "| ID | name | value |",
        "|---|---|---|",
        "| 1 | a\\|b | 10.5 |",
        "| 12 |  | - |",
    ]


def test_a_fraction_is_shown_in_percent_and_none_as_a_dash():
    assert [percent(value) for value in (0.45, 1, 0.0, None, float("nan"))] == ["45.00", "100.00", "0.00", "-", "-"]
