import pytest

from simvp_climate.metrics.published_scores import published


def test_what_is_published():
    table = published()
    assert list(table.columns) == [
        *("model", "variable", "metric", "lead_hours", "value", "units", "grid", "years", "truth", "source"),
    ]
    assert (
        table.notnull().all(axis=None)
        and not table.duplicated(["model", "variable", "metric", "lead_hours", "grid"]).any()
    )
    assert (
        set(table.loc[table["metric"] == "acc", "units"]) == {"1"} and table.query("metric == 'acc'")["value"].max() < 1
    )
    # 2018 alone is not mixed with 2017 and 2018
    assert set(table.query("model == 'operational IFS' and variable == 't2m'")["years"]) == {"2018"}
    row = (
        table[table["metric"] == "rmse"]
        .set_index(["model", "variable", "lead_hours"])
        .loc[("operational IFS", "z500", 72)]
        .squeeze()  # pandas before 3 returns a table of one row
    )
    assert row["value"] == 153.10 and row["grid"] == "64 longitudes x 32 latitudes" and row["years"] == "2017-2018"
    climatology = table[(table["metric"] == "rmse") & (table["model"] == "climatology") & (table["variable"] == "z500")]
    assert climatology["value"].tolist() == [1075, 1075]


@pytest.mark.parametrize("model", ["IFS T42", "IFS T63", "operational IFS", "ResNet, direct, ERA5 only"])
def test_errors_grow_with_the_lead(model):
    table = published().query("metric != 'acc'")
    for _, rows in table[table["model"] == model].groupby(["variable", "metric"]):
        assert rows.sort_values("lead_hours")["value"].is_monotonic_increasing
