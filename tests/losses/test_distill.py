"""Distillation against values by hand and the formulas in float64, with gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.phases import Phase
from losses import distill_features, distill_logits, distill_relations
from losses.branches import Reduce
from losses.distill import DistillTerm, Lesson, teacher_accuracy
from model import ModelOutput
from tests.losses.batches import random_features
from tests.reference import slow_distill as slow
from tests.tolerance import assert_rounded

CLOSE = {"rtol": 1e-9, "atol": 1e-10}
PHASE = Phase(1, 0, "static", {"distill": 1.0}, 4, False)
ROW = torch.tensor([[1.0, 0.0, -1.0]], dtype=torch.float64)
LOSSES = {
    "logits": lambda student, teacher: distill_logits(student, teacher, 4.0),
    "logits, both ways": lambda student, teacher: distill_logits(student, teacher, 4.0, symmetric=True),
    "features": distill_features,
    "relations": lambda student, teacher: distill_relations(student, teacher, 0.1),
}


def assert_formula(fast: object, exact: object, student: torch.Tensor, teacher: torch.Tensor) -> None:
    """Value and gradient of fast(student, teacher) are those of exact; no gradient reaches the teacher."""
    found = []
    for loss in (fast, exact):
        own, taught = student.clone().requires_grad_(), teacher.clone().requires_grad_()
        value = loss(own, taught)
        assert value.dtype == torch.float64 and value.ndim == 0
        gradients = torch.autograd.grad(value, (own, taught), allow_unused=True)
        assert gradients[1] is None
        found.append((value.detach(), gradients[0]))
    torch.testing.assert_close(*found, **CLOSE)


def test_logits_have_the_values_by_hand():
    assert distill_logits(ROW, 2 * ROW, 4.0).item() == pytest.approx(0.3057213, abs=5e-8)
    assert distill_logits(ROW, 2 * ROW, 4.0, symmetric=True).item() == pytest.approx(0.3104059, abs=5e-8)


def test_features_have_the_values_by_hand():
    student = torch.tensor([[3.0, 4.0], [1.0, 0.0]], dtype=torch.float64)
    teacher = torch.tensor([[4.0, 3.0], [0.0, 7.0]], dtype=torch.float64)
    assert distill_features(student, teacher).item() == pytest.approx((1 - 24 / 25 + 1) / 2, abs=1e-12)


def test_relations_have_the_value_by_hand():
    """Cosines of the teacher 1, 0, 0 and of the student 0 throughout, t 1: rows 0 and 1 have the shares e : 1, row 2
    has 1 : 1, and the student 1 : 1 everywhere.
    """
    teacher = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    high = math.e / (1 + math.e)
    row = high * math.log(2 * high) + (1 - high) * math.log(2 * (1 - high))
    value = distill_relations(torch.eye(3, dtype=torch.float64), teacher, 1.0)
    assert value.item() == pytest.approx(2 * row / 3, abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(
    count=st.integers(1, 6),
    classes=st.integers(1, 7),
    temperature=st.sampled_from([4.0, 1.0, 16.0, 0.2]),
    symmetric=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_logits_are_the_formula(count, classes, temperature, symmetric, seed):
    assert_formula(
        lambda student, teacher: distill_logits(student, teacher, temperature, symmetric),
        lambda student, teacher: slow.logits(student, teacher, temperature, symmetric),
        *(3 * random_features(count, classes, seed + side) for side in range(2)),
    )


@settings(deadline=None, max_examples=20)
@given(count=st.integers(1, 6), width=st.integers(1, 7), seed=st.integers(0, 1000))
def test_features_are_the_formula(count, width, seed):
    assert_formula(distill_features, slow.features, *(random_features(count, width, seed + side) for side in range(2)))


@settings(deadline=None, max_examples=30)
@given(
    count=st.integers(2, 7),
    widths=st.tuples(st.integers(1, 5), st.integers(1, 9)),
    temperature=st.sampled_from([0.1, 1.0, 0.02]),
    seed=st.integers(0, 1000),
)
def test_relations_are_the_formula_for_any_widths(count, widths, temperature, seed):
    assert_formula(
        lambda student, teacher: distill_relations(student, teacher, temperature),
        lambda student, teacher: slow.relations(student, teacher, temperature),
        *(random_features(count, width, seed + side) for side, width in enumerate(widths)),
    )


@pytest.mark.parametrize("name", LOSSES)
def test_a_student_that_is_its_teacher_has_nothing_to_learn(name):
    own = random_features(5).requires_grad_()
    value = LOSSES[name](own, own)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-12) and own.grad.abs().max() < 1e-12


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_images_does_not_matter(name):
    student, teacher, order = random_features(6), random_features(6, seed=1), torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(LOSSES[name](student[order], teacher[order]), LOSSES[name](student, teacher), **CLOSE)


def test_logits_of_other_levels_and_features_of_other_lengths_are_the_same():
    student, teacher = random_features(4), random_features(4, seed=1)
    shifted = student + torch.tensor([[5.0], [-3.0], [0.0], [100.0]], dtype=torch.float64)
    torch.testing.assert_close(distill_logits(shifted, teacher, 4.0), distill_logits(student, teacher, 4.0), **CLOSE)
    longer = torch.tensor([[0.01], [3.0], [1.0], [250.0]], dtype=torch.float64)
    for name in ("features", "relations"):
        torch.testing.assert_close(LOSSES[name](longer * student, teacher), LOSSES[name](student, teacher), **CLOSE)


@pytest.mark.parametrize("name", LOSSES)
def test_without_rows_the_loss_is_a_zero_with_a_gradient(name):
    student = torch.zeros(0, 4, requires_grad=True)
    value = LOSSES[name](student, torch.zeros(0, 4))
    value.backward()
    assert value.item() == 0 and student.grad is not None


def test_one_image_has_no_relation():
    student = random_features(1).requires_grad_()
    value = distill_relations(student, random_features(1, seed=1), 0.1)
    value.backward()
    assert value.item() == 0 and not student.grad.any()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_zero_row_has_a_finite_value_and_gradient(name, dtype):
    student, teacher = random_features(3).to(dtype), random_features(3, seed=1).to(dtype)
    student[1] = teacher[2] = 0
    value = LOSSES[name](student.requires_grad_(), teacher)
    value.backward()
    assert torch.isfinite(value) and value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.isfinite(student.grad).all()


def test_zero_features_have_the_value_of_the_formula():
    student, teacher = random_features(4), random_features(4, seed=1)
    student[1] = teacher[2] = 0
    torch.testing.assert_close(distill_features(student, teacher), slow.features(student, teacher), **CLOSE)
    exact = slow.relations(student, teacher, 0.1)
    torch.testing.assert_close(distill_relations(student, teacher, 0.1), exact, **CLOSE)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32_whatever_autocast_says(name, dtype):
    student, teacher = random_features(6, 64).to(dtype), random_features(6, 64, seed=1).to(dtype)
    exact = LOSSES[name](student.double(), teacher.double())
    with torch.autocast("cpu", torch.bfloat16):
        value = LOSSES[name](student, teacher)
    assert_rounded(value, exact, terms=64, scale=16.0)  # cosines / 0.1, and logits times T^2, are up to that


def test_shapes_and_temperatures_that_do_not_fit_are_refused():
    feat = torch.randn(3, 4)
    for loss in LOSSES.values():
        for wrong in (torch.randn(2, 4), torch.randn(3)):
            with pytest.raises(ValueError, match="equal rows of student and teacher"):
                loss(feat, wrong)
    with pytest.raises(ValueError, match=r"logits are \[3, 4\] and of the teacher \[3, 5\]"):
        distill_logits(feat, torch.randn(3, 5), 4.0)
    with pytest.raises(ValueError, match=r"features are \[3, 4\] and of the teacher \[3, 5\]"):
        distill_features(feat, torch.randn(3, 5))
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="temperature must be positive"):
            distill_logits(feat, feat, wrong)
        with pytest.raises(ValueError, match="temperature must be positive"):
            distill_relations(feat, feat, wrong)


CLASSES = 5


def side_by_side(output: ModelOutput) -> torch.Tensor:
    return torch.cat(output.bnneck, 1)


def two_sides(widths: tuple[int, int] = (4, 4), branches: int = 3) -> tuple[ModelOutput, dict]:
    """Return a student's output, and a batch with what a teacher of two compared branches says."""
    own = [random_features(6, CLASSES, seed) for seed in range(branches)]
    feats = [random_features(6, widths[0] // 2, 10 + seed) for seed in range(2)]
    taught = [random_features(6, CLASSES, 20 + seed) for seed in range(2)]
    teacher = ModelOutput(taught, [], [], None, {"embedding": random_features(6, widths[1], 30)})
    return ModelOutput(own, feats, feats), {"teacher": teacher, "pids": torch.tensor([0, 1, 2, 3, 4, 0])}


def test_the_term_is_the_weighted_sum_of_its_parts():
    output, batch = two_sides()
    lesson = Lesson(0.5, 3.0, True, 2.0, 0.25, 0.2)
    term = DistillTerm(lesson, [0, 2], side_by_side, (4, 4), reduce=Reduce("sum"))
    own, taught = side_by_side(output), batch["teacher"].extra["embedding"]
    exact = 0.5 * sum(
        slow.logits(output.logits[place], logits, 3.0, True)
        for place, logits in zip([0, 2], batch["teacher"].logits, strict=True)
    )
    exact = exact + 2.0 * slow.features(own, taught) + 0.25 * slow.relations(own, taught, 0.2)
    assert term(output, batch, PHASE).keys() == {"distill"} and not list(term.parameters())
    torch.testing.assert_close(term(output, batch, PHASE)["distill"], exact, **CLOSE)


@pytest.mark.parametrize(("kind", "shares"), [("mean", (0.5, 0.5)), ("sum", (1, 1)), ("halves", (0.7, 0.3))])
def test_branches_add_up_as_those_of_the_identity_loss_do(kind, shares):
    output, batch = two_sides()
    term = DistillTerm(Lesson(), [0, 1], side_by_side, (4, 4), reduce=Reduce(kind, 0.7))
    values = [slow.logits(output.logits[place], batch["teacher"].logits[place], 4.0) for place in range(2)]
    exact = sum(share * value for share, value in zip(shares, values, strict=True))
    torch.testing.assert_close(term(output, batch, PHASE)["distill"], exact, **CLOSE)


def test_cosines_of_a_margin_head_become_logits_by_their_scale():
    output, batch = two_sides()
    term = DistillTerm(Lesson(), [0, 1], side_by_side, (4, 4), scale=30.0, reduce=Reduce("sum"))
    exact = sum(slow.logits(30 * output.logits[place], batch["teacher"].logits[place], 4.0) for place in range(2))
    torch.testing.assert_close(term(output, batch, PHASE)["distill"], exact, **CLOSE)


def test_features_of_another_width_go_through_a_linear_layer_that_learns():
    output, batch = two_sides(widths=(4, 7))
    term = DistillTerm(Lesson(w_logit=0.0, w_feat=2.0), [], side_by_side, (4, 7)).double()
    assert [tuple(weight.shape) for weight in term.parameters()] == [(7, 4)]
    value = term(output, batch, PHASE)["distill"]
    exact = 2 * slow.features(side_by_side(output) @ term.projection.weight.t(), batch["teacher"].extra["embedding"])
    torch.testing.assert_close(value, exact, **CLOSE)
    value.backward()
    assert term.projection.weight.grad.abs().max() > 0


def test_relations_need_no_layer_for_another_width():
    output, batch = two_sides(widths=(4, 7))
    term = DistillTerm(Lesson(w_logit=0.0, w_relation=1.0), [], side_by_side, (4, 7))
    assert not list(term.parameters())
    exact = slow.relations(side_by_side(output), batch["teacher"].extra["embedding"], 0.1)
    torch.testing.assert_close(term(output, batch, PHASE)["distill"], exact, **CLOSE)


def test_the_teacher_s_accuracy_is_that_of_its_first_compared_classifier():
    logits = [torch.eye(3)[[0, 1, 1, 2]], torch.eye(3)[[0, 0, 0, 0]]]
    batch = {"teacher": ModelOutput(logits, [], []), "pids": torch.tensor([0, 1, 2, 2])}
    assert teacher_accuracy(ModelOutput([], [], []), batch).item() == 0.75
