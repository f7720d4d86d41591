"""What is said when a CLIP tower cannot be had, and what is asked of the hub."""

import json
import shutil
import time
from pathlib import Path

import pytest
import torch

from model.backbones.clip import check_patches
from model.backbones.clip_sources import hf_tower, open_clip_tower
from model.backbones.hub import hub_files
from tests.model import clips
from tests.model.builds import save
from tests.model.clips import HF_WIDTH, RANDOM, build
from utils.errors import ConfigError, DataError


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The hub is out of reach and its cache is empty."""
    import huggingface_hub

    def refuse(*args: object, **options: object) -> None:
        raise ConnectionError("name or service not known\nmore")

    monkeypatch.setattr(huggingface_hub, "model_info", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("size", "near"),
    [
        ((224, 230), r"set \[224, 224\] or \[224, 240\]"),
        ((100, 4), r"set \[96, 16\] or \[112, 16\]"),
        ((16, 0.5), r"set \[16, 16\]"),
    ],
)
def test_size_that_is_no_multiple_of_the_patches_names_the_nearest_ones(size, near):
    words = rf"MODEL.CLIP_INPUT_SIZE .* is no multiple of the patches of x, 16 x 16 pixels; {near}$"
    with pytest.raises(ConfigError, match=words):
        check_patches(size, 16, "x")
    assert check_patches((224.0, 32), 16, "x") == (224, 32)


@pytest.mark.parametrize("variant", ["minimal", "hf"])
def test_size_is_checked_when_the_model_is_built(variant, sources):
    with pytest.raises(ConfigError, match=r"MODEL.CLIP_INPUT_SIZE \[32, 30\] .*8 x 8 pixels; set \[32, 24\] or"):
        build(sources, variant, "MODEL.CLIP_INPUT_SIZE", (32, 30))


def test_towers_that_see_one_size_only_say_which():
    with pytest.raises(
        ConfigError, match=r"CLIP_INPUT_SIZE \[224, 224\]: RN50x4 sees .*one size only; set \[288, 288\]"
    ):
        open_clip_tower("RN50x4", "", "", (224, 224))


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (("MODEL.CLIP_BACKBONE", "ViT-B/16"), "MODEL.CLIP_BACKBONE got 'ViT-B/16', .*did you mean .*ViT-B-16"),
        (("MODEL.CLIP_BACKBONE", "nothing.json"), "MODEL.CLIP_BACKBONE: no file 'nothing.json'"),
        (
            ("MODEL.CLIP_BACKBONE", "ViT-B-16", "MODEL.CLIP_PRETRAIN", "laion2b_s34b_b79k"),
            "MODEL.CLIP_PRETRAIN got 'laion2b_s34b_b79k', .*published: openai, .*did you mean laion2b_s34b_b88k",
        ),
        (("MODEL.CLIP_PRETRAIN", "laion2b_s34b_b88k"), "tiny.json .there are none.; '' leaves them random"),
    ],
)
def test_wrong_names_of_open_clip_are_refused_with_near_ones(opts, words, sources):
    with pytest.raises(ConfigError, match=words) as caught:
        build(sources, "minimal", *RANDOM, *opts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "does not describe an open_clip model"),
        ("[]", "does not describe an open_clip model"),
        ('{"embed_dim": 4}', "embed_dim, vision_cfg.: 'vision_cfg'"),
        ('{"embed_dim": 4, "vision_cfg": {"depth": 2}}', "unexpected keyword argument 'depth'"),
        ('{"embed_dim": 4, "vision_cfg": {"width": 50}}', r"cannot be built at MODEL.CLIP_INPUT_SIZE \[32, 32\]"),
        ('{"embed_dim": 4, "vision_cfg": {"width": "64"}}', "cannot be built"),
        ('{"embed_dim": 4, "vision_cfg": {"image_size": null}}', "NoneType"),
        ('{"embed_dim": 4, "vision_cfg": {"layers": -2}}', "it has -2 layers"),
    ],
)
def test_damaged_description_is_refused(text, words, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"MODEL.CLIP_BACKBONE.*{words}") as caught:
        open_clip_tower(str(path), "", "", (32, 32))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("variant", ["minimal", "hf"])
def test_local_path_must_exist(variant, sources):
    with pytest.raises(ConfigError, match="MODEL.CLIP_LOCAL_PATH.*: no (file|folder) 'nothing/here'"):
        build(sources, variant, "MODEL.CLIP_LOCAL_PATH", "nothing/here")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: {"base.cls_token": torch.ones(1)}, "holds a TransReID checkpoint.*none of its weights fits"),
        (
            lambda state: {k: v for k, v in state.items() if "ln_post" not in k},
            "visual.ln_post.weight .* is not in the",
        ),
        (
            lambda state: state | {"visual.proj": torch.ones(32, 8)},
            r"visual.proj is \[32, 8\] in the file, but \[32, 16\]",
        ),
    ],
)
def test_weights_of_another_tower_are_refused(change, words, sources, tmp_path):
    path = save(change(torch.load(sources.weights, weights_only=True)), tmp_path)
    with pytest.raises(DataError, match=f"MODEL.CLIP_LOCAL_PATH '{path}'.*{words}"):
        build(sources, "minimal", "MODEL.CLIP_LOCAL_PATH", path)


def test_folders_of_hf_that_cannot_serve_are_refused(sources, tmp_path):
    def refuse(error: type[Exception], words: str) -> None:
        with pytest.raises(error, match=f"MODEL.CLIP_LOCAL_PATH '{folder}'.*{words}") as caught:
            hf_tower("", str(folder), (32, 24))
        assert "\n" not in str(caught.value)

    folder = tmp_path / "hf"
    folder.mkdir()
    refuse(ConfigError, "has no config.json")
    (folder / "config.json").write_text("{")
    refuse(ConfigError, "config.json is not readable")
    (folder / "config.json").write_text('{"model_type": "vit"}')
    refuse(ConfigError, "is a model of type vit; MODEL.CLIP_IMPL hf takes clip")
    clips.write_hf(folder, weights=False)
    refuse(ConfigError, "has no model.safetensors or pytorch_model.bin")
    state = clips.make_hf().state_dict()
    del state["vision_model.post_layernorm.bias"]
    torch.save(state, folder / "pytorch_model.bin")
    refuse(DataError, "post_layernorm.bias .* is not in the file; the config.json beside it decides it")
    (folder / "model.safetensors").write_bytes(b"damaged")
    refuse(DataError, "is text, no weight file")


@pytest.mark.parametrize(
    ("build_tower", "words"),
    [
        (
            lambda: open_clip_tower("ViT-B-16", "laion2b_s34b_b88k", "", (224, 224)),
            "MODEL.CLIP_PRETRAIN 'laion2b_s34b_b88k' of ViT-B-16: laion/CLIP-ViT-B-16-laion2B-s34B-b88K .*weight file",
        ),
        (
            lambda: hf_tower("wkcn/TinyCLIP", "", (224, 224)),
            "MODEL.CLIP_HF_ID: wkcn/TinyCLIP .*the model's folder here .config.json",
        ),
    ],
)
def test_out_of_reach_of_the_hub_both_ways_out_are_named_at_once(build_tower, words, no_hub, monkeypatch):
    started = time.perf_counter()
    with torch.device("meta"), pytest.raises(ConfigError, match=words) as caught:
        build_tower()
    message = str(caught.value)
    assert f"is not in the cache ({no_hub})" in message and "(name or service not known)" in message
    assert "connect to the network once, or copy" in message and message.endswith(
        ("MODEL.CLIP_LOCAL_PATH to it", "PATH")
    )
    assert "\n" not in message and time.perf_counter() - started < 5


def test_hub_is_not_asked_for_what_the_cache_holds(no_hub):
    repo = no_hub / "models--owner--name"
    snapshot = repo / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    (snapshot / "b.bin").write_text("weights")
    assert hub_files("owner/name", (("a.safetensors", "b.bin"),), "x", "y") == [snapshot / "b.bin"]
    with pytest.raises(ConfigError, match="owner/name is not in the cache"):
        hub_files("owner/name", (("b.bin",), ("config.json",)), "x", "y")


def test_hub_is_asked_once_for_the_files_that_it_has(no_hub, monkeypatch):
    import huggingface_hub

    class Entry:
        def __init__(self, rfilename: str) -> None:
            self.rfilename = rfilename

    class Info:
        siblings = [Entry(name) for name in ("config.json", "pytorch_model.bin", "preprocessor_config.json")]

    asked = []
    monkeypatch.setattr(huggingface_hub, "model_info", lambda repo, timeout: Info)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, name, **at: asked.append(name) or f"x/{name}")
    needed = (("config.json",), ("model.safetensors", "pytorch_model.bin"))
    found = hub_files("a/b", needed, "x", "y", extra="preprocessor_config.json")
    assert found == [Path("x/config.json"), Path("x/pytorch_model.bin")]
    assert sorted(asked) == ["config.json", "preprocessor_config.json", "pytorch_model.bin"]
    with pytest.raises(ConfigError, match="the repository has no open_clip_model.safetensors or x.bin"):
        hub_files("a/b", (("open_clip_model.safetensors", "x.bin"),), "x", "y")


@pytest.fixture
def cached_hf(no_hub: Path) -> Path:
    """A cached model of the hub, owner/name at commit abc, without preprocessor_config.json."""
    repo = no_hub / "models--owner--name"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc")
    return clips.write_hf(repo / "snapshots" / "abc")


def test_processor_that_the_cache_lacks_is_asked_for_at_the_same_commit(cached_hf, monkeypatch):
    import huggingface_hub

    asked = []

    def download(repo: str, name: str, revision: str) -> None:
        asked.append((repo, name, revision))
        own = '{"image_processor_type": "CLIPImageProcessor", "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]}'
        (cached_hf / name).write_text(own)

    monkeypatch.setattr(huggingface_hub, "model_info", lambda repo, timeout: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    for _ in range(2):  # the second time it is cached
        assert hf_tower("owner/name", "", (32, 32)).info.normalisation == ((0.1, 0.2, 0.3), (1, 2, 3))
    assert asked == [("owner/name", "preprocessor_config.json", "abc")]


@pytest.mark.parametrize("known_absent", [False, True])
def test_without_processor_out_of_reach_the_statistics_are_named(known_absent, cached_hf, caplog):
    if known_absent:
        marks = cached_hf.parents[1] / ".no_exist" / "abc"
        marks.mkdir(parents=True)
        (marks / "preprocessor_config.json").touch()
    with caplog.at_level("INFO"):
        hf_tower("owner/name", "", (32, 32))
    assert ("could not be fetched from the hub (name or service not known)" in caplog.text) != known_absent
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "has no preprocessor_config.json" in warning and "0.48145466" in warning and "0.26862954" in warning


def test_a_tower_that_a_checkpoint_will_bring_needs_no_download(no_hub, tmp_path):
    with torch.device("meta"):
        assert open_clip_tower("ViT-B-16", "laion2b_s34b_b88k", "", (224, 224), weights=False).info.reloadable
    folder = clips.write_hf(tmp_path / "hf", weights=False)
    assert hf_tower("", str(folder), (32, 24), weights=False).info.feat_dim == HF_WIDTH


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("patch_size", "8"),
        ("num_attention_heads", 3),
        ("hidden_size", None),
        ("num_hidden_layers", "two"),
        ("num_hidden_layers", 0),
        ("initializer_range", "x"),
        ("hidden_act", "nonesuch"),
    ],
)
def test_a_config_of_hf_with_a_value_that_cannot_be_is_one_clear_error(key, value, sources, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(sources.hf, folder)
    content = json.loads((folder / "config.json").read_text())
    content.get("vision_config", content)[key] = value
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=f"MODEL.CLIP_LOCAL_PATH '{folder}'") as caught:
        hf_tower("", str(folder), (32, 24))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        *("", "not json", "[1]", '{"image_mean": 0.5, "image_std": [1, 1, 1]}'),
        '{"image_mean": [0, 0, 0], "image_std": [1, 0, 1]}',
        '{"image_mean": ["a", "b", "c"], "image_std": [1, 1, 1]}',
        '{"image_mean": [0, 0, NaN], "image_std": [1, 1, 1]}',
        '{"image_mean": [0, 0], "image_std": [1, 1]}',
    ],
)
def test_damaged_processor_file_is_no_absent_one(content, sources, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(sources.hf, folder)
    (folder / "preprocessor_config.json").write_text(content)
    with pytest.raises(ConfigError, match="preprocessor_config.json' does not say how images are normalised"):
        build(sources, "hf", "MODEL.CLIP_LOCAL_PATH", str(folder))


def test_folder_in_the_place_of_a_hub_name_is_told_where_it_belongs(sources):
    with pytest.raises(ConfigError, match="MODEL.CLIP_HF_ID .* is a folder; set MODEL.CLIP_LOCAL_PATH to it"):
        build(sources, "hf", "MODEL.CLIP_LOCAL_PATH", "", "MODEL.CLIP_HF_ID", str(sources.hf))


def test_name_that_no_hub_could_have_is_one_line(sources, no_hub):
    with pytest.raises(
        ConfigError, match="MODEL.CLIP_HF_ID: not a repo!! is not in the cache .*connect to the network once, or"
    ):
        build(sources, "hf", "MODEL.CLIP_LOCAL_PATH", "", "MODEL.CLIP_HF_ID", "not a repo!!")


def test_tower_that_would_lose_blocks_is_refused(sources, tmp_path):
    shallow = clips.write_description(tmp_path / "shallow.json", layers=1)
    with pytest.raises(DataError, match="resblocks.1.* is in the file, but not in the tower; MODEL.CLIP"):
        open_clip_tower(shallow, "", sources.weights, (32, 24))


@pytest.mark.parametrize("patch", [0, "8", None, [8, 8]])
def test_patch_size_that_is_no_number_is_a_clear_error(patch, tmp_path):
    odd = clips.write_description(tmp_path / "odd.json", patch_size=patch)
    with pytest.raises(ConfigError, match="odd.json has patches of .* pixels, expected a whole number"):
        open_clip_tower(odd, "", "", (32, 24))
