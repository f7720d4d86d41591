"""The card of a published model, README.md: what it is, its figures with intervals, data, command, licences, limits."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode

from configs.keys.multimodal import NAME as MULTIMODAL
from configs.modalities import TEXT
from configs.titles import TITLES
from processor.trained import Trained
from tools.modalities import read_by
from tools.publish.figures import title_of
from tools.publish.trunk import FirstWeights, first_weights_of
from utils.atomic import write_text_atomic
from utils.errors import printable
from utils.run_folder import EMA
from utils.tables import markdown, percent
from utils.test_folder import METRICS

PROJECT = "transreid-model-b"  # as pyproject.toml names it
FENCE = "```"
MARKS = re.compile(r"[\\`*<>\[\]]")  # of Markdown, within a line; tables escape their own
WORDS = {"vis": "RGB images", "nir": "infrared images", "sk": "sketches", "cp": "coloured pencil drawings"}
WORDS |= {TEXT: "sentences"}


def write_card(
    path: Path,
    trained: Trained,
    public: CfgNode,
    origin: dict[str, Any],
    tests: Sequence[dict[str, Any]],
    name: str,
    licence: str,
) -> None:
    """Write the card of a model called `name`; `licence` is that of its weights, '' = none is given."""
    name, first = one_line(name), first_weights_of(trained.cfg)
    head = yaml.safe_dump(front_matter(public, first, tests, name, licence), sort_keys=False, allow_unicode=True)
    first, tests = [FirstWeights(*map(as_text, one)) for one in first], as_text(list(tests))
    reads = tuple(read_by(trained.cfg, trained.model))
    parts = [
        f"---\n{head}---",
        f"# {as_text(name)}",
        _what(trained, public, origin),
        f"## Figures\n\n{figures_part(tests)}",
        f"## Use\n\n{_use(name, reads)}",
        f"## Training\n\n{_training(origin, first)}",
        f"## Licences\n\n{_licences(first, licence)}",
        f"## Limits\n\n{_limits(public, tests)}",
    ]
    write_text_atomic(path, printable("\n\n".join(parts)) + "\n")


def one_line(text: str) -> str:
    """Return text on one line: what a terminal would obey is escaped, runs of white space are one space."""
    return printable(" ".join(text.split()))


def as_text(value: Any) -> Any:
    """Return plain values, also in lists and dicts, whose texts are one line without markup of Markdown or HTML."""
    if isinstance(value, str):
        return MARKS.sub(r"\\\g<0>", one_line(value))
    if isinstance(value, dict):
        return {as_text(name): as_text(one) for name, one in value.items()}
    return [as_text(one) for one in value] if isinstance(value, (list, tuple)) else value


def front_matter(
    public: CfgNode, first: Sequence[FirstWeights], tests: Sequence[dict[str, Any]], name: str, licence: str
) -> dict[str, Any]:
    """Return what the hub reads of a card."""
    bases = [one.hub for one in first if one.hub]
    return {
        **({"license": licence.lower()} if licence else {}),
        "library_name": PROJECT,
        "pipeline_tag": "image-feature-extraction",
        "tags": ["re-identification", "image-retrieval", "metric-learning", public.MODEL.NAME],
        **({"base_model": bases} if bases else {}),
        **({"model-index": [{"name": name, "results": [_indexed(test) for test in tests]}]} if tests else {}),
    }


def _indexed(test: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of one test in the index of the hub, in percent."""
    return {
        "task": {"type": "image-retrieval", "name": "Object re-identification"},
        "dataset": {"type": test["dataset"].lower().replace(" ", "-"), "name": title_of(test)},
        "metrics": [{"type": metric, "name": metric, "value": round(100 * test[metric], 2)} for metric in METRICS],
    }


def figures_part(tests: Sequence[dict[str, Any]]) -> str:
    """Return the table of all tests, in percent with 95 % intervals over identities, and what was special in them."""
    if not tests:
        return "These weights were not tested, or the test was not at hand: there are no figures."
    rows = [("data", *METRICS, "queries")]
    for test in tests:
        title = title_of(test)
        rows.append((title, *(_cell(test, metric) for metric in METRICS), f"{test['num_valid_query']:,}"))
        for which, part in {**test.get("groups", {}), **test.get("sets", {})}.items():
            cells = [percent(part[metric]) if metric in part else "-" for metric in METRICS]
            rows.append((f"{title}: {which}", *cells, f"{part.get('num_query', '-')}"))
    lines = [markdown(rows), "", "In percent; in brackets the 95 % interval over identities."]
    for test in tests:
        lines += [f"- {title_of(test)}: {words}" for words in (*test.get("cautions", ()), *test.get("notes", ()))]
        if "other_settings" in test:
            lines.append(f"- {title_of(test)}: the settings in brackets are other ones than those of `config.yaml`")
    return "\n".join(lines[:3] + ([""] + lines[3:] if lines[3:] else []))


