"""The trained network of a finished retraining: described in its checkpoint, and built again from it."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from darts_lite.data.dataset import Dataset, size_in_words
from darts_lite.errors import Exit, UserError, show
from darts_lite.genotypes.genotype import Genotype, from_plain, to_plain
from darts_lite.runs.fit import check_fit
from darts_lite.runs.stored import stored_run
from darts_lite.spaces import space_of
from darts_lite.spaces.network import Network, Skeleton
from darts_lite.storage import checkpoint
from darts_lite.storage.files import read_json


def describe_model(
    genotype: Genotype, skeleton: Skeleton, mean: Sequence[float], std: Sequence[float], names: Sequence[str]
) -> dict[str, Any]:
    """Plain data of a checkpoint from which `load_model` builds the network again, and knows how to feed it."""
    return {
        "genotype": to_plain(genotype),
        **skeleton.describe(),
        "mean": list(mean),
        "std": list(std),
        "class_names": list(names),
    }


def restore_model(run: str | Path | None, key: str = "run") -> tuple[Network, dict[str, Any]]:
    """The bare trained network, in eval mode, and the run's checkpoint: configuration, environment and `model` (see `describe_model`).

    Errors name `key`.
    """
    folder, state = stored_run(run, "retrain", key)
    result = read_json(folder / "result.json")
    path = folder / "model.pt"
    if not path.is_file() or path.is_symlink():
        raise UserError(
            key, "is not finished: it has no model.pt", f"python -m darts_lite.retrain resume={folder}", code=Exit.RUN
        )
    data = path.read_bytes()
    try:
        if hashlib.sha256(data).hexdigest() != result.get("model_sha256"):
            raise ValueError("does not have the hash in result.json")
        weights = checkpoint.unpack(data)
        model = state["model"]
        _check_description(model)
        genotype, skeleton = from_plain(model["genotype"]), Skeleton.described(model)
        space = space_of(genotype)
        check_fit(lambda: space.network(genotype, skeleton), skeleton.cells, weights)
        network = space.network(genotype, skeleton)
        network.load_state_dict(weights)
    except (ValueError, LookupError, TypeError, RuntimeError, UserError) as error:
        reason = f"cannot be used: {error}"
        raise UserError(path, reason, "retrain again with another run_dir", code=Exit.RUN) from error
    return network.eval(), state


def _check_description(model: dict[str, Any]) -> None:
    """ValueError unless `model` has the form that `describe_model` gives it, around the skeleton: it may come from anywhere."""
    for values in (model["mean"], model["std"]):
        if len(values) != model["input_channels"] or not all(type(x) is float and math.isfinite(x) for x in values):
            raise ValueError("the model is described by an impossible mean or std")
    if len(model["class_names"]) != model["classes"] or not all(type(name) is str for name in model["class_names"]):
        raise ValueError("the model is described by class names that are no names")


def check_data(dataset: Dataset, model: dict[str, Any], trained_on: object) -> None:
    """Whether a network fits a data set. Raises UserError (3).

    Other data than it was `trained_on` (a fingerprint) must have classes of the same names in the same order: labels count them.
    """
    ours = (*model["image_size"], model["input_channels"]), tuple(model["class_names"])
    theirs = (*dataset.image_size, dataset.channels), dataset.class_names
    known = dataset.fingerprint == trained_on and len(ours[1]) == len(theirs[1])
    if ours[0] == theirs[0] and (known or ours[1] == theirs[1]):
        return
    words = [f"{size_in_words(shape)} (width x height) and {len(names)} classes" for shape, names in (ours, theirs)]
    if words[0] == words[1]:
        place = next(place for place, name in enumerate(ours[1]) if name != theirs[1][place])
        words = [f"{show(names[place])} as class {place}" for _, names in (ours, theirs)]
    reason = f"has {words[1]}, the network {words[0]}"
    raise UserError("dataset_path", reason, "give the data that the network was trained on", code=Exit.DATA)
