"""A stage with a teacher: what it learns, what the teacher sees, and that the teacher is nowhere else."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from datasets.transforms import BatchTransform
from model import make_model
from processor import make_stage
from processor import train as training
from processor.distill import Teacher, _view, add_teacher, match_branches
from processor.stage import Stage
from processor.trained import load_trained
from solver import create_scheduler, make_optimizer
from tests.model.builds import TINY_VIT, make_cfg, make_tiny
from tests.model.clip_reids import VIT, clip_reid_cfg, make_clip_reid, write_clip
from tests.reference import slow_distill as slow
from tests.teachers import CLASSES, FINGERPRINT, write_teacher, write_weights
from tests.tolerance import bounds
from utils.errors import ConfigError, DataError

WEIGHT = "DISTILL.TEACHER_WEIGHT"
CALM = ("INPUT.PROB", 0.0, "INPUT.PADDING", 0, "INPUT.RE_PROB", 0.0)
ALL = ("DISTILL.W_FEAT", 2.0, "DISTILL.W_RELATION", 0.5)
NO_LOGITS = ("DISTILL.W_LOGIT", 0.0, "DISTILL.W_RELATION", 1.0)
JPM = ("MODEL.JPM", True, "MODEL.SHIFT_NUM", 2, "MODEL.DEVIDE_LENGTH", 3)
SIE = ("MODEL.SIE_CAMERA", True, "MODEL.SIE_VIEW", True)
WIDE = ("MODEL.VIT.EMBED_DIM", 32)
ON_CPU = ("MODEL.DEVICE", "cpu", "SOLVER.AMP", "off", "TEST.AMP", "off")
BATCH = 8


def student_stage(teacher: Path, *opts: object, data: object = None, device: str = "cpu") -> Stage:
    """Return the stage of a tiny ViT that has this checkpoint as its teacher."""
    cfg = make_cfg(*TINY_VIT, *ON_CPU, *CALM, WEIGHT, str(teacher), *opts)
    torch.manual_seed(0)
    return make_stage(cfg, "main", make_model(cfg, CLASSES, 3, 2).to(device), data)


def loader_batch(size: tuple[int, int] = (32, 24)) -> dict:
    """Return a batch as a loader hands it over."""
    generator = torch.Generator().manual_seed(3)
    labels = {"pids": CLASSES, "camids": 3, "viewids": 2}
    batch = {name: torch.randint(0, most, (BATCH,), generator=generator) for name, most in labels.items()}
    pixels = torch.randint(0, 256, (BATCH, 3, *size), generator=generator, dtype=torch.uint8)
    return batch | {"images": pixels, "paths": [""] * BATCH}


def fake_data(fingerprint: str) -> SimpleNamespace:
    """Return what a stage without an evaluation reads of its data."""
    return SimpleNamespace(train_loader=None, held_out=None, test=None, fingerprint=fingerprint)


def answer_of(teacher: Path, batch: dict, labelled: bool = True) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return the teacher's logits and, joined by hand, its embedding, for images that need no change."""
    model = load_trained(teacher).model
    labels = (batch["camids"], batch["viewids"]) if labelled else (None, None)
    with torch.no_grad():
        output = model.forward_output(batch["images"], *labels)
    first, *local = output.bnneck
    return output.logits, torch.cat([first, *(one / len(local) for one in local)], 1)


