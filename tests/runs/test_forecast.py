"""How long a run will take: said once, early, of long runs only."""

import re

import pytest
import torch
from tiny import Report, read_lines, search_config

from darts_lite.runs import forecast
from darts_lite.runs.forecast import Forecast
from darts_lite.search import search


@pytest.mark.parametrize(
    ("seconds", "total", "started", "said"),
    [
        (2.0, 1008, 0, "about 0:33:20 for 1,000 more steps"),
        (2.0, 1008, 500, "about 0:16:40 for 500 more steps"),
        (0.05, 1008, 0, None),
        (100.0, 7, 0, None),
    ],
)
def test_after_the_first_steps(seconds, total, started, said):
    now = [0.0]
    tell = Forecast(total, torch.device("cpu"), lambda: now[0])
    lines = {}
    for step in range(started + 1, total + 1):
        now[0] += 50 if step <= started + forecast.WARM else seconds
        lines[step] = tell.after(step)
    spoken = {step: line for step, line in lines.items() if line}
    assert list(spoken) == ([started + 8] if said else [])
    for line in spoken.values():
        assert re.fullmatch(rf"{said}; peak memory so far \d+\.\d\d GiB", line)


def test_a_search_says_it_in_one_line_and_records_nothing(tiny_folder, monkeypatch):
    monkeypatch.setattr(forecast, "LONG", 0)
    monkeypatch.setattr(forecast, "WARM", 1)
    monkeypatch.setattr(forecast, "MEASURED", 2)
    report = Report()
    search(search_config(), report=report)
    (line,) = [line for line in report.lines if "more steps;" in line]
    assert line.startswith("about 0:00:0") and "for 3 more steps" in line
    assert "more steps;" not in str(read_lines("run/metrics.jsonl"))
