"""A genotype in a run folder: as genotype.json, and as a picture of each cell."""

from darts_lite.genotypes.genotype import Genotype, to_json
from darts_lite.spaces import space_of
from darts_lite.storage.run_folder import RunFolder


def write_genotype(run: RunFolder, genotype: Genotype) -> None:
    """Write genotype.json and cells/<cell type>.svg."""
    run.write_text("genotype.json", to_json(genotype))
    draw(run, genotype)


def draw(run: RunFolder, genotype: Genotype) -> None:
    """Write cells/<cell type>.svg."""
    for name, cell in genotype.cells.items():
        run.write_text(f"cells/{name}.svg", space_of(genotype).picture(cell, name))
