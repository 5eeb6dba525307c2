"""Findings of a proof: errors beside what is allowed, faults grouped by kind, lines and errors for people."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from darts_lite.errors import Exit, UserError, out_of_memory

ALLOWED = {"fp32": 1e-4, "bf16": 2e-2}  # of the largest value
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Fault:
    """One comparison that failed."""

    part: str  # operations | cells | steps | graph
    case: str
    what: str  # such as "the gradient of a weight (first.depthwise.weight) is off by 0.3 (0.02 allowed)"

    @property
    def kind(self) -> tuple[str, str]:
        """Equal for faults that probably have one cause; what is made of operations is off wherever one of them is."""
        return self.part, self.what.split(" (")[0].split(" is off")[0] if self.part == "operations" else ""


def raised(part: str, case: str, error: Exception) -> Fault:
    said = (str(error) or type(error).__name__).splitlines()[0]
    return Fault(part, case, f"raises {type(error).__name__} ({said})")


@dataclass
class Proof:
    """Ledger of comparisons: their number, the largest errors, the faults."""

    device: torch.device
    number: int = 0  # comparisons
    largest: dict[str, float] = field(default_factory=dict)  # error of each precision, and of the steps
    faults: list[Fault] = field(default_factory=list)
    graphs: str = "no graph on a CPU"

    def compare(
        self, part: str, case: str, allowed: float, measure: str, find: Callable[[], Tensors], expected: Tensors
    ) -> None:
        """Compare what `find` returns, or note what it raises."""
        self.number += 1
        try:
            errors = {name: relative_error(value, expected[name]) for name, value in find().items()}
        except Exception as error:
            if out_of_memory(error):
                raise
            self.faults.append(raised(part, case, error))
            return
        self.largest[measure] = max(self.largest.get(measure, 0.0), *errors.values())
        name = max(errors, key=lambda name: errors[name])
        if errors[name] > allowed:
            self.faults.append(Fault(part, case, f"{name} is off by {errors[name]:.2g} ({allowed:g} allowed)"))

    def line(self) -> str:
        """All is well, in one line."""
        errors = ", ".join(f"{name} within {error:.1g}" for name, error in self.largest.items())
        return f"{self.number:,} comparisons of {self.device} with float64 on the CPU: {errors}; {self.graphs}"

    def problems(self) -> Iterator[UserError]:
        """One for each kind of fault: the first, and how many there are."""
        kinds: dict[tuple[str, str], list[Fault]] = {}
        for fault in self.faults:
            kinds.setdefault(fault.kind, []).append(fault)
        name = self.device.type
        means = f": torch or a driver is wrong here, and searches on {name} would learn from wrong numbers"
        other = "another torch or another machine" if name == "cpu" else "device=cpu, or another torch or driver"
        for faults in kinds.values():
            more = f", and {len(faults) - 1} more such" if len(faults) > 1 else ""
            graph = faults[0].part == "graph"
            reason = f"{faults[0].what}{more}{'' if graph else means}"
            yield UserError(faults[0].case, reason, "cuda_graph=false" if graph else other, code=Exit.ENVIRONMENT)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest difference, as a part of the largest value; infinite where a number is not finite."""
    expected, found = expected.detach().double(), found.detach().cpu().double()
    error = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
    return error if error < float("inf") else float("inf")
