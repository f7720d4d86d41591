"""Text for strangers: what looks like a secret and the home folder go, everything else stays letter by letter."""

from pathlib import Path

import pytest

from utils.clean_text import clean, without_home, without_secrets

SECRET = "q7Zr0pXw2LmN8vTk4BsE"


@pytest.mark.parametrize(
    "text",
    [
        f"hf_{SECRET}",
        f"HF_TOKEN={SECRET} python train.py",
        f"https://me:{SECRET}@example.org/data.zip",
        f'{{"password": "{SECRET}"}}',
        f"api-key: {SECRET}",
        f"--token {SECRET} --config x.yml",
        f"--client-secret={SECRET}",
        f"AWS_SECRET_ACCESS_KEY secret={SECRET}",
        f"ghp_{SECRET}",
    ],
)
def test_what_looks_like_a_secret_is_hidden_and_the_rest_stays(text):
    cleaned = without_secrets(text)
    assert SECRET not in cleaned and "***" in cleaned
    for word in ("python train.py", "example.org/data.zip", "--config x.yml"):
        assert (word in cleaned) == (word in text)


@pytest.mark.parametrize(
    "text",
    [
        "77 tokens of a caption during training",
        "INPUT.TEXT.LENGTH 77",
        "a sketch_of_the_deit_transreid_stride_baseline",
        "logs/market1501_deit_transreid_stride_seed0_run",
        "commit 4f1d0c2e9b8a7f6e5d4c3b2a1f0e9d8c7b6a5f4e",
        "https://github.com/damo-cv/TransReID",
    ],
)
def test_what_is_no_secret_stays(text):
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/ada/data/VeRi", "~/data/VeRi"),
        ("'/home/ada': gone", "'~': gone"),
        ("a /home/ada/x b /home/ada/y", "a ~/x b ~/y"),
        ("/home/adam/data", "/home/adam/data"),
        ("/mnt/home/ada/data", "/mnt/home/ada/data"),
        ("KEY=/home/ada", "KEY=~"),
    ],
)
def test_the_home_folder_is_a_tilde_only_where_it_is_meant(text, expected):
    assert without_home(text, Path("/home/ada")) == expected


def test_a_root_as_home_hides_nothing():
    assert without_home("/data/x", Path("/")) == "/data/x"


def test_both_are_done_to_a_text(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert clean(f"/home/ada/x --token {SECRET}") == "~/x --token ***"