@pytest.mark.parametrize(
    ("of_teacher", "of_student", "pairs"),
    [
        ((), (), [(0, 0)]),
        ((*WIDE, *JPM, *SIE), (), [(0, 0)]),
        ((*WIDE, *JPM), (*JPM, *SIE), [(0, 0), (1, 1), (2, 2), (3, 3)]),
    ],
)
def test_a_step_learns_what_the_teacher_says_of_its_images_by_the_formulas(tmp_path, of_teacher, of_student, pairs):
    path = write_teacher(tmp_path, *of_teacher)
    stage = student_stage(path, *ALL, *of_student)
    batch, phase = stage.prepare(loader_batch()), stage.plan.at(1)
    output = stage.forward_batch(stage.trained.train(), batch)
    total, parts = stage.criterion(output, batch, phase)
    logits, embedding = answer_of(path, batch)
    values = [slow.logits(output.logits[one].double(), logits[two].double(), 4.0) for one, two in pairs]
    exact = 0.5 * values[0] + 0.5 * sum(values[1:]) / len(values[1:]) if len(values) > 1 else values[0]
    first, *local = (feat.double() for feat in output.bnneck)
    own = torch.cat([first, *(one / len(local) for one in local)], 1)
    projected = own @ stage.criterion.distill.projection.weight.double().t() if of_teacher else own
    exact = exact + 2.0 * slow.features(projected, embedding.double())
    exact = exact + 0.5 * slow.relations(own, embedding.double(), 0.1)
    torch.testing.assert_close(parts["distill"].double(), exact.detach(), **bounds(1000, 10.0))
    rest = sum(phase.weights[name] * value for name, value in parts.items() if name != "distill")
    torch.testing.assert_close(total.detach(), rest + parts["distill"], **bounds(10, 10.0))
    readings = stage.criterion.readings(output, batch, phase)
    assert readings["teacher_acc"] == (logits[0].argmax(1) == batch["pids"]).float().mean()


def take_steps(stage: Stage, count: int = 2) -> None:
    stage.scheduler.step(1)
    for _ in range(count):
        batch = stage.prepare(loader_batch())
        total, _ = stage.criterion(stage.forward_batch(stage.trained.train(), batch), batch, stage.plan.at(1))
        stage.updater.backward(total, 1, 1)
        stage.updater.step()


def test_the_teacher_stays_as_it_is_and_is_in_no_state(tmp_path, monkeypatch):
    path, seen = write_teacher(tmp_path, *WIDE), []
    monkeypatch.setattr(
        "processor.distill.add_teacher", lambda stage, teacher: seen.append(teacher) or add_teacher(stage, teacher)
    )
    stage = student_stage(path, *ALL)
    model = seen[0].model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    take_steps(stage)
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(weight.requires_grad or weight.grad is not None for weight in model.parameters())
    plain = make_tiny()
    assert stage.model.state_dict().keys() == plain.state_dict().keys()
    assert list(stage.criterion.state_dict()) == ["distill.projection.weight"]
    held = {id(weight) for group in stage.optimizer.param_groups for weight in group["params"]}
    projection = stage.criterion.distill.projection.weight
    trained = {id(weight) for weight in stage.model.parameters() if weight.requires_grad}
    assert held == trained | {id(projection)}


def test_the_projection_learns_by_the_rate_and_decay_of_new_layers(tmp_path):
    rates = ("SOLVER.BASE_LR", 0.01, "SOLVER.NEW_LR_FACTOR", 10.0, "SOLVER.WEIGHT_DECAY", 0.003)
    stage = student_stage(write_teacher(tmp_path, *WIDE), *ALL, *rates, "SOLVER.WARMUP_EPOCHS", 0)
    projection = stage.criterion.distill.projection.weight
    (group,) = [group for group in stage.optimizer.param_groups if group["params"] == [projection]]
    assert group["weight_decay"] == 0.003 and stage.scheduler.lr_at(1)[-1] == pytest.approx(0.1, rel=1e-3)
    before = projection.detach().clone()
    take_steps(stage, 1)
    assert not torch.equal(projection, before) and group["lr"] == stage.scheduler.lr_at(1)[-1]


def test_a_teacher_changes_neither_the_student_s_weights_nor_what_is_drawn_after_it(tmp_path):
    path, drawn = write_teacher(tmp_path, *WIDE), []
    for opts in ((), ALL, (WEIGHT, "")):
        stage = student_stage(path, *opts)
        weights = torch.cat([weight.flatten() for weight in stage.model.parameters()])
        drawn.append((torch.rand(3), weights))
    assert all(torch.equal(one, two) for draws in drawn[1:] for one, two in zip(draws, drawn[0], strict=True))
    assert "distill" not in stage.plan.at(1).weights and not hasattr(stage.criterion, "distill")


