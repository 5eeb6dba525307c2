"""Methods: the science of a search: architecture, relaxations, solvers, penalties, selections, phases.

Here lives what distinguishes one algorithm from another; each part is a file and a line in a table. How a step is made of them lives in
training/.
"""