def _cell(test: dict[str, Any], metric: str) -> str:
    low, high = test.get("interval", {}).get(metric, (None, None))
    return percent(test[metric]) + (f" ({percent(low)} to {percent(high)})" if low is not None else "")


def _what(trained: Trained, public: CfgNode, origin: dict[str, Any]) -> str:
    height, width = public.INPUT.SIZE_TEST
    reads = ", ".join(WORDS[name] for name in read_by(trained.cfg, trained.model))
    kind = "averaged weights (SOLVER.EMA)" if origin.get("stage") == EMA else "raw weights"
    return (
        f"A model of object re-identification: it embeds {reads}, those of one identity near each other. "
        f"MODEL.NAME {public.MODEL.NAME}, {sum(trained.model.branches.values()):,} values an embedding, images of "
        f"{height} x {width} pixels (height x width); {kind} of epoch {origin.get('epoch')}."
    )


def _use(name: str, reads: Sequence[str]) -> str:
    quoted = json.dumps(name, ensure_ascii=False)
    lines = [
        "from tools.feature_extractor import FeatureExtractor",
        "",
        f"extractor = FeatureExtractor.from_pretrained({quoted})  # this folder, or user/name on the hub",
        'feat = extractor(["a.jpg", "b.jpg"])  # [2, D], L2-normalised: similarities are feat @ feat.T',
    ]
    if TEXT in reads:
        lines.append('text = extractor.embed_texts(["a woman in a red coat"])  # [1, D], compares with those of images')
    code = "\n".join([f"{FENCE}python", *lines, FENCE])
    return (
        f"With the code of {PROJECT}, in whose folder this runs:\n\n{code}\n\n`preprocessing.json` says how an image "
        "becomes an input, `config.yaml` has all settings, `metrics.json` the figures, `provenance.json` where the "
        "weights come from. `python -m tools.search --weights model.safetensors` and the other tools take the file too."
    )


def _training(origin: dict[str, Any], first: Sequence[FirstWeights]) -> str:
    told = as_text(origin.get("environment", {}))
    names = ", ".join(TITLES.get(name, as_text(name)) for name in origin.get("datasets", ())) or "unknown"
    rows = [
        ("", ""),
        ("data", f"{names}; {origin.get('num_classes', 0):,} identities, {origin.get('camera_num', 0):,} cameras"),
        ("fingerprint of the training images", as_text(origin.get("train_fingerprint", ""))[:16] or "unknown"),
        ("first weights", "; ".join(one.what for one in first)),
        ("commit of the code", str(told.get("git_commit") or "unknown")),
        (
            "torch, device",
            f"{told.get('torch', 'unknown')}, {told.get('device_name') or told.get('device', 'unknown')}",
        ),
        ("SHA-256 of the checkpoint", origin["checkpoint_sha256"]),
    ]
    command = origin["command"] or "unknown"
    return (
        f"{markdown(rows)}\n\nThe command, without the folders of data and results:\n\n{FENCE}text\n{command}\n{FENCE}"
    )


def _licences(first: Sequence[FirstWeights], licence: str) -> str:
    own = f"These weights: {licence}." if licence else "These weights: their author has named no licence."
    lines = [f"First weights, {one.what}: {one.licence}." for one in first if one.licence]
    data = "The licence of the training images may limit what a model trained on them is used for; read it."
    return "\n".join(f"- {line}" for line in (own, *lines, data))


def _limits(public: CfgNode, tests: Sequence[dict[str, Any]]) -> str:
    lines = [
        "It was trained on the data named above; on images of other cameras, places or kinds it may do much worse. "
        "Measure it on your own labelled images before you rely on it.",
        "It finds what looks alike. It does not prove identity, and a similarity is no probability.",
        "Where it is used on persons, law on privacy and biometric data may apply.",
    ]
    if tests:
        lines.append("The figures are of one training; another seed gives others, which the intervals do not cover.")
    if public.MODEL.SIE_CAMERA or public.MODEL.SIE_VIEW:
        lines.append("It has side information of its own training cameras or views; other images get the mean of it.")
    if public.MODEL.NAME == MULTIMODAL:
        lines.append("Its modalities are those of its training data.")
    if set(public.DATASETS.NAMES) & {name for name in TITLES if name.startswith("synthetic")}:
        lines.append("Its training images are drawn by a program: it says nothing about photographs.")
    return "\n".join(f"- {line}" for line in lines)
