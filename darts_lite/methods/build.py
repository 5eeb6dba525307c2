"""Parts of a method, built from the names and options of a configuration; an object given from Python is taken as it is."""

import dataclasses
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, TypeVar

from darts_lite.errors import UserError, choice, raise_all
from darts_lite.methods.alpha_optimizers import ALPHA_OPTIMIZERS
from darts_lite.methods.method import Method, said
from darts_lite.methods.monitors import MONITORS
from darts_lite.methods.penalties import PENALTIES
from darts_lite.methods.phases import CHANGEABLE, PHASES
from darts_lite.methods.relaxations import RELAXATIONS
from darts_lite.methods.seams import PERTURBATIONS, REGULARIZATIONS
from darts_lite.methods.selections import SELECTIONS
from darts_lite.methods.selections.hooks import Training
from darts_lite.methods.solvers import SOLVERS
from darts_lite.methods.solvers.first_order import FirstOrder
from darts_lite.settings import schema
from darts_lite.settings.configs import DiscretizeConfig, SearchConfig, SpaceConfig
from darts_lite.settings.parts import PartConfig
from darts_lite.spaces import SPACES

# The setting that chooses a part, or several -> the parts that there are: frozen dataclasses whose fields are options, or functions.
PARTS: dict[str, dict[str, Any]] = {
    "relaxation": RELAXATIONS,
    "solver": SOLVERS,
    "penalties": PENALTIES,
    "perturbation": PERTURBATIONS,
    "regularization": REGULARIZATIONS,
    "alpha_optimizer": ALPHA_OPTIMIZERS,
    "monitor": MONITORS,
    "phases": PHASES,
    "selection": SELECTIONS,
}
Config = TypeVar("Config", bound=Any)


def completed(config: Config) -> Config:
    """Configuration with all options of its parts, as it is stored and compared. Raises UserError (2) with all its problems.

    A choice that was stored as the name of a class, without the object itself, stays as it is.
    """
    problems: list[UserError] = []
    changes: dict[str, Any] = {}
    for kind in _kinds(config):
        given = getattr(config, kind)
        parts = [_complete(key, part, PARTS[kind], problems) for key, part in _keyed(kind, given)]
        if isinstance(given, (list, tuple)) or parts:
            changes[kind] = parts if isinstance(given, (list, tuple)) else parts[0]
    config = dataclasses.replace(config, **changes)
    raise_all([*schema.problems(config), *problems])
    return config


def build_method(config: SearchConfig) -> Method:
    """Algorithm of a search. Raises UserError (2) with all problems of the configuration."""
    config = completed(config)
    parts = {
        kind: [_build(key, part, PARTS[kind]) for key, part in _keyed(kind, getattr(config, kind))] for kind in PARTS
    }
    penalties, phases = parts.pop("penalties"), parts.pop("phases")[0]
    method = Method(**{kind: part for kind, (part,) in parts.items()}, penalties=penalties, phases=[])
    if config.nesterov and method.solver.needs_float32:
        fix = "give nesterov=false, or solver=first_order"
        raise UserError("nesterov", "the unrolled step is SGD without Nesterov momentum", fix, value=True)
    raise_all(_senseless(config, method))
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


def _senseless(config: SearchConfig, method: Method) -> Iterator[UserError]:
    """Settings that would learn something about the architecture, where the relaxation learns nothing."""
    if method.learns:
        return
    because = f"and relaxation={config.relaxation.name} learns nothing"
    if not isinstance(method.solver, FirstOrder):
        reason = f"differentiates with respect to the mixing, {because}"
        yield UserError("solver", reason, "leave it out, or give another relaxation", value=config.solver.name)
    if method.penalties:
        names = [part.name for part in config.penalties]
        yield UserError("penalties", f"act on the logits, {because}", "give penalties=[]", value=names)
    if config.edge_weights:
        yield UserError("edge_weights", f"would learn, {because}", "give edge_weights=false", value=True)
    if said(method.selection, "reads_alphas"):
        reason = f"reads the alphas, {because}"
        yield UserError("selection", reason, "give selection=best_of", value=config.selection.name)


def build_selection(config: SearchConfig | DiscretizeConfig) -> Any:
    """Rule that makes a genotype of a mixing. Raises UserError (2)."""
    part = completed(config).selection
    assert part is not None  # `discretize` takes the one of the search then
    return _build("selection", part, SELECTIONS)


def build_space(config: SpaceConfig | Any) -> Any:
    """Search space of a `SpaceConfig`, or of a space object. Raises UserError (2)."""
    if not isinstance(config, SpaceConfig):
        return config
    if config.name not in SPACES:
        raise choice("space.name", config.name, SPACES)
    return SPACES[config.name](config)


def _kinds(config: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(config) if field.name in PARTS]


def _keyed(kind: str, given: Any) -> Iterator[tuple[str, PartConfig]]:
    """(key to blame, choice) of each part that a setting chooses; what is no choice of a part is left to the schema."""
    several = given if isinstance(given, (list, tuple)) else [given]
    for part in several:
        if isinstance(part, PartConfig) and isinstance(part.name, str):
            yield kind if part is given else f"{kind}.{part.name}", part


def _options(entry: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(entry) if field.init] if dataclasses.is_dataclass(entry) else []


def _complete(key: str, part: PartConfig, table: dict[str, Any], problems: list[UserError]) -> PartConfig:
    """Choice with all options of its part; for an object whose class is in `table`, the name there and the object's options."""
    own = part.own
    name = next(
        (name for name, entry in table.items() if own is not None and (entry is own or entry is type(own))), None
    )
    if name is not None:
        entry = table[name]
        part = PartConfig(name, {} if entry is own else {option: getattr(own, option) for option in _options(entry)})
    elif part.is_own:
        return part
    if part.name not in table:
        problems.append(choice(key.partition(".")[0], part.name, table))
        return part
    entry = table[part.name]
    for option in [option for option in part.options if option not in _options(entry)]:
        if others := [name for name in table if option in _options(table[name])]:
            kind = key.partition(".")[0]
            reason = f"is an option of {' and '.join(f'{kind}={name}' for name in others)}, not of {part.name}"
            fix = f"leave it out, or give {kind}={others[0]}"
            problems.append(UserError(f"{key}.{option}", reason, fix, value=part.options[option]))
            part = dataclasses.replace(part, options={k: v for k, v in part.options.items() if k != option})
    if not _options(entry):
        problems += [schema.unknown_key(f"{key}.{option}", []) for option in part.options]
        return part
    try:
        return PartConfig(part.name, schema.to_plain(schema.from_plain(entry, part.options, f"{key}.")))
    except UserError as error:
        problems.append(error)
        return part


def _build(key: str, part: PartConfig, table: dict[str, Any]) -> Any:
    """Part that a completed choice stands for."""
    entry = part.own if part.is_own else table[part.name]
    if part.is_own and part.own is None:
        raise choice(key, part.name, table)
    return entry(**part.options) if isinstance(entry, type) else entry
