import numpy as np
import pytest
import xarray as xr
from factories import made_up_scores

from simvp_climate.metrics.tables import score_table


def test_rows_are_leads_and_columns_systems():
    table = score_table(made_up_scores())
    assert table.index.tolist() == [("t2m [K]", "1 d"), ("t2m [K]", "2 d")]  # whole days
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
