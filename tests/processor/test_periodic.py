"""What the loop keeps of the epochs that it evaluates."""

from configs.picking import picked_by
from processor.periodic import keep_best


def best_of(name: str, *scores: tuple[float, float]) -> list[int]:
    """Return the best epoch of the system `name` after each of some epochs of (mAP, Rank-1)."""
    progress, best = {"best": {}}, []
    for epoch, (mean_ap, rank1) in enumerate(scores, start=1):
        keep_best(progress, epoch, {"mAP": mean_ap, "Rank-1": rank1, "mINP": 0.0}, picked_by(name))
        best.append(progress["best"]["epoch"])
        assert progress["best"].keys() == {"epoch", "mAP", "Rank-1"}
    return best


def test_images_are_picked_by_map_and_between_equals_by_rank_1():
    assert best_of("transformer", (0.3, 0.9), (0.4, 0.1), (0.4, 0.2), (0.4, 0.2), (0.3, 1.0)) == [1, 2, 3, 3, 3]


def test_captions_are_picked_by_rank_1_and_between_equals_by_map():
    assert best_of("irra", (0.3, 0.9), (0.4, 0.1), (0.4, 0.9), (0.4, 0.9), (1.0, 0.8)) == [1, 1, 3, 3, 3]


def test_the_log_says_which_epoch_is_the_best_and_by_what(caplog):
    with caplog.at_level("INFO"):
        best_of("irra", (0.3, 0.9), (0.4, 0.1))
    assert caplog.messages == ["epoch 1 is the best so far by Rank-1 and then mAP"]
