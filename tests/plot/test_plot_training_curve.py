"""Losses and validation errors by epoch."""

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
from plot_factories import curves, pixels, rings, some_history, some_scores

from simvp_climate import plot


def test_panels_show_losses_and_errors_with_a_ring_at_the_kept_epoch():
    table = some_history()
    figure = plot.training_curve(table)
    losses, z500, t2m = figure.axes
    drawn = curves(losses)
    assert set(drawn) == {"training", "validation", "kept"}
    np.testing.assert_array_equal(drawn["training"].get_xdata(), [1, 2, 3, 4])
    np.testing.assert_array_equal(drawn["training"].get_ydata(), [8, 4, 2, 1])
    np.testing.assert_array_equal(drawn["validation"].get_ydata(), [12, 6, 3, 8])
    assert rings(losses) == [(3, 3.0)] and losses.get_yscale() == "log"  # 1 to 12
    assert set(curves(z500)) == {"24 h", "6 h"} and curves(z500)["24 h"].get_linestyle() == "-"
    assert rings(z500) == [(3, 300.0), (3, 300.0)] and rings(t2m) == [(3, 300.0)]
    assert [axes.get_ylabel() for axes in figure.axes] == ["Loss", "RMSE [m² s⁻²]", "RMSE"]
    assert [axes.get_title() for axes in figure.axes] == ["Training", "Validation, z500", "Validation, t2m"]
    assert pixels(figure).size


def test_a_line_marks_where_the_crps_begins():
    table = some_history()
    table.attrs["crps_after"] = 1.5
    panel = plot.training_curve(table).axes[0]
    (line,) = [line for line in panel.lines if "CRPS" in line.get_label()]
    assert list(line.get_xdata()) == [2.0, 2.0]  # in the middle of the second epoch
    assert panel.get_yscale() == "log", "the line must not count as a loss"


def test_epochs_before_the_crps_have_no_ring():
    table = some_history()  # with the smallest validation loss in the third epoch
    table.attrs["crps_after"] = 3.0
    assert rings(plot.training_curve(table).axes[0]) == [(4, 8.0)]


def test_the_crps_has_panels_of_its_own():
    table = some_history()
    table["valid_crps_z500_6h"] = table["valid_loss"]
    table["valid_crps_z500_24h"] = 2 * table["valid_loss"]
    table.attrs["units"] |= {"valid_crps_z500_6h": "m2 s-2", "valid_crps_z500_24h": "m2 s-2"}
    panel = plot.training_curve(table).axes[3]
    assert (panel.get_title(), panel.get_ylabel()) == ("Validation, z500", "CRPS [m² s⁻²]")
    np.testing.assert_array_equal(curves(panel)["24 h"].get_ydata(), [24, 12, 6, 16])
    assert set(curves(panel)) == {"24 h", "6 h"} and rings(panel) == [(3, 6.0), (3, 3.0)]


def test_several_histories_share_the_panels():
    first, second = some_history(4.0), some_history(40.0, epochs=6)
    figure = plot.training_curve({"zeros": first, "sphere": second.reset_index()})  # as read from a CSV file
    losses, z500, _ = figure.axes
    assert set(curves(losses)) == {
        f"{name}, {phase}" for name in ("zeros", "sphere") for phase in ("training", "validation")
    } | {"kept"}
    np.testing.assert_array_equal(curves(losses)["sphere, training"].get_xdata(), [1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(curves(z500)["zeros, 6 h"].get_ydata(), 100 * first["valid_loss"])
    low, high = z500.get_ylim()
    assert low == 0 and high > 6000, "the second run must fit in"
    for name in ("zeros", "sphere"):
        colors = {line.get_color() for axes in figure.axes for label, line in curves(axes).items() if name in label}
        assert len(colors) == 1


def test_without_validation_the_last_epoch_is_kept(forecaster):
    figure = plot.training_curve(some_history()[["loss"]] + 30)
    (axes,) = figure.axes
    assert set(curves(axes)) == {"training", "kept"} and rings(axes) == [(4, 31.0)]
    assert axes.get_yscale() == "linear"
    drawn = curves(plot.training_curve(forecaster).axes[0])
    np.testing.assert_array_equal(drawn["training"].get_ydata(), [forecaster.provenance["epochs"][0]["loss"]])


@pytest.mark.parametrize(
    ("histories", "message"),
    [
        ({}, "histories={}"),
        ([some_history()], "list.* Forecaster"),
        ({"a": some_scores()}, "'a'.* Dataset.* Forecaster"),
        (some_history()[["valid_rmse_t2m"]], "DataFrame.* Forecaster"),
        (some_history().iloc[:0], "no epoch"),
    ],
)
def test_other_objects_and_empty_histories_are_refused(histories, message):
    with pytest.raises(ValueError, match=message):
        plot.training_curve(histories)


def test_histories_in_different_units_are_not_drawn_together():
    other = some_history()
    other.attrs["units"] = {"valid_rmse_z500_6h": "gpm"}
    with pytest.raises(ValueError, match=r"z500 have units \['gpm', 'm2 s-2'\]"):
        plot.training_curve({"a": some_history(), "b": other})
