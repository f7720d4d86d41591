"""Which CLIP tower a checkpoint was trained with: of a frozen one it holds the norms, of a trained one the weights."""

import math
import shutil

import pytest
import torch
from timm.layers import resample_abs_pos_embed
from torch import nn

from model import make_model
from model.families.clip_fusion import make_fused
from model.weights.pretrained import load_rest
from model.weights.transreid import BEYOND_THE_TRUNK
from tests.model import clips
from tests.model.builds import TINY_VIT, images, make_cfg, make_tiny, save
from tests.model.clips import FROZEN, JPM, RANDOM, build
from utils.errors import ConfigError, DataError

PATH = "MODEL.CLIP_LOCAL_PATH"
NAME = "clip_fingerprint"
LEFT_OUT = ("minimal", "quickwin", "hf", "concat", "hf concat")
LARGER = ("MODEL.CLIP_INPUT_SIZE", (40, 40))  # 5 x 5 patches


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, tuple[str, str]]:
    """The same towers with other weights."""
    folder = tmp_path_factory.mktemp("other")
    weights = save(clips.make_open_clip(seed=21).state_dict(), folder)
    return {False: (PATH, weights), True: (PATH, str(clips.write_hf(folder / "hf", seed=22)))}


def words_of(model: nn.Module) -> str:
    return f"trained with another CLIP tower than {model.clip_model.info.source}; name the one of its training .MODEL"


@pytest.mark.parametrize("variant", ["minimal", "hf"])
def test_checkpoint_of_a_frozen_tower_holds_the_norms_of_its_weights(variant, sources):
    model = build(sources, variant, *FROZEN)
    weights = model.clip_model.state_dict().values()
    norms = [math.sqrt(sum(x * x for x in weight.flatten().tolist())) for weight in weights]
    held = model.state_dict()[NAME]
    assert held.dtype == torch.float32
    torch.testing.assert_close(held, torch.tensor(norms))


def test_towers_that_checkpoints_hold_need_no_fingerprint(sources):
    assert NAME not in build(sources, "minimal").state_dict()
    assert NAME not in build(sources, "minimal", *FROZEN, *RANDOM).state_dict()


