"""The engine: what surrounds the algorithm, so that a run can be stopped anywhere and goes on from there."""
