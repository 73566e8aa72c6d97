"""Published scores of other models, each with the grid, years and truth of its verification."""

from collections.abc import Mapping

import pandas as pd

_GRID = "64 longitudes x 32 latitudes"
_WB1_SOURCE = "WeatherBench (Rasp et al. 2020), code and notebook 4"
_WB1 = {"grid": _GRID, "years": "2017-2018", "truth": "ERA5", "source": _WB1_SOURCE}
_RT = {**_WB1, "source": "Rasp and Thuerey 2021, arXiv:2008.08626v2, Table 1"}
_UNITS = {"z500": "m2 s-2", "t850": "K", "t2m": "K", "tp6h": "mm"}
# RMSE at 72 h and 120 h; a single value holds for both.
_WB1_ROWS = {
    "persistence": {"z500": (936.01, 1033.29), "t850": (4.293, 4.556), "t2m": (3.004, 3.271), "tp6h": (3.231, 3.236)},
    "climatology": {"z500": (1075,), "t850": (5.512,), "t2m": (6.071,), "tp6h": (2.362,)},
    "weekly climatology": {"z500": (815.8,), "t850": (3.503,), "t2m": (3.190,), "tp6h": (2.329,)},
    "linear regression, direct": {
        "z500": (693.32, 783.16), "t850": (3.193, 3.441), "t2m": (2.394, 2.602), "tp6h": (2.366, 2.374)
    },
    "linear regression, iterative": {"z500": (717.83, 809.59), "t850": (3.168, 3.477)},
    "CNN, direct": {"z500": (626.43, 756.74), "t850": (2.871, 3.371)},
    "CNN, iterative": {"z500": (1114.61, 1558.82), "t850": (4.483, 9.694)},
    "IFS T42": {"z500": (488.76, 742.70), "t850": (3.093, 3.831), "t2m": (3.207, 3.689)},
    "IFS T63": {"z500": (267.61, 463.15), "t850": (1.850, 2.516), "t2m": (2.040, 2.441)},
    "operational IFS": {"z500": (153.10, 334.10), "t850": (1.355, 2.032)},
    "Weyn et al. 2020, regridded": {"z500": (373.37, 611.33), "t850": (1.979, 2.868)},
    "Clare et al. 2021": {"z500": (375, 627), "t850": (2.11, 2.91)},
}  # fmt: skip
# WeatherBench had only the year 2018 of these forecasts.
_WB1_2018_ROWS = {"operational IFS": {"t2m": (1.352, 1.765), "tp6h": (2.358, 2.590)}}
# ACC of z500 from the same notebook, no unit.
_WB1_ACC_ROWS = {
    "persistence": {"z500": (0.62, 0.53)},
    "weekly climatology": {"z500": (0.65,)},
    "CNN, direct": {"z500": (0.81, 0.71)},
    "IFS T63": {"z500": (0.97, 0.91)},
    "operational IFS": {"z500": (0.99, 0.95)},
}
_WB1_MAE_ROWS = {"persistence": {"z500": (572, 634)}, "operational IFS": {"z500": (97, 198)}}
_RT_ROWS = {
    "ResNet, direct, ERA5 only": {"z500": (314, 561), "t850": (1.79, 2.82)},
    "ResNet, direct, pretrained on CMIP": {"z500": (268, 523), "t850": (1.65, 2.52)},
    "ResNet, continuous, pretrained on CMIP": {"z500": (284, 499), "t850": (1.72, 2.41)},
}
# Models with a single score, from texts of their authors or maintainers.
_SINGLE = (
    ("GraphCast", "z500", 72, 113.4, _GRID, "2020", "ERA5", "WeatherBench 2, issue 231"),
    ("Pangu-Weather", "t2m", 24, 0.56, "240 longitudes x 121 latitudes", "2020", "ERA5", "WeatherBench 2, issue 271"),
    ("Pangu-Weather", "t2m", 24, 0.72, "1440 longitudes x 721 latitudes", "2020", "ERA5", "WeatherBench 2, issue 271"),
    ("FuXi", "z500", 6, 19.19, "1440 longitudes x 721 latitudes", "2020", "ERA5", "WeatherBench 2, issue 184"),
)


# attributes that models of CMIP and its kin have, and analyses have not
_MODEL_ATTRS = ("mip_era", "experiment_id", "experiment", "parent_experiment_id")


def describe_truth(attrs: Mapping) -> dict[str, str]:
    """Return the attribute `truth` of scores: its title or source, after "simulated: " if a model made it."""
    texts = [str(attrs[name]) for name in ("title", "source", "comment") if attrs.get(name)]
    is_simulated = any("simulat" in text.lower() for text in texts) or any(name in attrs for name in _MODEL_ATTRS)
    description = texts[0] if texts else ""
    if is_simulated and "simulat" not in description.lower():
        description = f"simulated: {description}"
    return {"truth": description} if description else {}


def published() -> pd.DataFrame:
    """Return published scores of other models: root mean square errors, and some ACC and MAE.

    Scores depend on the grid (coarser is lower), the years and the truth: compare only scores with the same ones. The
    figures `plot.scores` and `plot.scorecard` draw those on the grid of the scores, unless their truth is simulated.
    The climatologies of WeatherBench are simpler than that of this package.

    Returns
    -------
    pandas.DataFrame
        A row for each score, with the columns model, variable, metric, lead_hours, value, units, grid, years, truth and
        source. All are weighted by area.
    """
    rows = []
    for metric, models, origin in (
        ("rmse", _WB1_ROWS, _WB1), ("rmse", _WB1_2018_ROWS, {**_WB1, "years": "2018"}),
        ("mae", _WB1_MAE_ROWS, _WB1), ("acc", _WB1_ACC_ROWS, _WB1), ("rmse", _RT_ROWS, _RT),
    ):  # fmt: skip
        for model, variables in models.items():
            for variable, values in variables.items():
                for hours, value in zip((72, 120), values * (2 // len(values)), strict=True):
                    row = {"model": model, "variable": variable, "metric": metric, "lead_hours": hours, "value": value}
                    rows.append(row | origin)
    names = ("model", "variable", "lead_hours", "value", "grid", "years", "truth", "source")
    rows += [{"metric": "rmse", **dict(zip(names, row, strict=True))} for row in _SINGLE]
    table = pd.DataFrame(rows)
    table["units"] = table["variable"].map(_UNITS).where(table["metric"] != "acc", "1")
    columns = ["model", "variable", "metric", "lead_hours", "value", "units", "grid", "years", "truth", "source"]
    return table[columns]
