"""Terms of a fused cell, and what their weights and BatchNorms are as matrices and rows of all terms. See `spaces.fused`."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from darts_lite.operations.kernels.triton.matrices import Gradients


@dataclass(frozen=True)
class Term:
    """One summand of a target: a plane, convolved, normalized and scaled."""

    plane: int
    target: int  # its number among the targets of the round
    edge: int  # of drop-path; -1: never dropped
    factor: int  # number of its mixing weight; -1: 1


@dataclass(frozen=True)
class Stack:
    """Terms of one operation, copy by copy; a factorized reduction has first the even halves, then the odd ones."""

    kind: str  # convolution, halves, pool or identity
    name: str  # of the layer that has the weights
    norm: Any  # its BatchNorm, or None
    terms: list[Term]
    copies: list[int]  # of the BatchNorm, by term

    @property
    def layers(self) -> list[str]:
        """Names of the pointwise weights."""
        parts = {"convolution": ["pointwise"], "halves": ["even", "odd"]}.get(self.kind, [])
        return [f"{self.name}.{part}.weight" for part in parts]

    def matrices(self, weights: dict[str, Tensor], unit: Tensor) -> list[Tensor]:
        """(.., C, C): a half of a reduction fills its rows, and what has no weights is `unit` (C, C)."""
        if not self.layers:
            return [unit.expand(len(self.terms), -1, -1)]
        number = len(self.terms) // len(self.layers)
        found = [weights[name].reshape(number, -1, len(unit)) for name in self.layers]
        return _halves(*found) if self.kind == "halves" else found

    def affine(
        self, weights: dict[str, Tensor], channels: int, device: torch.device
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Weight and bias of an affine BatchNorm, (.., C) each; 1 and 0 without one."""
        if self.norm is None:
            shape = len(self.terms), channels
            return [torch.ones(shape, device=device)], [torch.zeros(shape, device=device)]
        weight, bias = (weights[f"{self.name}.norm.{part}"].view(-1, channels) for part in ("weight", "bias"))
        return ([weight, weight], _halves(bias)) if self.kind == "halves" else ([weight], [bias])

    def running(self, channels: int, device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
        """Running mean and variance, (.., C) each; 0 and 1 without BatchNorm."""
        if self.norm is None:
            shape = len(self.terms), channels
            return [torch.zeros(shape, device=device)], [torch.ones(shape, device=device)]
        mean, variance = (kept.view(-1, channels) for kept in (self.norm.running_mean, self.norm.running_var))
        if self.kind == "halves":
            return _halves(mean), [variance, variance]
        if self.copies == list(range(len(mean))):
            return [mean], [variance]
        return [mean[copy : copy + 1] for copy in self.copies], [variance[copy : copy + 1] for copy in self.copies]

    def batch(self, of_terms: Tensor) -> Tensor:
        """(terms, C) -> (copies * C,): a statistic of the terms as that of BatchNorm's copies."""
        if self.kind == "halves":  # what a half does not fill is zero
            of_terms = torch.add(*of_terms.chunk(2))
        if self.kind == "pool":  # edges share it, and those into the first node come first
            number = max(self.copies) + 1
            first = [self.copies.index(copy) for copy in range(number)]
            in_order = first == list(range(number))
            of_terms = of_terms[:number] if in_order else torch.stack([of_terms[term] for term in first])
        return of_terms.flatten()

    def gradients(self, weights: dict[str, Tensor], of: Gradients) -> dict[str, Tensor]:
        """Gradients of the weights, by name, made of the gradients of the terms."""
        found = {}
        if self.kind == "convolution":
            found[self.layers[0]] = of.matrix.reshape(weights[self.layers[0]].shape)
        if self.kind == "halves":
            half = of.matrix.shape[1] // 2
            for name, rows in zip(
                self.layers, (of.matrix.chunk(2)[0][:, :half], of.matrix.chunk(2)[1][:, half:]), strict=True
            ):
                found[name] = rows.reshape(weights[name].shape)
        if self.norm is not None and f"{self.name}.norm.weight" in weights:
            scale, shift = of.scale, of.shift
            if self.kind == "halves":
                half = shift.shape[1] // 2
                even, odd = shift.chunk(2)
                scale, shift = torch.add(*scale.chunk(2)), torch.cat((even[:, :half], odd[:, half:]), dim=1)
            found |= {f"{self.name}.norm.weight": scale.flatten(), f"{self.name}.norm.bias": shift.flatten()}
        return found


def _halves(even: Tensor, odd: Tensor | None = None) -> list[Tensor]:
    """The rows that each half of a reduction fills, the others zero: of (copies, C, ..) both halves, or of one (copies, C / 2, ..) each."""
    if odd is None:
        half = even.shape[1] // 2
        even, odd = even[:, :half], even[:, half:]
    tail = (0, 0) * (even.dim() - 2)
    return [F.pad(even, (*tail, 0, odd.shape[1])), F.pad(odd, (*tail, even.shape[1], 0))]
