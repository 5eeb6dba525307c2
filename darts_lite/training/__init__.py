"""Training: one step of a search or a retraining, and what it moves.

Here live states, steps, optimizers and what is measured in a step. Folders, progress and results live in runs/.
"""
