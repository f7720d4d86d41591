"""The results as HTML: what is shown stands in it, and a hostile name is text."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.modalities import MODALITIES
from tests.faults.test_security import NAMES
from tools.demo.cards import STYLE, WORDS, error_of, heading_of, query_of, results_of, status_of
from tools.demo.engine import Answer, Result
from tools.demo.gallery import UNKNOWN, Gallery, Hit

PICTURE = Image.new("RGB", (20, 30), (200, 10, 10))
TAG = re.compile(r"<(\w+)([^>]*)>")
TAGS = {"div", "ol", "li", "p", "h1", "details", "summary", "img", "strong", "span"}


def test_results_have_rank_similarity_camera_and_name():
    results = [
        Result(Hit(4, "day/0001_c3.jpg", 3, 0.87654), PICTURE),
        Result(Hit(2, "b.png", UNKNOWN, -0.5), None),
    ]
    first, second = re.findall("<li.*?</li>", results_of(Answer({}, "", results, "")))
    words = [re.sub(r"<[^>]+>", "|", one) for one in (first, second)]
    assert "|1. 0.8765|" in words[0] and "|camera 3|" in words[0] and "|day/0001_c3.jpg|" in words[0]
    assert "|2. -0.5000|" in words[1] and "camera" not in words[1] and "|cannot be read|" in words[1]
    assert "data:image/jpeg;base64," in first and "data:" not in second


@pytest.mark.parametrize("name", [*NAMES.values(), "${alert(1)}.jpg", "{{x}}", "\ud800.jpg"])
def test_a_hostile_name_is_text_wherever_it_stands(name):
    answer = Answer({}, name, [Result(Hit(0, name, 1, 1.0), PICTURE)], name)
    gallery = Gallery(Path("/x") / name.replace("\0", ""), np.array([name]), np.zeros((1, 2)), np.array([1]))
    for markup in (
        *(results_of(answer), query_of({"vis": PICTURE}, name), status_of(answer, 1, [1])),
        *(error_of(name), heading_of(name, gallery)),
    ):
        tags = TAG.findall(markup)
        assert {tag for tag, _ in tags} <= TAGS
        names = {word for _, inside in tags for word in re.findall(r' ([\w-]+)="[^"]*"', inside)}
        assert names <= {"class", "title", "src", "alt", "role"} and not re.search("[\x1b\x07\r\u202e]", markup)
        markup.encode()


def test_the_status_tells_how_many_of_which_cameras_and_what_else():
    answer = Answer({}, "", [Result(Hit(0, "a", 1, 1.0), None)] * 3, "a note")
    line = re.sub(r"<[^>]+>", "|", status_of(answer, 12345, [2, UNKNOWN]))
    assert "|the 3 nearest of 12,345 images seen by camera 2, no known camera|" in line and "|a note|" in line


def test_a_query_without_items_is_nothing_and_every_modality_has_a_word():
    assert query_of({}, "") == "" and set(WORDS) == set(MODALITIES)
    assert "coloured pencil drawing" in query_of({"cp": PICTURE}, "")


def test_the_style_names_nothing_outside():
    assert "url(" not in STYLE and "@import" not in STYLE and "//" not in STYLE
