"""Linear probe: a logistic regression on frozen features (paper §4.3, Fig. 4).

n videos, Q queries, C width, K classes. Paper does not say how the probe is trained; we fit L2-regularised multinomial
logistic regression to its optimum, because that has no schedule to choose, and choose the regularisation
on a part of the training videos, because the test videos must not choose anything.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stretchysnake.eval.features.extraction import FeatureSet, check_comparable

STRENGTHS = tuple(10.0**exponent for exponent in range(-4, 4))
"""Inverse regularisation tried (scikit-learn's C), strongest regularisation first."""
HELD_OUT = 0.2
"""Share of the training videos on which the regularisation is chosen."""
MAX_STEPS = 100
MAX_PRODUCTS = 500
"""Of the Hessian and a vector, in one step."""
SHARE = 0.25
"""Of the gradient that a step may leave unsolved: smaller ones take fewer steps, and more products in all."""


@dataclass(frozen=True)
class LinearProbe:
    """Standardises features by (mean, scale), then weight (K, C) and bias (K,); classes (K,) are the labels."""

    classes: Tensor
    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor
    strength: float
    """Inverse regularisation, scikit-learn's C."""

    def logits(self, features: Tensor) -> Tensor:
        """(n, K) fp64."""
        return ((features.double() - self.mean) / self.scale) @ self.weight.T + self.bias

    def predict(self, features: Tensor) -> Tensor:
        """(n,) labels."""
        return self.classes[self.logits(features).argmax(1)]


def fit(features: Tensor, labels: Tensor, *, strength: float) -> LinearProbe:
    """The optimum of strength · Σ cross-entropy + |weight|² / 2 over standardised features (n, C), in fp64.

    labels are (n,).     The bias is free of regularisation. This is scikit-learn's LogisticRegression(C=strength).
    """
    if not strength > 0:
        raise ValueError(
            f"strength ({strength}) must be positive; larger means less regularisation"
        )
    if not features.isfinite().all():
        raise ValueError("features hold non-finite values; the weights or a video are damaged")
    mean, scale = _standardisation(features)
    classes, targets = labels.unique(return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"labels hold one class ({classes.tolist()}), which leaves nothing to learn; "
            "give training videos of two classes or more"
        )
    x = (features.double() - mean) / scale
    axes, spread = _principal_axes(x)
    columns = _columns(x, axes)
    start = x.new_zeros(columns.shape[1], len(classes))
    w = _optimum(columns, spread, targets, strength, start=start, accuracy=1e-3)
    return LinearProbe(classes, (axes @ w[:-1]).T, w[-1], mean, scale, strength)


def choose_strength(
    gallery: FeatureSet, strengths=STRENGTHS, *, seed: int = 0
) -> tuple[float, float]:
    """(strength, accuracy on the held-out part) of the best strength; ties go to more regularisation.

    A fifth of the training videos is held out, whole groups at a time, and only while every class keeps
    videos to learn from.
    """
    held = held_out(gallery.labels, gallery.groups, seed=seed)
    if not held.any():
        raise ValueError(
            f"gallery ({len(held)} videos) must have two videos, of two groups, in some class to choose "
            "the regularisation on; give more videos or a fixed strength"
        )
    mean, scale = _standardisation(gallery.features[~held])
    x = (gallery.features.double() - mean) / scale
    classes, targets = gallery.labels.unique(return_inverse=True)
    axes, spread = _principal_axes(x[~held])
    columns = _columns(x, axes)
    best, w = (strengths[0], -1.0), x.new_zeros(columns.shape[1], len(classes))
    for strength in sorted(strengths):
        w = _optimum(columns[~held], spread, targets[~held], strength, start=w, accuracy=1e-1)
        right = (columns[held] @ w).argmax(1) == targets[held]
        accuracy = right.double().mean().item()
        if accuracy > best[1]:
            best = (strength, accuracy)
    return best


def held_out(
    labels: Tensor, groups: list[str], *, seed: int = 0, share: float = HELD_OUT
) -> Tensor:
    """(n,) bool: the videos held out, about share of them; a video without a group is its own group."""
    members: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group or f"\0{place}", []).append(place)
    _, labels = labels.unique(return_inverse=True)  # a label may be any number, counts are by place
    left = labels.bincount()
    order = torch.randperm(len(members), generator=torch.Generator().manual_seed(seed)).tolist()
    names, held = sorted(members), torch.zeros(len(labels), dtype=torch.bool)
    wanted = max(1, round(share * len(labels)))
    for name in (names[i] for i in order):
        here = torch.tensor(members[name])
        taken = labels[here].bincount(minlength=len(left))
        if int(held.sum()) + len(here) <= wanted and not ((left == taken) & (taken > 0)).any():
            held[here] = True
            left = left - taken
    return held


