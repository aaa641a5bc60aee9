"""Tags at the first tokens of words, their padding, and the order of tags."""

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from name_tagging_toys import tagged

import toys
from hf_labels.data.name_tagging_metric import EntityMetricCollator, order_tags, tokenize_tagged_words


def pieces():
    """A tokenizer that splits `w12-w13` into three tokens."""
    return toys.tiny_tokenizer()


def rows():
    return Dataset.from_dict(
        {
            "tokens": [["w5", "w12-w13", "w7"], ["w9"]],
            "ner_tags": [[0, 1, 2], [3]],
            "entity_ids": [[-1, 4, 4], [2]],
            "note": ["x", "y"],
        }
    )


def test_tags_stand_at_the_first_token_of_each_word():
    found = tokenize_tagged_words(rows(), pieces(), extra=["entity_ids"])
    assert found["labels"][:] == [[0, 1, -100, -100, 2], [3]]
    assert found["entity_ids"][:] == [[-1, 4, -1, -1, 4], [2]]
    assert "note" not in found.column_names and found["input_ids"][0][0] == 5


def test_padding_of_all_columns_on_both_sides():
    features = [{"input_ids": [5, 6], "attention_mask": [1, 1], "labels": [1, 2], "pseudo_tags": [0, 1]}]
    features.append({"input_ids": [7], "attention_mask": [1], "labels": [0], "pseudo_tags": [2]})
    right = EntityMetricCollator(toys.tiny_tokenizer())(features)
    assert right["labels"].tolist() == [[1, 2], [0, -100]] and right["pseudo_tags"].tolist() == [[0, 1], [2, 0]]
    left = EntityMetricCollator(toys.tiny_tokenizer("left"))(features)
    assert left["labels"].tolist() == [[1, 2], [-100, 0]] and left["pseudo_tags"].tolist() == [[0, 1], [0, 2]]
    ids = EntityMetricCollator()([{"input_ids": [5, 6], "labels": [1, 2], "entity_ids": [3, -1]}])
    assert ids["entity_ids"].tolist() == [[3, -1]]
    assert set(EntityMetricCollator()([tagged(1)[0]])) == set(tagged(1).column_names)


def test_slow_tokenizers_and_rows_that_do_not_fit_are_refused():
    class Slow:
        is_fast = False

    with pytest.raises(TypeError, match="Slow is a slow tokenizer"):
        tokenize_tagged_words(rows(), Slow())
    bad = rows().map(lambda row, i: {"ner_tags": row["ner_tags"][: 2 - i]}, with_indices=True)
    with pytest.raises(ValueError, match="Row 0 has 3 words and 2 entries in `ner_tags`"):
        tokenize_tagged_words(bad, pieces())
    with pytest.raises(KeyError, match="words"):
        tokenize_tagged_words(rows(), pieces(), word_column="words")


def test_tags_are_renumbered_by_name():
    names = ["O", "I-dog", "B-dog", "B-cat", "I-cat"]
    features = Features({"ner_tags": List(ClassLabel(names=names)), "text": Value("string")})
    data = Dataset.from_dict({"ner_tags": [[0, 2, 1, 3, 4], [3]], "text": ["a", "b"]}, features=features)
    found, ordered = order_tags(data)
    assert ordered == ["O", "B-dog", "I-dog", "B-cat", "I-cat"]
    assert [[ordered[tag] for tag in row] for row in found["ner_tags"]] == [
        ["O", "B-dog", "I-dog", "B-cat", "I-cat"],
        ["B-cat"],
    ]
    assert found.features["ner_tags"].feature.names == ordered and found["text"][:] == ["a", "b"]
    plain = Dataset.from_dict({"tags": [[0, 1], [5]]})
    with pytest.raises(ValueError, match="tag 5 at row 1; there are 2 names"):
        order_tags(plain, "tags", ["O", "B-x"])
    with pytest.raises(ValueError, match="need names"):
        order_tags(plain, "tags")
    with pytest.raises(ValueError, match="got 'x-y'"):
        order_tags(plain, "tags", ["O", "x-y"])


def test_batches_are_tensors_of_one_shape():
    batch = EntityMetricCollator()([tagged(4)[i] for i in range(4)])
    assert all(torch.is_tensor(value) and len(value) == 4 for value in batch.values())
