"""Errors the user can mend. The doors print their message alone; anything else is a bug and traced."""

import contextlib
import errno
import os
import select
import signal
import sys
from collections.abc import Iterator

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Print a UserError, or a full disk, as one line and exit with 1; let anything else be traced.

    Where nobody reads the output any more (`| head`), leave silently, as SIGPIPE has it.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        if not _is_unread(1):  # another pipe broke
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else the interpreter flushes, and complains
        sys.exit(128 + signal.SIGPIPE)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        where = error.filename or "writing"
        sys.exit(f"error: {where}: {error.strerror}; free some space and run the command again")


def _is_unread(handle: int) -> bool:
    """Whether the other end of a pipe is closed."""
    poll = select.poll()
    poll.register(handle, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


class UserError(ValueError):
    """Base of the errors below; the message says where, what value and what to do."""


class RecipeError(UserError):
    """A recipe, or a command line, that cannot be run as written."""


class RowError(UserError):
    """A data row or file that cannot be used; the message starts with file:line."""


class ChatError(UserError):
    """A tokenizer whose chat template cannot be used."""


class ModelError(UserError):
    """A model that cannot be used as asked."""


class DiskError(UserError):
    """A file that could not be written; what was complete before is still there."""


class LaunchError(UserError):
    """A machine or a launcher that does not give what the recipe needs."""


class AnswerError(UserError):
    """A file of answers that cannot be read; the message says what was found and accepted."""


class BenchmarkError(UserError):
    """A benchmark that cannot be read; the message names the file and line, or the table row."""


class GradeError(UserError):
    """A row that cannot be judged here; the message says which kind and what to do."""


class MetricsError(UserError):
    """Figures that cannot be computed from what was given."""


class EqualityError(UserError):
    """The comparison itself cannot run (math-verify missing, the child does not start)."""


class ClientError(UserError):
    """A chat server that cannot be asked at all: unreachable, key rejected, model unknown."""


class SandboxError(UserError):
    """Programs cannot be isolated on this machine; the message says what to install or allow."""


class PageError(UserError):
    """A run that cannot be shown; the message names the file that is missing or wrong."""
