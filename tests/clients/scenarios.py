"""The table of scenarios: real clients and real faults against real processes."""

from dataclasses import dataclass
from typing import Callable


@dataclass
class Scenario:
    """One scenario. The slow ones are left out of a quick run."""

    name: str
    sentence: str
    function: Callable
    slow: bool


TABLE = {}


def scenario(name, sentence, slow=False):
    def register(function):
        if name in TABLE:
            raise ValueError(f"scenario {name} is registered twice")
        TABLE[name] = Scenario(name, sentence, function, slow)
        return function

    return register