def test_the_teacher_sees_the_pixels_as_its_own_training_normalised_them():
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 0.125]
    student = make_cfg("INPUT.PIXEL_MEAN", mean, "INPUT.PIXEL_STD", std)
    teacher = make_cfg("INPUT.PIXEL_MEAN", [0.4] * 3, "INPUT.PIXEL_STD", [0.2] * 3)
    pixels = loader_batch((256, 128))["images"][:2]
    seen = _view(student, teacher)(BatchTransform(mean, std)(pixels))
    torch.testing.assert_close(seen, (pixels / 255 - 0.4) / 0.2, **bounds(10, 5.0))
    images = torch.randn(2, 3, 256, 128)
    assert _view(student, student)(images) is images


def test_the_teacher_sees_images_of_the_size_that_it_was_trained_on():
    small, large = (make_cfg("INPUT.SIZE_TRAIN", size) for size in ([32, 16], [64, 32]))
    ramp = torch.linspace(-2, 2, 64)[:, None].expand(3, 64, 32)[None]
    seen = _view(large, small)(ramp)
    assert seen.shape == (1, 3, 32, 16)
    inside = slice(2, -2)  # of a ramp, a mean over any window that is symmetric is the value in its middle
    middle = ramp.unfold(2, 2, 2).mean(-1)[..., :16]
    torch.testing.assert_close(seen[:, :, inside], middle[:, :, inside], **bounds(20, 2.0))
    assert _view(small, large)(seen).shape == ramp.shape


def test_a_teacher_of_other_images_is_not_told_cameras_and_viewpoints(tmp_path, caplog):
    path = write_teacher(tmp_path, *SIE)
    batch = loader_batch()
    for fingerprint, labelled in ((FINGERPRINT, True), ("of others", False)):
        stage = student_stage(path, *NO_LOGITS, data=fake_data(fingerprint))
        ready = stage.prepare(dict(batch))
        _, embedding = answer_of(path, ready, labelled)
        torch.testing.assert_close(ready["teacher"].extra["embedding"], embedding, **bounds(1000, 5.0))
        assert ready["teacher"].logits == []
        assert ("is not told their cameras and viewpoints" in caplog.text) != labelled


@pytest.mark.parametrize(
    ("told", "fingerprint", "words"),
    [
        ({}, "of others", "trained on veri (5 identities) with the fingerprint 0123456789abcdef, the training set"),
        ({"classes": 6}, FINGERPRINT, "(6 identities)"),
        ({"classes": 6}, None, "(6 identities)"),
    ],
)
def test_logits_of_other_identities_are_refused(tmp_path, told, fingerprint, words):
    path = write_teacher(tmp_path, **told)
    data = fingerprint and fake_data(fingerprint)
    with pytest.raises(DataError) as caught:
        student_stage(path, data=data)
    message = str(caught.value)
    assert words in message and str(path) in message and "set DISTILL.W_LOGIT 0" in message
    student_stage(path, *NO_LOGITS, data=data)


def test_logits_of_a_file_that_does_not_tell_its_images_are_refused(tmp_path):
    path = write_teacher(tmp_path)
    torch.save(dict(torch.load(path, weights_only=True)), path)
    (tmp_path / "teacher.yml").write_text(make_cfg(*TINY_VIT).dump())
    given = ("DISTILL.TEACHER_CONFIG", str(tmp_path / "teacher.yml"))
    with pytest.raises(DataError, match="DISTILL.TEACHER_WEIGHT: .* does not tell on which images it was trained"):
        student_stage(path, *given, data=fake_data(FINGERPRINT))
    assert student_stage(path, *given, *NO_LOGITS, data=fake_data(FINGERPRINT)).prepare(loader_batch())["teacher"]


def test_a_teacher_without_a_configuration_asks_for_the_key_that_names_it(tmp_path):
    path = write_teacher(tmp_path)
    torch.save(dict(torch.load(path, weights_only=True)), path)
    with pytest.raises(ConfigError, match="TEACHER_WEIGHT: .*holds no .*; name its YAML as DISTILL.TEACHER_CONFIG$"):
        student_stage(path)


