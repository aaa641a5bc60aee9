"""The cache on disk, and the loop around it: keys, repeats, several processes, damage, interruption."""

import os
import pickle
import sqlite3
import subprocess
import sys
import threading

import numpy as np
import pytest

from hf_labels.lm import DiskCache, Message, Request, ScriptedLM
from hf_labels.lm.cache import cache_key

RULES = [(r"say (.+)", r"\1")]
SCORES = {"a": -1.0, "b": -2.0}


def scripted(folder=None, **options):
    return ScriptedLM(RULES, SCORES, cache_dir=folder, **options)


def test_a_second_identical_call_makes_no_backend_call(tmp_path):
    lm = scripted(tmp_path)
    requests = [Request("say 1"), Request("say 2", temperature=1.0, seed=3)]
    first, scores = lm.generate(requests), lm.score_labels(["x", "y"], ["b", "a"])
    attempts = lm.attempts
    again = lm.generate(requests)
    assert [a.texts for a in again] == [a.texts for a in first] and lm.score_labels(["x", "y"], ["b", "a"]) == scores
    assert lm.attempts == attempts and all(a.cached for a in again) and not any(a.cached for a in first)
    assert again[0].usage.to_dict() == {
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "calls": 0,
        "cached_calls": 1,
        "cost_usd": 0.0,
    }
    fresh = scripted(tmp_path)
    fresh.generate(requests)
    assert fresh.attempts == 0 and fresh.usage.cached_calls == 2


def test_what_is_drawn_without_a_seed_is_neither_kept_nor_shared(tmp_path):
    lm = scripted(tmp_path)
    free = Request("say 1", temperature=1.0)
    assert [a.cached for a in lm.generate([free, free])] == [False, False]
    lm.generate([free])
    assert len(lm.log) == 3 and len(lm.cache) == 0


def test_equal_requests_of_one_call_are_asked_once():
    lm = scripted(price_per_1k=(1.0, 1.0))
    answers = lm.generate(["say 1", "say 2", "say 1", "say 1"])
    assert [a.text for a in answers] == ["1", "2", "1", "1"] and len(lm.log) == 2
    assert [a.cached for a in answers] == [False, False, True, True]
    assert sum(a.usage for a in answers) == lm.usage and lm.usage.cached_calls == 2


def test_every_part_of_the_question_makes_another_key(tmp_path):
    lm = scripted()
    base = Request("say 1", seed=1)
    others = [
        base.replace(seed=2),
        base.replace(temperature=0.5),
        base.replace(top_p=0.5),
        base.replace(stop=("x",)),
        base.replace(n=2),
        base.replace(max_new_tokens=3),
        base.replace(schema={"type": "object"}),
        base.replace(messages=(Message("system", "say 1"),)),
        base.replace(messages=(Message("user", "say 2"),)),
    ]
    keys = {lm._key(request, "generate") for request in [base, *others]}
    keys |= {lm._key(base, "score", labels) for labels in (("a", "b"), ("b", "a"))}
    keys |= {
        scripted(**options)._key(base, "generate") for options in ({"model_id": "m"}, {"revision": "r"}, {"seed": 9})
    }
    assert len(keys) == 1 + len(others) + 2 + 3 and None not in keys
    assert lm._key(base.replace(metadata={"row": 7}), "generate") == lm._key(base, "generate")


def test_the_key_is_the_hash_of_canonical_json():
    import hashlib

    assert cache_key({"b": "ü", "a": [1]}) == hashlib.sha256('{"a":[1],"b":"ü"}'.encode()).hexdigest()
    assert len(cache_key({"a": "\ud800"})) == 64, "a lone surrogate in a text is no reason to fail"


def test_images_count_by_content_and_are_hashed_once(tmp_path, monkeypatch):
    from hf_labels.lm import images

    lm = scripted()

    def key(image):
        return lm._key(Request((Message("user", [{"type": "image", "image": image}]),)), "generate")

    a, b = tmp_path / "a.png", tmp_path / "b.png"
    a.write_bytes(b"one")
    b.write_bytes(b"one")
    assert key(a) == key(str(a)) == key(b) == key(b"one") != key(b"two")
    monkeypatch.setattr(images.hashlib, "file_digest", lambda *args: pytest.fail("hashed again"))
    assert key(a) == key(b)
    monkeypatch.undo()
    a.write_bytes(b"two!")
    assert key(a) == key(b"two!")


def test_errors_are_never_kept(tmp_path):
    lm = scripted(tmp_path, on_error="return")
    answers = lm.generate(["say 1", "unknown"])
    assert answers[1].error.startswith("NoRule") and len(lm.cache) == 1
    lm._rules.append((lambda request: True, "known now"))
    assert lm.generate_text(["say 1", "unknown"]) == ["1", "known now"]


def test_an_interrupted_call_repeats_nothing(tmp_path):
    prompts = [f"say {i}" for i in range(20)]
    lm = scripted(tmp_path, batch_size=3)
    answer = lm._generate

    def interrupted(requests):
        if len(lm.log) >= 9:
            raise KeyboardInterrupt
        return answer(requests)

    lm._generate = interrupted
    with pytest.raises(KeyboardInterrupt):
        lm.generate(prompts)
    again = scripted(tmp_path, batch_size=3)
    assert again.generate_text(prompts) == [str(i) for i in range(20)]
    assert [request.text for request in again.log] == prompts[9:], "9 answers were on disk before the interruption"
    assert again.usage.cached_calls == 9 and again.usage.calls == 11


