"""Jacobi decoding: guess a whole block of tokens, predict all of them again in parallel, stop when nothing changes.

This file needs torch and transformers only: it is also what a model repository carries as
`custom_generate/generate.py` (see `save_custom_generate`). `generate` at its end is for that use.

Source: Consistency LLM (Kou et al. 2024, arXiv:2403.00835) and CEED-VLA (Song et al. 2025, arXiv:2506.13725), whose
code never crops its KV cache and so attends to keys of older guesses; here the keys of changed tokens are dropped.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig
from transformers.generation import EosTokenCriteria, GenerateDecoderOnlyOutput, MaxLengthCriteria

Init = str | int | Tensor | Callable[[Tensor, int], Tensor]
_NAN = "The model gave NaN logits. Check its weights and its precision (try `dtype=torch.float32`)."
_STATE = "This model keeps a state that cannot be rolled back. Pass `use_cache=False`."
_PLACEHOLDERS = ("image_token_id", "image_token_index", "video_token_id", "video_token_index", "audio_token_id")


@dataclass
class JacobiStats:
    """What one call of [`jacobi_generate`] did.

    Attributes:
        forward_passes (`int`): Calls of the model, prefill and confirming passes included.
        iterations (`list[int]`): Passes over each block.
        row_iterations (`list[list[int]]`): Per block and row, the last pass that changed a token of the row.
        new_tokens (`list[int]`): Tokens that each row received, the first EOS included.
        iterates (`list[LongTensor]`): Per block `(changes + 1, B, n)`: the guess, then the block after each pass that
            changed it (a confirming pass changes nothing).
        next_tokens (`list[LongTensor]`): Per block `(B,)`: the token after it, as the last pass predicts it.
    """

    forward_passes: int = 0
    iterations: list[int] = field(default_factory=list)
    row_iterations: list[list[int]] = field(default_factory=list)
    new_tokens: list[int] = field(default_factory=list)
    iterates: list[Tensor] = field(default_factory=list)
    next_tokens: list[Tensor] = field(default_factory=list)


@dataclass
class JacobiOutput(GenerateDecoderOnlyOutput):
    """`GenerateDecoderOnlyOutput` with `stats` ([`JacobiStats`])."""

    stats: JacobiStats | None = None


@torch.no_grad()
def jacobi_generate(
    model: Any,
    input_ids: Tensor,
    logits_processor: Any = None,
    stopping_criteria: Any = None,
    generation_config: GenerationConfig | None = None,
    *,
    block_size: int = 16,
    max_jacobi_iter: int | None = None,
    exit_tolerance: int | None = None,
    init: Init = "prompt",
    fuse_prefill: bool = True,
    return_jacobi_stats: bool = False,
    token_callback: Callable[[Tensor], None] | None = None,
    generator: torch.Generator | None = None,
    **model_kwargs: Any,
) -> Tensor | JacobiOutput:
    """Greedy decoding of a decoder-only model in blocks of parallel guesses.

    Use it as `model.generate(..., do_sample=False, custom_generate=jacobi_generate, block_size=16)`, or directly: that
    saves the preparation of `generate`. Without `generation_config` a direct call takes `max_new_tokens`
    (default: `block_size`), `eos_token_id` and `pad_token_id` (default: the model's).

    Equals `generate(do_sample=False)` unless `max_jacobi_iter` or `exit_tolerance` cuts a block short, up to rounding:
    many positions in one pass and one at a time may differ in the last bit, which decides ties.

    Args:
        model (`PreTrainedModel`): Decoder-only language model, with or without image inputs at the first pass.
        input_ids (`LongTensor` of shape `(B, P)`): Prompts, left-padded.
        logits_processor, stopping_criteria, generation_config: As prepared by `generate`. Processors are refused.
        block_size (`int`, *optional*, defaults to `16`): Tokens that are guessed together (n in the paper).
        max_jacobi_iter (`int`, *optional*): Early exit: most passes over a block (sigma in the paper). `None`: exact.
        exit_tolerance (`int`, *optional*): Early exit: stop when at most so many tokens of every row changed.
        init (*optional*, defaults to `"prompt"`): First guess. `"prompt"`: drawn from the row's own tokens; `"last"`:
            the last token repeated; `"zero"`: token 0; an `int`: that token; a tensor `(n,)` or `(B, n)`, one block or
            all new tokens long; or a function `(tokens (B, L), n) -> (B, n)`.
        fuse_prefill (`bool`, *optional*, defaults to `True`): First pass over prompt and guess together. `False` runs
            the prompt alone first, which finds the first token before the block is guessed.
        return_jacobi_stats (`bool`, *optional*, defaults to `False`): Return a [`JacobiOutput`] with `stats`.
        token_callback (*optional*): Called with each finished block `(B, n)`; takes the place of a streamer.
        generator (`torch.Generator`, *optional*): For `init="prompt"`.
        model_kwargs: `attention_mask`, `past_key_values`, `use_cache`, `pixel_values`, ... as `generate` passes them.

    Returns:
        `LongTensor` `(B, P + new)`, pad after EOS; [`JacobiOutput`] with statistics or `return_dict_in_generate`.

    Raises:
        ValueError: For sampling, beams, processors, other stopping criteria, an empty or right-padded prompt, sizes
            below one, an encoder-decoder model, a cache that cannot be cropped, or logits that are NaN.

    Cost: at most one pass per new token, over at most `n` positions (the first also over the prompt).
    """
    model = model.get_base_model() if hasattr(model, "get_base_model") else model  # adapters are in its layers
    _refuse_sizes(block_size=(block_size, 1), max_jacobi_iter=(max_jacobi_iter, 1), exit_tolerance=(exit_tolerance, 0))
    config, max_length, mask_length = _settle(model, input_ids, generation_config, block_size, model_kwargs)
    _refuse(model, input_ids, config, logits_processor, stopping_criteria, model_kwargs)
    _refuse_sizes(max_new_tokens=(max_length - input_ids.shape[1], 1))
    run = _Run(model, input_ids, mask_length, model_kwargs)
    eos, pad = _end_tokens(config, run.tokens.device)
    finished = torch.zeros(len(input_ids), dtype=torch.bool, device=run.tokens.device)
    stats = JacobiStats()
    first, over = None if fuse_prefill else run.prefill(), False
    while not over:
        n = min(block_size, max_length - run.tokens.shape[1])
        block = _guess(init, run, n, input_ids.shape[1], generator)
        if first is not None:
            block = torch.cat([first, block[:, 1:]], dim=1)
        iterates = [block] if return_jacobi_stats else None
        block, accepted, next_token, passes = _solve(
            run, block, first is not None, max_jacobi_iter, exit_tolerance, eos, finished, iterates
        )
        if iterates is not None:
            _note_block(stats, iterates, next_token, passes)
        block, finished, length, over = _end_rows(block, finished, eos, pad)
        over = over or run.tokens.shape[1] + n >= max_length
        first = next_token.unsqueeze(1) if accepted == n else None
        run.extend(block[:, :length], n - (min(accepted, length - 1) if over else accepted))
        if token_callback is not None:
            token_callback(block[:, :length].to(input_ids.device))
    sequences: Any = run.tokens.to(input_ids.device)
    if not return_jacobi_stats and not config.return_dict_in_generate:
        return sequences
    stats.forward_passes = run.passes
    stats.new_tokens = (~_after_end(run.tokens[:, input_ids.shape[1] :], eos)).sum(dim=1).tolist()
    return JacobiOutput(sequences=sequences, past_key_values=run.cache, stats=stats if return_jacobi_stats else None)


class _Run:
    """The tokens so far, the cache, and how many of those tokens the cache holds."""

    def __init__(self, model: Any, input_ids: Tensor, mask_length: int, model_kwargs: dict[str, Any]):
        self.model, self.kwargs = model, dict(model_kwargs)
        self.tokens = input_ids.to(model.device)
        self.prompt_mask = self.kwargs.get("attention_mask")
        self.cache = None
        if self.kwargs.setdefault("use_cache", True) is False:
            self.kwargs.pop("past_key_values", None)
        else:
            self.cache = self.kwargs.get("past_key_values")
            if self.cache is None:
                self.cache = self.kwargs["past_key_values"] = DynamicCache(config=model.config)
            if not isinstance(self.cache, DynamicCache):
                raise ValueError(f"{type(self.cache).__name__} cannot be cropped. Leave out `cache_implementation`.")
            self.cache.activate_past_recording()
        held = 0 if self.cache is None else self.cache.get_seq_length()
        # How many of `tokens` the cache holds: prompts go on from it with all tokens, or new ones and a mask over all.
        self.done = held if mask_length == input_ids.shape[1] else 0
        if self.done >= input_ids.shape[1]:
            raise ValueError(f"The cache holds {held} tokens: pass at least one more than it holds.")
        self.passes, self.width, self.wide = 0, input_ids.shape[1], self.kwargs
        self.keep_logits = "logits_to_keep" in _parameters(type(model).forward)
        holes = [getattr(model.config, name, None) for name in _PLACEHOLDERS]
        self.holes = torch.tensor([i for i in holes if isinstance(i, int)], device=self.tokens.device)
        self.kwargs.pop("logits_to_keep", None)

    def predict(self, block: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Run what the cache lacks of `tokens ++ block`; argmax `(B, count)` at its last positions, and its logit."""
        if len(self.holes) and (self.passes == 0 or self.cache is None):  # no image belongs to a guessed placeholder
            block = block.masked_fill(torch.isin(block, self.holes), 0)
        start = self.done - self.tokens.shape[1]
        if self.cache is None:
            feed = torch.cat([self.tokens, block], dim=1)
        else:
            feed = block[:, start:] if start >= 0 else torch.cat([self.tokens[:, start:], block], dim=1)
        grown = self.tokens.shape[1] + block.shape[1] - self.width
        if grown:  # mask, positions and token types, once per block
            self.wide = self.model._update_model_kwargs_for_generation({}, dict(self.wide), num_new_tokens=grown)
            self.width += grown
        inputs = self.model.prepare_inputs_for_generation(feed, is_first_iteration=self.passes == 0, **self.wide)
        if self.keep_logits:
            inputs["logits_to_keep"] = count
        logits = self.model(**inputs, return_dict=True).logits[:, -count:]
        if self.passes == 0 and self.cache is not None and not self.cache.is_croppable:
            raise ValueError(_STATE)
        self.passes += 1
        top, pred = logits.max(dim=-1)  # the first of equals, as `argmax`, but faster; NaN is the largest
        return pred.to(self.tokens.device), top

    def prefill(self) -> Tensor:
        """Run the prompt alone; the first new token `(B, 1)`."""
        pred, top = self.predict(self.tokens[:, :0], 1)
        if bool(top.isnan().any()):
            raise ValueError(_NAN)
        self.drop(0, self.tokens.shape[1])
        return pred

    def drop(self, surplus: int, done: int) -> None:
        """Forget the last `surplus` keys, once after each pass (sliding windows are cut back here)."""
        if self.cache is not None:
            self.cache.crop(-surplus)
            self.done = done

    def extend(self, block: Tensor, surplus: int) -> None:
        """Append a finished block, of whose keys the last `surplus` are not its own."""
        fed = self.width
        self.tokens = torch.cat([self.tokens, block], dim=1)
        self.drop(surplus, fed - surplus)


def _solve(run, block, known_first, max_iter, tolerance, eos, finished, iterates):
    """Iterate one block until it is fixed or an exit is reached.

    Returns the block, how many of its tokens have valid keys in the cache (which still holds the last pass whole), the
    token after it as the last pass predicts it `(B,)`, and the passes.
    """
    n, passes, before = block.shape[1], 0, run.tokens.shape[1]
    known = int(known_first)  # leading tokens that no pass can change: each is predicted from final ones
    while True:
        pred, top = run.predict(block, n - known + 1)
        passes += 1
        new = torch.cat([block[:, :known], pred[:, :-1]], dim=1)
        same = new == block
        lead = same.long().cumprod(dim=1).sum(dim=1)
        if eos is not None:  # a row that has ended waits for nothing: an EOS at or before `lead` is final
            first_end = (~_after_end(new, eos)).sum(dim=1) - 1
            ended = torch.isin(new.gather(1, first_end.unsqueeze(1)), eos).squeeze(1) & (first_end <= lead)
            lead = lead.masked_fill(finished | ended, n)
        moved = (n - same.sum(dim=1)).max()
        accepted, changed, bad = torch.stack([lead.min(), moved, top.isnan().any().to(moved)]).tolist()
        if bad:
            raise ValueError(_NAN)
        block = new
        if iterates is not None and changed:
            iterates.append(block)
        if accepted >= n - 1 or passes == max_iter or (tolerance is not None and changed <= tolerance):
            return block, accepted, pred[:, -1], passes
        run.drop(n - accepted, before + accepted)
        known = accepted + 1


def _after_end(tokens: Tensor, eos: Tensor | None) -> Tensor:
    """Which tokens come after the first EOS of their row."""
    if eos is None:
        return torch.zeros_like(tokens, dtype=torch.bool)
    return (is_end := torch.isin(tokens, eos).long()).cumsum(dim=1) > is_end


def _end_rows(block, finished, eos, pad):
    """Pad after the end; returns block, rows that have ended, columns in use and whether all rows have ended."""
    if eos is None:
        return block, finished, block.shape[1], False
    after = _after_end(block, eos) | finished.unsqueeze(1)
    block = block.masked_fill(after, pad)
    finished = finished | torch.isin(block.masked_fill(after, -1), eos).any(dim=1)
    used, over = torch.stack([(~after).sum(dim=1).max(), finished.all().long()]).tolist()
    return block, finished, used if over else block.shape[1], bool(over)


def _note_block(stats: JacobiStats, iterates: list[Tensor], next_token: Tensor, passes: int) -> None:
    trace = torch.stack(iterates)
    moved = (trace != torch.cat([trace[:1], trace[:-1]])).any(dim=-1)  # (changes + 1, B)
    order = torch.arange(len(trace), device=trace.device).unsqueeze(1)
    stats.iterations.append(passes)
    stats.row_iterations.append((moved * order).amax(dim=0).tolist())
    stats.iterates.append(trace)
    stats.next_tokens.append(next_token)


def _guess(init: Init, run: _Run, n: int, prompt_length: int, generator: torch.Generator | None) -> Tensor:
    """The first guess `(B, n)` of a block."""
    tokens = run.tokens
    rows = len(tokens)
    if isinstance(init, str) and init not in ("prompt", "last", "zero"):
        raise ValueError(f'`init` must be "prompt", "last", "zero", an id, a tensor or a function, got {init!r}.')
    init = 0 if isinstance(init, str) and init == "zero" else init
    if isinstance(init, str):
        return _draw(run, n, prompt_length, generator) if init == "prompt" else tokens[:, -1:].expand(rows, n)
    if callable(init):
        guess = init(tokens, n)
    elif isinstance(init, int):
        guess = torch.full((rows, n), init)
    else:
        guess = init.expand(rows, init.shape[-1])
        offset = tokens.shape[1] - prompt_length
        guess = guess[:, offset if guess.shape[1] >= offset + n else 0 :][:, :n]
    vocab = getattr(run.model.config.get_text_config(), "vocab_size", None)
    if guess.shape != (rows, n) or guess.is_floating_point():
        shape = tuple(guess.shape)
        raise ValueError(f"`init` must give integer token ids of shape ({rows}, {n}), got {guess.dtype} of {shape}.")
    low, high = int(guess.min()), int(guess.max())
    if low < 0 or (vocab is not None and high >= vocab):
        raise ValueError(f"`init` must hold token ids in [0, {vocab}), got {low} to {high}.")
    return guess.to(device=tokens.device, dtype=tokens.dtype)


def _draw(run: _Run, n: int, prompt_length: int, generator: torch.Generator | None) -> Tensor:
    """Tokens of the row itself, uniformly with replacement; neither padding nor image placeholders."""
    tokens = run.tokens
    device = tokens.device if generator is None else generator.device
    if run.prompt_mask is None and not len(run.holes):
        at = torch.randint(tokens.shape[1], (len(tokens), n), generator=generator, device=device)
        return tokens.gather(1, at.to(tokens.device))
    weights = torch.ones(tokens.shape, device=tokens.device)
    if run.prompt_mask is not None:
        weights[:, :prompt_length] = run.prompt_mask[:, -prompt_length:].to(weights)
    weights.masked_fill_(torch.isin(tokens, run.holes), 0.0)
    weights[:, -1] += weights.sum(dim=1) == 0
    at = torch.multinomial(weights.to(device), n, replacement=True, generator=generator)
    return tokens.gather(1, at.to(tokens.device))


def _settle(model, input_ids, config, block_size, model_kwargs):
    """The generation config, the longest length, and the length of the attention mask before it was left out.

    A direct call is prepared here, in `model_kwargs`, as `generate` would.
    """
    length = input_ids.shape[-1]
    if config is None:
        stock = getattr(model, "generation_config", None)
        config = GenerationConfig(
            max_new_tokens=model_kwargs.pop("max_new_tokens", block_size),
            eos_token_id=model_kwargs.pop("eos_token_id", getattr(stock, "eos_token_id", None)),
            pad_token_id=model_kwargs.pop("pad_token_id", getattr(stock, "pad_token_id", None)),
        )
    mask = model_kwargs.get("attention_mask")
    mask_length = getattr(config, "_mask_length", length) if mask is None else mask.shape[-1]
    if not hasattr(config, "_eos_token_tensor") and input_ids.dim() == 2:
        whole = mask is None or (mask.dim() == 2 and bool(mask.all()))
        if model_kwargs.get("position_ids") is None and "position_ids" in _parameters(type(model).forward):
            told = dict(model_kwargs, attention_mask=torch.ones_like(input_ids) if mask is None else mask)
            model_kwargs["position_ids"] = model._prepare_position_ids_for_generation(input_ids, told)
        if whole:
            model_kwargs["attention_mask"] = None
    longest = config.max_length or length + block_size
    return config, longest if config.max_new_tokens is None else length + config.max_new_tokens, mask_length


def _end_tokens(config: GenerationConfig, device: torch.device) -> tuple[Tensor | None, int]:
    eos = config._eos_token_tensor if hasattr(config, "_eos_token_tensor") else config.eos_token_id
    pad = config._pad_token_tensor if hasattr(config, "_pad_token_tensor") else config.pad_token_id
    if eos is None:
        return None, 0
    eos = torch.as_tensor(eos, device=device).reshape(-1)
    return eos, int(eos[0] if pad is None else pad)


@functools.lru_cache(maxsize=64)
def _parameters(forward: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(forward).parameters)


def _refuse_sizes(**sizes: tuple[int | None, int]) -> None:
    for name, (value, least) in sizes.items():
        if value is not None and value < least:
            raise ValueError(f"`{name}` must be at least {least}, got {value}.")


def _refuse(model, input_ids, config, processors, criteria, model_kwargs) -> None:
    """Everything that this decoding cannot do exactly."""
    mask, outputs = model_kwargs.get("attention_mask"), ("scores", "logits", "attentions", "hidden_states")
    names = [type(item).__name__ for item in processors or ()]
    fine = (MaxLengthCriteria, EosTokenCriteria)
    others = [type(item).__name__ for item in criteria or () if not isinstance(item, fine)]
    checks = {
        "Jacobi decoding needs a decoder-only model; this one is encoder-decoder.": model.config.is_encoder_decoder,
        "Jacobi decoding is greedy: pass `do_sample=False`.": config.do_sample,
        "Jacobi decoding has no beams: pass `num_beams=1`.": (config.num_beams or 1) > 1,
        f"Jacobi decoding takes no logits processors (they need each position's own history), got {names}. Reset the "
        "options of `generation_config` that make them.": names,
        f"Jacobi decoding stops at EOS and at the length only, got {others}.": others,
        "`inputs_embeds` are not supported: pass `input_ids`.": model_kwargs.get("inputs_embeds") is not None,
        "`input_ids` must be of shape (B, P) with P of at least 1: start an empty prompt with the BOS token.": (
            input_ids.dim() != 2 or input_ids.shape[1] == 0
        ),
        "`attention_mask` must be of shape (B, P).": mask is not None and mask.dim() != 2,
        "`prefill_chunk_size` is not supported.": config.prefill_chunk_size,
        "Per-token outputs (scores, logits, attentions, hidden states) are not kept: switch them off.": (
            config.return_dict_in_generate and any(getattr(config, f"output_{name}") for name in outputs)
        ),
        _STATE: getattr(model, "_is_stateful", False) and model_kwargs.get("use_cache", True),
    }
    for message, wrong in checks.items():
        if wrong:
            raise ValueError(message)
    if mask is not None and bool((mask[:, -1] == 0).any()):
        row = int((mask[:, -1] == 0).nonzero()[0])
        raise ValueError(f"The prompt of row {row} is padded on the right. Use `padding_side='left'`.")


def generate(model: Any, inputs: Any = None, generation_config: Any = None, **kwargs: Any) -> Any:
    """Entry of a `custom_generate` folder: `generate` of the model, decoding with [`jacobi_generate`]."""
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    return type(model).generate(model, inputs, generation_config, custom_generate=jacobi_generate, **kwargs)