@pytest.mark.parametrize("variant", LEFT_OUT)
def test_another_tower_than_that_of_the_training_is_refused(variant, sources, others, tmp_path):
    state = build(sources, variant, *FROZEN, seed=1).state_dict()
    model = build(sources, variant, *FROZEN, *others["hf" in variant], seed=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(DataError, match=words_of(model)):
        model.load_param(save(state, tmp_path))
    with pytest.raises(DataError, match=words_of(model)):  # as a resumed run does
        model.load_state_dict(state)
    with pytest.raises(DataError, match=words_of(model)):  # as DistributedDataParallel holds it
        wrapped = {f"module.{name}": value for name, value in state.items()}
        torch.nn.ModuleDict({"module": model}).load_state_dict(wrapped)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("choice", ["finetune", "self"])
def test_finetuning_refuses_another_tower_and_a_trunk_alone_takes_it(choice, sources, others, tmp_path):
    trained = build(sources, "minimal", *FROZEN, seed=1)
    start = ("MODEL.PRETRAIN_CHOICE", choice, "MODEL.PRETRAIN_PATH", save(trained.state_dict(), tmp_path))
    build(sources, "minimal", *FROZEN, *start)
    if choice == "self":
        build(sources, "minimal", *FROZEN, *start, *others[False])
        return
    with pytest.raises(DataError, match="trained with another CLIP tower"):
        build(sources, "minimal", *FROZEN, *start, *others[False])


@pytest.mark.parametrize("choice", ["TEST.WEIGHT", "finetune"])
def test_tower_of_fewer_layers_is_another_one(choice, sources, tmp_path):
    description = clips.write_description(tmp_path / "flat.json", layers=1)
    weights = save(clips.make_open_clip(layers=1).state_dict(), tmp_path, "flat.pt")
    flat = build(sources, "minimal", *FROZEN, "MODEL.CLIP_BACKBONE", description, PATH, weights)
    model = build(sources, "minimal", *FROZEN)
    with pytest.raises(DataError, match=words_of(model)):
        if choice == "finetune":
            load_rest(model, model.weight_rules(), flat.state_dict(), BEYOND_THE_TRUNK[choice], "x")
        else:
            model.load_param(save(flat.state_dict(), tmp_path))
    with pytest.raises(DataError, match=words_of(model)):
        model.load_state_dict(flat.state_dict())


@pytest.mark.parametrize("variant", ["minimal", "hf"])
def test_the_same_tower_may_lie_elsewhere(variant, sources, tmp_path):
    if variant == "hf":
        path = str(shutil.copytree(sources.hf, tmp_path / "moved"))
    else:
        path = shutil.copy(sources.weights, tmp_path / "moved.pt")
    trained = build(sources, variant, *FROZEN, seed=1)
    moved = build(sources, variant, *FROZEN, PATH, str(path), seed=2)
    moved.load_state_dict(trained.state_dict())
    assert torch.equal(trained.eval()(images()), moved.eval()(images()))


def test_checkpoint_without_fingerprint_is_not_checked(sources, others, tmp_path):
    state = build(sources, "minimal", *FROZEN).state_dict()
    del state[NAME]
    model = build(sources, "minimal", *FROZEN, *others[False])
    model.load_state_dict(state)
    assert model.load_param(save(state, tmp_path)).missing == (NAME,)


@pytest.mark.filterwarnings("ignore:.*which is a no-op")
def test_outline_of_a_model_takes_every_fingerprint(sources, others):
    with torch.device("meta"):
        outline = build(sources, "minimal", *FROZEN)
    assert outline.state_dict()[NAME].is_meta
    outline.load_state_dict(build(sources, "minimal", *FROZEN, *others[False]).state_dict(), assign=True)


def test_model_without_clip_finds_the_fingerprint_to_be_surplus(sources, tmp_path):
    report = make_tiny(*JPM).load_param(save(build(sources, "concat").state_dict(), tmp_path))
    assert report.surplus == (NAME,) and not report.warnings


@pytest.mark.parametrize("variant", ["minimal", "hf"])
def test_frozen_tower_may_see_another_size_than_in_training_and_that_is_said(variant, sources, tmp_path, caplog):
    state = build(sources, variant, *FROZEN, *LARGER).state_dict()
    model = build(sources, variant, *FROZEN)
    caplog.clear()
    model.load_param(save(state, tmp_path))
    assert "trained at another MODEL.CLIP_INPUT_SIZE, so its features differ" in caplog.text


@pytest.mark.parametrize(("variant", "antialias"), [("minimal", True), ("hf", False)])
def test_positions_of_a_trained_tower_are_resized_and_that_is_said(variant, antialias, sources, tmp_path, caplog):
    trained, model = clips.redraw(build(sources, variant, *LARGER, seed=1)), build(sources, variant, seed=2)
    caplog.clear()
    report = model.load_param(save(trained.state_dict(), tmp_path))
    assert not (report.missing or report.surplus or report.misshaped)
    name = model.clip_model.positions
    assert f"{name}: resized from 26 to 13 rows; the CLIP tower was trained at another MODEL.CLIP_INPUT_" in caplog.text
    table = trained.clip_model.get_parameter(name).detach()[None]
    expected = resample_abs_pos_embed(table, [4, 3], [5, 5], antialias=antialias)[0]
    torch.testing.assert_close(model.clip_model.get_parameter(name).detach(), expected)


def test_positions_of_as_many_patches_stay_as_they_were_trained(sources, tmp_path):
    size = ("MODEL.CLIP_INPUT_SIZE", (16, 64))  # 2 x 8 patches, of which nothing says that they are not 4 x 4
    trained, model = clips.redraw(build(sources, "minimal", *size, seed=1)), build(sources, "minimal", *size, seed=2)
    model.load_param(save(trained.state_dict(), tmp_path))
    assert torch.equal(trained.eval()(images()), model.eval()(images()))


@pytest.mark.parametrize("variant", ["minimal", "hf"])
def test_weights_of_a_tower_may_be_gone_only_when_a_checkpoint_holds_them(variant, sources, tmp_path):
    path = str(clips.write_hf(tmp_path / "hf", weights=False)) if variant == "hf" else str(tmp_path / "gone.pt")
    opts = (*TINY_VIT, *clips.variants(sources)[variant], PATH, path)
    base = make_tiny().base
    make_fused(make_cfg(*opts), base, {"num_class": 5}, trained_elsewhere=True)
    make_model(make_cfg(*opts), 5, 0, 0, pretrained=False)
    refused = (
        lambda: make_fused(make_cfg(*opts, *FROZEN), base, {"num_class": 5}, trained_elsewhere=True),
        lambda: make_model(make_cfg(*opts, *FROZEN), 5, 0, 0, pretrained=False),
        lambda: make_fused(make_cfg(*opts), base, {"num_class": 5}),
    )
    for attempt in refused:
        with pytest.raises(ConfigError, match=f"MODEL.CLIP_LOCAL_PATH.*{path}"):
            attempt()
