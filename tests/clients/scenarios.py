"""The table of scenarios: real clients and real faults against real processes."""

from dataclasses import dataclass
from typing import Callable


@dataclass
class Scenario:
    """One scenario. The slow ones are left out of a quick run, the thorough ones of every run that does not ask."""

    name: str
    sentence: str
    function: Callable
    slow: bool
    thorough: bool


TABLE = {}


def scenario(name, sentence, slow=False, thorough=False):
    def register(function):
        if name in TABLE:
            raise ValueError(f"scenario {name} is registered twice")
        TABLE[name] = Scenario(name, sentence, function, slow, thorough)
        return function

    return register
