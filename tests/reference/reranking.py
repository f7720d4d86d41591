"""k-reciprocal re-ranking in the most obvious way: dense [N, N] matrices and loops (Zhong et al., CVPR 2017)."""

import numpy as np


def reciprocal(ranking: np.ndarray, image: int, k: int) -> np.ndarray:
    """Return R(image, k): the members of its k + 1 nearest (itself included) that have it in theirs."""
    nearest = ranking[image, : k + 1]
    return nearest[(ranking[nearest, : k + 1] == image).any(axis=1)]


def re_rank(
    query: np.ndarray, gallery: np.ndarray, k1: int, k2: int, lambda_value: float, dtype: type = np.float64
) -> np.ndarray:
    """Return the re-ranked distances of queries to gallery images, [Q, G] of `dtype`."""
    feat = np.concatenate((query, gallery)).astype(dtype)
    total, num_query = len(feat), len(query)
    norms = (feat**2).sum(axis=1)
    dist = norms[:, None] + norms[None, :] - 2 * feat @ feat.T
    dist = (dist / dist.max(axis=0)).T
    ranking = np.argsort(dist, axis=1, kind="stable")
    encoding = np.zeros_like(dist)
    for image in range(total):
        core = reciprocal(ranking, image, k1)
        members = set(core)
        for candidate in core:
            others = reciprocal(ranking, candidate, int(np.around(k1 / 2)))
            if 3 * len(set(others) & set(core)) > 2 * len(others):
                members |= set(others)
        members = sorted(members)
        weight = np.exp(-dist[image, members])
        encoding[image, members] = weight / weight.sum()
    if k2 > 1:
        single, encoding = encoding, np.empty_like(encoding)
        for image in range(total):
            encoding[image] = single[ranking[image, :k2]].mean(axis=0)
        del single
    jaccard = np.zeros((num_query, total - num_query), dtype=dtype)
    for image in range(num_query):
        used = np.flatnonzero(encoding[image])
        shared = np.minimum(encoding[image, used], encoding[num_query:, used]).sum(axis=1)
        jaccard[image] = 1 - shared / (2 - shared)
    return (1 - lambda_value) * jaccard + lambda_value * dist[:num_query, num_query:]
