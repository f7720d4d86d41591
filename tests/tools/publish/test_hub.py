"""A model goes to the hub and comes back by the hub's own client, against a hub of one process; offline is one line."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from tests.tools.photos import write_photos
from tests.tools.publish.hub_server import TOKEN, Hub, serving
from tools import hub
from tools.feature_extractor import FeatureExtractor
from tools.hub import find_published
from tools.publish.__main__ import main
from tools.publish.write import Wanted, publish
from utils.errors import ConfigError, DataError, run_command
from utils.published_folder import PublishedFolder

REPOSITORY = "jane/veri_vit"
CLOSED = "http://127.0.0.1:9"  # where nothing listens


@pytest.fixture(scope="module")
def published(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> PublishedFolder:
    folder = PublishedFolder(tmp_path_factory.mktemp("published") / "model")
    publish(Wanted(str(trained_run), name="model"), folder)
    return folder


def use(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    """Let the hub's client ask `url` and keep its files in `cache`."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The hub that the client asks, logged in there."""
    with serving() as (url, running):
        use(monkeypatch, url, tmp_path / "cache")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield running


def push(folder: PublishedFolder, *words: str) -> int:
    return run_command(main, ["--out", str(folder.path), "--push", REPOSITORY, *words])


def test_a_model_comes_back_from_the_hub_to_the_bit_and_later_without_it(
    server, published, tmp_path, monkeypatch, capsys
):
    assert push(published, "--private") == 0
    assert f"from_pretrained('{REPOSITORY}')" in capsys.readouterr().out
    assert server.made == {REPOSITORY: True} and server.commits == {REPOSITORY: 1}
    assert server.files[REPOSITORY].keys() == {path.name for path in published.path.iterdir()}
    photos = write_photos(tmp_path / "photos")
    expected = FeatureExtractor.from_pretrained(published.path)(photos)
    assert torch.equal(FeatureExtractor.from_pretrained(REPOSITORY)(photos), expected)
    use(monkeypatch, CLOSED, tmp_path / "cache")
    assert torch.equal(FeatureExtractor.from_pretrained(REPOSITORY)(photos), expected)


def test_nothing_beside_a_published_model_is_uploaded_or_fetched(server, published, tmp_path):
    folder = PublishedFolder(shutil.copytree(published.path, tmp_path / "copy"))
    (folder.path / ".env").write_text("PASSWORD=secret")
    (folder.path / "notes.txt").write_text("for me alone")
    assert push(folder) == 0
    assert {".env", "notes.txt"} & server.files[REPOSITORY].keys() == set()
    server.files[REPOSITORY]["evil.py"] = b"print('run me')"
    assert not (find_published(REPOSITORY).path / "evil.py").exists()


def test_what_an_earlier_model_had_and_this_one_lacks_goes_and_the_rest_of_the_repository_stays(server, published):
    assert push(published) == 0
    server.files[REPOSITORY] |= {"clip.json": b"{}", "LICENSE": b"mine", "images/clip.json": b"{}"}
    assert push(published) == 0
    assert server.files[REPOSITORY].keys() - {path.name for path in published.path.iterdir()} == {
        *("LICENSE", "images/clip.json")
    }
    assert server.commits == {REPOSITORY: 2}


def test_private_weights_do_not_go_into_a_public_repository(server, published, capsys):
    assert push(published) == 0
    assert push(published, "--private") == 2 and server.commits == {REPOSITORY: 1}
    assert "it is there already and is public" in capsys.readouterr().err


def test_a_revision_of_a_repository_is_what_is_fetched(server, published):
    assert push(published) == 0
    assert find_published(REPOSITORY, server.commit_of(REPOSITORY)).path.name == server.commit_of(REPOSITORY)
    with pytest.raises(ConfigError, match="revision 'v1' is of a repository of the hub"):
        find_published(published.path, "v1")


def test_a_repository_with_a_part_of_a_model_is_refused(server, published):
    assert push(published) == 0
    del server.files[REPOSITORY]["published.json"]
    with pytest.raises(DataError, match=r"it has no published\.json"):
        FeatureExtractor.from_pretrained(REPOSITORY)


@pytest.mark.parametrize("token", ["", "hf_another_one_that_is_not_known_here"])
def test_a_login_that_the_hub_refuses_is_one_line(server, published, token, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nonexistent")
    assert push(published) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert f"--push {REPOSITORY}: not uploaded" in error and "hf auth login" in error


def test_offline_a_push_and_a_fetch_are_one_line_each(published, tmp_path, monkeypatch, capsys):
    use(monkeypatch, CLOSED, tmp_path / "cache")
    assert push(published) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and "connect to the network" in errors[0] and f"'{published.path}' is whole" in errors[0]
    with pytest.raises(
        ConfigError, match=f"^no folder '{REPOSITORY}', and the model could not be fetched from the hub"
    ):
        FeatureExtractor.from_pretrained(REPOSITORY)


def test_a_folder_that_is_not_whole_is_not_pushed(server, tmp_path, capsys):
    assert push(PublishedFolder(tmp_path)) == 2
    assert "no whole published model" in capsys.readouterr().err and server.made == {}


@pytest.mark.parametrize("source", ["nowhere", "a/b/c", "../x", "-a/b", "jane/", "jane/a b", "jane/a--b", "jané/b"])
def test_a_name_that_is_neither_a_folder_nor_a_repository_is_refused_without_a_question(source, monkeypatch):
    monkeypatch.setattr(hub, "_fetch", lambda *_: pytest.fail("the hub was asked"))
    with pytest.raises(ConfigError, match="no such folder, and no 'user/name' of the hub"):
        find_published(source)