def test_logits_that_no_identity_taught_are_refused(tmp_path):
    ssl = ("MODEL.TRAINING_MODE", "self_supervised", "LOSS.SUPCON.ENABLE", True, "DATALOADER.SAMPLER", "random")
    path = write_teacher(tmp_path, *ssl)
    with pytest.raises(ConfigError, match="learnt without identities, so its logits say nothing; set DISTILL.W_LOGIT"):
        student_stage(path)
    student_stage(path, *NO_LOGITS)


def test_a_run_teaches_by_its_last_checkpoint(tmp_path):
    path = write_teacher(tmp_path / "run")
    path.rename(path.with_name("transformer_10.pth"))
    write_teacher(tmp_path / "run", seed=1)
    in_run = student_stage(Path(""), "DISTILL.TEACHER_RUN", str(tmp_path / "run"), WEIGHT, "")
    alone = student_stage(tmp_path / "run" / "transformer_10.pth")
    answers = [stage.prepare(loader_batch())["teacher"].logits[0] for stage in (in_run, alone)]
    assert torch.equal(*answers)


@pytest.mark.parametrize(
    ("key", "name", "words"),
    [
        ("DISTILL.TEACHER_RUN", "nowhere", "DISTILL.TEACHER_RUN: run folder '{0}': no such folder"),
        ("DISTILL.TEACHER_RUN", "", "DISTILL.TEACHER_RUN: run folder '{0}' holds no checkpoint"),
        ("DISTILL.TEACHER_WEIGHT", "no.pth", "DISTILL.TEACHER_WEIGHT: no file '{0}'"),
    ],
)
def test_a_teacher_that_is_not_there_is_named_by_its_key(tmp_path, key, name, words):
    place = tmp_path / name
    with pytest.raises((ConfigError, DataError)) as caught:
        student_stage(Path(""), WEIGHT, "", key, str(place))
    assert words.format(place) in str(caught.value)


def test_a_missing_yaml_of_a_teacher_is_named_by_its_own_key(tmp_path):
    with pytest.raises(ConfigError, match="^DISTILL.TEACHER_CONFIG: no config file '.*no.yml'"):
        student_stage(write_teacher(tmp_path), "DISTILL.TEACHER_CONFIG", str(tmp_path / "no.yml"))


GLOBAL = {"global": 8}
PARTS = {f"part{number}": 4 for number in range(1, 4)}


@pytest.mark.parametrize(
    ("student", "teacher", "pairs"),
    [
        (GLOBAL, GLOBAL, [(0, 0)]),
        (GLOBAL | PARTS, GLOBAL, [(0, 0)]),
        (GLOBAL | PARTS, {"global": 4, "local_1": 4, "local_2": 4, "local_3": 4}, [(0, 0), (1, 1), (2, 2), (3, 3)]),
        (GLOBAL | PARTS, GLOBAL | dict(list(PARTS.items())[:2]), [(0, 0)]),
        (PARTS, GLOBAL | PARTS, [(0, 1), (1, 2), (2, 3)]),
        (PARTS, GLOBAL, []),
    ],
)
def test_branches_are_compared_by_position_and_count(student, teacher, pairs):
    assert match_branches(student, teacher) == pairs


class Stripes(nn.Module):
    """A model whose branches are parts alone."""

    branches = PARTS


def test_logits_without_a_common_branch_are_refused_and_relations_need_none(tmp_path, caplog):
    stage = student_stage(write_teacher(tmp_path), WEIGHT, "")
    taught = student_stage(write_teacher(tmp_path), *NO_LOGITS)
    rest = (1.0, nn.Identity(), True, taught.criterion.distill.lesson, 1.0, None, None)
    assert add_teacher(stage, Teacher(Stripes(), *rest)) is stage
    logits = (*rest[:3], rest[3]._replace(w_logit=1.0), *rest[4:])
    with pytest.raises(ConfigError, match=r"no branch of the student \(global\) is one of the teacher \(part1, part2"):
        add_teacher(stage, Teacher(Stripes(), *logits))


