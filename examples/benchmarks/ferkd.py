"""What do stored views save? Views per second of the loader, and the cost and memory of the loss, timed in turns.

    python examples/benchmarks/ferkd.py

- Loader: JPEG images are decoded once for `views_per_example` crops. Against one view per image, and against a plain
  loop of decode, random crop and resize, for the same number of views. Reading labels and calibrating are included.
- Loss: sparse cross-entropy of the stored labels against building the dense target first.
"""

import argparse
import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from datasets import Image as ImageColumn
from PIL import Image
from timing import medians

from hf_labels.data import RandomResizedCrop, SoftLabelStore, StoreInfo
from hf_labels.data.ferkd import FerKDCalibrator
from hf_labels.data.ferkd_collator import FerKDCollator
from hf_labels.data.images import cut_view
from hf_labels.losses.soft_targets import soft_cross_entropy, sparse_soft_cross_entropy


def photos(count: int) -> Dataset:
    """JPEG images of 500 x 375 pixels: smooth noise, which compresses about as photos do."""
    rng, files = np.random.default_rng(0), []
    for _ in range(count):
        small = Image.fromarray(rng.integers(0, 255, (47, 63, 3), dtype=np.uint8))
        file = io.BytesIO()
        small.resize((500, 375), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        files.append({"bytes": file.getvalue(), "path": None})
    rows = {"image": files, "index": list(range(count)), "labels": [n % 10 for n in range(count)]}
    return Dataset.from_dict(rows).cast_column("image", ImageColumn())


def stored(data: Dataset, views: int, classes: int, k: int) -> SoftLabelStore:
    """Labels of random crops, from a teacher that guesses."""
    rng, crop = np.random.default_rng(0), RandomResizedCrop(224)
    shown = [crop.draw(375, 500, rng) for _ in range(len(data) * views)]
    info = StoreInfo("topk", classes, k=k, has_crops=True, has_labels=True, views_per_example=views, image_size=224)
    return SoftLabelStore.from_arrays(
        info,
        example_ids=np.repeat(data["index"][:], views).tolist(),
        views=list(range(views)) * len(data),
        logits=3 * torch.randn(len(shown), classes),
        labels=np.repeat(data["labels"][:], views).tolist(),
        crops=[view.crop for view in shown],
        flips=[view.flip for view in shown],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64, help="views per batch")
    parser.add_argument("--classes", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = photos(args.batch)
    store = stored(data, 8, args.classes, 5)
    calibrator = FerKDCalibrator().fit(store)
    rng, crop = np.random.default_rng(1), RandomResizedCrop(224)

    def load(views: int) -> Callable[[], Any]:
        collator = FerKDCollator(store, None, views, calibrator=calibrator)
        return lambda: collator([data[n] for n in range(args.batch // views)])

    def plain() -> Any:
        cuts = [cut_view(row["image"], crop.draw(375, 500, rng), 224) for row in (data[n] for n in range(args.batch))]
        return torch.stack(cuts)

    times = medians(
        {"plain loop, one crop per image": plain, **{f"{n} views per image": load(n) for n in (1, 4, 8)}}, args.turns
    )
    base = next(iter(times))
    print(f"{args.batch} views of 224 pixels from JPEG of 500 x 375, one thread")
    for name, seconds in times.items():
        print(f"  {name:32s} {args.batch / seconds:8.0f} views/s   {times[base] / seconds:5.2f} times the plain loop")

    collator = FerKDCollator(store, None, 4, calibrator=calibrator)
    batch = collator([data[n] for n in range(args.batch // 4)])
    logits = torch.randn(args.batch, args.classes, requires_grad=True)
    ids, values = batch["soft_label_ids"], batch["soft_label_values"]

    def dense() -> None:
        rest = ((1 - values.sum(1, keepdim=True)) / (args.classes - 5)).expand(-1, args.classes)
        soft_cross_entropy(logits, rest.scatter(1, ids, values)).backward()

    def sparse() -> None:
        sparse_soft_cross_entropy(logits, ids, values).backward()

    found = medians({"dense target": dense, "sparse": sparse}, 5 * args.turns)
    print(f"loss and gradient, {args.batch} x {args.classes}")
    for name, seconds in found.items():
        print(f"  {name:32s} {1e6 * seconds:8.0f} us")
    start = time.perf_counter()
    smaller = calibrator.apply(store)
    rate = len(store) / (time.perf_counter() - start)
    print(f"offline calibration: {rate:.0f} views/s, {len(smaller)} of {len(store)} kept")


if __name__ == "__main__":
    main()
