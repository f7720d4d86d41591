"""Keys of images, data sets and batches."""

from configs.keys.key import EMBEDS, MOST_IMAGES, MOST_PIXELS, Key
from configs.titles import TITLES

FILTERS = ("bicubic", "bilinear", "lanczos")
RE_VALUES = ("noise", "mean", "black", "raw_mean")

KEYS = {
    "INPUT.SIZE_TRAIN": Key(
        [384, 128],
        "[height, width] in pixels",
        low=1,
        high=MOST_PIXELS,
        length=2,
        fills=True,
        why="no data set has such images",
    ),
    "INPUT.SIZE_TEST": Key(
        [384, 128],
        "[height, width] in pixels, equal to SIZE_TRAIN",
        low=1,
        high=MOST_PIXELS,
        length=2,
        fills=True,
        affects=EMBEDS,
        why="no data set has such images",
    ),
    "INPUT.PROB": Key(0.5, "probability of a horizontal flip", low=0, high=1),
    "INPUT.RE_PROB": Key(0.5, "probability of random erasing", low=0, high=1),
    "INPUT.RE_AREA": Key(
        [0.02, 1 / 3],
        "area of the erased rectangle / area of the image: lowest, highest",
        low=0,
        high=1,
        length=2,
    ),
    "INPUT.RE_ASPECT": Key(
        0.3,
        "lowest height / width of the erased rectangle, and lowest width / height; 1 = squares",
        low=0.01,
        high=1,
        why="no rectangle is thinner than its pixels, and a lowest ratio is at most 1",
    ),
    "INPUT.RE_VALUE": Key(
        "noise",
        "what erases: noise: N(0, 1) in every pixel; mean: the colour PIXEL_MEAN; black; raw_mean: the numbers of "
        "PIXEL_MEAN where normalised ones belong, as in IRRA's published runs",
        choices=RE_VALUES,
    ),
    "INPUT.PADDING": Key(
        10,
        "pixels added on each side before the random crop: black, to drawings white",
        low=0,
        high=512,
        why="the crop would see black alone",
    ),
    "INPUT.JITTER": Key(
        [0.0, 0.0, 0.0, 0.0],
        "colour jitter of every training image, before it is erased: strength of brightness, contrast, saturation "
        "[0, 1], hue [0, 0.5] (turns); 0 = off",
        low=0,
        high=1,
        length=4,
    ),
    "INPUT.PIXEL_MEAN": Key(
        [0.485, 0.456, 0.406],
        "RGB mean in [0, 1]",
        low=-10,
        high=10,
        length=3,
        fills=True,
        affects=EMBEDS,
        why="pixels lie in [0, 1]: divide a mean of 0 to 255 by 255",
    ),
    "INPUT.PIXEL_STD": Key(
        [0.229, 0.224, 0.225],
        "RGB standard deviation in [0, 1]",
        low=0.001,
        high=10,
        length=3,
        fills=True,
        affects=EMBEDS,
        why="a divisor, of pixels in [0, 1]: divide one of 0 to 255 by 255",
    ),
    "INPUT.FILTER_TRAIN": Key("bicubic", "resize filter of training", choices=FILTERS),
    "INPUT.FILTER_TEST": Key("bilinear", "resize filter of testing", choices=FILTERS, affects=EMBEDS),
    "INPUT.DECODER": Key(
        "torchvision",
        "torchvision: fast; pillow: the lineage's pixels exactly",
        choices=("torchvision", "pillow"),
        affects=EMBEDS,
    ),
    "INPUT.BROKEN_IMAGES": Key(
        "grey",
        "damaged images (cut short): grey: counted, and what does not decode is grey; error: refused",
        choices=("grey", "error"),
        affects=(),
    ),
    "INPUT.SSL.CROP_SCALE": Key(
        [0.3, 1.0],
        "area of the random crop / area of the image: lowest, highest",
        low=0.001,
        high=1,
        length=2,
        why="at 0 no pixel is left",
    ),
    "INPUT.SSL.CROP_RATIO": Key(
        [0.75, 1.3333],
        "stretch of the crop's width / height: lowest, highest",
        low=0.1,
        high=10,
        length=2,
        why="beyond, a crop is a line",
    ),
    "INPUT.SSL.JITTER": Key(
        [0.4, 0.4, 0.4, 0.1],
        "strength of brightness, contrast, saturation [0, 1], hue [0, 0.5] (turns)",
        low=0,
        high=1,
        length=4,
    ),
    "INPUT.SSL.JITTER_PROB": Key(0.8, "probability of the colour jitter", low=0, high=1),
    "INPUT.SSL.GREY_PROB": Key(0.2, "probability of a greyscale view", low=0, high=1),
    "DATASETS.NAMES": Key(
        ("market1501",),
        "one or several data sets, trained jointly (TESTS says what is tested)",
        choices=tuple(TITLES),
        affects=("training", "ranking"),
    ),
    "DATASETS.TESTS": Key(
        (),
        "test sets, the first decides; others are what test.py adds; () = NAMES[0]",
        choices=tuple(TITLES),
        affects=("ranking",),
    ),
    "DATASETS.VAL_IDS": Key(
        0.0,
        "share of the training identities held out to pick the epoch by, 0 = off",
        low=0,
        high=0.5,
        affects=("training", "ranking"),
        why="more would leave fewer identities to train on than to pick by",
    ),
    "DATASETS.ROOT_DIR": Key("../data", "folder that holds the folders of the data sets", affects=("ranking", "place")),
    "DATASETS.VIEW_FILES": Key((), "more paths of VeRi's keypoint_{train,test}.txt", affects=("ranking",)),
    "DATASETS.UNLABELLED_VIEW": Key(
        "drop",
        "what becomes of VeRi images without a viewpoint line; neutral: they stay, with no viewpoint",
        choices=("drop", "neutral"),
        affects=("training", "ranking"),
    ),
    "DATASETS.VEHICLEID_TEST_SIZE": Key(800, "VehicleID's test list", choices=(800, 1600, 2400), affects=("ranking",)),
    "DATASETS.TABLE": Key(
        "",
        "CSV with path,pid,camid,viewid,split for the data set 'table'; irra: also caption; multimodal: also modality",
        affects=("ranking",),
    ),
    "DATASETS.WILDLIFE": Key(
        "", "CSV of the wildlife-datasets project for the data set 'wildlife'", affects=("ranking",)
    ),
    "DATASETS.WILDLIFE_SPLIT": Key(
        "column",
        "its parts: column: what its split says; closed: 80 % of each animal's images to train on; time: the earlier "
        "half of each animal's dates; disjoint: 80 % of the animals",
        choices=("column", "closed", "time", "disjoint"),
        affects=("training", "ranking"),
    ),
    "DATALOADER.NUM_WORKERS": Key(
        8,
        "worker processes of each loader; 0 = in the main process",
        low=0,
        high=1024,
        affects=(),
        why="no machine starts more",
    ),
    "DATALOADER.CACHE": Key("", "folder that keeps decoded images for all runs, '' = off", affects=()),
    "DATALOADER.SAMPLER": Key(
        "softmax",
        "softmax, random: shuffle (random drops a short last batch); softmax_triplet, triplet: PxK",
        choices=("softmax", "softmax_triplet", "triplet", "random"),
    ),
    "DATALOADER.NUM_INSTANCE": Key(
        16, "K, images per identity in a batch", low=1, high=MOST_IMAGES, why="at most a batch"
    ),
    "DATALOADER.PHASED.ENABLE": Key(False, "False: NUM_INSTANCE throughout"),
    "DATALOADER.PHASED.K_WHEN_TRIPLETX": Key(
        8, "K while TripletX has weight", low=1, high=MOST_IMAGES, why="at most a batch"
    ),
    "DATALOADER.PHASED.K_WHEN_SUPCON": Key(
        8, "K while SupCon has weight and TripletX has none", low=1, high=MOST_IMAGES, why="at most a batch"
    ),
    "DATALOADER.PHASED.K_OTHER": Key(4, "K otherwise", low=1, high=MOST_IMAGES, why="at most a batch"),
}
