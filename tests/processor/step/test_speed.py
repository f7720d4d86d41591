"""The work of a training step against formulas, the speed in the log, and the hint."""

import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from processor.step import speed
from processor.step.speed import SpeedLog, count_step, describe_speed, images_at_peak
from processor.systems.transreid import forward_images
from tests.model.builds import make_outline, make_tiny
from tests.model.clips import CALM, FROZEN, OPEN_CLIP_WIDTH, VISION, variants

CPU = torch.device("cpu")
SIZE = (32, 24)
CLASSES, WIDTH, HEADS, TOKENS, PATCH = 5, 24, 2, 13, 8  # of builds.TINY_VIT: 3 blocks, the last for its class token
EMBED = (TOKENS - 1) * WIDTH * 3 * PATCH**2  # all in multiply-adds
QKV, PROJ, MLP = 3 * TOKENS * WIDTH**2, TOKENS * WIDTH**2, 8 * TOKENS * WIDTH**2
ATTENTION = 2 * TOKENS**2 * WIDTH
BLOCK = QKV + ATTENTION + PROJ + MLP
LAST = (1 + 2 + 1 + 8) * WIDTH**2 + 2 * HEADS * TOKENS * WIDTH  # query, to and from the tokens, projection, MLP
KEYED_LINEAR = (1 + 2 * TOKENS + 1 + 8) * WIDTH**2  # with an adapter in qkv, keys and values are made
KEYED_ATTENTION = 2 * TOKENS * WIDTH
HEAD = WIDTH * CLASSES


def stage_of(model: nn.Module) -> SimpleNamespace:
    return SimpleNamespace(model=model, forward_batch=forward_images)


def count(*opts: object) -> float:
    return count_step(stage_of(make_tiny(*opts)), SIZE)


def test_the_backward_pass_takes_twice_the_forward_pass_but_for_the_images_own_gradient():
    assert count() == 2 * (3 * (EMBED + 2 * BLOCK + LAST + HEAD) - EMBED)


def test_the_model_itself_stays_untouched_and_in_its_mode():
    model = make_tiny().eval()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    assert count_step(stage_of(model), SIZE) == count()
    assert not model.training and all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_frozen_blocks_have_no_backward_pass():
    assert count("MODEL.FREEZE_BLOCKS", 2) == 2 * (EMBED + 2 * BLOCK + 3 * (LAST + HEAD))


def test_adapters_learn_through_weights_that_do_not():
    rank = 2
    down, up = TOKENS * WIDTH * rank, TOKENS * rank * 3 * WIDTH
    last_down, last_up = (1 + TOKENS) * WIDTH * rank, rank * WIDTH + TOKENS * rank * 2 * WIDTH
    forward = EMBED + 2 * (BLOCK + down + up) + KEYED_LINEAR + KEYED_ATTENTION + last_down + last_up + HEAD
    # a frozen weight has no gradient of its own, and what enters the first block needs none
    first = down + 2 * up + 2 * ATTENTION + PROJ + MLP
    second = QKV + 2 * down + 2 * up + 2 * ATTENTION + PROJ + MLP
    last = KEYED_LINEAR + 2 * KEYED_ATTENTION + 2 * last_down + 2 * last_up
    work = count("MODEL.LORA.RANK", rank, "MODEL.LORA.TARGETS", ("attn.qkv",))
    assert work == 2 * (forward + first + second + last + 2 * HEAD)


def test_a_frozen_clip_tower_runs_forward_only(sources):
    options = (*CALM, *variants(sources)["minimal"])
    width = VISION["width"]
    tower = (TOKENS - 1) * width * 3 * PATCH**2 + width * OPEN_CLIP_WIDTH
    tower += VISION["layers"] * (12 * TOKENS * width**2 + 2 * TOKENS**2 * width)
    fusion = (WIDTH + OPEN_CLIP_WIDTH) * WIDTH
    assert count(*options, *FROZEN) - count(*CALM) == 2 * (tower + 3 * fusion)


def test_deit_base_at_stride_12_takes_what_its_layers_take():
    tokens, width, heads = 1 + 21 * 21, 768, 12  # 256 x 256 pixels
    outline = make_outline("INPUT.SIZE_TRAIN", [256, 256], "MODEL.STRIDE_SIZE", [12, 12], classes=576)
    embed = 21 * 21 * width * 3 * 16**2
    block = 12 * tokens * width**2 + 2 * tokens**2 * width
    last = 12 * width**2 + 2 * heads * tokens * width
    work = 2 * (3 * (embed + 11 * block + last + 576 * width) - embed)
    assert count_step(stage_of(outline), (256, 256)) == work
    assert work == pytest.approx(227.4e9, rel=1e-3)


def test_the_key_gives_the_peak_of_any_device():
    rate = images_at_peak(stage_of(make_tiny()), SIZE, CPU, False, 2.5)
    assert rate == pytest.approx(2.5e12 / count())


def test_a_cpu_without_the_key_has_no_mfu_and_nothing_is_counted(monkeypatch):
    monkeypatch.setattr(speed, "count_step", lambda *_: pytest.fail("counted"))
    assert images_at_peak(stage_of(None), SIZE, CPU, False, 0.0) == 0


