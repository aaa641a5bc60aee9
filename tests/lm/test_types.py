"""Requests, responses, usage and budget: checks, JSON and pickles."""

import json
import pickle

import pytest

from hf_labels.lm import (
    Budget,
    BudgetExceeded,
    ItemError,
    Message,
    Request,
    Response,
    Structured,
    Usage,
    as_request,
)


def full_request():
    image = {"type": "image", "image": b"\x89PNG\x00\xff"}
    messages = (Message("system", "s"), Message("user", [{"type": "text", "text": "ü"}, image]))
    return Request(messages, 7, 0.5, 0.9, ("a", "b"), 3, 2, {"type": "object"}, {"row": 4})


def test_json_and_pickle_round_trips():
    request = full_request()
    response = Response(("x", "y"), ("stop", "length"), Usage(1, 2, 3, 4, 0.5), True, None)
    for value in (request, response, Usage(1, 2, 3, 4, 0.5)):
        assert type(value).from_dict(json.loads(json.dumps(value.to_dict()))) == value
        assert pickle.loads(pickle.dumps(value)) == value
    for error in (ItemError(3, "bad"), BudgetExceeded("out", [None, response])):
        copied = pickle.loads(pickle.dumps(error))
        assert str(copied) == str(error) and copied.__dict__ == error.__dict__


def test_a_pil_image_survives_json():
    from PIL import Image

    image = Image.new("RGB", (3, 2), (1, 2, 3))
    message = Message("user", [{"type": "image", "image": image}])
    again = Message.from_dict(json.loads(json.dumps(message.to_dict())))
    assert again.images[0].tobytes() == image.tobytes() and again.images[0].size == (3, 2)


def test_a_text_is_one_user_message():
    assert as_request("hi", n=2) == Request((Message("user", "hi"),), n=2)
    assert Request("hi") == as_request("hi") and as_request(Request("hi"), seed=4).seed == 4
    with pytest.raises(TypeError, match="str or a Request, got int"):
        as_request(3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Request(()),
        lambda: Request("a", max_new_tokens=0),
        lambda: Request("a", max_new_tokens=1.5),
        lambda: Request("a", n=0),
        lambda: Request("a", n=True),
        lambda: Request("a", temperature=-0.1),
        lambda: Request("a", temperature=float("nan")),
        lambda: Request("a", top_p=0),
        lambda: Request("a", top_p=1.1),
        lambda: Request("a", stop=("",)),
        lambda: Request("a", seed="x"),
        lambda: Message("robot", "a"),
        lambda: Message("user", [{"type": "audio", "audio": b""}]),
        lambda: Message("user", [{"type": "text"}]),
        lambda: Usage(prompt_tokens=-1),
        lambda: Usage(cost_usd=float("nan")),
        lambda: Budget(max_calls=-1),
        lambda: Response(("a", "b"), ("stop",)),
    ],
)
def test_values_out_of_range_are_refused(make):
    with pytest.raises(ValueError):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Request((3,)),
        lambda: Message("user", 3),
        lambda: Message("user", ["text"]),
        lambda: Message("user", [{"type": "image", "image": 7}]),
    ],
)
def test_other_types_are_refused(make):
    with pytest.raises(TypeError):
        make()


def test_usage_adds_up():
    parts = [Usage(1, 2, 3, 4, 0.25), Usage(10, 20, 30, 40, 0.5)]
    assert sum(parts) == parts[0] + parts[1] == Usage(11, 22, 33, 44, 0.75)
    with pytest.raises(TypeError):
        parts[0] + 3


def test_frozen():
    with pytest.raises(AttributeError):
        full_request().n = 3
    with pytest.raises(AttributeError):
        Structured(1).value = 2


def test_importing_the_package_loads_no_heavy_library():
    import subprocess
    import sys

    code = (
        "import sys, hf_labels.lm as lm; lm.ScriptedLM([('a', 'b')]).generate_text(['a']); lm.label_dataset;"
        "print([m for m in ('torch', 'transformers', 'datasets', 'huggingface_hub', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
