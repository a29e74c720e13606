"""The exception tree: every mistake a user can make ends in one of these, with a way out.

    SageServeError            what is wrong and where; `hint` says what to do next
    ├── ConfigError           a scenario or a command-line setting is wrong
    │   └── Infeasible        every value is legal, but together they cannot work
    ├── PluginError           code of the user's raised an exception, or gave what cannot be used
    ├── TraceError            a request trace cannot be read or does not fit the scenario
    │   └── UnknownName       a model, tier or region the scenario does not define
    ├── ResultError           a result folder is missing, partial or unreadable
    ├── PlanError             a forecast or a plan cannot be made from what was given
    ├── MeasurementError      a measured run cannot be read, or cannot support a profile
    └── LawBroken             an invariant does not hold: a fault of SageServe itself, never of the user

Knows nothing of how errors are shown: the command line prints `message` and `hint`, other shells log them.
"""


class SageServeError(Exception):
    """What is wrong and where, in one or two sentences.

    Args:
        message: what is wrong and where, for people.
        hint: what to do next; empty when there is nothing useful to say.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class ConfigError(SageServeError):
    """A scenario file or a setting given on the command line is wrong."""


class Infeasible(ConfigError):
    """Each setting is legal, but together they cannot work; the message shows the arithmetic."""


class PluginError(SageServeError):
    """Code of the user's raised an exception, or gave what cannot be used; the message has file and line."""


class TraceError(SageServeError):
    """A request trace cannot be read, or does not fit the scenario it is played in."""


class UnknownName(TraceError):
    """A trace names a model, tier or region that the scenario does not define."""


class ResultError(SageServeError):
    """A result folder is missing, partial or unreadable."""


class PlanError(SageServeError):
    """A forecast or a plan cannot be made from what was given."""


class MeasurementError(SageServeError):
    """A measured run cannot be read, or cannot support the profile that was asked of it."""


class LawBroken(SageServeError):
    """An invariant does not hold: a fault of SageServe; the message holds what is needed to report it."""


def in_words(error: BaseException) -> str:
    """What an error says, for people: of the system's refusal behind it the words, without its number; else its kind."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__