def test_a_gpu_is_measured_by_its_name_and_an_unknown_one_not_at_all(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    gpu, stage = torch.device("cuda"), stage_of(make_tiny())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100-SXM4-40GB")
    assert images_at_peak(stage, SIZE, gpu, True, 0.0) == pytest.approx(312e12 / count())
    assert images_at_peak(stage, SIZE, gpu, False, 0.0) == pytest.approx(19.5e12 / count())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA X1")
    assert images_at_peak(stage, SIZE, gpu, True, 0.0) == 0
    assert "the peak of NVIDIA X1 is not known, so no MFU is logged; SOLVER.PEAK_TFLOPS can give it" in caplog.text


def window(data: float, step: float, images: float = 100.0, memory: float = 50.0, **more: float) -> dict[str, float]:
    return {
        "data_time": data,
        "step_time": step,
        "data_share": data / step,
        "images_per_s": images,
        "max_memory": memory,
        **more,
    }


def test_the_log_says_times_rate_mfu_and_memory():
    text = describe_speed(window(0.0031, 0.21, 304.8, 7310.2, mfu=0.4119))
    assert text == "data 0.003 s, step 0.210 s, 305 images/s, MFU 41.2 %, 7,310 MiB"
    assert describe_speed(window(0.0031, 0.21, 304.8, 7310.2)).endswith("305 images/s, 7,310 MiB")


def test_an_epoch_is_the_mean_over_its_iterations_and_the_next_starts_anew():
    log = SpeedLog(2, cached=False)
    log.add(10, window(1.0, 2.0, 32.0, 70.0, mfu=0.2))  # 640 images in 20 s
    log.add(15, window(4.0, 5.0, 12.8, 90.0, mfu=0.08))  # 320 images in 25 s
    assert log.end_epoch() == "data 2.000 s, step 3.000 s, 21 images/s, MFU 13.3 %, 90 MiB"
    log.add(10, window(0.5, 1.0, 64.0, 80.0))
    assert log.end_epoch() == "data 0.500 s, step 1.000 s, 64 images/s, 80 MiB"


def hints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_the_hint_comes_once_with_figures_and_what_to_do(caplog, monkeypatch):
    monkeypatch.setattr(speed, "usable_cores", lambda: 16)
    log = SpeedLog(8, cached=False)
    for step in (10, 20, 30):
        log.add(step, window(0.12, 0.3))
    assert hints(caplog) == [
        "loading the images takes 40 % of the time (0.120 s of the 0.300 s of a step): raise DATALOADER.NUM_WORKERS "
        "(8 now, this machine has 16 cores), or set DATALOADER.CACHE to a folder, which then keeps the decoded images"
    ]


def test_the_first_window_of_a_run_is_no_cause_for_the_hint(caplog):
    log = SpeedLog(8, cached=False)
    log.add(10, window(0.9, 1.0))
    log.end_epoch()
    assert not hints(caplog)
    log.add(10, window(0.9, 1.0))  # of the second epoch
    assert len(hints(caplog)) == 1


def test_the_wait_for_the_first_batch_of_an_epoch_is_no_cause_for_the_hint(caplog):
    log = SpeedLog(8, cached=False)
    for _ in range(2):  # epochs, each step is a window of its own
        for step in range(1, 21):
            log.add(step, window(0.9 if step == 1 else 0.01, 1.0))
        log.end_epoch()
    assert hints(caplog) == []


def test_short_windows_are_judged_together(caplog):
    log = SpeedLog(8, cached=False)
    for _ in range(3):  # epochs of one window with 4 iterations, the first of them not judged
        log.add(4, window(0.5, 1.0))
        log.end_epoch()
    assert hints(caplog) == []
    log.add(4, window(0.2, 1.0))
    assert "takes 40 % of the time (0.400 s of the 1.000 s of a step)" in hints(caplog)[0]


@pytest.mark.parametrize(("share", "expected"), [(0.29, 0), (0.31, 1)])
def test_the_hint_comes_above_30_percent(caplog, share, expected):
    log = SpeedLog(8, cached=False)
    for step in (10, 20):
        log.add(step, window(share, 1.0))
    assert len(hints(caplog)) == expected


@pytest.mark.parametrize(
    ("workers", "cached", "said", "unsaid"),
    [
        (8, False, "DATALOADER.CACHE to a folder", "NUM_WORKERS"),  # as many as cores
        (2, True, "NUM_WORKERS", "CACHE"),
        (8, True, "a machine with more than 8 cores or a faster disk", "NUM_WORKERS"),
    ],
)
def test_the_hint_only_names_what_can_be_done(caplog, monkeypatch, workers, cached, said, unsaid):
    monkeypatch.setattr(speed, "usable_cores", lambda: 8)
    log = SpeedLog(workers, cached)
    for step in (10, 20):
        log.add(step, window(0.5, 1.0))
    assert said in hints(caplog)[0] and unsaid not in hints(caplog)[0]


def test_only_rank_0_gives_the_hint(caplog, monkeypatch):
    monkeypatch.setattr(speed, "own_rank", lambda: 1)
    log = SpeedLog(8, cached=False)
    for step in (10, 20):
        log.add(step, window(0.5, 1.0))
    assert not hints(caplog)
