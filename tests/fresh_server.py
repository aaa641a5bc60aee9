"""The server behind `fresh.py`: one JSON line in per script, one out. It imports no library of Hugging Face."""

import atexit
import gc
import json
import os
import runpy
import signal
import sys
import threading
import time
import traceback

FORBIDDEN = ("hf_labels", "huggingface_hub", "transformers", "datasets", "accelerate", "tokenizers", "peft")


def preload() -> None:
    """Import what nearly every script needs and what reads no setting of ours."""
    import pandas  # noqa: F401
    import PIL.Image  # noqa: F401
    import pyarrow.dataset  # noqa: F401
    import scipy.optimize  # noqa: F401
    import sklearn  # noqa: F401
    import torch
    import torch._dynamo  # noqa: F401

    torch.set_num_threads(1)
    early = [name for name in FORBIDDEN if name in sys.modules]
    assert not early, f"{early} must not be imported before the fork"


def become(request: dict) -> None:
    """In the child: take on the environment, folder, streams and arguments that were asked for, and run."""
    os.setsid()
    os.chdir(request["cwd"])
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for number, path in ((1, request["out"]), (2, request["err"])):
        os.dup2(os.open(path, flags, 0o600), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(request["env"])
    execute(request["argv"])


def execute(argv: list[str]) -> None:
    """What `python ARGV` does."""
    code = argv[0] == "-c"
    first = "" if code else os.path.dirname(os.path.abspath(argv[0]))
    own = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [first, *own, *BASE_PATH]
    sys.argv[:] = ["-c", *argv[2:]] if code else argv
    if code:
        main = type(sys)("__main__")
        sys.modules["__main__"] = main
        exec(compile(argv[1], "<string>", "exec"), main.__dict__)
    else:
        runpy.run_path(argv[0], run_name="__main__")


def leave(error: BaseException | None) -> None:
    """End as the interpreter would, without taking all modules apart, which costs more than most scripts."""
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if error.code is not None and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
    else:
        status = int(error is not None)
        if error is not None:
            traceback.print_exception(error)
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def wait_for(child: int, seconds: float) -> int:
    """Exit status as `subprocess` gives it; -9 after the time is up."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return -signal.SIGKILL
        time.sleep(0.02)


def serve() -> dict | None:
    """Answer requests until the input ends; in a child, return its request."""
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            return request
        print(json.dumps({"returncode": wait_for(child, request["timeout"])}), flush=True)
    return None


if __name__ == "__main__":
    inherited = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    BASE_PATH = [path for path in sys.path[1:] if path not in inherited]
    preload()
    gc.collect()
    gc.freeze()  # what lies here already is not looked at, and so not copied, by the children
    asked = serve()
    if asked is not None:  # outside of the loop: nothing of the server's stack lies below the script
        try:
            become(asked)
        except BaseException as failure:
            leave(failure)
        leave(None)
