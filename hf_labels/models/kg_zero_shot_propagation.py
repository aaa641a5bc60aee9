"""`DGPModel`: classifier weights of every node of a graph, by propagation from the nodes' word vectors.

Source: Kampffmeyer et al., CVPR 2019, arXiv:1805.11724 (DGP, SGCN; `cyvius96/DGP`); Wang et al., CVPR 2018 (GCNZ).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import trange
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from hf_labels.labels.kg_zero_shot import distance_groups, normalise_in, normalise_symmetric
from hf_labels.losses.kg_zero_shot import classifier_weight_loss

VARIANTS = ("dgp", "sgcn", "gcn_dense", "gcnz")


@strict
class DGPConfig(PreTrainedConfig):
    """Settings of [`DGPModel`].

    Parameters:
        variant (`str`, *optional*, defaults to `"dgp"`): `"dgp"` (groups of ancestors with attention, descendants and
            ancestors in turn), `"sgcn"` (edges both ways with self loops, one matrix), `"gcn_dense"` (edges and self
            loops, both ways in turn, bias after the propagation), `"gcnz"` (symmetric normalisation).
        num_nodes, num_edges (`int`): Of the graph; its edges are saved with the weights.
        input_size (`int`, *optional*, defaults to 300): Width of the nodes' vectors.
        hidden_sizes (`list[int]`, *optional*, defaults to `[2048]`): Of the layers between.
        output_size (`int`, *optional*, defaults to 2048): Width of a classifier weight.
        lim (`int`, *optional*, defaults to 4): Distances from this one on are one group.
        dropout (`float`, *optional*, defaults to 0.5): Before each layer.
        negative_slope (`float`, *optional*, defaults to 0.2): Of LeakyReLU.
    """

    model_type = "hfl-dgp"

    variant: str = "dgp"
    num_nodes: int = 2
    num_edges: int = 1
    input_size: int = 300
    hidden_sizes: list[int] | None = None
    output_size: int = 2048
    lim: int = 4
    dropout: float = 0.5
    negative_slope: float = 0.2

    def __post_init__(self, **kwargs: Any) -> None:
        self.hidden_sizes = [2048] if self.hidden_sizes is None else self.hidden_sizes
        if self.variant not in VARIANTS:
            raise ValueError(f"`variant` must be one of {', '.join(VARIANTS)}, got {self.variant!r}.")
        super().__post_init__(**kwargs)


@dataclass
class DGPOutput(ModelOutput):
    """`loss` (with targets) and `weights`, unit rows of shape `(n, D)`."""

    loss: Tensor | None = None
    weights: Tensor | None = None


class DGPModel(PreTrainedModel):
    """Reads vectors and edges of a graph, gives one classifier weight per node. Make one with `from_graph`.

    Edges and vectors are buffers that are saved with the weights; the sparse matrices are built from them once.
    """

    config_class = DGPConfig
    config: DGPConfig
    main_input_name = "node_features"
    edges: Tensor
    node_features: Tensor

    def __init__(self, config: DGPConfig):
        super().__init__(config)
        sizes = [config.input_size, *(config.hidden_sizes or []), config.output_size]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        self.register_buffer("edges", torch.zeros(config.num_edges, 2, dtype=torch.int64))
        self.register_buffer("node_features", torch.zeros(config.num_nodes, config.input_size))
        if config.variant == "dgp":
            self.attention = nn.Parameter(torch.ones(2, config.lim + 1))  # descendants, ancestors
        self._matrices: list[list[Tensor]] | None = None
        self._groups: list[np.ndarray] | None = None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, DGPModel):
            init.zeros_(module.edges)
            init.zeros_(module.node_features)
            if module.config.variant == "dgp":
                init.ones_(module.attention)

    @classmethod
    def from_graph(cls, edges: Any, features: Any, output_size: int, **settings: Any) -> DGPModel:
        """A new model for a graph.

        Args:
            edges (`(E, 2)` integers): Child and parent.
            features (`(n, d)`): Vectors of the nodes; rows are brought to length 1.
            output_size (`int`): D.
            settings: Further settings of [`DGPConfig`].
        """
        vectors = F.normalize(torch.as_tensor(np.asarray(features), dtype=torch.float32))
        pairs = torch.as_tensor(np.asarray(edges), dtype=torch.int64).reshape(-1, 2)
        sizes: dict[str, Any] = {"num_nodes": len(vectors), "num_edges": len(pairs), "input_size": vectors.shape[1]}
        model = cls(DGPConfig(**sizes, output_size=output_size, **settings))
        model.set_graph(pairs, vectors)
        return model

    def set_graph(self, edges: Tensor, features: Tensor) -> None:
        """Another graph for the same weights; vectors as they are."""
        self.config.num_nodes, self.config.num_edges = len(features), len(edges)
        self.edges = edges.to(self.device)
        self.node_features = features.to(self._first_weight())
        self._matrices = self._groups = None

    def set_groups(self, groups: Sequence[np.ndarray]) -> None:
        """Groups of (node, ancestor) pairs that were computed elsewhere, until the graph changes; not saved."""
        if len(groups) != self.config.lim + 1:
            raise ValueError(f"There must be `lim + 1` = {self.config.lim + 1} groups, got {len(groups)}.")
        self._groups, self._matrices = list(groups), None

    def _first_weight(self) -> Tensor:
        """A weight, for its device and type."""
        first = self.layers[0]
        assert isinstance(first, nn.Linear)
        return first.weight

    def propagation(self) -> list[list[Tensor]]:
        """Sparse matrices of the descendants' and of the ancestors' phase, one for each group."""
        weight = self._first_weight()
        built = self._matrices
        if built is None or built[0][0].device != weight.device or built[0][0].dtype != weight.dtype:
            built = [[_sparse(one).to(weight) for one in phase] for phase in self._normalised()]
            self._matrices = built
        return built

    def _normalised(self) -> list[list[Any]]:
        edges, count = self.edges.cpu().numpy(), self.config.num_nodes
        if self.config.variant == "dgp":
            groups = self._groups or distance_groups(edges, count, self.config.lim)
            return [[normalise_in(group, count, reverse) for group in groups] for reverse in (False, True)]
        if self.config.variant == "gcnz":
            return [[normalise_symmetric(edges, count)]] * 2
        with_loops = np.concatenate([edges, np.stack([np.arange(count)] * 2, 1)])
        if self.config.variant == "gcn_dense":
            return [[normalise_in(with_loops, count, reverse)] for reverse in (False, True)]
        return [[normalise_in(np.concatenate([with_loops, edges[:, ::-1]]), count)]] * 2

    def forward(
        self,
        node_features: Tensor | None = None,
        labels: Tensor | None = None,
        rows: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> DGPOutput | tuple:
        """Unit classifier weights of all nodes.

        Args:
            node_features (`Tensor` of shape `(n, d)`, *optional*): In place of the saved vectors.
            labels (`Tensor` of shape `(S, D)`, *optional*): Weights that the nodes in `rows` should get.
            rows (`Tensor` of shape `(S,)`, *optional*): Numbers of those nodes; the first S by default. No other row
                enters the loss.
        """
        x = self.node_features if node_features is None else node_features
        phases, last = self.propagation(), len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            x = F.dropout(x, self.config.dropout, self.training)
            matrices = phases[number % 2]
            assert isinstance(layer, nn.Linear)
            if self.config.variant == "gcn_dense":
                x = torch.sparse.mm(matrices[0], x @ layer.weight.T) + layer.bias
            else:
                support = layer(x)
                if self.config.variant == "dgp":
                    shares = self.attention[number % 2].softmax(0)
                    x = sum(share * torch.sparse.mm(one, support) for share, one in zip(shares, matrices, strict=True))
                else:
                    x = torch.sparse.mm(matrices[0], support)
            if number < last:
                x = F.leaky_relu(x, self.config.negative_slope)
        weights, loss = F.normalize(x), None
        if labels is not None:
            picked = weights[: len(labels)] if rows is None else weights[rows]
            loss = classifier_weight_loss(picked, labels)
        if return_dict is False:
            return (weights,) if loss is None else (loss, weights)
        return DGPOutput(loss=loss, weights=weights)

    def fit(
        self,
        targets: Any,
        rows: Any,
        *,
        steps: int = 3000,
        learning_rate: float = 1e-3,
        weight_decay: float = 5e-4,
        seed: int = 0,
        progress: bool = True,
    ) -> list[float]:
        """Train on the weights of the seen classes: Adam on the whole graph at once.

        Args:
            targets (`(S, D)`): Their classifier weights; rows are brought to length 1.
            rows (`(S,)` integers): Their nodes.
            steps (`int`, *optional*, defaults to 3000), learning_rate, weight_decay (`float`, *optional*), seed
            progress (`bool`, *optional*, defaults to `True`): Show a bar.

        Returns:
            `list[float]`: The loss of each step.
        """
        wanted = F.normalize(torch.as_tensor(np.asarray(targets)).to(self._first_weight()))
        places = torch.as_tensor(np.asarray(rows), device=self.device)
        adam = torch.optim.Adam(self.parameters(), learning_rate, weight_decay=weight_decay)
        losses = []
        with torch.random.fork_rng(devices=[]), trange(steps, desc="Propagation", disable=not progress) as bar:
            torch.manual_seed(seed)
            self.train()
            for _ in bar:
                loss = self(labels=wanted, rows=places).loss
                adam.zero_grad()
                loss.backward()
                adam.step()
                losses.append(loss.item())
        self.eval()
        return losses


def _sparse(matrix: Any) -> Tensor:
    coo = matrix.tocoo()
    places = torch.from_numpy(np.stack([coo.row, coo.col]).astype(np.int64))
    values = torch.from_numpy(coo.data.astype(np.float64))
    return torch.sparse_coo_tensor(places, values, coo.shape, check_invariants=False).coalesce()


AutoConfig.register(DGPConfig.model_type, DGPConfig, exist_ok=True)
