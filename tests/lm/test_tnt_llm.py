"""Induction and labelling with a scripted model: calls, repair, stop, budgets, caches, judges."""

import datasets
import pytest

from hf_labels.labels.tnt_llm import Taxonomy, TaxonomyError
from hf_labels.lm import Budget, BudgetExceeded, ScriptedLM
from hf_labels.lm.tnt_llm import TaxonomyArguments, TaxonomyInducer
from hf_labels.lm.tnt_llm_labels import LLMLabeler, evaluate_taxonomy

TEXTS = [f"{kind} number {i}" for i in range(6) for kind in ("skin", "sugar")]
TABLE = [{"name": "Skin", "description": "About skin."}, {"name": "Sugar", "description": "About sugar."}]
UPDATE = {"rating": 80, "explanation": "fine", "edits": "N/A", "labels": TABLE}


def model(answer=None, summary="short", **options):
    """Writes summaries, tables, labels and choices."""

    def rule(request):
        text = request.text
        if "Summarize" in text:
            return summary
        if "Which label fits" in text:
            document = text.split("<text>")[1]
            name = "Skin" if "skin" in document else "sugar " if "sugar" in document else "Weather"
            return {"rationale": "r", "primary": name, "all": [name, "Other"]}
        if "Which label describes" in text:
            side = "Skin" if "skin" in text.split("<text>")[1] else "Sugar"
            return {"choice": "A" if f"A: {side}" in text else "B"}
        if "relevant to the use case" in text:
            return {"relevant": "Skin" in text}
        if answer is not None:
            return answer(request)
        return UPDATE if "Current labels" in text else {"labels": TABLE}

    import json

    def written(request):
        found = rule(request)
        return found if isinstance(found, str) else json.dumps(found)

    return ScriptedLM(written, model_id=options.pop("model_id", "scripted"), progress=False, **options)


def induce(lm, texts=TEXTS, fast=None, **options):
    args = TaxonomyArguments("what is it about?", **{"batch_size": 4, "sample_size": 12, **options})
    inducer = TaxonomyInducer(lm, fast, args=args)
    return inducer.fit(texts), inducer


def test_number_of_calls_and_the_history():
    lm = model()
    found, _ = induce(lm)
    assert len(lm.log) == 12 + 3 + 1  # summaries, one request per batch, the review
    assert [step["kind"] for step in found.history] == ["generate", "update", "update", "review"]
    assert [step["rating"] for step in found.history] == [None, 80, 80, 80]
    assert found.names == ("Skin", "Sugar") and found.complete and found.config["prompts"] == "1"
    two = model()
    cheap = model()
    induce(two, fast=cheap)
    assert len(two.log) == 4 and len(cheap.log) == 12


def test_one_batch_has_no_update_unless_asked_for():
    lm = model()
    induce(lm, batch_size=50, review=False)
    assert len(lm.log) == 13
    again = model()
    found, _ = induce(again, batch_size=50, review=False, min_updates=1)
    assert [step["kind"] for step in found.history] == ["generate", "update"]


def test_a_second_run_from_the_cache_asks_nothing(tmp_path):
    first, _ = induce(model(cache_dir=tmp_path))
    lm = model(cache_dir=tmp_path)
    second, _ = induce(lm)
    assert not lm.log and second.labels == first.labels


def test_same_seed_same_requests():
    logs = []
    for seed in (0, 0, 1):
        lm = model()
        induce(lm, texts=[f"{text} again" for text in TEXTS], seed=seed, summary_words=0)
        logs.append([request.text for request in lm.log])
    assert logs[0] == logs[1] != logs[2]
    assert "<document 1>" in logs[0][0]


def test_a_bad_table_is_repaired_once_and_else_rejected(caplog):
    asked = []

    def answer(request):
        asked.append(len(request.messages))
        if "Current labels" not in request.text:
            return {"labels": TABLE}
        return {"rating": 5, "labels": TABLE[:1]} if len(request.messages) == 1 else UPDATE

    found, inducer = induce(model(answer))
    assert inducer.counts["repairs"] == 3 and all(step["accepted"] for step in found.history)
    assert asked.count(3) == 3  # the question, the bad answer, what was wrong with it

    never, inducer = induce(
        model(lambda r: {"rating": 1, "labels": TABLE[:1]} if "Current labels" in r.text else {"labels": TABLE})
    )
    assert [step["accepted"] for step in never.history] == [True, False, False, False]
    assert never.names == ("Skin", "Sugar") and "is rejected: there are 1 labels" in caplog.text


def test_no_usable_table_at_all_carries_the_history():
    with pytest.raises(TaxonomyError, match="there are 1 labels") as caught:
        induce(model(lambda request: {"labels": TABLE[:1]}))
    assert [step["kind"] for step in caught.value.history] == ["generate"] * 3


def test_it_stops_when_the_rating_is_good_and_nothing_changes():
    lm = model()
    found, _ = induce(lm, batch_size=2, stop_rating=80, patience=2, review=False)
    assert [step["kind"] for step in found.history] == ["generate", "update", "update"]


