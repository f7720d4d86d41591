"""Several training sets as one, identities and cameras kept apart; what a model trained on them knows of an image."""

from collections.abc import Sequence

from datasets.bases import ReIDDataset, Sample


def join_training_sets(datasets: Sequence[ReIDDataset]) -> list[Sample]:
    """Return all training samples with identities relabelled 0..C-1 (ascending within each set, sets in order).

    Cameras of later sets are counted on from those of the earlier ones; viewpoints keep their meaning.
    """
    joined, first_pid = [], 0
    for dataset, first_camid in zip(datasets, camera_offsets(datasets), strict=True):
        own = relabelled(dataset.train)
        joined += [sample._replace(pid=first_pid + sample.pid, camid=first_camid + sample.camid) for sample in own]
        first_pid += 1 + max(sample.pid for sample in own)
    return joined


def camera_offsets(datasets: Sequence[ReIDDataset]) -> list[int]:
    """Return for each data set which camera of the joined training set is its first one."""
    numbers = [1 + max(sample.camid for sample in dataset.train) for dataset in datasets]
    return [sum(numbers[:index]) for index in range(len(numbers))]


def relabelled(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples with their identities numbered 0..C-1 in ascending order."""
    label = {pid: row for row, pid in enumerate(sorted({sample.pid for sample in samples}))}
    return [sample._replace(pid=label[sample.pid]) for sample in samples]


def told_labels(samples: list[Sample], camera_offset: int | None, camera_num: int, view_num: int) -> list[Sample]:
    """Return the samples with the camera and viewpoint that a model of `camera_num` and `view_num` is told: -1 = none.

    The samples' cameras are those of training from `camera_offset` on; None: all are unknown, and viewpoints too.
    """
    if camera_offset is None:
        return [sample._replace(camid=-1, viewid=-1) for sample in samples]
    told = []
    for sample in samples:
        camid = sample.camid + camera_offset
        camid, viewid = (camid if camid < camera_num else -1), (sample.viewid if sample.viewid < view_num else -1)
        told.append(sample._replace(camid=camid, viewid=viewid))
    return told
