"""What the data sets of DATASETS.NAMES and DATASETS.TESTS are called in tables."""

TITLES = {
    "market1501": "Market-1501",
    "dukemtmc": "DukeMTMC-reID",
    "occ_duke": "Occluded-Duke",
    "msmt17": "MSMT17 V1",
    "msmt17_v2": "MSMT17 V2",
    "veri": "VeRi-776",
    "table": "table",
    "synthetic": "synthetic VeRi",
}


def dataset_title(name: str, vehicleid_test_size: int) -> str:
    """Return the name of a data set in tables: release and test list included, as no scores compare across them."""
    return f"VehicleID {vehicleid_test_size}" if name == "VehicleID" else TITLES[name]
