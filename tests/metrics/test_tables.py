import numpy as np
import pytest
import xarray as xr
from factories import made_up_scores

from simvp_climate.metrics.score_units import convert_scores
from simvp_climate.metrics.tables import score_table


def test_rows_are_leads_and_columns_systems():
    table = score_table(made_up_scores())
    assert table.index.tolist() == [("t2m [K]", "24 h"), ("t2m [K]", "2 d")]  # whole days
    assert table.loc[("t2m [K]", "2 d"), ("rmse", "persistence")] == 8
    assert ("acc", "climatology") not in table.columns  # it has none
    assert table.columns.names == ["metric", "system"]


def test_chosen_metrics_and_leads():
    table = score_table(made_up_scores(), "acc", ["6h", "36h"])
    assert table.index.get_level_values("lead").tolist() == ["6 h", "36 h"]
    np.testing.assert_allclose(table["acc", "SimVPv2"], [0.9, 0.6])
    with pytest.raises(ValueError, match=r"metrics \['mae'\] are not in the scores"):
        score_table(made_up_scores(), ["mae"])
    with pytest.raises(ValueError, match="leads has '5D'"):
        score_table(made_up_scores(), leads=["5D"])


def test_regions_and_levels_are_rows():
    scores = made_up_scores()
    levels = xr.concat([scores.t2m, scores.t2m + 1], xr.DataArray([500, 850], dims="level", name="level")).rename("t")
    both = xr.concat([scores.assign(t=levels)] * 2, xr.DataArray(["tropics", "arctic"], dims="region", name="region"),
                     data_vars="all")  # fmt: skip
    table = score_table(both, "rmse", ["6h"])
    assert set(table.index.names) == {"variable", "region", "level", "lead"}
    assert len(table) == 2 + 4
    assert table.xs("850", level="level")["rmse", "SimVPv2"].tolist() == [2, 2]


def test_errors_in_other_units():
    scores = made_up_scores()
    scores = scores.assign(msl=(scores.t2m * 100).assign_attrs(units="Pa"))
    scores = scores.assign_coords(msl_low=scores.msl - 50)
    difference = scores.sel(metric=["rmse"]).assign_coords(metric=["rmse_difference_vs_climatology"])
    skill = scores.sel(metric=["rmse"]).assign_coords(metric=["rmse_skill_vs_climatology"])
    scores = xr.concat([scores, difference, skill], "metric", data_vars="all", coords="minimal", join="exact",
                       compat="override")  # fmt: skip
    metrics = ["rmse", "acc", "rmse_difference_vs_climatology", "rmse_skill_vs_climatology"]
    table = score_table(scores, metrics, ["6h"], units={"t2m": "degC", "msl": "hPa"}).xs("SimVPv2", level=1, axis=1)
    assert table.loc[("t2m [K]", "6 h")].tolist() == pytest.approx([1, 0.9, 1, 1])
    assert table.loc[("msl [hPa]", "6 h")].tolist() == pytest.approx([1, 90, 1, 100])
    low = convert_scores(scores, {"msl": "hPa"}).msl_low.sel(system="SimVPv2", metric="rmse")
    assert float(low[0]) == 0.5 and float(scores.msl_low.sel(system="SimVPv2", metric="rmse")[0]) == 50
    with pytest.raises(ValueError, match="units='hPa' of 't2m'"):
        score_table(made_up_scores(), units="hPa")
    with pytest.raises(ValueError, match="'z500', which is not shown"):
        score_table(made_up_scores(), units={"z500": "gpdam"})
