"""What does the label of a crop cost? LabelPooling against the reference's dense tensor, and against a teacher.

    python examples/benchmarks/relabel.py

Pooling from stored entries, pooling of the dense map that the released code builds (scatter to all classes, then
RoIAlign, here with `grid_sample` on the same points), and one forward pass of a ResNet-50 as the annotator, in turns
in one run, on one thread. Also what share of the collator's time the label takes.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from timing import medians
from torch import Tensor

from hf_labels.data import SoftLabelStore, StoreInfo
from hf_labels.data.relabel import ReLabelCollator
from hf_labels.losses.label_pooling import pooled_logits


def reference(values: Tensor, ids: Tensor, boxes: Tensor, classes: int) -> Tensor:
    """The dense way: (B, C, h, w), then the mean over the sample points of RoIAlign, image by image."""
    batch, _, rows, columns = values.shape
    dense = values.new_zeros(batch, classes, rows, columns).scatter_(1, ids, values)
    scale = torch.tensor([columns, rows, columns, rows])
    out = []
    for image, box in zip(dense, boxes * scale - 0.5, strict=True):
        extent = (box[2:] - box[:2]).clamp_min(1.0)
        points = (extent - 1e-6).ceil().int().tolist()
        x, y = (box[axis] + (torch.arange(n) + 0.5) * extent[axis] / n for axis, n in enumerate(points))
        grid = torch.stack(torch.meshgrid(2 * (x + 0.5) / columns - 1, 2 * (y + 0.5) / rows - 1, indexing="xy"), -1)
        options = {"mode": "bilinear", "padding_mode": "border", "align_corners": False}
        out.append(torch.nn.functional.grid_sample(image[None], grid[None], **options).mean((2, 3))[0])
    return torch.stack(out)


def random_maps(count: int, k: int, side: int, classes: int) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(0)
    ids = rng.random((count, side, side, classes)).argpartition(k, -1)[..., :k] if classes <= 100 else None
    if ids is None:  # distinct enough: one of each block of classes
        ids = rng.integers(classes // k, size=(count, side, side, k)) + np.arange(k) * (classes // k)
    values = np.sort(rng.normal(5, 2, size=ids.shape))[..., ::-1].copy()
    return torch.from_numpy(values).float().movedim(-1, 1), torch.from_numpy(ids).long().movedim(-1, 1)


def collator_share(values: Tensor, ids: Tensor, classes: int, turns: int) -> tuple[float, float]:
    """Seconds of a batch of 32 crops with PIL, and those of its labels."""
    count = 32
    rng = np.random.default_rng(1)
    images = [Image.fromarray(rng.integers(0, 255, (375, 500, 3), dtype=np.uint8)) for _ in range(count)]
    data = Dataset.from_dict({"image": images, "index": list(range(count)), "labels": [0] * count})
    rows = {"example_id": np.arange(count), "map_ids": ids[:count].numpy().astype(np.uint16)}
    rows["map_values"] = values[:count].numpy().astype(np.float16)
    store = SoftLabelStore.from_rows(StoreInfo("map", classes, k=ids.shape[1], map_shape=tuple(ids.shape[2:])), rows)
    collator = ReLabelCollator(store, size=224)
    features = [data[n] for n in range(count)]
    for feature in features:
        feature["image"].load()
    crops = collator(features)["crop"]
    found = medians(
        {
            "batch": lambda: collator(features),
            "labels": lambda: collator.soft_labels(store.lookup(list(range(count))), crops),
        },
        turns,
    )
    return found["batch"], found["labels"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument(
        "--annotator", action="store_true", help="also time a ResNet-50 on as many crops of 224 pixels"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    side, k = 15, 5
    values, ids = random_maps(args.batch, k, side, args.classes)
    low = torch.rand(args.batch, 2, generator=torch.Generator().manual_seed(0)) * 0.5
    boxes = torch.cat([low, low + 0.3 + 0.2 * torch.rand(args.batch, 2)], 1)
    gap = (reference(values, ids, boxes, args.classes) - pooled_logits(values, ids, boxes, args.classes)).abs().max()
    jobs: dict[str, Callable[[], Any]] = {
        "LabelPooling, stored entries": lambda: pooled_logits(values, ids, boxes, args.classes),
        "dense map, then RoIAlign": lambda: reference(values, ids, boxes, args.classes),
    }
    if args.annotator:
        from transformers import ResNetConfig, ResNetForImageClassification

        model = ResNetForImageClassification(ResNetConfig(num_labels=args.classes)).eval()
        pixels = torch.randn(args.batch, 3, 224, 224)

        def annotate() -> None:
            with torch.no_grad():
                model(pixels)

        jobs["ResNet-50 on every crop"] = annotate
    times = medians(jobs, args.turns)
    base = next(iter(times))
    print(f"{args.batch} crops, {args.classes} classes, {side} x {side} cells, k = {k}; largest difference {gap:.1e}")
    for name, seconds in times.items():
        print(f"  {name:30s} {1e3 * seconds:9.2f} ms   {seconds / times[base]:8.1f} times")
    dense = args.batch * args.classes * side * side * 4
    print(f"  memory of the dense map {dense / 1e6:.0f} MB; of the stored entries {values.numel() * 12 / 1e6:.2f} MB")
    batch, labels = collator_share(values, ids, args.classes, args.turns)
    print(f"collator, 32 crops of 224 pixels: {1e3 * batch:.1f} ms, of which labels {100 * labels / batch:.1f} %")


if __name__ == "__main__":
    main()