def test_documents_without_a_summary_are_cut_and_long_ones_read_in_parts(caplog):
    lm = model(summary="")
    found, _ = induce(lm)
    assert found.config["summaries_failed"] == 12 and "first words are used" in caplog.text
    assert any("skin number" in request.text for request in lm.log if "document 1" in request.text)
    parts = model()
    induce(parts, texts=[" ".join(f"w{i}" for i in range(25)), "a b"], document_words=10)
    assert sum("Summarize" in request.text for request in parts.log) == 3 + 1 + 1


def test_a_batch_that_is_too_long_is_made_smaller(caplog):
    lm = model(summary="many words in this summary here")
    induce(lm, prompt_words=200 + 4 * 40 + 20, max_labels=4, batch_size=10)
    assert "2 are taken" in caplog.text


def test_a_budget_that_ends_keeps_what_there_is():
    found, _ = induce(model(budget=Budget(max_calls=14), batch_size=1))
    assert not found.complete and len(found.history) == 2
    with pytest.raises(BudgetExceeded):
        induce(model(budget=Budget(max_calls=12), batch_size=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_case": " "}, "`use_case` is empty"),
        ({"use_case": "x", "max_labels": 1}, "`max_labels` must be at least 2"),
        ({"use_case": "x", "sample_size": 1}, "`sample_size` must be at least 2"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        TaxonomyArguments(**options)


def test_an_empty_corpus_is_refused():
    with pytest.raises(ValueError, match="has 1 different texts"):
        induce(model(), texts=["a", "a", "", None])


def rows(texts=("skin one", "sugar two", "rain", "skin one")):
    return datasets.Dataset.from_dict({"text": list(texts)})


TAXONOMY = Taxonomy.from_names({"Skin": "About skin.", "Sugar": "About sugar."}, "what is it about?")


def test_labels_of_a_data_set(caplog):
    lm = model()
    labeler = LLMLabeler(lm, TAXONOMY)
    found = labeler.label(rows())
    assert found["label"][:] == [0, 1, 2, 0] and found.features["label"].names == ["Skin", "Sugar", "Other"]
    assert found["labels"][:] == [[1, 0], [0, 1], [0, 0], [1, 0]] and found["rationale"][0] == "r"
    assert len(lm.log) == 3 and labeler.counts["unknown"] == 2  # a repeated text is asked about once
    assert "33 % of the texts fit no label" in caplog.text and "not in the taxonomy" in caplog.text


def test_a_budget_that_ends_leaves_rows_without_a_label():
    found = LLMLabeler(model(budget=Budget(max_calls=1), batch_size=1), TAXONOMY).label(rows())
    assert found["label"][:] == [0, -1, -1, 0] and "BudgetExceeded" in found["llm_error"][1]


def test_a_model_that_only_scores_chooses_the_best_description():
    def scores(request, labels):
        return [1.0 if request.text.split()[0] in label.casefold() else 0.0 for label in labels]

    lm = ScriptedLM(scores=scores, progress=False)
    lm.capabilities = frozenset({"score"})
    found = LLMLabeler(lm, TAXONOMY).label(rows())
    assert found["label"][:] == [0, 1, 0, 0] and found["llm_raw"][1] == "Sugar: About sugar."
    assert found["labels"][:] == [[1, 0], [0, 1], [1, 0], [1, 0]]


def test_bad_data_is_named():
    labeler = LLMLabeler(model(), TAXONOMY)
    with pytest.raises(KeyError, match="text_column"):
        labeler.label(rows(), "body")
    with pytest.raises(ValueError, match="column 'label' already"):
        labeler.label(rows().add_column("label", [0] * 4))
    with pytest.raises(ValueError, match="is empty"):
        labeler.label(rows([]).cast(datasets.Features({"text": datasets.Value("string")})))


def test_a_judge_prefers_right_labels():
    labelled = LLMLabeler(model(), TAXONOMY).label(rows())
    found = evaluate_taxonomy(TAXONOMY, labelled, model(model_id="judge"))
    assert found["coverage"] == 0.75 and found["pairwise_accuracy"] == 1.0 and found["relevance"] == 0.5
    assert found["choices"] == {0: 0, 1: 0, 3: 0}
    wrong = labelled.remove_columns("label").add_column("label", [1, 0, 2, 1])
    wrong = wrong.cast_column("label", TAXONOMY.as_class_label())
    assert evaluate_taxonomy(TAXONOMY, wrong, model(), seed=3)["pairwise_accuracy"] == 0.0
    judge = ScriptedLM(scores=lambda r, labels: [1.0, 0.0] if "skin" in r.text else [0.0, 1.0], progress=False)
    judge.capabilities = frozenset({"score"})
    scored = evaluate_taxonomy(TAXONOMY, labelled, judge, sample_size=2)
    assert scored["pairwise_accuracy"] == 1.0 and scored["judged"] == 2 and scored["relevance"] is None
