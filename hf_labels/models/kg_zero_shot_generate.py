"""Features for classes without examples: a Gaussian whose mean is predicted, or the generator of f-CLSWGAN.

Source: Xian et al., CVPR 2018, arXiv:1712.00981 (f-CLSWGAN). The Gaussian is ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import trange

from hf_labels.labels.kg_zero_shot import class_means, pooled_covariance, ridge_map
from hf_labels.losses.kg_zero_shot import gradient_penalty


def gaussian_features(
    features: np.ndarray,
    labels: np.ndarray,
    semantics: np.ndarray,
    new: np.ndarray,
    count: int,
    *,
    strength: float = 1.0,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw features of new classes around means that a ridge map predicts from their semantics.

    Args:
        features (`(N, D)`), labels (`(N,)` integers), semantics (`(S, d)`): Of the seen classes.
        new (`(U, d)`): Semantics of the new classes.
        count (`int`): Features for each.
        strength (`float`, *optional*, defaults to 1.0): Of the ridge map from semantics to class means.
        seed (`int`, *optional*)

    Returns:
        `(features, labels)`: `(U count, D)`, and 0 to U - 1. The covariance is the pooled one of the seen classes.
    """
    rng = np.random.default_rng(seed)
    means = class_means(features, labels, len(semantics))
    middle, base = means.mean(0), semantics.mean(0)
    predicted = middle + (new - base) @ ridge_map(semantics - base, means - middle, strength)
    spread = pooled_covariance(features, labels, len(semantics))
    values, vectors = np.linalg.eigh(spread)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    drawn = rng.standard_normal((len(new), count, features.shape[1])) @ root.T + predicted[:, None]
    return drawn.reshape(-1, features.shape[1]), np.repeat(np.arange(len(new)), count)


class FeatureGenerator(nn.Module):
    """Generator and critic of f-CLSWGAN for features in [0, 1].

    Parameters:
        feature_size (`int`): D. semantic_size (`int`): d, also the width of the noise.
        hidden_size (`int`, *optional*, defaults to 4096)
    """

    def __init__(self, feature_size: int, semantic_size: int, hidden_size: int = 4096):
        super().__init__()
        self.noise_size = semantic_size
        self.generator = nn.Sequential(
            nn.Linear(2 * semantic_size, hidden_size),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden_size, feature_size),
            nn.ReLU(),
        )
        self.critic = nn.Sequential(
            nn.Linear(feature_size + semantic_size, hidden_size), nn.LeakyReLU(0.2), nn.Linear(hidden_size, 1)
        )
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)

    def generate(self, semantics: Tensor) -> Tensor:
        """Features `(B, D)` for semantics `(B, d)`, with fresh noise."""
        noise = torch.randn(len(semantics), self.noise_size, device=semantics.device)
        return self.generator(torch.cat([noise, semantics], 1))

    def judge(self, features: Tensor, semantics: Tensor) -> Tensor:
        """The critic's scores `(B, 1)`."""
        return self.critic(torch.cat([features, semantics], 1))


def fclswgan_features(
    features: np.ndarray,
    labels: np.ndarray,
    semantics: np.ndarray,
    new: np.ndarray,
    count: int,
    *,
    hidden_size: int = 4096,
    steps: int = 2000,
    batch_size: int = 64,
    critic_steps: int = 5,
    penalty: float = 10.0,
    beta: float = 0.01,
    learning_rate: float = 1e-4,
    seed: int = 0,
    progress: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Features of new classes from a generator that is trained on the seen ones (f-CLSWGAN).

    Args:
        features, labels, semantics, new, count, seed: As in [`gaussian_features`].
        hidden_size (`int`, *optional*, defaults to 4096): Of generator and critic.
        steps (`int`, *optional*, defaults to 2000): Of the generator; each after `critic_steps` of the critic.
        batch_size (`int`, *optional*, defaults to 64), critic_steps (`int`, *optional*, defaults to 5)
        penalty (`float`, *optional*, defaults to 10.0): Weight of the gradient penalty.
        beta (`float`, *optional*, defaults to 0.01): Weight of a classifier of the real features.
        learning_rate (`float`, *optional*, defaults to 1e-4): Adam with betas (0.5, 0.999).
        progress (`bool`, *optional*, defaults to `True`): Show a bar.

    Returns:
        `(features, labels)` as in [`gaussian_features`]. Features are scaled to [0, 1] for the training and back.
    """
    low = features.min(0)
    width = np.maximum(features.max(0) - low, 1e-12)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        x, a = (torch.as_tensor(part, dtype=torch.float32) for part in ((features - low) / width, semantics))
        y = torch.as_tensor(labels)
        net = FeatureGenerator(x.shape[1], a.shape[1], hidden_size)
        head = _softmax_head(x, y, len(a))
        adams = [
            torch.optim.Adam(part.parameters(), learning_rate, betas=(0.5, 0.999))
            for part in (net.generator, net.critic)
        ]
        for _ in trange(steps, desc="f-CLSWGAN", disable=not progress):
            for _ in range(critic_steps):
                rows = torch.randint(len(x), (batch_size,))
                real, given = x[rows], a[y[rows]]
                fake = net.generate(given).detach()
                share = torch.rand(batch_size, 1)
                slope = gradient_penalty(lambda mixed, given=given: net.judge(mixed, given), real, fake, share)  # type: ignore[misc]
                loss = net.judge(fake, given).mean() - net.judge(real, given).mean() + penalty * slope
                _step(adams[1], loss)
            rows = torch.randint(len(x), (batch_size,))
            given = a[y[rows]]
            fake = net.generate(given)
            _step(adams[0], -net.judge(fake, given).mean() + beta * F.cross_entropy(head(fake), y[rows]))
        with torch.no_grad():
            wanted = torch.as_tensor(np.repeat(new, count, 0), dtype=torch.float32)
            drawn = net.generate(wanted).double().numpy() * width + low
    return drawn, np.repeat(np.arange(len(new)), count)


def _step(adam: torch.optim.Adam, loss: Tensor) -> None:
    adam.zero_grad()
    loss.backward()
    adam.step()


def _softmax_head(features: Tensor, labels: Tensor, count: int) -> nn.Linear:
    """The classifier of the real features that the generator has to please; frozen."""
    weight, bias = softmax_weights(features.double().numpy(), labels.numpy(), count)
    head = nn.Linear(features.shape[1], count)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))
    return head.requires_grad_(False)


def softmax_weights(
    features: np.ndarray, labels: np.ndarray, count: int, strength: float = 1.0, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Weights `(C, D)` and biases `(C,)` of a softmax classifier (scikit-learn); classes without a row stay at 0.

    Args:
        features (`(N, D)`), labels (`(N,)` integers), count (`int`): C.
        strength (`float`, *optional*, defaults to 1.0): C of the logistic regression.
    """
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=strength, max_iter=2000, **options).fit(features, labels)
    weight, bias = np.zeros((count, features.shape[1])), np.zeros(count)
    present = fitted.classes_
    if len(present) == 2:
        weight[present], bias[present] = np.stack([-fitted.coef_[0], fitted.coef_[0]]) / 2, 0.0
        bias[present] = np.array([-1, 1]) * fitted.intercept_[0] / 2
    else:
        weight[present], bias[present] = fitted.coef_, fitted.intercept_
    return weight, bias
