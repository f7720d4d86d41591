"""Several training sets as one, identities and cameras kept apart; what a model trained on them knows of an image."""

from collections.abc import Sequence

from datasets.bases import ReIDDataset, Sample


def join_training_sets(datasets: Sequence[ReIDDataset]) -> list[Sample]:
    """Return all training samples with identities relabelled 0..C-1 (ascending within each set, sets in order).

    Cameras of later sets are counted on from those of the earlier ones; viewpoints keep their meaning.
    """
    joined, first_pid = [], 0
    for dataset, cameras in zip(datasets, camera_ranges(datasets), strict=True):
        own = relabelled(dataset.train)
        joined += [sample._replace(pid=first_pid + sample.pid, camid=cameras[sample.camid]) for sample in own]
        first_pid += 1 + max(sample.pid for sample in own)
    return joined


def camera_ranges(datasets: Sequence[ReIDDataset]) -> list[range]:
    """Return for each data set which cameras of the joined training set are its own, in their order."""
    ranges, first = [], 0
    for dataset in datasets:
        number = 1 + max(sample.camid for sample in dataset.train)
        ranges.append(range(first, first + number))
        first += number
    return ranges


def known_of_all(datasets: Sequence[ReIDDataset]) -> dict[str, dict[str, int]]:
    """Return what the data sets know of images besides their labels: by name {path: value} of all of them together."""
    known: dict[str, dict[str, int]] = {}
    for dataset in datasets:
        for name, values in dataset.more.items():
            known.setdefault(name, {}).update(values)
    return known


def relabelled(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples with their identities numbered 0..C-1 in ascending order."""
    label = {pid: row for row, pid in enumerate(sorted({sample.pid for sample in samples}))}
    return [sample._replace(pid=label[sample.pid]) for sample in samples]


def told_labels(samples: list[Sample], cameras: range | None, view_num: int) -> list[Sample]:
    """Return the samples with the camera and viewpoint that a model of `view_num` viewpoints is told: -1 = none.

    `cameras` are those of training that the samples' cameras 0, 1, ... are; None: all are unknown, viewpoints too.
    """
    if cameras is None:
        return [sample._replace(camid=-1, viewid=-1) for sample in samples]
    told = []
    for sample in samples:
        camid = cameras[sample.camid] if sample.camid < len(cameras) else -1
        told.append(sample._replace(camid=camid, viewid=sample.viewid if sample.viewid < view_num else -1))
    return told
