"""Black-box language models: one small interface to a local model, an endpoint, a sentence encoder or a script.

Batched generation, scores of label words, JSON with validation and repair, a disk cache that several processes may
share, retries, a budget, and a count of what was spent. Names load on first use: importing this package loads neither
torch nor transformers.

```python
from hf_labels.lm import TransformersLM, verbalize

lm = TransformersLM.from_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct", cache_dir="cache")
scores = lm.score_labels(["The film was a joy. Sentiment:"], verbalize(["positive", "negative"]))
scores.probs(), lm.usage
```
"""

from importlib import import_module
from typing import Any

_NAMES = {
    "BlackBoxLM": "base",
    "Budget": "types",
    "BudgetExceeded": "errors",
    "DiskCache": "cache",
    "EmbeddingLM": "embedding",
    "InferenceClientLM": "inference_client",
    "ItemError": "errors",
    "LMError": "errors",
    "LabelScores": "scoring",
    "MalformedAnswer": "errors",
    "Message": "types",
    "NoRule": "scripted",
    "Part": "types",
    "RateLimit": "errors",
    "Request": "types",
    "Response": "types",
    "ScriptedLM": "scripted",
    "Structured": "structured",
    "TransformersLM": "transformers_lm",
    "UnsupportedCapability": "errors",
    "Usage": "types",
    "as_request": "types",
    "extract_json": "structured",
    "first_token_scores": "first_token",
    "label_dataset": "labelling",
    "load_gguf": "gguf",
    "score_tokens": "scoring",
    "smollm2_gguf_path": "gguf",
    "softmax": "scoring",
    "verbalize": "scoring",
}
__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(import_module(f"hf_labels.lm.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'hf_labels.lm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
