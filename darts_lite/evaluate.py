"""Evaluate: accuracy, loss, parameters, MACs, latency and peak memory of a retrained network on the test part.

Examples:

    python -m darts_lite.evaluate run=outputs/retrain/digits/<run>
    python -m darts_lite.evaluate run=outputs/retrain/digits/<run> device=cpu batch_size=256
"""

import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from darts_lite.errors import UserError, all_of, printable
from darts_lite.settings.configs import EvaluateConfig
from darts_lite.settings.datasets import DatasetConfig

MOST_CLASSES = 20  # that have a line each; of more the worst ones have
WORST = 10


def evaluate(
    config: EvaluateConfig, typed_keys: Collection[str] | None = None, report: Any = None, dataset: Any = None
) -> dict[str, Any]:
    """Evaluate a finished retraining on the test part; returns what `result.json` of the evaluation's own run folder holds.

    `dataset`: images and labels of your own, `darts_lite.data.Arrays`, as they were given to the retraining.
    Raises UserError, whose `code` is the exit code.
    """
    from darts_lite import data
    from darts_lite.data.parts import Preparation
    from darts_lite.data.stream import image_source
    from darts_lite.hardware.device import current, peak_memory, resolve_device
    from darts_lite.hardware.precision import lowered, resolve_precision
    from darts_lite.runs.report import Plain
    from darts_lite.runs.stored import stored_part
    from darts_lite.runs.trained import check_data, restore_model
    from darts_lite.settings import schema
    from darts_lite.storage import environment
    from darts_lite.storage.files import read_json
    from darts_lite.storage.run_folder import RunFolder
    from darts_lite.training import evaluation

    report = report or Plain()
    schema.check(config)
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    network, state = restore_model(config.run)
    model = state["model"]
    source = stored_part(state, "dataset", DatasetConfig, config.run)
    source = replace(data.relocated(source, config.dataset_path), download=False)
    try:
        dataset = data.load(source, dataset)
    except UserError as error:
        raise _of_the_data(error) from error
    check_data(dataset, model, state["env"].get("data"))
    facts = environment.describe(device, dataset.fingerprint, dataset.source)
    if dataset.fingerprint != state["env"].get("data"):
        report.warning("this is not the data that the network was trained on")

    folder = RunFolder.create("evaluate", dataset.name, config.run_dir, config, facts, report.warning)
    with folder as run, current(device):
        run.status("running", 0)
        network = network.to(device)
        preparation = Preparation(dataset.x_test.shape[1:], device, model["mean"], model["std"])
        test = image_source(dataset.x_test, dataset.y_test, preparation, source, report.warning)
        report.line(f"measuring on {len(test):,} test images, then the time of single batches, on {facts['device']}")
        costs = network.costs()
        assert config.run is not None  # restore_model has refused it
        trained = read_json(Path(config.run) / "result.json")
        result = {
            "dataset": dataset.name,
            "seed": state["config"].get("seed"),
            "class_names": list(model["class_names"]),
            "genotype": model["genotype"],
            "test": evaluation.evaluate(
                lowered(network, precision),
                test,
                dataset.classes,
                sizes=evaluation.batch_sizes(test, config.batch_size),
                precision=precision,
            ),
            "parameters": costs.parameters,
            "macs": costs.macs,
            "latency_ms": evaluation.latencies(network, device, precision, config.batch_size),
            "search_seconds": trained.get("search_seconds"),
            "training_seconds": trained.get("training_seconds"),
            "run": config.run,
            "device": facts["device"],
            "peak_memory_bytes": peak_memory(device),
        }
        result = run.finish(0, result)
    for line in table(result, model["class_names"]):
        report.line(line)
    report.line(f"run folder: {run.path}")
    return result


def _of_the_data(error: UserError) -> UserError:
    """An error of loading data with the keys that `evaluate` has: `dataset_path` where it names a setting of the training."""
    found = []
    for problem in error.problems:
        ours = "dataset." not in f"{problem.key} {problem.fix}"
        key = "dataset_path" if str(problem.key).startswith("dataset.") else problem.key
        reason = problem.reason if key == problem.key else f"the training's {problem.key}: {problem.reason}"
        fix = problem.fix if ours else "give dataset_path=<where the data of the training lies now>"
        found.append(problem if ours else UserError(key, reason, fix, value=problem.value, code=problem.code))
    together = all_of(found)
    assert together is not None
    return together


def table(result: dict[str, Any], class_names: Sequence[str]) -> list[str]:
    """The lines of a result, for people."""
    test = result["test"]
    rows = [
        ("accuracy (top-1)", f"{test['accuracy']:.4f} of {test['samples']} images"),
        *([("accuracy (top-5)", f"{test['top5']:.4f}")] if "top5" in test else []),
        ("loss", f"{test['loss']:.4f}"),
        ("parameters", f"{result['parameters']:,}"),
        ("MACs an image", f"{result['macs']:,}"),
        *(
            (f"latency, batch {size}", f"{ms:.2f} ms on {result['device']}")
            for size, ms in result["latency_ms"].items()
        ),
        ("peak memory", f"{result['peak_memory_bytes'] / 2**20:,.0f} MiB"),
        *_classes(list(zip(class_names, test["per_class"], strict=True))),
    ]
    return [f"{name:<20} {value}" for name, value in rows]


def _classes(scores: list[tuple[str, float | None]]) -> list[tuple[str, str]]:
    """A row a class, in the order of the classes; of many classes the worst ones, worst first, and a row for the others."""
    measured = [(name, score) for name, score in scores if score is not None]
    shown, others = scores, []
    if len(scores) > MOST_CLASSES:
        order = sorted(measured, key=lambda one: one[1])
        shown = list(order[:WORST])
        if rest := [score for _, score in order[WORST:]]:
            others.append((f"{len(rest)} other classes", f"{rest[0]:.4f} to {rest[-1]:.4f}; each in result.json"))
        if missing := len(scores) - len(measured):
            others.append((f"{missing} class{'es' if missing > 1 else ''}", "no test image"))
    rows = [(f"class {printable(name)}", "no test image" if score is None else f"{score:.4f}") for name, score in shown]
    return rows + others


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from darts_lite.cli.run import command

    return command("evaluate", argv)


if __name__ == "__main__":
    sys.exit(main())
