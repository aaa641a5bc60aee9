"""Offline mode with the cache that `load_ours.py` has filled: what was loaded once loads again, the rest says why not.

The loopback Hub is a protocol stand-in written by this project: these checks prove the client path only.
"""

import tiny
from checks import check, log, main, raises
from datasets import load_dataset
from transformers import AutoModelForSequenceClassification

from hf_labels.hub import explain_hub_error
from hf_labels.models import CrossTuneForSequenceClassification


@check
def crosstune_and_its_pinned_backbone_load_from_the_cache():
    model = CrossTuneForSequenceClassification.from_pretrained("tester/crosstune")
    assert model.predict(tiny.TEXTS, top_k=None) == tiny.recall("crosstune")
    assert not log()


@check
def label_data_set_loads_from_the_cache():
    data = load_dataset("tester/labelled", split="train")
    assert data["text"][:] == tiny.recall("labelled")["text"] and not log()


@check
def model_that_was_never_loaded_is_explained():
    text = explain_hub_error(raises(OSError, AutoModelForSequenceClassification.from_pretrained, "tester/never"))
    assert text and "cache" in text and not log()


@check
def data_set_that_was_never_loaded_is_explained():
    text = explain_hub_error(raises(ConnectionError, load_dataset, "tester/never"))
    assert text and "cache" in text and not log()


if __name__ == "__main__":
    main()
