"""Labels as users write them: no identity is read as one, none is split, nothing is out of bounds, all is told."""

from pathlib import Path

import pytest

from datasets.archives.table import load_table
from datasets.bases import ReIDDataset
from datasets.labels import MAX_PID, canonical, check_side_rows, is_no_label, number_identities, whole_number
from utils.errors import DataError

pytestmark = pytest.mark.fault("bad input: labels")

NO_IDENTITY = [
    "-1",
    "-01",
    "-1.0",
    "\u22121",
    "nan",
    "NaN",
    "None",
    "NONE",
    "null",
    "?",
    "",
    " ",
    "\u200b",
    "NA",
    "n/a",
]
NO_IDENTITY += ["<NA>", "#N/A", "nil", "-", "unknown", "inf", "#VALUE!", "\uff1f", "-nan"]
ARABIC_ONE, WIDE_ONE = "\u0661", "\uff11"


def numbered(*names: str) -> dict[str, int]:
    return number_identities({name: f"t.csv:{line}" for line, name in enumerate(names, start=2)})


@pytest.mark.parametrize("text", NO_IDENTITY)
def test_what_means_no_identity_is_none(text):
    assert is_no_label(text)


@pytest.mark.parametrize("text", ["0", "1", "-1a", "nancy", "nonesuch", "a", "1.5", "??x", "none 2"])
def test_an_identity_that_only_looks_like_none_stays_one(text):
    assert not is_no_label(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *[("1", form) for form in ("1.0", "1.", "01", "+1", ARABIC_ONE, WIDE_ONE, "1\u200b", "0001", "1.00")],
        *[("a1", form) for form in ("A1", "a1\ufeff", "\uff411", "a\u0661")],
        *[("1", form) for form in ("'1", '"1"', "1,0", "\u20181", "1,00")],
        ("red 1", "red  1"),
        ("red 1", "red\u00a01"),
        ("caf\u00e9", "cafe\u0301"),
        ("strasse", "stra\u00dfe"),
    ],
)
def test_two_spellings_of_one_identity_are_refused_with_both_lines(one, other):
    for first, second in ((one, other), (other, one)):
        with pytest.raises(DataError, match="(two spellings|as a decimal number)") as error:
            numbered("77", first, second)
        assert "t.csv:3" in str(error.value) and "t.csv:4" in str(error.value)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("1.0", "2"), "'1.0' is written as a decimal number, pid '2' (t.csv:3) as a whole one"),
        (("1", "-2"), "t.csv:3: pid '-2' is negative"),
        (("1", "-7.0"), "t.csv:3: pid '-7.0' is negative"),
        (("1", "1.23E+11"), "t.csv:3: pid '1.23E+11' was rounded by a spreadsheet"),
        (("1", str(MAX_PID + 1)), f"t.csv:3: pid {MAX_PID + 1} exceeds {MAX_PID}; use smaller numbers, or"),
        (("1", "9" * 20), "or put a letter in front of every pid"),
        (("1", "9" * 5000), "exceeds"),  # more digits than int() takes
    ],
)
def test_numbers_that_cannot_be_identities_are_refused_with_their_line(names, words):
    with pytest.raises(DataError) as error:
        numbered(*names)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("names", "pids"),
    [
        (("7", "12", "0"), [7, 12, 0]),
        (("007", "012"), [7, 12]),
        (("1.0", "2.0", "10.0"), [1, 2, 10]),
        ((ARABIC_ONE, "\u0662"), [1, 2]),
        ((str(MAX_PID), "0"), [MAX_PID, 0]),
        (("zoe", "10", "adam"), [2, 0, 1]),
        (("1e3", "1000"), [1, 0]),  # hexadecimal
        (("9" * 20, "a"), [0, 1]),
        (("v1.5", "v1.50"), [0, 1]),
    ],
)
def test_sound_identities_are_numbered(names, pids):
    found = numbered(*names)
    assert [found[name] for name in names] == pids


def test_a_spelling_without_quirks_is_its_own():
    assert all(canonical(str(number)) == str(number) for number in range(200))


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1.0", " 1", "1_0", ARABIC_ONE, "\u00b2", "0x1", "1e3", "10000", "9" * 5000]
)
def test_a_camera_that_is_no_small_whole_number_is_refused(text):
    with pytest.raises(DataError, match=r"t.csv:2: camid .*(is not a whole number from 0|exceeds 9999)"):
        whole_number(text, 9999, "t.csv:2: camid")


def test_the_side_information_has_a_bound():
    check_side_rows(10_000, 10)
    check_side_rows(0, 0)
    with pytest.raises(
        DataError, match=r"10,000 cameras x 10,000 viewpoints.*MODEL.SIE_CAMERA or MODEL.SIE_VIEW False"
    ):
        check_side_rows(10_000, 10_000)


HEADER = "path,pid,camid,viewid,split"
SOUND = ["a.jpg,1,0,0,train", "b.jpg,2,0,0,query", "c.jpg,2,1,0,gallery"]


