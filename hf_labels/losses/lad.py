"""Label Assisted Distillation (LAD): a noised label map as a further input channel, and the losses of both stages.

Source: Qiu et al., ECCV 2024, arXiv:2407.13254; formulas as in the authors' code. Channel-wise distillation is
[`~hf_labels.losses.soft_targets.channel_wise_distillation`] (CWD, Shu et al., arXiv:2011.13256).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_labels.losses.mcl_electra_noise import BatchNoise, Generator, RowNoise, as_noise
from hf_labels.losses.soft_targets import channel_wise_distillation, soft_cross_entropy

CODE_STEP = 0.1


def class_codes(num_labels: int, step: float = CODE_STEP) -> Tensor:
    """The fixed code of each class: `(c - (C + 1) / 2) * step` for c = 0 .. C, where C stands for "ignore".

    Args:
        num_labels (`int`): C.
        step (`float`, *optional*, defaults to 0.1): Distance of two codes.

    Returns:
        `Tensor` of shape `(C + 1,)`, float64.
    """
    return (torch.arange(num_labels + 1, dtype=torch.float64) - (num_labels + 1) / 2) * step


def label_channel(
    labels: Tensor,
    codes: Tensor,
    pixel_noise: Tensor | None = None,
    pixel_std: float = 0.03,
    gain: float = 1.7,
    ignore_index: int = 255,
) -> Tensor:
    """`gain * (codes[label] + pixel_std * noise)` at each pixel; all classes are looked up at once.

    Args:
        labels (`Tensor` of shape `(B, H, W)`, integer): Class ids in `[0, C)`, or `ignore_index`.
        codes (`Tensor` of shape `(C + 1,)` or `(B, C + 1)`): Value of each class (of each image); the last one is that
            of ignored pixels.
        pixel_noise (`Tensor` of shape `(B, 1, H, W)`, *optional*): Standard normal numbers.
        pixel_std (`float`, *optional*, defaults to 0.03): Their factor (sigma).
        gain (`float`, *optional*, defaults to 1.7): 100 for images of scale 0 to 255 (the paper), 100 / 58.4 for
            images of deviation 1.
        ignore_index (`int`, *optional*, defaults to 255)

    Returns:
        `Tensor` of shape `(B, 1, H, W)`, of the type of `codes`.

    Raises:
        ValueError: Labels that are no maps of class ids, or out of range (read on the CPU only).
    """
    num_labels = codes.shape[-1] - 1
    check_label_maps(labels, num_labels, ignore_index)
    places = labels.long().masked_fill(labels == ignore_index, num_labels)
    table = codes.to(labels.device).expand(len(labels), -1)
    values = table.gather(1, places.flatten(1)).view(len(labels), 1, *labels.shape[1:])
    if pixel_noise is not None:
        values = values + pixel_std * pixel_noise
    return gain * values


@dataclass(frozen=True)
class LabelNoiser:
    """Makes the label channel.

    Parameters:
        num_labels (`int`): C, classes.
        ignore_index (`int`, *optional*, defaults to 255): Label that means "do not count"; it has a code of its own.
        class_std (`float`, *optional*, defaults to 1.0): Deviation of the random class values (teacher training).
        pixel_std (`float`, *optional*, defaults to 0.03): Deviation of the pixel noise then.
        code_step (`float`, *optional*, defaults to 0.1): Distance of two fixed codes (distillation). With C classes
            they span `0.1 C`: 2.1 on VOC, as the random values do, but far less with few classes, whose borders then
            are faint. `2.1 / C` keeps the span.
        fixed_pixel_std (`float`, *optional*, defaults to 0.02): Deviation of the pixel noise then.
        gain (`float`, *optional*, defaults to 1.7): Factor of all values; see [`label_channel`].

    Raises:
        ValueError: Fewer than two classes, or a negative deviation.
    """

    num_labels: int
    ignore_index: int = 255
    class_std: float = 1.0
    pixel_std: float = 0.03
    code_step: float = CODE_STEP
    fixed_pixel_std: float = 0.02
    gain: float = 1.7

    def __post_init__(self) -> None:
        if self.num_labels < 2:
            raise ValueError(f"`num_labels` must be at least 2, got {self.num_labels}.")
        for name in ("class_std", "pixel_std", "fixed_pixel_std"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"`{name}` must be 0 or more, got {getattr(self, name)}.")

    def random(self, labels: Tensor, generator: Generator = None) -> Tensor:
        """Channel for training the teacher: a normal number for each class of each image, so that it shows shapes
        and not classes.

        Args:
            labels (`Tensor` of shape `(B, H, W)`, integer)
            generator (`torch.Generator` or [`~hf_labels.losses.mcl_electra_noise.RowNoise`], *optional*): Where the
                numbers come from; each call draws new ones.

        Returns:
            `Tensor` of shape `(B, 1, H, W)`, float32.

        Raises:
            ValueError: As [`label_channel`].
        """
        check_label_maps(labels, self.num_labels, self.ignore_index)
        noise = as_noise(generator, labels)
        codes = self.class_std * _normal(noise.uniform(self.num_labels + 1))
        return self._channel(labels, codes, self.pixel_std, noise)

    def fixed(self, labels: Tensor, generator: Generator = None, codes: Tensor | None = None) -> Tensor:
        """Channel for the teacher when it teaches: the code of each class, with little noise.

        Args:
            labels, generator: As in [`random`].
            codes (`Tensor` of shape `(C + 1,)`, *optional*): Other codes, to find out whether the teacher reads them.
        """
        check_label_maps(labels, self.num_labels, self.ignore_index)
        codes = class_codes(self.num_labels, self.code_step).float() if codes is None else codes
        return self._channel(labels, codes, self.fixed_pixel_std, as_noise(generator, labels))

    def _channel(self, labels: Tensor, codes: Tensor, std: float, noise: RowNoise | BatchNoise) -> Tensor:
        pixels = None
        if std > 0:
            pixels = _normal(noise.uniform(labels[0].numel())).view(len(labels), 1, *labels.shape[1:])
        return label_channel(labels, codes, pixels, std, self.gain, self.ignore_index)


def _normal(uniform: Tensor) -> Tensor:
    """Standard normal numbers from uniform ones."""
    return torch.special.ndtri(uniform.clamp(2.0**-24, 1 - 2.0**-24))


def check_label_maps(labels: Tensor, num_labels: int, ignore_index: int = 255) -> None:
    """Refuse labels that are no maps of class ids; their values are read on the CPU only.

    Raises:
        ValueError: Another shape than (B, H, W), an empty batch, floats, or an id that is neither in `[0, C)` nor
            `ignore_index` (image and value named).
    """
    if labels.is_floating_point() or labels.dtype == torch.bool or labels.dim() != 3:
        raise ValueError(
            f"`labels` must be integer class ids of shape (B, H, W), got {labels.dtype} of shape "
            f"{tuple(labels.shape)}. Convert masks to class ids first."
        )
    if not labels.numel():
        raise ValueError(f"The batch is empty: `labels` has shape {tuple(labels.shape)}.")
    if labels.device.type != "cpu":
        return  # checked before training; reading values here would stop the device
    bad = ((labels < 0) | (labels >= num_labels)) & (labels != ignore_index)
    if bad.any():
        image, row, column = bad.nonzero()[0].tolist()
        raise ValueError(
            f"`labels` must be in [0, {num_labels}) or {ignore_index} (ignore), got {int(labels[image, row, column])} "
            f"in image {image} at ({row}, {column}). Check `num_labels` and `do_reduce_labels`."
        )


def upsample(logits: Tensor, size: tuple[int, int], align_corners: bool = True) -> Tensor:
    """Bilinear resize of maps `(B, C, h, w)` to `size`, in float32 or float64."""
    logits = logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)


def segmentation_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    ignore_index: int = 255,
    align_corners: bool = True,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy of up-sampled logits over the pixels that count.

    Args:
        logits (`Tensor` of shape `(B, C, h, w)`)
        labels (`Tensor` of shape `(B, H, W)`, integer)
        ignore_index (`int`, *optional*, defaults to 255)
        align_corners (`bool`, *optional*, defaults to `True`): As the authors' code; stock models use `False`.
        reduction (`str`, *optional*, defaults to `"mean"`): Over the pixels that count, or `"sum"`.

    Returns:
        `Tensor` of shape `()`: 0 with a gradient path when no pixel counts (torch gives NaN).

    Raises:
        ValueError: Labels as in [`check_label_maps`], another batch size, or an unknown `reduction`.
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f"`reduction` must be mean or sum, got {reduction!r}.")
    check_label_maps(labels, logits.shape[1], ignore_index)
    if len(logits) != len(labels):
        raise ValueError(f"`logits` has {len(logits)} images, `labels` has {len(labels)}.")
    large = upsample(logits, tuple(labels.shape[-2:]), align_corners)  # type: ignore[arg-type]
    total = F.cross_entropy(large, labels.long(), ignore_index=ignore_index, reduction="sum")
    return total if reduction == "sum" else total / (labels != ignore_index).sum().clamp_min(1)


def dual_path_consistency(path1: Tensor, path2: Tensor, temperature: float = 4.0) -> Tensor:
    """`CWD(o1, o2) + CWD(o2, o1)`; each term treats its second argument as a constant, so both get a gradient.

    Args:
        path1, path2 (`Tensor` of shape `(B, C, h, w)`): Logits of the same images under two noisings.
        temperature (`float`, *optional*, defaults to 4.0): T.
    """
    return channel_wise_distillation(path1, path2, temperature) + channel_wise_distillation(path2, path1, temperature)


def lad_teacher_loss(
    path1: Tensor,
    path2: Tensor,
    labels: Tensor,
    consistency_weight: float = 5.0,
    temperature: float = 4.0,
    ignore_index: int = 255,
    align_corners: bool = True,
) -> dict[str, Tensor]:
    """`CE(o1) + CE(o2) + weight * consistency`.

    Args:
        path1, path2, temperature: As in [`dual_path_consistency`].
        labels, ignore_index, align_corners: As in [`segmentation_cross_entropy`].
        consistency_weight (`float`, *optional*, defaults to 5.0)

    Returns:
        `dict[str, Tensor]`: `loss`, and its parts `ce1`, `ce2` and `consistency`.
    """
    ce1, ce2 = (segmentation_cross_entropy(o, labels, ignore_index, align_corners) for o in (path1, path2))
    consistency = dual_path_consistency(path1, path2, temperature)
    return {"loss": ce1 + ce2 + consistency_weight * consistency, "ce1": ce1, "ce2": ce2, "consistency": consistency}


def cwd_student_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    distill_weight: float = 3.0,
    temperature: float = 4.0,
    ignore_index: int = 255,
    align_corners: bool = True,
) -> dict[str, Tensor]:
    """`CE(s) + weight * CWD(s, t)`.

    Args:
        student, teacher (`Tensor` of shape `(B, C, h, w)`): Logits; no gradient reaches the teacher.
        labels, ignore_index, align_corners: As in [`segmentation_cross_entropy`].
        distill_weight, temperature (`float`): 3 and 4 in the paper.

    Returns:
        `dict[str, Tensor]`: `loss`, and its parts `ce` and `distillation`.
    """
    ce = segmentation_cross_entropy(student, labels, ignore_index, align_corners)
    distillation = channel_wise_distillation(student, teacher, temperature)
    return {"loss": ce + distill_weight * distillation, "ce": ce, "distillation": distillation}


def pixel_distillation(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Pixel-wise distillation: `T^2` times the mean over pixels of `KL(softmax_c(t / T) || softmax_c(s / T))`.

    Args:
        student, teacher (`Tensor` of shape `(B, C, h, w)`)
        temperature (`float`, *optional*, defaults to 1.0): T.
    """
    return soft_cross_entropy(
        student,
        teacher,
        temperature=temperature,
        divergence="kl",
        targets_are_logits=True,
        scale_by_temperature=True,
        class_dim=1,
    )


