"""Candidates, templates, and the choice of demonstrations."""

import numpy as np
import pytest

from hf_labels.labels.unsupervised_prompt_learning import (
    PromptTemplate,
    candidate_vocabulary,
    draw_demonstrations,
    nearest_demonstrations,
    prompt_words,
)

TEXTS = ["new york is big", "new york is old", "I like new york", "New York again", "a new york day", "new york now"]


def test_words_that_belong_together_are_one_candidate():
    found = candidate_vocabulary(TEXTS, 5, min_count=5, min_pmi=1.0, min_frequency=1)
    assert found[0] == "new york" and "is" in found
    assert candidate_vocabulary(TEXTS, 5, min_frequency=99) == []
    assert len(candidate_vocabulary(TEXTS, 1, min_frequency=0)) == 1
    assert "new" in candidate_vocabulary(TEXTS, 9, max_words=1, min_frequency=1)
    with pytest.raises(ValueError, match="`size` and `max_words`"):
        candidate_vocabulary(TEXTS, 0)


def test_template_repeats_the_example_and_keeps_braces():
    form = PromptTemplate("{prompt} {demos}\nReview: {text}\nSentiment:")
    assert form.render("P", "{x}", [("a", " b")]) == "P\nReview: a\nSentiment: b\nReview: {x}\nSentiment:"
    assert PromptTemplate("{prompt} {text}").render("", "t") == "t"
    assert PromptTemplate("{text}").render("unused", "t") == "t" and not PromptTemplate("{text}").has_prompt


@pytest.mark.parametrize("template", ["", "{prompt}", "{text} {text}", "{text} {prompt}", "{demos} {prompt} {text}"])
def test_bad_templates_are_refused(template):
    with pytest.raises(ValueError, match="needs `{text}` once"):
        PromptTemplate(template)


def test_demonstrations_take_the_classes_in_turn_and_never_the_text():
    texts, labels = [f"t{i}" for i in range(12)], [i % 3 for i in range(12)]
    chosen = draw_demonstrations("t4", texts, labels, 6, seed=0)
    assert 4 not in chosen and len(set(chosen)) == 6
    assert sorted(labels[place] for place in chosen) == [0, 0, 1, 1, 2, 2]
    assert chosen == draw_demonstrations("t4", texts, labels, 6, seed=0)
    assert chosen != draw_demonstrations("t4", texts, labels, 6, seed=0, draw=1)
    assert len(draw_demonstrations("t4", texts, labels, 99, seed=0)) == 11
    assert len(draw_demonstrations("x", ["a", "a", "x"], [0, 0, 1], 5, seed=0)) == 1  # repeats count once


def test_nearest_demonstrations_end_with_the_closest():
    vectors = np.array([[1.0, 0], [0.9, 0.1], [0, 1], [0, 0]])
    texts = ["a", "b", "c", "d"]
    assert nearest_demonstrations("x", np.array([1.0, 0]), texts, vectors, 2) == [1, 0]
    assert nearest_demonstrations("a", np.array([1.0, 0]), texts, vectors, 2) == [2, 1]


def test_tokens_as_text():
    assert prompt_words(["a", "b c"], [1, 0]) == "b c a" and prompt_words(["a"], []) == ""
