"""Label tools of name tagging under domain shift: tag schemes, pseudo tags, entities of events, number of clusters."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)

ROLES = ("Theme", "Cause", "Product", "Site")
NESTED = "Nested_Event-"
_ALIASES = {"AtLoc": "Site", "ToLoc": "Site", "FromLoc": "Site", "Participant": "Theme"}
AGGREGATIONS = ("max", "min", "mean", "centraldist")


def check_tag_names(names: Sequence[str]) -> None:
    """Names of tags in the order of this method: `O`, then `B-X`, `I-X` in turns (B- odd, I- even).

    Raises:
        ValueError: Names the first tag that is out of order.
    """
    if not names or names[0] != "O":
        raise ValueError(
            f"Tag 0 must be 'O', got {names[0] if names else 'no tags'!r}. Encode the tags as O, B-X, I-X."
        )
    for place in range(1, len(names), 2):
        kind = names[place].partition("-")[2]
        after = names[place + 1] if place + 1 < len(names) else "nothing"
        if names[place] != f"B-{kind}" or not kind or after != f"I-{kind}":
            raise ValueError(
                f"Tags {place} and {place + 1} must be B-X and I-X of one type, got {names[place]!r} and {after!r}. "
                "Encode the tags in the order O, B-X, I-X, B-Y, I-Y."
            )


def pseudo_tags(gold: Sequence[int], predicted: Sequence[str | int]) -> list[int]:
    """What a source tagger saw in a target sentence: 1 where it begins an entity, 2 where it goes on with one.

    Only words whose gold target tag is O (0) can get one; gold entities stay what they are.

    Args:
        gold (sequence of `int`): Target tags of the words; -100 = not labelled, gets none.
        predicted (sequence of `str` or `int`): Source tags of the words: names (`B-CELL`) or ids (B- odd, I- even).

    Returns:
        `list[int]`: 0, 1 or 2 per word.

    Raises:
        ValueError: If the lengths differ.
    """
    if len(gold) != len(predicted):
        raise ValueError(f"The sentence has {len(gold)} gold tags and {len(predicted)} predicted ones.")
    out = []
    for truth, guess in zip(gold, predicted, strict=True):
        if isinstance(guess, str):
            prefix = {"B": 1, "I": 2}.get(guess[:1], 0) if guess != "O" else 0
        else:
            number = int(guess)
            prefix = 0 if number <= 0 else 2 - number % 2
        out.append(prefix if truth == 0 else 0)
    return out


def event_similarity(events: Sequence[Any], agg: str = "max", chunk: int = 2048) -> np.ndarray:
    """How alike entities are by the events that they take part in.

    Args:
        events (sequence of arrays of shape `(m_i, d)`): Embeddings of the events of each entity; `m_i` may be 0.
        agg (`str`, *optional*, defaults to `"max"`): Over the cosines of all pairs of events: `max`, `min` or `mean`;
            `centraldist` is the cosine of the mean embeddings.
        chunk (`int`, *optional*): Events whose cosines are in memory at once.

    Returns:
        `np.ndarray` of shape `(n, n)`, float32, symmetric, in [-1, 1]: 0 for entities without events.

    Raises:
        ValueError: For another `agg`, or embeddings that differ in width or are not finite; names the entity.
    """
    if agg not in AGGREGATIONS:
        raise ValueError(f"`agg` must be one of {', '.join(AGGREGATIONS)}, got {agg!r}.")
    rows = [np.asarray(event, dtype=np.float64) for event in events]
    out = np.zeros((len(rows), len(rows)), dtype=np.float32)
    known = [place for place, row in enumerate(rows) if len(row)]
    if not known:
        return out
    width = rows[known[0]].shape[-1]
    for place in known:
        if rows[place].ndim != 2 or rows[place].shape[1] != width or not np.isfinite(rows[place]).all():
            raise ValueError(f"The events of entity {place} must be finite vectors of width {width}.")
    if agg == "centraldist":
        means = _unit(np.stack([rows[place].mean(0) for place in known]))
        out[np.ix_(known, known)] = np.clip(means @ means.T, -1, 1)
        return out
    unit = _unit(np.concatenate([rows[place] for place in known]))
    sizes = np.array([len(rows[place]) for place in known])
    starts = np.cumsum(sizes) - sizes
    reduce = {"max": np.maximum, "min": np.minimum, "mean": np.add}[agg]
    found = np.empty((len(known), len(known)))
    begin = 0
    while begin < len(known):
        end = max(begin + 1, int(np.searchsorted(starts + sizes, starts[begin] + chunk, side="right")))
        first, last = starts[begin], starts[end - 1] + sizes[end - 1]
        pairs = reduce.reduceat(unit[first:last] @ unit.T, starts, axis=1)
        found[begin:end] = reduce.reduceat(pairs, starts[begin:end] - first, axis=0)
        begin = end
    if agg == "mean":
        found /= sizes[:, None] * sizes[None]
    out[np.ix_(known, known)] = np.clip(found, -1, 1)
    return out


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def concat_event(
    event: Mapping[str, Any],
    embeddings: Mapping[str, Any],
    *,
    self_embedding: Any = None,
    nested: Mapping[str, Mapping[str, Any]] | None = None,
    missing: np.random.Generator | None = None,
    roles: Sequence[str] = ROLES,
) -> np.ndarray:
    """Embedding of an event: that of its identifier, then the mean over the arguments of each role.

    Args:
        event (mapping): `identifier` (`"EventType: trigger"`), `args` (role -> names; a name
            `"Nested_Event-<id>"` is another event), and `self_role` (role, place) of the argument that is the entity
            itself, or `None`. AtLoc, ToLoc and FromLoc count as Site, Participant as Theme.
        embeddings (mapping): Name or identifier -> vector (d,).
        self_embedding (array of shape `(d,)`, *optional*): Stands for the entity itself.
        nested (mapping, *optional*): Id -> event. A nested event has no self, and is brought from 5 d to d numbers by
            means of five.
        missing (`np.random.Generator`, *optional*): A role without arguments gets a draw from the normal distribution
            of all embeddings; zeros without a generator.
        roles (sequence of `str`, *optional*): Their order.

    Returns:
        `np.ndarray` of shape `((1 + roles) * d,)`, float64.

    Raises:
        ValueError: If an event or a name is not known, or events contain each other; names it.
    """
    table = {name: np.asarray(vector, dtype=np.float64) for name, vector in embeddings.items()}
    mine = None if self_embedding is None else np.asarray(self_embedding, dtype=np.float64)
    return _Concat(table, nested or {}, missing, tuple(roles)).of(event, mine, ())


class _Concat:
    def __init__(self, table: dict[str, np.ndarray], nested: Mapping[str, Any], rng: Any, roles: tuple[str, ...]):
        self.table, self.nested, self.rng, self.roles = table, nested, rng, roles
        rows = np.stack(list(table.values())) if table else np.zeros((1, 1))
        self.mean, self.width = rows.mean(0), rows.shape[1]
        self.cov = np.cov(rows, rowvar=False).reshape(self.width, self.width) if rng is not None else None

    def of(self, event: Mapping[str, Any], mine: np.ndarray | None, path: tuple[str, ...]) -> np.ndarray:
        arguments: dict[str, list[np.ndarray]] = {role: [] for role in self.roles}
        own = event.get("self_role")
        for role, names in event["args"].items():
            place = _ALIASES.get(role, role)
            if place not in arguments:
                raise ValueError(f"Event {event['identifier']!r} has the unknown role {role!r}; roles: {self.roles}.")
            for number, name in enumerate(names):
                is_self = own is not None and mine is not None and (own[0], own[1]) == (role, number)
                arguments[place].append(mine if is_self else self._argument(name, path))  # type: ignore[arg-type]
        parts = [self._known(event["identifier"])]
        parts += [np.mean(values, axis=0) if values else self._absent() for values in arguments.values()]
        return np.concatenate(parts)

    def _argument(self, name: str, path: tuple[str, ...]) -> np.ndarray:
        if not name.startswith(NESTED):
            return self._known(name)
        key = name.removeprefix(NESTED)
        if key in path:
            raise ValueError(f"Events contain each other: {' -> '.join((*path, key))}.")
        if key not in self.nested:
            raise ValueError(f"There is no nested event {key!r}.")
        whole = self.of(self.nested[key], None, (*path, key))
        return whole.reshape(self.width, -1).mean(1)

    def _known(self, name: str) -> np.ndarray:
        if name not in self.table:
            raise ValueError(f"There is no embedding of {name!r}.")
        return self.table[name]

    def _absent(self) -> np.ndarray:
        if self.rng is None:
            return np.zeros(self.width)
        return self.rng.multivariate_normal(self.mean, self.cov, method="svd")


def event_sentence(template: str, event: Mapping[str, Any], sentences: Mapping[str, str] | None = None) -> str:
    """An event in words, for a sentence encoder.

    Args:
        template (`str`): With `<Trigger>` and `<Theme>`, `<Cause>`, ...: "<Cause> <Trigger> <Theme> at <Site>."
        event (mapping): As in [`concat_event`], with `trigger`; the entity itself becomes "(self)". `modality`
            (`"speculation"` or `"negation"`), if any, adds a sentence.
        sentences (mapping, *optional*): Id of a nested event -> its sentence, inserted in quotes.

    Returns:
        `str`: Several values are joined by ", ", roles without arguments are left out with the word before them.
    """
    import re

    text, own = template.replace("<Trigger>", str(event.get("trigger", ""))), event.get("self_role")
    values: dict[str, list[str]] = {}
    for role, names in event["args"].items():
        for number, name in enumerate(names):
            word = "(self)" if own is not None and (own[0], own[1]) == (role, number) else name
            if word.startswith(NESTED):
                inner = (sentences or {}).get(word.removeprefix(NESTED))
                if inner is None:
                    raise ValueError(f"There is no sentence of the nested event {word.removeprefix(NESTED)!r}.")
                word = f'"{inner.rstrip(".").lower()}"'
            values.setdefault(_ALIASES.get(role, role), []).append(word)
    for role in ROLES:
        if role in values:
            text = text.replace(f"<{role}>", ", ".join(values[role]))
        else:
            text = re.sub(rf"\s*\b(at|in|from|to|by|into|on)?\s*<{role}>", "", text)
    modality = {"speculation": "This is uncertain.", "negation": "This does not happen."}
    more = modality.get(str(event.get("modality")), "")
    return " ".join(f"{text} {more}".split())


def choose_clusters(
    values: Any, sizes: Sequence[int] = tuple(range(2, 20)), penalty: float = 0.02, seed: int = 0
) -> tuple[int, list[float]]:
    """Number of k-means clusters: the smallest `inertia(K) / inertia(1) + penalty * K`.

    Args:
        values (array of shape `(n, d)`): Rows.
        sizes (sequence of `int`, *optional*): K to try; those above n are left out.
        penalty (`float`, *optional*, defaults to 0.02), seed (`int`, *optional*)

    Returns:
        `tuple[int, list[float]]`: The best K, and the scores.

    Raises:
        ValueError: For fewer than 2 rows, or rows that are all the same.
    """
    from sklearn.cluster import KMeans

    rows = np.asarray(values, dtype=np.float64)
    tried = [k for k in sizes if k <= len(rows)]
    total = float(((rows - rows.mean(0)) ** 2).sum()) if len(rows) else 0.0
    if not tried or total == 0:
        raise ValueError(f"Need at least 2 rows that are not all the same, got {len(rows)}.")
    scores = [KMeans(k, random_state=seed, n_init="auto").fit(rows).inertia_ / total + penalty * k for k in tried]
    return tried[int(np.argmin(scores))], scores
