"""Names of a configuration -> the parts that they name; an object given from Python in place of a name is taken as it is."""

from itertools import pairwise
from typing import Any

from darts_lite.errors import UserError, all_of, choice
from darts_lite.methods.alpha_optimizers import ALPHA_OPTIMIZERS
from darts_lite.methods.method import Method
from darts_lite.methods.monitors import MONITORS
from darts_lite.methods.penalties import PENALTIES
from darts_lite.methods.phases import CHANGEABLE, PHASES
from darts_lite.methods.relaxations import RELAXATIONS
from darts_lite.methods.seams import PERTURBATIONS, REGULARIZATIONS
from darts_lite.methods.selections import SELECTIONS
from darts_lite.methods.selections.hooks import Training
from darts_lite.methods.solvers import SOLVERS
from darts_lite.spaces import SPACES


def build_method(config: Any) -> Method:
    """The algorithm of a `SearchConfig`. Raises UserError (2) with every name that is in no table."""
    problems: list[UserError] = []

    def find(key: str, value: Any, table: dict[str, Any]) -> Any:
        try:
            return _named(key, value, table)
        except UserError as error:
            problems.append(error)
            return None

    def make(key: str, table: dict[str, Any]) -> Any:
        part = find(key, getattr(config, key), table)
        return part() if isinstance(part, type) else part

    method = Method(
        relaxation=make("relaxation", RELAXATIONS),
        solver=make("solver", SOLVERS),
        penalties=[
            part() if isinstance(part, type) else part
            for part in (find("penalties", p, PENALTIES) for p in config.penalties)
        ],
        perturbation=make("perturbation", PERTURBATIONS),
        regularization=make("regularization", REGULARIZATIONS),
        alpha_optimizer=make("alpha_optimizer", ALPHA_OPTIMIZERS),
        monitor=make("monitor", MONITORS),
        selection=find("selection", config.selection, SELECTIONS),
        phases=[],
    )
    phases = find("phases", config.phases, PHASES)
    if config.nesterov and method.solver is not None and method.solver.needs_float32:
        fix = "give nesterov=false, or solver=first_order"
        problems.append(UserError("nesterov", "the unrolled step is SGD without Nesterov momentum", fix, value=True))
    error = all_of(problems)
    if error:
        raise error
    method.phases.extend(phases(config))
    if isinstance(method.selection, Training):
        method.phases.extend(method.selection.phases(config))
    for name in (name for phase in method.phases for name in phase.settings if name not in CHANGEABLE):
        raise choice("phases", name, CHANGEABLE)
    for number, (before, phase) in enumerate(pairwise(method.phases), 1):
        if phase.keeps != "nothing" and phase.skeleton != before.skeleton:
            reason = f"phase {number} keeps {phase.keeps} of another skeleton ({before.skeleton} -> {phase.skeleton})"
            raise UserError("phases", reason, "use keeps='nothing' where cells or channels change")
    return method


def build_space(config: Any) -> Any:
    """The search space of a `SpaceConfig`, or of a space object. Raises UserError (2)."""
    name = getattr(config, "name", None)
    return _named("space.name", name, SPACES)(config) if isinstance(name, str) else config


def build_selection(selection: Any) -> Any:
    """The rule that makes a genotype of a mixing. Raises UserError (2)."""
    return _named("selection", selection, SELECTIONS)


def _named(key: str, value: Any, table: dict[str, Any]) -> Any:
    """The entry of `table` that `value` names, or `value` itself where it is no name."""
    if not isinstance(value, str):
        return value
    if value not in table:
        raise choice(key, value, table)
    return table[value]
