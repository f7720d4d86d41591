"""Captions of photographed vehicles: what can be said (words.py) in sentences of several orders."""

import re

import numpy as np

from datasets.synthetic.words import Fact, Sayable, with_articles

PER_IMAGE = 2  # captions
FACTS = (2, 3)  # in a caption, where as many can be told
TRIES = 60  # to word a caption otherwise than the rest of its image, and in known words
LAST_RESORT = "a vehicle."

TEMPLATES = (  # {facts}: two or three noun phrases; {vehicle}: colour and noun
    "a {vehicle} with {facts}.",
    "a {vehicle} that has {facts}.",
    "this is a {vehicle}. it has {facts}.",
    "the picture shows a {vehicle} with {facts}.",
    "look for a {vehicle} with {facts}.",
    "{facts} can be seen on a {vehicle}.",
    "there is a {vehicle}, and it carries {facts}.",
    "{facts}, on a {vehicle}.",
)
COLOUR_APART = (  # more for vehicles whose colour is said
    "with {facts}, this {noun} is {colour}.",
    "the {noun} is {colour} and has {facts}.",
    "the {noun} with {facts} is painted {colour}.",
)
NO_FACTS = ("a {vehicle}.", "this is a {vehicle}.", "the picture shows a {vehicle}.")


def words_of(caption: str) -> list[str]:
    """Return the words of a caption in lower case, without punctuation."""
    return re.findall(r"[a-z]+", caption.lower())


def captions_of(said: Sayable, rng: np.random.Generator, known: frozenset[str] | None = None) -> list[str]:
    """Return PER_IMAGE captions of a photograph, no two alike, of the words `known` alone (None: any words).

    Where so little can be told, or so few words are known, that no other sentence is found, it is LAST_RESORT.
    """
    said = said if known is None else _within(said, known)
    captions: list[str] = []
    for _ in range(PER_IMAGE):
        tried = (_caption(said, rng) for _ in range(TRIES))
        fitting = (text for text in tried if text not in captions and _is_known(text, known))
        captions.append(next(fitting, _sentence_case(LAST_RESORT)))
    return captions


def _is_known(text: str, known: frozenset[str] | None) -> bool:
    return known is None or known.issuperset(words_of(text))


def _within(said: Sayable, known: frozenset[str]) -> Sayable:
    """Return what can be said in known words: no colour where its words are unknown, a general noun likewise."""

    def usable(phrases: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(phrase for phrase in phrases if _is_known(phrase, known))

    return said._replace(
        colours=usable(said.colours) or ("",),
        nouns=usable(said.nouns) or said.general,
        facts=tuple(Fact(usable(fact.phrases), fact.weight) for fact in said.facts if usable(fact.phrases)),
    )


def _caption(said: Sayable, rng: np.random.Generator) -> str:
    facts = _pick(said, rng)
    is_told = len(facts) >= FACTS[0]  # else colour and type are all there is
    colour = "" if is_told and rng.random() < said.unsaid_colour else rng.choice(said.colours)
    noun = rng.choice(said.general if is_told and rng.random() < said.unsaid_type else said.nouns)
    templates = (TEMPLATES + COLOUR_APART if colour else TEMPLATES) if facts else NO_FACTS
    text = str(rng.choice(templates))
    text = text.format(vehicle=f"{colour} {noun}".strip(), colour=colour, noun=noun, facts=_listed(facts))
    return _sentence_case(with_articles(text))


def _pick(said: Sayable, rng: np.random.Generator) -> list[str]:
    """Return phrases of two or three facts, the weighty ones more often."""
    weights = np.array([fact.weight for fact in said.facts])
    count = min(int(rng.integers(FACTS[0], FACTS[1] + 1)), len(weights))
    if not count:
        return []
    chosen = rng.choice(len(weights), size=count, replace=False, p=weights / weights.sum())
    return [str(rng.choice(said.facts[number].phrases)) for number in chosen]


def _listed(phrases: list[str]) -> str:
    """Return phrases joined by commas and, before the last one, `and`."""
    return " and ".join([", ".join(phrases[:-1]), phrases[-1]]) if len(phrases) > 1 else "".join(phrases)


def _sentence_case(text: str) -> str:
    return re.sub(r"(^|\. )([a-z])", lambda found: found[1] + found[2].upper(), text)
