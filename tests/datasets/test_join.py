"""What a model is told about the cameras and viewpoints of a test set."""

from datasets.bases import ReIDDataset, Sample
from datasets.join import camera_ranges, join_training_sets, relabelled, told_labels


def samples_of(*labels: tuple[int, int, int]) -> list[Sample]:
    return [Sample(f"{number}.jpg", *label) for number, label in enumerate(labels)]


def test_cameras_and_viewpoints_beyond_the_trained_ones_are_unknown():
    told = told_labels(samples_of((7, 0, 0), (7, 2, 1), (9, 3, 2), (9, 1, -1)), range(3), view_num=2)
    assert [sample[1:] for sample in told] == [(7, 0, 0), (7, 2, 1), (9, -1, -1), (9, 1, -1)]


def test_a_later_training_set_keeps_its_place_among_the_cameras():
    told = told_labels(samples_of((1, 0, 0), (1, 1, 0)), range(4, 6), view_num=1)
    assert [sample.camid for sample in told] == [4, 5]


def test_an_unseen_camera_is_not_taken_for_one_of_the_next_training_set():
    first = ReIDDataset("a", samples_of((1, 0, 0), (2, 2, 0)), samples_of((9, 2, 0), (9, 3, 0)), [])
    second = ReIDDataset("b", samples_of((1, 0, 0), (1, 1, 0)), [], [])
    told = told_labels(first.query, camera_ranges([first, second])[0], view_num=1)
    assert [sample.camid for sample in told] == [2, -1]


def test_nothing_is_told_of_a_data_set_that_was_not_trained_on():
    told = told_labels(samples_of((1, 0, 0), (2, 1, 1)), None, view_num=8)
    assert [(sample.camid, sample.viewid) for sample in told] == [(-1, -1)] * 2
    assert [sample.pid for sample in told] == [1, 2]


def test_ranges_are_those_of_the_joined_cameras():
    first = ReIDDataset("a", samples_of((5, 0, 0), (6, 3, 0)), [], [])
    second = ReIDDataset("b", samples_of((5, 2, 0)), [], [])
    joined = join_training_sets([first, second])
    assert camera_ranges([first, second]) == [range(4), range(4, 7)]
    cameras = [sample.camid for sample in joined]
    assert cameras == [0, 3, 6]


def test_relabelling_keeps_order_and_starts_at_zero():
    assert [sample.pid for sample in relabelled(samples_of((40, 0, 0), (3, 0, 0), (40, 1, 0)))] == [1, 0, 1]
