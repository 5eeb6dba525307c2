"""Data of the user's own, named by its place where the name of a data set is wanted (neither numpy nor torch here)."""

import os
import shlex
from collections.abc import Iterable

from darts_lite.errors import UserError, choice


def unknown_name(key: str, value: str, names: Iterable[str]) -> UserError:
    """The error for what is no name of a data set; what is a folder or a file there is told how to be given."""
    value = os.path.expanduser(value)
    if os.path.isdir(value):
        words = f"dataset=image_folder dataset.root={shlex.quote(value)}"
    elif value.lower().endswith(".npz"):
        words = f"dataset=npz dataset.path={shlex.quote(value)}"
    else:
        return choice(key, value, names)
    return UserError(key, "is no name of a data set", f"write {words}", value=value)
