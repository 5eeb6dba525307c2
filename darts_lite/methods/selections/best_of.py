"""The best of K cells by the shared weights: random search with weight sharing (Li & Talwalkar 2020), or evolution (Guo et al. 2020, SPOS).

Cells are drawn uniformly from the space, or changed in one place from one of the best so far; each is judged by the accuracy of the
supernet with its operations alone, on the same validation images. What the alphas have learned is not used.
"""

from collections.abc import Collection
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from darts_lite.genotypes.genotype import Genotype
from darts_lite.methods.selections.hooks import Validating
from darts_lite.methods.views import Judge, SelectionView
from darts_lite.seeds import derive
from darts_lite.settings.options import option
from darts_lite.spaces.table import mixing_of

TRIES = 100  # to find a cell that was not judged before; a small space may have no other


@dataclass(frozen=True)
class BestOf(Validating):
    """The cell of `samples` with the highest accuracy; of equals that with the lower loss, then the earlier one.

    By mutation, the first `population` are drawn, each further one is a change of one of the `population` best so far.
    """

    reads_alphas: ClassVar[bool] = False

    samples: int = option(100, low=1)
    by: str = option("mutation", choices=("mutation", "random"))
    population: int = option(10, low=1)
    images: int | None = option(2000, low=1)  # of the validation half, at most; None: all

    def __call__(self, view: SelectionView, judge: Judge | None) -> Genotype:
        """The genotype, drawn from the seed of the search."""
        if judge is None or view.maker is None:
            raise ValueError("cells are compared at the end of a search only, by its weights")
        random = Random(derive(view.seed, "selection"))
        judged: dict[Genotype, tuple[float, float]] = {}  # (accuracy, -loss)
        while len(judged) < self.samples:
            best = sorted(judged, key=judged.__getitem__, reverse=True)[: self.population]
            mutating = self.by == "mutation" and len(judged) >= self.population
            genotype = _unseen(view, random, judged, random.choice(best) if mutating else None)
            if genotype is None:
                break
            accuracy, loss = judge(mixing_of(genotype, view.tables), self.images)
            judged[genotype] = (accuracy, -loss)
        if not judged:
            raise ValueError("no genotype was found that the supernet has all operations of")
        return max(judged, key=judged.__getitem__)  # the first of equals


def _unseen(
    view: SelectionView, random: Random, judged: Collection[Genotype], parent: Genotype | None
) -> Genotype | None:
    """A genotype that is possible and not among `judged`: drawn, or some changes away from `parent`; None where none is found."""
    candidate = parent
    for _ in range(TRIES):
        if parent is None:
            candidate = view.maker.random(random)
        else:
            try:
                candidate = view.maker.mutate(candidate, random)
            except ValueError:  # the space has no other
                return None
        if candidate not in judged and possible(candidate, view):
            return candidate
    return None


def possible(genotype: Genotype, view: SelectionView) -> bool:
    """Whether the supernet still has all operations of a genotype: a phase may have left fewer."""
    try:
        mixing_of(genotype, view.tables)
    except ValueError:
        return False
    return True
