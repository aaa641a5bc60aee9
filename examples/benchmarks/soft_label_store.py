"""Read throughput of the soft-label store with 2 workers, next to one file per image and to a small ViT's appetite.

python examples/benchmarks/soft_label_store.py [--images 20000] [--views 16] [--classes 1000] [--k 5] [--per_image 4]

Three ways to read the same labels, by a `DataLoader` with 2 workers, views drawn at random, batches shuffled:

- store: memory-mapped Arrow, gathered for a whole batch at once (this project);
- file per image: one `torch.save` file per image with coordinates, flips, ids and values of all its views, as FKD has
  published them; read and indexed image by image;
- store, with crops: the same store while the collator also cuts and normalises the 224-pixel views of PIL images.

Each is timed in the same run, after one pass that warms the file cache; the best of three passes is shown. Consumption
is what one training step (forward and backward) of ViT-Ti/16 at 224 pixels takes on one thread.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from transformers import ViTConfig, ViTForImageClassification

from hf_labels.data import SoftLabelCollator, SoftLabelStore, SoftLabelWriter, StoreInfo
from hf_labels.data.images import draw_crop


class Rows(Dataset):
    """Row numbers, with one shared image."""

    def __init__(self, count: int, image: Any = None) -> None:
        self.count = count
        self.image = image

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"index": row} | ({} if self.image is None else {"image": self.image, "labels": 0})


class FromStore:
    """Ids, values, crops and flips of drawn views; no pixels."""

    def __init__(self, store: SoftLabelStore, per_image: int) -> None:
        self.collator = SoftLabelCollator(store, views_per_example=per_image)
        self.store = store

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        _, numbers = self.collator.draw([row["index"] for row in rows])
        found = self.store.reader.take(numbers)
        ids, values = self.store.sparse(found)
        return {"ids": ids, "values": values, "crop": found["crop"], "flip": found["flip"]}


class FromFiles:
    """The same from one file per image."""

    def __init__(self, folder: Path, per_image: int) -> None:
        self.folder = folder
        self.per_image = per_image

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        parts = []
        for row in rows:
            coords, flips, labels = torch.load(self.folder / f"{row['index']}.tar")
            chosen = torch.randperm(len(coords))[: self.per_image]
            parts.append((labels[chosen, 0].long(), labels[chosen, 1], coords[chosen], flips[chosen]))
        names = ("ids", "values", "crop", "flip")
        return {name: torch.cat(part) for name, part in zip(names, zip(*parts, strict=True), strict=True)}


def write(place: Path, args: argparse.Namespace) -> SoftLabelStore:
    """The same labels in both layouts."""
    rng = np.random.default_rng(0)
    info = StoreInfo("topk", args.classes, k=args.k, has_crops=True, image_size=224)
    (place / "files").mkdir()
    with SoftLabelWriter(place / "store", info) as writer:
        for start in range(0, args.images, 1000):
            images = np.arange(start, min(start + 1000, args.images))
            count = len(images) * args.views
            crops = np.float32([draw_crop(400, 500, rng) for _ in range(count)])
            flips = rng.random(count) < 0.5
            values = np.sort(rng.dirichlet(np.ones(args.k + 1), count)[:, : args.k], axis=1)[:, ::-1]
            steps = rng.choice([7, 11, 13, 17, 19, 23], size=(count, 1))
            ids = (rng.integers(args.classes, size=(count, 1)) + steps * np.arange(args.k)) % args.classes
            columns = {"example_id": np.repeat(images, args.views), "crop": crops, "flip": flips}
            columns |= {"view": np.tile(np.arange(args.views, dtype=np.int32), len(images))}
            columns |= {"topk_ids": ids.astype(np.uint16), "topk_values": values.astype(np.float16)}
            writer.add_rows(columns)
            for number, image in enumerate(images):
                mine = slice(number * args.views, (number + 1) * args.views)
                labels = torch.tensor(np.stack([ids[mine], values[mine]], 1), dtype=torch.float32)
                torch.save(
                    (torch.tensor(crops[mine]), torch.tensor(flips[mine]), labels), place / "files" / f"{image}.tar"
                )
    return SoftLabelStore.from_pretrained(place / "store", cache_dir=str(place / "cache"))


def views_per_second(data: Dataset, collate: Any, args: argparse.Namespace, passes: int = 3) -> float:
    """Best of some passes, after one that warms up. Workers are started once, as in a long run."""
    loader = DataLoader(
        data, args.batch, shuffle=True, num_workers=2, collate_fn=collate, persistent_workers=True, drop_last=True
    )
    best = 0.0
    for number in range(passes + 1):
        start, count = time.perf_counter(), 0
        for _ in loader:
            count += args.batch * args.per_image
        if number:
            best = max(best, count / (time.perf_counter() - start))
    return best


def consumption(classes: int, batch: int = 16) -> float:
    """Images per second of a training step of ViT-Ti/16 on one thread."""
    config = ViTConfig(
        hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768, num_labels=classes
    )
    model = ViTForImageClassification(config).train()
    pixels = torch.randn(batch, 3, 224, 224)
    best = 0.0
    for _ in range(3):
        start = time.perf_counter()
        model(pixels).logits.logsumexp(-1).mean().backward()
        best = max(best, batch / (time.perf_counter() - start))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = {"images": 20000, "views": 16, "classes": 1000, "k": 5, "per_image": 4, "batch": 64}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        store = write(place, args)
        report = store.nbytes_report()
        files = sum(path.stat().st_size for path in (place / "files").iterdir())
        print(f"{args.images} images x {args.views} views, k = {args.k} of {args.classes}, {args.per_image} per image")
        print(f"bytes per view: store {report['file_bytes_per_row']:.1f}, file per image {files / len(store):.1f}")
        ours = views_per_second(Rows(args.images), FromStore(store, args.per_image), args)
        theirs = views_per_second(Rows(args.images), FromFiles(place / "files", args.per_image), args)
        photo = Image.fromarray(np.random.default_rng(1).integers(0, 255, (400, 500, 3), dtype=np.uint8))
        collate = SoftLabelCollator(store, views_per_example=args.per_image, size=224)
        cut = views_per_second(Rows(min(args.images, 1024), photo), collate, args, passes=1)
    eaten = consumption(args.classes)
    print(f"{'':26}{'views per second':>18}{'x ViT-Ti/16 step':>18}")
    rows = {"store": ours, "file per image": theirs, "store, with crops": cut, "ViT-Ti/16 step": eaten}
    for name, speed in rows.items():
        print(f"{name:26}{speed:18,.0f}{speed / eaten:18,.1f}")
    print(f"store over file per image: {ours / theirs:.1f}")


if __name__ == "__main__":
    main()