SLOW_WORKER = """
import sys, time
from hf_labels.lm import ScriptedLM
def answer(request, match):
    time.sleep(0.03)
    print(request.text, flush=True)
    return match[1]
lm = ScriptedLM([(r"say (.+)", answer)], cache_dir=sys.argv[1], batch_size=2)
lm.generate([f"say {i}" for i in range(200)])
"""


def test_ctrl_c_in_a_real_process_loses_no_batch(tmp_path):
    import signal

    worker = subprocess.Popen(
        [sys.executable, "-c", SLOW_WORKER, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    lines = [worker.stdout.readline() for _ in range(9)]
    worker.send_signal(signal.SIGINT)
    rest, errors = worker.communicate(timeout=60)
    assert worker.returncode != 0 and "KeyboardInterrupt" in errors
    answered = len(lines) + len(rest.splitlines())
    cache = DiskCache(tmp_path)
    assert answered < 200 and answered - 2 <= len(cache) <= answered, "only the batch in work may be lost"
    assert len(cache) >= 8


@pytest.mark.parametrize("damage", ["garbage", "cut", "other table", "empty"])
def test_a_damaged_file_is_moved_aside(tmp_path, damage, caplog):
    first = scripted(tmp_path)
    first.generate([f"say {i} {'x' * 500}" for i in range(200)])
    first.cache.close()
    path = tmp_path / "bblm.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    data = path.read_bytes()
    if damage == "garbage":
        path.write_bytes(b"this is no database at all" * 100)
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "other table":
        path.unlink()
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE cache (something TEXT)")
        connection.close()
    else:
        path.write_bytes(b"")
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    lm = scripted(tmp_path)
    assert lm.generate_text([f"say {i} {'x' * 500}" for i in range(200)])[7].startswith("7 ")
    assert lm.generate(["say 7 " + "x" * 500])[0].cached
    bad = sorted(p.name for p in tmp_path.glob("*.bad"))
    if damage == "empty":  # a file without content is a new database
        assert bad == []
    else:
        assert bad == ["bblm.sqlite3.bad"] and "is damaged" in caplog.text
        lm.cache.close()
        path.write_bytes(b"damaged once more" * 1000)
        assert scripted(tmp_path).generate_text(["say 1"]) == ["1"]
        assert (tmp_path / "bblm.sqlite3.bad.1").exists()


def test_a_damaged_value_is_computed_again(tmp_path):
    lm = scripted(tmp_path)
    lm.generate(["say 1"])
    with lm.cache._connect() as connection:
        connection.execute("UPDATE cache SET value = ?", (b"\xff{",))
    assert lm.generate(["say 1"])[0].cached is False
    assert lm.generate(["say 1"])[0].cached is True


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file"):
        scripted(tmp_path / "file").generate(["say 1"])


def test_answers_survive_a_disk_that_cannot_be_written(tmp_path, caplog, monkeypatch):
    lm = scripted(tmp_path)

    def full(rows):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(lm.cache, "_insert", full)
    assert lm.generate_text(["say 1"]) == ["1"] and "could not be stored" in caplog.text


WORKER = """
import sys, time
from hf_labels.lm import ScriptedLM
start = float(sys.argv[2])
lm = ScriptedLM([(r"say (.+)", r"\\1")], cache_dir=sys.argv[1], batch_size=2)
time.sleep(max(0, start - time.time()))
texts = lm.generate_text([f"say {i}" for i in range(int(sys.argv[3]), int(sys.argv[3]) + 150)])
assert texts == [str(i) for i in range(int(sys.argv[3]), int(sys.argv[3]) + 150)]
print(lm.usage.calls + lm.usage.cached_calls)
"""


def test_two_processes_share_one_file(tmp_path):
    import time

    start = str(time.time() + 2.5)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), start, first],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for first in ("0", "75")
    ]
    outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    assert [output.strip() for output in outputs] == ["150", "150"]
    lm = scripted(tmp_path)
    assert lm.generate_text([f"say {i}" for i in range(225)]) == [str(i) for i in range(225)]
    assert lm.attempts == 0 and len(lm.cache) == 225 and not list(tmp_path.glob("*.bad*"))


def test_threads_and_forks_and_pickles(tmp_path):
    cache = DiskCache(tmp_path)
    threads = [
        threading.Thread(target=lambda k=k: cache.put_many([(f"{k}-{i}", i, {}) for i in range(50)])) for k in range(4)
    ]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(cache) == 200
    if hasattr(os, "fork"):
        child = os.fork()
        if child == 0:
            cache.put_many([("from the child", 1, {})])
            os._exit(0 if cache.get_many(["0-7"]) == {"0-7": 7} else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert cache.get_many(["from the child"]) == {"from the child": 1}
    copy = pickle.loads(pickle.dumps(cache))
    assert copy.get_many(["3-4", "nothing"]) == {"3-4": 4}
    assert cache.get_many([f"{k}-{i}" for k in range(4) for i in range(500)]) | {"x": 0} != {}
    assert len(cache.get_many([f"{k}-{i}" for k in range(4) for i in range(500)])) == 200


def test_a_model_with_a_cache_can_be_pickled(tmp_path):
    lm = ScriptedLM([("say 1", "one")], SCORES, cache_dir=tmp_path)
    lm._rules = []  # compiled rules hold functions; the cache, lock and counters must not stop a pickle
    lm.score_labels(["q"], ["a", "b"])
    copy = pickle.loads(pickle.dumps(lm))
    assert np.array_equal(copy.score_labels(["q"], ["a", "b"]).logprobs, [[-1.0, -2.0]]) and copy.attempts == 1