def dist_distillation(student: Tensor, teacher: Tensor, beta: float = 1.0, gamma: float = 1.0) -> Tensor:
    """DIST: one minus the Pearson correlation of the class probabilities, per pixel and per class.

    `beta (1 - mean_pixel corr_c(s, t)) + gamma (1 - mean_class corr_pixel(s, t))` over all pixels of the batch.

    Args:
        student, teacher (`Tensor` of shape `(B, C, h, w)`): Logits; the teacher is a constant.
        beta, gamma (`float`, *optional*, default to 1.0): Weights.

    Source: Huang et al., arXiv:2205.10536, eq. 10, as in the authors' segmentation code (no temperature).
    """
    if student.shape != teacher.shape:
        raise ValueError(f"Maps must have one shape, got {tuple(student.shape)} and {tuple(teacher.shape)}.")
    rows = [maps.transpose(1, 3).flatten(0, 2).softmax(1) for maps in (student, teacher.detach())]
    between = 1 - _pearson(*rows).mean()
    within = 1 - _pearson(*(table.T for table in rows)).mean()
    return beta * between + gamma * within


def _pearson(one: Tensor, two: Tensor) -> Tensor:
    """Correlation of the rows of two tables."""
    return F.cosine_similarity(one - one.mean(1, keepdim=True), two - two.mean(1, keepdim=True), dim=1, eps=1e-8)
