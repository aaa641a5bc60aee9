"""What labels made on the fly cost: a ResNet-18 student at 224 pixels, with and without a CLIP ViT-B/32 beside it.

    python examples/benchmarks/hello.py

Random weights (only time and size count), one thread, all ways timed in turns in one run; medians.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from peft import get_peft_model
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig, ResNetConfig, ResNetForImageClassification

from hf_labels.data.soft_label_info import StoreInfo
from hf_labels.data.soft_label_store import SoftLabelStore
from hf_labels.losses.soft_targets import SoftTargets
from hf_labels.models.hello import LabelProjector, LabelProjectorConfig
from hf_labels.models.hello_adapter import hello_lora_config, save_projector

CLASSES, BATCH, TURNS = 1000, 8, 5
NAMES = {number: f"class {number}" for number in range(CLASSES)}


def resnet18() -> ResNetForImageClassification:
    sizes = {"embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "layer_type": "basic"}
    return ResNetForImageClassification(ResNetConfig(**sizes, num_labels=CLASSES))


def projector(base: bool = False) -> LabelProjector:
    made = LabelProjector(LabelProjectorConfig(vision_config=CLIPVisionConfig(), id2label=NAMES, clip_id="clip"))
    return made if base else get_peft_model(made, hello_lora_config(made, 8, 128)).eval()


def flops(model: torch.nn.Module, pixels: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(pixels)
    return counter.get_total_flops()


def step(student: ResNetForImageClassification, pixels: Tensor, targets: Callable[[], SoftTargets]) -> None:
    student.train()
    loss = targets().loss(student(pixels).logits, "kl")
    loss.backward()
    student.zero_grad()


def files(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    student, labeller, pixels = resnet18(), projector(), torch.randn(BATCH, 3, 224, 224)
    merged = projector(base=True).eval()
    info = StoreInfo("topk", CLASSES, k=5, codec="u8_log", views_per_example=300)
    ids = np.repeat(np.arange(64), 300)
    answers = torch.randn(len(ids), CLASSES)
    store = SoftLabelStore.from_arrays(
        info, example_ids=ids.tolist(), logits=answers, views=np.tile(np.arange(300), 64).tolist()
    )

    def stored() -> SoftTargets:
        rows = store.lookup(np.arange(BATCH), np.arange(BATCH))
        kinds, values = store.sparse(rows)
        return SoftTargets(ids=kinds, values=values)

    @torch.no_grad()
    def online(model: torch.nn.Module) -> SoftTargets:
        return SoftTargets(logits=model(pixel_values=pixels).logits)

    ways = {
        "stored top-5, 8 bits": lambda: step(student, pixels, stored),
        "projector, adapter beside CLIP": lambda: step(student, pixels, lambda: online(labeller)),
        "projector, adapter merged": lambda: step(student, pixels, lambda: online(merged)),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(TURNS + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:  # the first turn warms up
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    first = medians["stored top-5, 8 bits"]
    print(f"one step of a ResNet-18, {BATCH} images of 224 pixels, {CLASSES} classes, medians of {TURNS} turns")
    for name, value in medians.items():
        print(f"  {name:<32} {value * 1000:8.0f} ms   {value / first:.2f} x")
    ratio = flops(merged, pixels) / flops(student, pixels)
    print(f"forward FLOPs, CLIP ViT-B/32 over ResNet-18: {ratio:.2f} x (the spec of the method says 2.4)")
    with tempfile.TemporaryDirectory() as folder:
        save_projector(labeller, folder)
        size, count = files(Path(folder)), sum(p.numel() for n, p in labeller.named_parameters() if "lora_" in n)
    row = info.bytes_per_label
    print(
        f"adapter, ranks 8 and 128: {count / 1e6:.2f} M numbers, {size / 1e6:.2f} MB of files, for any number of views"
    )
    print(f"  as many bytes as {size // 2000:,} dense float16 labels or {size // row:,} top-5 labels in 8 bits")


if __name__ == "__main__":
    main()
