"""Runs: what surrounds the steps, so that a run can be stopped anywhere and goes on from there.

Here live preparation, resume, signals, progress, and what is recorded and left behind. The steps themselves live in training/.
"""
