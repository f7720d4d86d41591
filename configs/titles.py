"""The data sets of DATASETS.NAMES and DATASETS.TESTS: which there are, which are tested, what tables call them."""

from yacs.config import CfgNode

TITLES = {
    "market1501": "Market-1501",
    "dukemtmc": "DukeMTMC-reID",
    "occ_duke": "Occluded-Duke",
    "msmt17": "MSMT17 V1",
    "msmt17_v2": "MSMT17 V2",
    "veri": "VeRi-776",
    "VehicleID": "VehicleID",
    "cuhk03_labelled": "CUHK03-NP labelled",
    "cuhk03_detected": "CUHK03-NP detected",
    "veri_wild_3000": "VERI-Wild 3000",
    "veri_wild_5000": "VERI-Wild 5000",
    "veri_wild_10000": "VERI-Wild 10000",
    "occluded_reid": "Occluded-REID",
    "p_dukemtmc": "P-DukeMTMC-reID",
    "partial_reid": "Partial-REID",
    "partial_reid_occluded": "Partial-REID, occluded queries",
    "last": "LaST",
    "last_val": "LaST val",
    "prai1581": "PRAI-1581",
    "atrw": "ATRW",
    "mars": "MARS",
    "ilids_vid": "iLIDS-VID",
    "wildlife": "wildlife CSV",
    "table": "table",
    "synthetic": "synthetic VeRi",
    "synthetic_persons": "synthetic persons",
    "CUHK-PEDES": "CUHK-PEDES",
    "ICFG-PEDES": "ICFG-PEDES",
    "RSTPReid": "RSTPReid",
    "synthetic_text": "synthetic vehicles with captions",
    "orbench": "ORBench",
    "synthetic_orbench": "synthetic vehicles in five modalities",
    "sysu_mm01": "SYSU-MM01",
    "regdb": "RegDB",
    "llcm": "LLCM",
}
CAPTIONED = ("CUHK-PEDES", "ICFG-PEDES", "RSTPReid", "synthetic_text")  # of images with captions, and "table" may be
VISIBLE_INFRARED = ("sysu_mm01", "regdb", "llcm")  # of RGB and infrared images alone
MULTIMODAL = ("orbench", "synthetic_orbench", *VISIBLE_INFRARED)  # of several modalities, and "table" may be
OF_TRACKLETS = ("mars", "ilids_vid")  # whose queries and gallery are sequences of frames
OF_TRIALS = ("regdb", "ilids_vid")  # with other persons to train on, and to test with, for each DATASETS.TRIAL


def dataset_title(name: str, vehicleid_test_size: int) -> str:
    """Return the name of a data set in tables: release and test list included, as no scores compare across them."""
    return f"{TITLES[name]} {vehicleid_test_size}" if name == "VehicleID" else TITLES[name]


def names_of_tests(cfg: CfgNode) -> tuple[str, ...]:
    """Return the names of the test sets, the one that decides first."""
    return tuple(cfg.DATASETS.TESTS) or tuple(cfg.DATASETS.NAMES[:1])
