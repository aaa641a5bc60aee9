"""The documents and the double of the experiment: what is written stands in the text, errors come as often as said."""

import json

import numpy as np
import tail_vrd as example

from hf_labels.labels.tail_vrd_gates import LabelGates
from hf_labels.lm import ScriptedLM
from hf_labels.lm.tail_vrd import TAILLabeler


def test_documents_hold_their_truth_and_the_teacher_errs_as_often_as_said():
    rows = range(0, len(example.packages()), 2)
    data = example.documents(rows, 2, np.random.default_rng(0))
    fields = example.schema()
    for text, truth in zip(data["text"][:], map(json.loads, data["truth"][:]), strict=True):
        assert all(value is None or value in text for value in truth.values()) and truth["name"]
    assert len(set(data["text"][:])) == len(data)
    lm = ScriptedLM([(lambda request: True, example.Double(data, 0))], progress=False)
    labels = TAILLabeler(lm, fields, gates=LabelGates.off()).label(data, image_column=None, text_column="text")
    truths = [json.loads(text) for text in data["truth"][:]]
    pairs = zip(labels.values, truths, strict=True)
    wrong = [values[name] != truth[name] for values, truth in pairs for name in truth]
    assert 0.6 * example.NOISE < np.mean(wrong) < 1.1 * example.NOISE  # some spoiled values are right by chance
    again = TAILLabeler(lm, fields, gates=LabelGates.off(), formats=False, normalize=False)
    unaware = again.label(data.select(range(5)), image_column=None, text_column="text").values
    assert all(values["version"] is None or values["version"].startswith("v") for values in unaware)
