"""Drawing of synthetic VeRi: vehicles as meshes (shapes, looks, vehicles), photographed in scenes by photos.

The synthetic persons are drawn by `persons`, the vehicles in other modalities by `modal`.
"""

from enum import IntEnum

FOLDER = "synthetic_veri"  # below DATASETS.ROOT_DIR
TEXT_FOLDER = "synthetic_text"  # the same of the set with captions
PERSON_FOLDER = "synthetic_persons"  # the same of the persons
MODAL_FOLDER = "synthetic_orbench"  # the same of the vehicles in five modalities


class Stream(IntEnum):
    """What a random generator is for: the second number of its seed (seed, stream, ...), so that no two coincide."""

    IDENTITIES = 0
    FAMILY = 1
    MEMBER = 2
    SHOTS = 3
    PLACE = 4
    PHOTO = 5
    CAPTION = 6
    PERSON_IDENTITIES = 7
    PERSON_FAMILY = 8
    PERSON_MEMBER = 9
    PERSON_SHOTS = 10
    PERSON_PLACE = 11
    PERSON_PHOTO = 12
    INFRARED_SHOTS = 13
    INFRARED = 14
    DRAWING = 15
    QUERIES = 16
