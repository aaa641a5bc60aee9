"""CEED-VLA on a simulated robot arm: chunks of actions in 2 to 4 forward passes instead of 33, in closed loop.

Meta-World (`pip install hf_labels[robotics]`), no rendering, no download. A small Llama learns from scripted
demonstrations to emit 8 actions of 4 numbers as tokens; it is distilled on its own Jacobi trajectories; teacher and
students act on goals that no choice was made on, each decoder on the same goals.

    python examples/ceed_vla.py                # paper-like: 4 tasks, 3 students, an hour on one core
    python examples/ceed_vla.py --preset quick # 3 tasks, 1 student, at most 5 minutes
    python examples/ceed_vla.py --preset full  # models of the papers, from the Hub; needs an accelerator

Every step is cached and an interrupted run goes on where it was. One row is one decoder; its values are the success
rates (or passes, or milliseconds) of the blocks task x goal seed, for students the mean over the training seeds.
"""

import argparse
import logging
import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))


def quiet() -> None:
    import datasets
    import transformers

    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    logging.getLogger("robot_arm").setLevel(logging.INFO)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=("quick", "paper-like", "full"), default="paper-like")
    parser.add_argument("--output", default=None, help="result file; pictures go beside it")
    parser.add_argument(
        "--vision", action="store_true", help="measure a prefix of frames instead, and add it to the file"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    args = parser.parse_args(argv)
    import torch

    torch.set_num_threads(args.threads)
    quiet()
    if args.preset == "full":
        from robot_arm.full import run_full

        print(run_full(args.output))
        return
    from robot_arm.report import run, run_vision

    if args.vision:
        run_vision(args.output)
    else:
        run(args.preset, args.output)


if __name__ == "__main__":
    main()
