"""Every forecaster by the word people choose it by. Read next: `blend.py`, the default; `own.py` for the user's own."""

from collections.abc import Mapping
from typing import Final

from sageserve.base.errors import PlanError
from sageserve.base.units import WEEK
from sageserve.core.forecast.blend import Blend
from sageserve.core.forecast.ensemble import Ensemble
from sageserve.core.forecast.library import FromLibrary, Method, require_library
from sageserve.core.forecast.naive import LastValue, SeasonalNaive
from sageserve.core.forecast.own import own_forecaster
from sageserve.core.forecast.series import Forecaster
from sageserve.core.plugins import FORECASTER, registered

DEFAULT: Final = "blend"

_ALL: Final[tuple[Forecaster, ...]] = (
    Blend(),
    LastValue(),
    SeasonalNaive(),
    SeasonalNaive(cycle=WEEK, name="weekly-naive"),
    *(FromLibrary(method) for method in Method),
    Ensemble((Blend(), FromLibrary(Method.ARIMA), FromLibrary(Method.ETS), FromLibrary(Method.MSTL))),
)
FORECASTERS: Final[Mapping[str, Forecaster]] = {each.name: each for each in _ALL}
SLOW: Final = frozenset(each.name for each in _ALL if isinstance(each, FromLibrary | Ensemble))
"""Those that stand on a library and need a second or more for a forecast with quantiles."""


def forecaster(name: str) -> Forecaster:
    """The forecaster of that name, or of `module:Name`.

    Raises:
        PlanError: there is none, or the library it stands on is not installed.
        ConfigError: `module:Name` is not there, or is no forecaster.
        PluginError: it cannot be imported.
    """
    if name in SLOW:
        require_library(name)
    if name in FORECASTERS:
        return FORECASTERS[name]
    if (own := own_forecaster(name)) is not None:
        return own
    known = (*FORECASTERS, *registered(FORECASTER))
    raise PlanError(f"no forecaster is called {name!r}", hint=f"there are: {', '.join(known)}, and module:Name for your own")
