import numpy as np
import pytest
import xarray as xr
from factories import made_up_scores

from simvp_climate.metrics.score_units import convert_scores
from simvp_climate.metrics.tables import score_table


def with_intervals(scores):
    """Return the scores with intervals of a tenth below and above, none for the last lead."""
    known = scores["lead_time"] < scores["lead_time"][-1]
    ends = {"t2m_low": scores["t2m"].where(known) * 0.9, "t2m_high": scores["t2m"].where(known) * 1.1}
    return scores.assign_coords(ends)


def test_the_default_table_has_intervals_and_sharpness_and_marks_what_a_baseline_beats():
    table = score_table(with_intervals(made_up_scores()))
    assert table.columns.tolist() == ["rmse", "acc", "small_scale_variance"]
    assert table.index.names == ["variable", "lead", "system"]
    assert table.loc[("t2m [K]", "1 d")].to_dict("index") == {
        "SimVPv2": {
            "rmse": "3.00 [2.70, 3.30]",
            "acc": "0.700 [0.630, 0.770]",
            "small_scale_variance": "0.800 [0.720, 0.880]",
        },
        "persistence": {
            "rmse": "4.00 [3.60, 4.40]",
            "acc": "0.600 [0.540, 0.660]",
            "small_scale_variance": "1.00 [0.900, 1.10]",
        },
        "climatology": {"rmse": "6.00 [5.40, 6.60]", "acc": "-", "small_scale_variance": "0.100 [0.0900, 0.110]"},
    }
    # at two days climatology has an RMSE of 6, persistence an ACC of 0.4; there are no intervals
    last = table.loc[("t2m [K]", "2 d")]
    assert last["rmse"].tolist() == ["7.00 !", "8.00", "6.00"] and last["acc"].tolist() == ["0.500", "0.400", "-"]
    worse = made_up_scores() - xr.where(made_up_scores()["metric"] == "acc", 0.2, 0.0) * (
        made_up_scores()["system"] == "SimVPv2"
    )
    assert score_table(worse, "acc", ["6h"])["acc"].tolist() == ["0.700 !", "0.800"]


def test_large_scores_are_whole_numbers_and_a_calibrated_forecast_is_judged_too():
    scores = made_up_scores() * 300
    scores = scores.assign_coords(system=["SimVPv2", "SimVPv2, calibrated", "climatology"])
    assert score_table(scores, "rmse", ["36h", "48h"])["rmse"].tolist() == [
        "1200", "1500", "1800", "2100 !", "2400 !", "1800",
    ]  # fmt: skip


def test_rows_are_leads_and_columns_systems():
    table = score_table(made_up_scores(), intervals=False)
    assert table.index.tolist() == [("t2m [K]", "1 d"), ("t2m [K]", "2 d")]  # whole days
    assert table.loc[("t2m [K]", "2 d"), ("rmse", "persistence")] == 8
    assert ("acc", "climatology") not in table.columns  # it has none
    assert table.columns.names == ["metric", "system"]


def test_chosen_metrics_and_leads():
    table = score_table(made_up_scores(), "acc", ["6h", "36h"], intervals=False)
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
    table = score_table(both, "rmse", ["6h"], intervals=False)
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
    table = score_table(scores, metrics, ["6h"], units={"t2m": "degC", "msl": "hPa"}, intervals=False)
    table = table.xs("SimVPv2", level=1, axis=1)
    assert table.loc[("t2m [K]", "6 h")].tolist() == pytest.approx([1, 0.9, 1, 1])
    assert table.loc[("msl [hPa]", "6 h")].tolist() == pytest.approx([1, 90, 1, 100])
    low = convert_scores(scores, {"msl": "hPa"}).msl_low.sel(system="SimVPv2", metric="rmse")
    assert float(low[0]) == 0.5 and float(scores.msl_low.sel(system="SimVPv2", metric="rmse")[0]) == 50
    with pytest.raises(ValueError, match="units='hPa' of 't2m'"):
        score_table(made_up_scores(), units="hPa")
    with pytest.raises(ValueError, match="'z500', which is not shown"):
        score_table(made_up_scores(), units={"z500": "gpdam"})
