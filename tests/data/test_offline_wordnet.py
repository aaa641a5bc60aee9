"""WordNet files: a small folder written here, and the real one where it is installed."""

import pytest

from hf_labels.data.offline_wordnet import load_glosses, load_wordnet

LICENCE = "  1 This software and database is being provided to you, the LICENSEE.  \n"
NOUNS = (  # lexicographer file, words, pointers to other nouns, gloss
    (
        26,
        ["pain", "hurting"],
        [("@", 1)],
        'a symptom of some physical hurt; "the patient developed severe pain; it was bad"',
    ),
    (26, ["symptom"], [("~", 0)], "any sensation or change in bodily function; (medicine) evidence of disease"),
    (12, ["pain"], [], "something or someone that causes trouble"),
    (4, ["birth_control"], [], "limiting the number of children born"),
)


def write(folder):
    """Two passes: the first finds the offsets that the second writes."""
    offsets = [0] * len(NOUNS)
    for _ in range(2):
        lines, place = [LICENCE], len(LICENCE)
        for number, (lexfile, words, pointers, gloss) in enumerate(NOUNS):
            offsets[number], told = place, " ".join(f"{word} 0" for word in words)
            links = "".join(f" {symbol} {offsets[target]:08d} n 0000" for symbol, target in pointers)
            line = f"{place:08d} {lexfile:02d} n {len(words):02x} {told} {len(pointers):03d}{links} | {gloss}  \n"
            lines.append(line)
            place += len(line)
        (folder / "data.noun").write_text("".join(lines))
    index: dict[str, list[int]] = {}
    for number, (_, words, _, _) in enumerate(NOUNS):
        for word in words:
            index.setdefault(word, []).append(offsets[number])
    rows = [
        f"{word} n {len(found)} 1 @ {len(found)} 0 {' '.join(f'{one:08d}' for one in found)}  \n"
        for word, found in sorted(index.items())
    ]
    (folder / "index.noun").write_text(LICENCE + "".join(rows))
    for pos in ("verb", "adj", "adv"):
        (folder / f"data.{pos}").write_text(LICENCE)
        (folder / f"index.{pos}").write_text(LICENCE)
    return folder


def test_words_meanings_and_relations(tmp_path):
    wordnet = load_wordnet(write(tmp_path))
    first, second = wordnet.synsets("pain")
    assert first.words == ("pain", "hurting") and (first.lexname, second.lexname) == ("noun.state", "noun.feeling")
    assert first.definition == "a symptom of some physical hurt"  # without the example, whose `;` ends nothing
    (symbol, pos, offset) = first.pointers[0]
    above = wordnet.synset(pos, offset)
    assert symbol == "@" and above.words == ("symptom",) and above.pointers == (("~", "noun", first.offset),)
    assert above.definition.endswith("(medicine) evidence of disease")
    assert [row.offset for row in wordnet.all("noun")] == sorted(row.offset for row in wordnet.all("noun"))
    assert len(list(wordnet.all("noun"))) == len(NOUNS) and not list(wordnet.all("verb"))


@pytest.mark.parametrize(
    "word", ["birth control", "Birth_Control", "birth-control", " birth  control ", "birth controls"]
)
def test_case_blanks_hyphens_and_endings(tmp_path, word):
    assert load_wordnet(write(tmp_path)).define(word) == "limiting the number of children born"


def test_what_is_not_there(tmp_path):
    wordnet = load_wordnet(write(tmp_path))
    assert (
        wordnet.synsets("zebra") == [] and wordnet.define("zebra") is None and wordnet.define("pain", sense=2) is None
    )
    assert wordnet.synsets("pain", "verb") == [] and len(wordnet.synsets("pain", ["verb", "noun"])) == 2
    with pytest.raises(ValueError, match="noun, verb, adj, adv, got 'x'"):
        wordnet.synsets("pain", "x")
    with pytest.raises(ValueError, match="No synset starts at 3"):
        wordnet.synset("noun", 3)
    with pytest.raises(FileNotFoundError, match="apt-get install wordnet-base"):
        load_wordnet(tmp_path / "nowhere")


def test_places_are_searched_in_order(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_LABELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("hf_labels.data.offline_wordnet._PLACES", ())
    monkeypatch.delenv("WNSEARCHDIR", raising=False)
    with pytest.raises(FileNotFoundError, match="WordNet is not there"):
        load_wordnet()
    folders = [tmp_path / "dict", tmp_path / "cache" / "corpora" / "wordnet"]
    for folder in folders:
        folder.mkdir(parents=True)
        write(folder)
    monkeypatch.setenv("WNSEARCHDIR", str(folders[0]))
    assert load_wordnet().folder == folders[1]
    (folders[1] / "data.noun").unlink()
    assert load_wordnet().folder == folders[0]


def test_glosses_are_a_data_set(tmp_path):
    data = load_glosses(wordnet=load_wordnet(write(tmp_path)))
    names = data.features["labels"].names
    assert names == ["noun.act", "noun.feeling", "noun.state"] and data["index"][:] == [0, 1, 2, 3]
    assert [names[label] for label in data["labels"][:]] == ["noun.state"] * 2 + ["noun.feeling", "noun.act"]
    assert data["word"][:] == ["pain", "symptom", "pain", "birth control"] and not any(
        '"' in text for text in data["text"][:]
    )


def _real():
    try:
        return load_wordnet()
    except FileNotFoundError:
        return None


@pytest.mark.skipif(_real() is None, reason="WordNet (Debian package wordnet-base) is not installed")
def test_the_real_files_hold_what_is_known_of_wordnet_3():
    wordnet = _real()
    assert [len(wordnet._index(pos)) for pos in ("noun", "verb", "adj", "adv")] == [117798, 11529, 21479, 4481]
    dog = wordnet.synsets("dogs", "noun")[0]
    assert dog.words == ("dog", "domestic dog", "Canis familiaris") and dog.lexname == "noun.animal"
    above = [wordnet.synset(pos, offset).words[0] for symbol, pos, offset in dog.pointers if symbol == "@"]
    assert above == ["canine", "domestic animal"]
    assert wordnet.synsets("galore")[0].words[0] == "galore"  # a marker such as `(ip)` is cut off
    assert wordnet.define("joy") == "the emotion of great happiness"