def read_table(folder: Path, content: str | bytes) -> ReIDDataset:
    for name in "abcdef":
        (folder / f"{name}.jpg").touch()
    (folder / "t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_table(folder / "t.csv", folder)


def lines(*extra: str, header: str = HEADER) -> str:
    return "\n".join([header, *SOUND, *extra])


@pytest.mark.parametrize("pid", [form for form in NO_IDENTITY if form])
@pytest.mark.parametrize("split", ["train", "gallery"])
def test_a_row_without_identity_is_left_out_and_counted(tmp_path, pid, split):
    data = read_table(tmp_path, lines(f"d.jpg,{pid},0,0,{split}", f"e.jpg,{pid},,,{split}"))
    sound = read_table(tmp_path, lines())
    assert (data.train, data.query, data.gallery) == (sound.train, sound.query, sound.gallery)
    (note,) = data.notes
    assert note == f"table {split}: 2 junk images (pid {pid.strip() or 'empty'}) are ignored"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lines("d.jpg,1.0,0,0,train"), "t.csv:5: pid '1.0' and pid '1' (", ),
        (lines("d.jpg,+1,0,0,train"), "t.csv:5: pid '+1' and pid '1' ("),
        (lines("d.jpg,01,0,0,train"), "t.csv:5: pid '01' and pid '1' ("),
        (lines("d.jpg,-2,0,0,train"), "t.csv:5: pid '-2' is negative"),
        (lines("d.jpg,99999999999999999999,0,0,train"), "t.csv:5: pid 99999999999999999999 exceeds"),
        (lines(f"d.jpg,1,{ARABIC_ONE},0,train"), "t.csv:5: camid '\u0661' is not a whole number"),
        (lines("d.jpg,1,+1,0,train"), "t.csv:5: camid '+1' is not"),
        (lines("d.jpg,1,192168011,0,train"), "t.csv:5: camid 192168011 exceeds 9999"),
        (lines("d.jpg,1,nan,0,train"), "t.csv:5: camid 'nan' is not"),
        (lines("d.jpg,1,0,1.0,train"), "t.csv:5: viewid '1.0' is not"),
        (lines("d.jpg,1,0,12345678901234567890,train"), "t.csv:5: viewid 12345678901234567890 exceeds"),
        (lines("d.jpg,1,0,0,test"), "t.csv:5: split 'test' is unknown"),
        (lines("d.jpg,-1,0,0,test"), "t.csv:5: split 'test' is unknown"),
        (lines("a.jpg,7,0,0,train"), "t.csv:5: image 'a.jpg' has pid '7', but '1' in"),
        (lines("./b.jpg,3,0,0,gallery"), "t.csv:5: image './b.jpg' has pid '3', but '2' in"),
        (lines("c.jpg,2,1,0,gallery"), "t.csv:5: image 'c.jpg' stands in split gallery twice, see"),
        (lines("photos/._a.jpg,1,0,0,train"), "t.csv:5: 'photos/._a.jpg' is what macOS leaves beside an image"),
        (lines("..,1,0,0,train"), "t.csv:5: '..' is a folder, expected an image"),
        (lines("/dev/null,1,0,0,train"), "t.csv:5: '/dev/null' is a device, expected an image"),
        (lines("d.jpg,1,0,0"), "t.csv:5: has not as many fields"),
        (lines('"d.jpg,1,0,0,train', "e.jpg,1,0,0,train"), "t.csv:5: a quoted value holds a line break, or its quote"),
        (lines('d.jpg,1,0,0,"train'), "t.csv:5: a quoted value holds a line break"),
        (lines("d.jpg,1\r,0,0,train"), "t.csv:5: has not as many fields"),
        (lines("d.jpg\0,1,0,0,train"), "t.csv:5: holds a NUL"),
        (lines(f"{'x' * 70_000},1,0,0,train"), "t.csv:5: a line of"),
        (lines('"' + "x\n" * 70_000), "t.csv:5: is no line of a CSV (field larger than field limit"),
        (lines("\xe4.jpg,1,0,0,train").encode("latin-1"), "t.csv:5: not UTF-8"),
        (lines().encode("utf-16"), "not UTF-8"),
        (b"", "t.csv:1: column path, pid, split is missing"),
        (lines(header="path,pid,pid,viewid,split"), "t.csv:1: column pid stands there twice"),
        (lines(header="path,pid,Split,viewid,split"), "t.csv:1: column split stands there twice"),
        (lines(header="path,pid,camera,viewid,split"), "t.csv:1: column 'camera' is unknown; call it camid"),
        (lines(header="path,pid,camid,viewpoint,split"), "t.csv:1: column 'viewpoint' is unknown; call it viewid"),
        (lines(header=HEADER.replace(",", ";")), "t.csv:1: column path, pid, split is missing"),
        ("\n".join([HEADER, SOUND[0], SOUND[1], "c.jpg,nan,1,0,gallery"]), "gallery (1 rows have no identity)"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_meant_so_is_refused_with_its_line(tmp_path, content, words):
    with pytest.raises(DataError) as error:
        read_table(tmp_path, content)
    assert words in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + lines(),
        lines().replace("\n", "\r\n"),
        lines().replace("\n", "\r"),
        lines("", "   ", ""),
        lines().replace("query", " Query ").replace("train", "TRAIN"),
        lines(header="Path, PID ,CamID,ViewID,Split"),
        lines().replace(",2,", ", 2 ,"),
        lines().replace("a.jpg", '"a.jpg"'),
    ],
)
def test_a_table_that_can_only_be_meant_so_is_read_as_the_plain_one(tmp_path, content):
    assert read_table(tmp_path, content) == read_table(tmp_path, lines())


@pytest.mark.parametrize("view", ["", "-1", "nan", "None", "?"])
def test_an_unknown_viewpoint_is_unknown_in_every_spelling(tmp_path, view):
    assert read_table(tmp_path, lines(f"d.jpg,1,0,{view},train")).train[1].viewid == -1


def test_a_table_tells_what_makes_its_scores_doubtful(tmp_path):
    data = read_table(tmp_path, lines("d.jpg,2,0,0,train", "b.jpg,2,1,0,gallery"))
    itself, overlap = data.notes
    assert "1 query images stand in the gallery too under another camera" in itself and "b.jpg" in itself
    assert "1 of the 1 identities in query and gallery are trained on too" in overlap
