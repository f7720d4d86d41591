"""Model B's CLIP fusions written out slowly, one image at a time, in float64, with the weights' published names."""

import torch

State = dict[str, torch.Tensor]


def minimal(state: State, branches: list[torch.Tensor], clip: torch.Tensor) -> list[torch.Tensor]:
    """open_clip minimal: the global branch becomes Linear([g; t])."""
    fused = [_linear(state, "fuse_proj_global_min", torch.cat(pair)) for pair in zip(branches[0], clip, strict=True)]
    return [torch.stack(fused), *branches[1:]]


def quickwin(state: State, branches: list[torch.Tensor], clip: torch.Tensor) -> list[torch.Tensor]:
    """open_clip quickwin: every branch becomes Linear([(1 - a) LN(x); a LN(t)]); the local ones share one head."""
    fused = [_gated(state, branches[0], clip, "fuse_{}_global", "backbone", "clip")]
    return fused + [_gated(state, local, clip, "fuse_{}_local", "bb", "cf") for local in branches[1:]]


def refine(
    state: State, branches: list[torch.Tensor], clip: torch.Tensor, afem: bool, refined: bool, training: bool
) -> list[torch.Tensor]:
    """hf: the global branch becomes Linear([g; t]) + Linear(AFEM(t)), Linear(t) without `afem`, 0 without `refined`."""
    seen = enhance(state, clip, training) if afem else clip
    fused = []
    for own, feat, better in zip(branches[0], clip, seen, strict=True):
        value = _linear(state, "fuse_fc", torch.cat([own, feat]))
        if refined:
            value = value + _linear(state, "sem_refine_proj", better)
        fused.append(value)
    return [torch.stack(fused), *branches[1:]]


def enhance(state: State, clip: torch.Tensor, training: bool) -> torch.Tensor:
    """AFEM: t + w_group * ReLU(BN(Linear(t))), 32 groups of neighbouring features."""
    hidden = torch.stack([_linear(state, "afem.linear.0", feat) for feat in clip])
    mean, variance = state["afem.linear.1.running_mean"], state["afem.linear.1.running_var"]
    if training:
        mean, variance = hidden.mean(dim=0), ((hidden - hidden.mean(dim=0)) ** 2).mean(dim=0)
    normed = (hidden - mean) / (variance + 1e-5).sqrt() * state["afem.linear.1.weight"] + state["afem.linear.1.bias"]
    better = clip.clone()
    size = clip.shape[1] // 32
    for image in range(len(clip)):
        for column in range(clip.shape[1]):
            weight = state["afem.group_weight"][column // size]
            better[image, column] += weight * max(normed[image, column], torch.zeros((), dtype=clip.dtype))
    return better


def concat(embedding: torch.Tensor, clip: torch.Tensor, weight: float) -> torch.Tensor:
    """concat: [e / |e|; weight t / |t|]."""
    rows = [
        torch.cat([own / own.square().sum().sqrt(), weight * feat / feat.square().sum().sqrt()])
        for own, feat in zip(embedding, clip, strict=True)
    ]
    return torch.stack(rows)


def _gated(state: State, own: torch.Tensor, clip: torch.Tensor, pattern: str, mine: str, theirs: str) -> torch.Tensor:
    norm, gate, projection = (pattern.format(part) for part in ("ln", "gate", "proj"))
    rows = []
    for feat, other in zip(own, clip, strict=True):
        b, u = _norm(state, f"{norm}_{mine}", feat), _norm(state, f"{norm}_{theirs}", other)
        hidden = _linear(state, f"{gate}.0", torch.cat([b, u])).clamp(min=0)
        a = 1 / (1 + torch.exp(-_linear(state, f"{gate}.2", hidden)))
        rows.append(_linear(state, projection, torch.cat([(1 - a) * b, a * u])))
    return torch.stack(rows)


def _linear(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    return state[f"{name}.weight"] @ x + state[f"{name}.bias"]


def _norm(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    spread = ((x - x.mean()).square().mean() + 1e-5).sqrt()
    return (x - x.mean()) / spread * state[f"{name}.weight"] + state[f"{name}.bias"]
