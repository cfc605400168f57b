"""The clouds as stemctl asks them: several at once, and none of them has to answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from stemfleet.clouds.base import BadKeyError, Cloud, CloudError
from stemfleet.clouds.registry import CLOUDS, LOCAL, find_cloud

from stemctl.errors import InputError

T = TypeVar("T")


@dataclass
class Answers(Generic[T]):
    """What came of one question to several clouds, by the cloud's name."""

    given: dict[str, T] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    """Without a key that is accepted, and why."""
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def refusals(self) -> list[str]:
        """For people: why a cloud is not among the answers."""
        return [f"{name}: {reason}" for name, reason in {**self.skipped, **self.failed}.items()]


def markets() -> list[str]:
    """The clouds on which machines cost something."""
    return [name for name in CLOUDS if name != LOCAL]


def ask_clouds(names: Iterable[str], question: Callable[[Cloud], T]) -> Answers[T]:
    """Ask each cloud the same, at the same time.

    Raises:
        InputError: there is no cloud of that name.
    """
    asked = list(dict.fromkeys(names))
    for name in asked:
        if name not in CLOUDS:
            raise InputError(f"there is no cloud {name!r}; there are: {', '.join(CLOUDS)}")

    def ask(name: str) -> T:
        return question(find_cloud(name))

    answers: Answers[T] = Answers()
    with ThreadPoolExecutor(len(asked) or 1) as pool:
        asking: dict[str, Future[T]] = {name: pool.submit(ask, name) for name in asked}
    for name, answer in asking.items():
        try:
            answers.given[name] = answer.result()
        except BadKeyError as error:
            answers.skipped[name] = str(error)
        except CloudError as error:
            answers.failed[name] = str(error)
    return answers
