"""A tiny causal model and a tiny vision model with a tokenizer made here; a loopback OpenAI-compatible server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for p in m['content'] %}{% if p['type'] == 'image' %}<image>{% else %}{{ p['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = [
    "the film was good and the food was bad, positive negative neutral",
    "sports politics business weather: yes no maybe A B C D user assistant system",
    "a long review of a short film, in which nothing happens twice",
]


def make_tokenizer(template: str | None = TEMPLATE) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(unk_token=None))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<pad>", "<eos>", "<|im_start|>", "<|im_end|>", "<image>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", additional_special_tokens=special[2:]
    )
    tokenizer.chat_template = template
    return tokenizer


def make_model(vocabulary: int, seed: int = 0, positions: int = 128, **changes: Any) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=positions,
        initializer_range=0.4,
        eos_token_id=1,
        bos_token_id=None,
        pad_token_id=0,
        **changes,
    )
    return LlamaForCausalLM(config)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return make_tokenizer()


@pytest.fixture(scope="session")
def plain_tokenizer() -> Any:
    """Without a chat template."""
    return make_tokenizer(None)


@pytest.fixture
def model(tokenizer: Any) -> Any:
    return make_model(len(tokenizer))


@pytest.fixture(scope="session")
def vision() -> tuple[Any, Any]:
    """A LLaVA of two small layers, and its processor."""
    import torch
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        initializer_range=0.4,
        eos_token_id=1,
        pad_token_id=0,
    )
    seen = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        projection_dim=16,
        initializer_range=0.4,
    )
    config = LlavaConfig(
        vision_config=seen,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    )
    return LlavaForConditionalGeneration(config), processor


def chat_answer(text: str | list[str] | None, usage: dict | None = None, finish: str = "stop", **more: Any) -> dict:
    texts = text if isinstance(text, list) else [text]
    choices = [
        {"index": i, "message": {"role": "assistant", "content": one}, "finish_reason": finish, "logprobs": None}
        for i, one in enumerate(texts)
    ]
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": choices, **more}
    return body if usage is None else {**body, "usage": usage}


class Server:
    """Answers `POST /v1/chat/completions` as `answer(body, number of the request)` says.

    An answer is a dict (200), `(status, dict or bytes, headers)`, or one of the words "reset" (the connection is cut)
    and "hang" (nothing for a second).
    """

    def __init__(self) -> None:
        self.bodies: list[dict] = []
        self.headers: list[dict] = []
        self.paths: list[str] = []
        self.running = self.most_running = 0
        self.answer: Callable[[dict, int], Any] = lambda body, number: chat_answer("yes")
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer._post(self)

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=lambda: self.http.serve_forever(0.01), daemon=True).start()

    def _post(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.bodies.append(body)
            self.headers.append(dict(handler.headers))
            self.paths.append(handler.path)
            number = len(self.bodies)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        try:
            answer = self.answer(body, number)
        finally:
            with self._lock:  # before the reply is out: the next request may come at once
                self.running -= 1
        self._reply(handler, answer)

    @staticmethod
    def _reply(handler: BaseHTTPRequestHandler, answer: Any) -> None:
        if answer == "reset":
            import socket
            import struct

            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
            handler.close_connection = True
            return
        if answer == "hang":
            time.sleep(1.0)
            answer = chat_answer("too late")
        status, content, headers = answer if isinstance(answer, tuple) else (200, answer, {})
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        try:
            handler.send_response(status)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(data)))
            for name, value in headers.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The loopback server; the rest of the suite runs in the Hub's offline mode, which refuses even 127.0.0.1."""
    import huggingface_hub.constants
    from huggingface_hub.utils import close_session

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    close_session()
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()
    close_session()


@pytest.fixture
def answer_of() -> Callable[..., dict]:
    """The body of a chat completion."""
    return chat_answer


@pytest.fixture
def tiny_lm(tokenizer: Any) -> Callable[..., Any]:
    """Make a TransformersLM over the tiny model."""
    from hf_labels.lm import TransformersLM

    def make(seed: int = 0, positions: int = 128, template: bool = True, **options: Any) -> Any:
        own = tokenizer if template else make_tokenizer(None)
        return TransformersLM(make_model(len(own), seed, positions), own, **options)

    return make
