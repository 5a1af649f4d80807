"""Say in one sentence what is wrong, and end the process."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lightning_opplan.messages import is_of_package

__all__ = ["one_sentence"]


@contextmanager
def one_sentence() -> Iterator[None]:
    """End the process with one sentence, and a status other than 0, where something of the user's is wrong.

    Programmers' mistakes keep their traceback.
    """
    try:
        yield
    except KeyboardInterrupt:
        print("opplan: interrupted; the same command goes on from here.", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        sentence = next(
            (cause for cause in _causes(error) if is_of_package(cause) or isinstance(cause, OSError)), None
        )
        if sentence is None:
            raise
        print(f"opplan: {sentence}", file=sys.stderr)
        raise SystemExit(1) from None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised from: jsonargparse wraps what a constructor raises."""
    while error is not None:
        yield error
        error = error.__cause__
