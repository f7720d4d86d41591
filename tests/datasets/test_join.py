"""What a model is told about the cameras and viewpoints of a test set."""

from datasets.bases import ReIDDataset, Sample
from datasets.join import camera_offsets, join_training_sets, relabelled, told_labels


def samples_of(*labels):
    return [Sample(f"{number}.jpg", *label) for number, label in enumerate(labels)]


def test_cameras_and_viewpoints_beyond_the_trained_ones_are_unknown():
    told = told_labels(samples_of((7, 0, 0), (7, 2, 1), (9, 3, 2), (9, 1, -1)), 0, camera_num=3, view_num=2)
    assert [sample[1:] for sample in told] == [(7, 0, 0), (7, 2, 1), (9, -1, -1), (9, 1, -1)]


def test_a_later_training_set_keeps_its_place_among_the_cameras():
    told = told_labels(samples_of((1, 0, 0), (1, 1, 0)), 4, camera_num=6, view_num=1)
    assert [sample.camid for sample in told] == [4, 5]


def test_nothing_is_told_of_a_data_set_that_was_not_trained_on():
    told = told_labels(samples_of((1, 0, 0), (2, 1, 1)), None, camera_num=20, view_num=8)
    assert [(sample.camid, sample.viewid) for sample in told] == [(-1, -1)] * 2
    assert [sample.pid for sample in told] == [1, 2]


def test_offsets_are_those_of_the_joined_cameras():
    first = ReIDDataset("a", samples_of((5, 0, 0), (6, 3, 0)), [], [])
    second = ReIDDataset("b", samples_of((5, 2, 0)), [], [])
    joined = join_training_sets([first, second])
    assert camera_offsets([first, second]) == [0, 4]
    cameras = [sample.camid for sample in joined]
    assert cameras == [0, 3, 6] and cameras[-1] - second.train[0].camid == camera_offsets([first, second])[1]


def test_relabelling_keeps_order_and_starts_at_zero():
    assert [sample.pid for sample in relabelled(samples_of((40, 0, 0), (3, 0, 0), (40, 1, 0)))] == [1, 0, 1]
