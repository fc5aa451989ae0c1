"""The table of behaviours: one function per row, registered with its id, level and sentence."""

from dataclasses import dataclass
from typing import Callable

MUST, SHOULD, MAY, COMPAT = "MUST", "SHOULD", "MAY", "COMPAT"


@dataclass
class Row:
    """One behaviour. `endpoints` is how many nodes it needs; `server_errors` says that a 5xx may be right."""

    id: str
    level: str
    sentence: str
    function: Callable
    endpoints: int
    server_errors: bool


TABLE = {}


def row(id, level, sentence, endpoints=1, server_errors=False):
    def register(function):
        if id in TABLE:
            raise ValueError(f"row {id} is registered twice")
        TABLE[id] = Row(id, level, sentence, function, endpoints, server_errors)
        return function

    return register
