"""What is printed and checked of captioned data sets before a run: counts, missing images, doubtful captions."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from datasets.archives.annotation import SPLITS
from datasets.archives.common import missing_files, quoted
from datasets.captions import CaptionDataset, CaptionTest
from utils.errors import DataError
from utils.tables import align


def split_of(dataset: CaptionDataset, split: str) -> CaptionTest | None:
    """Return what a data set tests on in a split, val or test; None where it has none."""
    return dataset.val if split == "val" else dataset.test


def images_of_split(dataset: CaptionDataset, split: str) -> list[tuple[str, int]]:
    """Return (path, identity) of the images in a split that has captions to train on, or is tested on."""
    if split == "train":
        return list({pair.image_id: (pair.path, pair.pid) for pair in dataset.train}.values())
    test = split_of(dataset, split)
    return [] if test is None else list(zip(test.paths, test.pids.tolist(), strict=True))


def captions_of_split(dataset: CaptionDataset, split: str) -> list[tuple[str, str]]:
    """Return (caption, path of its image) in a split; '' for an image that is not searched."""
    if split == "train":
        return [(pair.caption, pair.path) for pair in dataset.train]
    test = split_of(dataset, split)
    if test is None:
        return []
    paths = [*test.paths, ""]
    return [(caption, paths[row]) for caption, row in zip(test.captions, test.caption_images.tolist(), strict=True)]


def caption_table(datasets: Iterable[CaptionDataset]) -> str:
    """Return a plain text table: identities, images and captions of every split."""
    rows = [("data set", "split", "ids", "images", "captions")]
    for dataset in datasets:
        for split in SPLITS:
            rows.append((dataset.name, split, *(f"{count:,}" for count in _counts(dataset, split).values())))
    table = align(rows, left=(0, 1))
    head, _, lines = table.partition("\n")
    return "\n".join([head, "-" * len(head), lines])


def published_caption_findings(dataset: CaptionDataset) -> list[str]:
    """Return one line for each count of identities, images or captions that is none of the published ones."""
    findings = []
    way_out = "get the annotation again, or do not compare the scores with published ones"
    for split, published in dataset.published.splits.items():
        if split == "train" and dataset.no_train:
            continue
        for figure, found in _counts(dataset, split).items():
            allowed = getattr(published, figure)
            if found not in allowed:
                expected = " or ".join(f"{count:,}" for count in allowed)
                findings.append(
                    f"{dataset.name} {split}: expected {expected} {figure} (published), found {found:,}; {way_out}"
                )
    for split in SPLITS:
        counted = (
            (dataset.published.images_per_id, "identities", "images", (p for _, p in images_of_split(dataset, split))),
            (
                dataset.published.captions_per_image,
                "images",
                "captions",
                (p for _, p in captions_of_split(dataset, split)),
            ),
        )
        for each, whose, what, owners in counted:
            counts = Counter(owners)
            differing = sum(count != each for count in counts.values())
            if each and differing:
                findings.append(
                    f"{dataset.name} {split}: {differing:,} of {len(counts):,} {whose} do not have {each} {what}, as "
                    f"published; {way_out}"
                )
    return findings


def caption_match_findings(dataset: CaptionDataset) -> list[str]:
    """Return a line where captions have no image of their identity to find.

    Raises DataError where the test split is absent, or no caption has one.
    """
    test = dataset.test
    if test is None or not test.captions:
        raise DataError(f"{dataset.name}: no image of split test has a caption, nothing can be evaluated")
    valid = np.isin(test.caption_pids, test.pids)
    if not valid.any():
        raise DataError(f"{dataset.name}: no caption's identity is among those of the images, nothing can be evaluated")
    num_invalid = int((~valid).sum())
    if not num_invalid:
        return []
    example = test.captions[int(np.argmin(valid))]
    return [
        f"{dataset.name}: {num_invalid:,} of {len(valid):,} captions have no image of their identity among those that "
        f"are searched and are left out of the scores, e.g. '{example}'; add the images or remove the captions"
    ]


def check_images(datasets: Iterable[CaptionDataset]) -> None:
    """Raise DataError for the first data set of which images are missing: an epoch or a test would end there."""
    for dataset in datasets:
        paths = [path for split in SPLITS for path, _ in images_of_split(dataset, split)]
        missing = missing_files(paths)
        if missing:
            raise DataError(
                f"{dataset.name}: {len(missing):,} of {len(paths):,} images do not exist: {quoted(missing)}; "
                "unpack the images again, or take them out of the annotation"
            )


def doubtful_captions(dataset: CaptionDataset, length: int) -> Iterator[str]:
    """Yield a line for each split with empty or repeated captions, some of more tokens than `length`, or images twice.

    `length` is INPUT.TEXT.LENGTH.
    """
    from datasets.tokens import count_tokens

    for split in SPLITS:
        captions, images = captions_of_split(dataset, split), images_of_split(dataset, split)
        what = f"{dataset.name} {split}"
        empty = [path for caption, path in captions if not caption.strip()]
        if empty:
            yield f"{what}: {len(empty):,} captions are empty, {_example(empty)}; write them or take them out"
        cut = [path for caption, path in captions if count_tokens(caption) > length]
        if cut:
            yield (
                f"{what}: {len(cut):,} of {len(captions):,} captions have more than {length} tokens and lose their "
                f"last words, {_example(cut)}; shorten them, or raise INPUT.TEXT.LENGTH"
            )
        twice = _repeated([path for path, _ in images])
        if twice:
            yield f"{what}: {len(twice):,} images are listed twice, {_example(twice)}; join their captions in one entry"
        repeated = _repeated([(path, caption) for caption, path in captions if path and caption.strip()])
        if repeated:
            yield (
                f"{what}: {len(repeated):,} captions stand twice at their image, {_example([repeated[0][0]])}; take "
                "one of them out"
            )


def _counts(dataset: CaptionDataset, split: str) -> dict[str, int]:
    images = images_of_split(dataset, split)
    pids = {pid for _, pid in images}
    if split == "test" and dataset.test is not None:
        pids.update(dataset.test.caption_pids.tolist())
    return {"ids": len(pids), "images": len(images), "captions": len(captions_of_split(dataset, split))}


def _repeated(values: Sequence) -> list:
    return [value for value, count in Counter(values).items() if count > 1]


def _example(paths: Sequence[str]) -> str:
    return f"e.g. of '{paths[0]}'" if paths[0] else "e.g. of an image that is not searched"
