"""Proof that a device computes what a search needs: small cases, forward and gradients, against float64 on the CPU.

    operations   every candidate, stride 1 and 2, as the weights, the alphas and a retraining see it
    cells        all candidates of a cell together, mixed and summed into nodes
    steps        a search step of every solver
    graph        a recorded step is a called one, bit for bit

Operations and cells are computed in fp32 and bf16, in several layouts, at both sides of each row of `operations.thresholds`.

An error is the largest difference of a tensor, divided by the tensor's largest value. So that rounding cannot look like a fault,

    images and weights are numbers that bf16 holds, and no two pixels of a 3x3 window are equal: a pool chooses the same one everywhere;
    networks are smooth (SiLU), or, with ReLU, their weights are near the identity: what ReLU reads stays away from its kink;
    the gradient of the output leans towards the output: sums of it over the image do not cancel.

A right CPU then errs by up to 6e-6 in fp32 and 0.0135 in bf16 (torch 2.14.1). With normal numbers and ReLU it would by 0.3 in bf16: kinks.
Steps are compared in fp32 alone: in bf16 a right CPU is off by 0.02 in the alphas' gradient and 0.04 in that of some weights.
cuDNN chooses its algorithms without a trial here, and deterministic ones: a trial of each convolution would take minutes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from darts_lite.hardware.device import run_settings
from darts_lite.hardware.precision import full_float32, resolve_precision
from darts_lite.proving import cases, steps
from darts_lite.proving.cases import Setting
from darts_lite.proving.findings import ALLOWED, Proof
from darts_lite.proving.subject import CPU, Subject
from darts_lite.settings.configs import SearchConfig


def prove(config: SearchConfig, device: torch.device) -> Proof:
    """Compare everything that `device` computes with float64; steps are those of the search `config`, on a small network."""
    proof = Proof(device)
    with run_settings(device, True), full_float32(), _one_thread():
        for subject, settings in cases.operation_cases(device):
            _compare(proof, "operations", subject, settings)
        for subject, settings in cases.cell_cases(device):
            _compare(proof, "cells", subject, settings)
        steps.prove_steps(proof, config)
        if device.type == "cuda":
            steps.prove_graphs(proof, config)
    return proof


def _compare(proof: Proof, part: str, subject: Subject, settings: list[Setting]) -> None:
    """Compare in each precision, with each setting of the thresholds."""
    upstream: list[Tensor] = []
    expected = subject.compute(CPU, "fp64", upstream)
    for precision in _precisions(proof.device, subject.precisions):
        for setting in settings:
            with cases.at_thresholds(setting) as text:
                find = partial(subject.compute, proof.device, precision, upstream)
                case = f"{subject.case}{text}, {precision}"
                proof.compare(part, case, ALLOWED[precision], precision, find, expected)


def _precisions(device: torch.device, wanted: tuple[str, ...]) -> list[str]:
    """The `wanted` precisions that the device has in hardware; a CPU has all."""
    has = device.type == "cpu" or resolve_precision("auto", device) == "bf16"
    return [name for name in wanted if name == "fp32" or has]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Inside, a CPU computes on one: for tensors this small, threads wait for each other (a busy machine took ten times as long)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