def probe(
    gallery: FeatureSet, queries: FeatureSet, *, strengths=STRENGTHS, seed: int = 0
) -> tuple[Tensor, str]:
    """((Q,) bool: whether the probe trained on the gallery gets each query right, what was chosen, in words)."""
    check_comparable(gallery, queries)
    strength, accuracy = choose_strength(gallery, strengths, seed=seed)
    fitted = fit(gallery.features, gallery.labels, strength=strength)
    note = f"C {strength:g}, held-out {100 * accuracy:.1f} %"
    if strength in (min(strengths), max(strengths)) and len(strengths) > 1:
        note += ", the end of the range tried"
    return fitted.predict(queries.features) == queries.labels, note


def _standardisation(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature; 1 for one that never changes."""
    features = features.double()
    scale = features.std(0, correction=0)
    return features.mean(0), torch.where(scale > 1e-12 * features.abs().amax(0), scale, 1.0)


def _principal_axes(x: Tensor) -> tuple[Tensor, Tensor]:
    """(axes (C, C), one a column; variance along each (C,)) of standardised features (n, C)."""
    spread, axes = torch.linalg.eigh(x.T @ x / len(x))
    return axes, spread.clamp(min=0)


def _columns(x: Tensor, axes: Tensor) -> Tensor:
    """(n, C + 1): the features along the axes, and a column of ones for the bias."""
    return torch.cat([x @ axes, x.new_ones(len(x), 1)], 1)


def _optimum(
    columns: Tensor,
    spread: Tensor,
    targets: Tensor,
    strength: float,
    *,
    start: Tensor,
    accuracy: float,
) -> Tensor:
    """Weights (C + 1, K) of the columns by Newton's method from `start`, each step by conjugate gradients.

    The penalty makes the objective strongly convex in the weight with modulus 1 / (strength · n), so a gradient
    below accuracy times that leaves each weight within about `accuracy` of the optimum. In the basis of the
    features' principal axes, to which the penalty is blind, the diagonal alone is a good preconditioner.
    """
    n, penalty = len(columns), 1 / (strength * len(columns))
    tolerance = min(1e-5, max(1e-11, accuracy * penalty))
    spread = torch.cat([spread, spread.new_ones(1)])[:, None]
    decay = torch.full_like(spread, penalty)
    decay[-1] = 0
    w = start
    loss, probability = _loss(columns, targets, w, decay)
    for _ in range(MAX_STEPS):
        error = probability.clone()
        error[torch.arange(n), targets] -= 1
        gradient = columns.T @ error / n + decay * w
        if gradient.norm() <= tolerance:
            break
        curvature = (probability * (1 - probability)).mean(0)
        diagonal = spread * curvature + decay
        step = _newton_step(columns, probability, decay, gradient, diagonal.clamp(min=1e-12))
        slope, length = (step * gradient).sum().item(), 1.0
        while length > 1e-10:
            moved, probability_there = _loss(columns, targets, w + length * step, decay)
            if moved <= loss + 1e-4 * length * slope + 1e-15 * abs(loss):
                break
            length /= 2
        else:
            break  # as near as fp64 gets
        w, loss, probability = w + length * step, moved, probability_there
    return w


def _loss(columns: Tensor, targets: Tensor, w: Tensor, decay: Tensor) -> tuple[float, Tensor]:
    """(mean cross-entropy and penalty, (n, K) probabilities)."""
    log_probability = (columns @ w).log_softmax(1)
    loss = F.nll_loss(log_probability, targets) + (decay * w.square()).sum() / 2
    return loss.item(), log_probability.exp_()


def _newton_step(
    columns: Tensor,
    probability: Tensor,
    decay: Tensor,
    gradient: Tensor,
    diagonal: Tensor,
) -> Tensor:
    """What the Hessian turns into -gradient, up to a residual of SHARE of it."""
    inverse, step, residual = diagonal.reciprocal(), torch.zeros_like(gradient), -gradient
    direction = inverse * residual
    product = torch.vdot(residual.flatten(), direction.flatten()).item()
    goal = SHARE * gradient.norm().item()
    rows = columns.T / len(columns)
    for _ in range(MAX_PRODUCTS):
        change = probability * (columns @ direction)
        change = torch.addcmul(change, probability, change.sum(1, keepdim=True), value=-1)
        curved = torch.addmm(decay * direction, rows, change)
        bend = torch.vdot(direction.flatten(), curved.flatten()).item()
        if bend <= 0:  # only rounding makes it so
            break
        step.add_(direction, alpha=product / bend)
        residual.sub_(curved, alpha=product / bend)
        if torch.linalg.vector_norm(residual).item() <= goal:
            break
        scaled = inverse * residual
        before, product = product, torch.vdot(residual.flatten(), scaled.flatten()).item()
        direction = torch.add(scaled, direction, alpha=product / before)
    return step
