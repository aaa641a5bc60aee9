"""Time of the mixing core next to `timm.data.Mixup`, in one run.

python examples/benchmarks/mixing_core.py [--rows 128] [--size 224] [--classes 1000] [--repeat 7]

Prints milliseconds per batch (best of `--repeat`), and timm's time divided by ours. Two things are timed: mixing
images with their labels as both libraries give them (timm: a dense matrix; here: two ids and a share), and the same
with our labels made dense. timm overwrites its input, so it is given a copy, whose time is shown by itself.

timm itself cannot be imported without torchvision. Its `timm/data/mixup.py` needs only numpy and torch, so that file
is loaded from the installed package (`pip install --no-deps timm`).
"""

import argparse
import importlib.metadata
import importlib.util
import math
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch

from hf_labels.mixing import MixSampler


def find_timm_mixup() -> Path | None:
    """The file `timm/data/mixup.py` of the installed package."""
    try:
        files = importlib.metadata.files("timm") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [file for file in files if file.as_posix() == "timm/data/mixup.py"]
    return Path(str(found[0].locate())) if found else None


def load_timm_mixup() -> ModuleType:
    """timm's mixup module. Raises `ImportError` when the package is not installed."""
    path = find_timm_mixup()
    if path is None:
        raise ImportError("This needs the package timm: `pip install --no-deps timm`.")
    spec = importlib.util.spec_from_file_location("timm_mixup_file", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def milliseconds(call: Callable[[], object], repeat: int) -> float:
    """Wall time of the fastest of `repeat` calls."""
    best = math.inf
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("rows", 128), ("size", 224), ("classes", 1000), ("repeat", 7)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    torch.set_num_threads(1)
    timm = load_timm_mixup()
    images = torch.randn(args.rows, 3, args.size, args.size)
    labels = torch.randint(0, args.classes, (args.rows,))
    size = (args.size, args.size)
    print(f"{args.rows} images of 3 x {args.size} x {args.size}, {args.classes} classes, one thread, ms per batch")
    print(f"copy of the images alone: {milliseconds(images.clone, args.repeat):.1f}")
    print(f"{'':24}{'timm':>8}{'ours':>8}{'ratio':>8}{'ours, dense':>14}{'ratio':>8}")
    for kind, mode in (("mixup", "batch"), ("mixup", "sample"), ("cutmix", "batch"), ("cutmix", "sample")):
        alphas = {f"{name}_alpha": float(name == kind) for name in ("mixup", "cutmix")}
        peer = timm.Mixup(**alphas, num_classes=args.classes, mode={"batch": "batch", "sample": "elem"}[mode])
        sampler = MixSampler(1.0, kind=kind, lam_mode=mode, seed=0)

        def theirs(peer=peer):
            return peer(images.clone(), labels)

        def ours(dense: bool = False, sampler=sampler):
            plan = sampler.draw(args.rows, size)
            targets = plan.labels(labels)
            return plan.apply(images), targets.dense(args.classes, 0.1) if dense else targets

        def ours_dense(ours=ours):
            return ours(dense=True)

        times = [milliseconds(call, args.repeat) for call in (theirs, ours, ours_dense)]
        row = f"{times[0]:8.1f}{times[1]:8.1f}{times[0] / times[1]:8.2f}{times[2]:14.1f}{times[0] / times[2]:8.2f}"
        print(f"{kind + ', per ' + mode:24}{row}")
    draws = milliseconds(lambda: [sampler.draw(args.rows, size) for _ in range(100)], args.repeat) / 100
    print(f"drawing a plan of {args.rows} boxes: {draws:.3f}")


if __name__ == "__main__":
    main()