def test_the_log_tells_which_branches_are_compared_and_which_are_not(tmp_path, caplog):
    caplog.set_level("INFO")
    student_stage(write_teacher(tmp_path, *JPM))
    assert "learnt of global from global; not of the teacher's local_1, local_2, local_3" in caplog.text


def test_do_train_has_the_teacher_too(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(training, "_identify", lambda *_: "")
    monkeypatch.setattr(training, "start_run", lambda cfg, stage, *_: seen.append(stage))
    monkeypatch.setattr(training, "_train", lambda *_, **__: {"epoch": 1, "best": {}})
    plain = student_stage(write_teacher(tmp_path), WEIGHT, "")
    cfg = make_cfg(*TINY_VIT, *ON_CPU, WEIGHT, str(write_teacher(tmp_path)))
    optimizer, _ = make_optimizer(cfg, plain.model, plain.criterion)
    scheduler = create_scheduler(cfg, optimizer)
    training.do_train(cfg, plain.model, plain.criterion, fake_data(FINGERPRINT), optimizer, scheduler)
    assert "distill" in seen[0].criterion.names(seen[0].plan.at(1))


def test_a_step_with_a_teacher_waits_for_no_device(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # "meta" has none
    stage = student_stage(write_teacher(tmp_path, *WIDE, *SIE), *ALL, device="meta")
    batch, phase = stage.prepare(loader_batch()), stage.plan.at(1)
    output = stage.forward_batch(stage.trained.train(), batch)
    total, _ = stage.criterion(output, batch, phase)
    stage.criterion.readings(output, batch, phase)
    total.backward()
    assert total.device.type == "meta" and batch["teacher"].logits[0].device.type == "meta"


def test_a_vision_transformer_teaches_a_resnet(tmp_path):
    path = write_teacher(tmp_path)
    stage = student_stage(path, "MODEL.NAME", "resnet50", *ALL)
    batch = stage.prepare(loader_batch())
    total, parts = stage.criterion(stage.forward_batch(stage.trained.train(), batch), batch, stage.plan.at(1))
    total.backward()
    assert parts["distill"] > 0 and stage.criterion.distill.projection.weight.shape == (24, 2048)
    assert all(weight.grad is not None for weight in stage.model.parameters() if weight.requires_grad)


def test_a_margin_s_cosines_are_taught_as_logits_of_its_own_scale(tmp_path):
    margin = ("MODEL.ID_LOSS_TYPE", "arcface", "SOLVER.COSINE_SCALE", 12.0)
    cfg = make_cfg(*TINY_VIT, "MODEL.DEVICE", "cpu", *margin)
    path = write_weights(tmp_path, cfg, make_tiny(*margin, seed=4))
    stage = student_stage(path, "MODEL.ID_LOSS_TYPE", "cosface", "SOLVER.COSINE_SCALE", 20.0)
    batch = stage.prepare(loader_batch())
    output = stage.forward_batch(stage.trained.train(), batch)
    _, parts = stage.criterion(output, batch, stage.plan.at(1))
    cosines, _ = answer_of(path, batch)
    assert cosines[0].abs().max() <= 1
    exact = slow.logits(20 * output.logits[0].double(), 12 * cosines[0].double(), 4.0)
    torch.testing.assert_close(parts["distill"].double(), exact.detach(), **bounds(1000, 20.0))


@pytest.mark.parametrize("feat", ["before", "after"])
def test_the_embedding_is_that_after_the_necks_of_a_clip_reid_too(tmp_path, feat):
    cfg = clip_reid_cfg(write_clip(tmp_path, VIT), "TEST.NECK_FEAT", feat)
    model = make_clip_reid(cfg).eval()
    output = model.forward_output(torch.randn(3, 3, *cfg.INPUT.SIZE_TRAIN))
    assert torch.equal(model.embedding_of(output), torch.cat(output.bnneck, 1))
    assert model.embedding_of(output).shape[1] == sum(model.branches.values())
