"""Longitude-time sections."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr

matplotlib.use("Agg")
from plot_factories import GLOBE, analysis, meshes, perfect_forecast, pixels, with_noise

from simvp_climate import plot
from simvp_climate.data.grid import latitude_weights


class TestHovmoller:
    def test_a_wave_travels(self):
        truth = analysis(*GLOBE, steps=12)
        phase = np.deg2rad(GLOBE[1])[None, None, :] - np.arange(12)[:, None, None] * np.pi / 8
        truth["t2m"] = truth.t2m.copy(data=np.broadcast_to(np.sin(phase), truth.t2m.shape))
        figure = plot.hovmoller(perfect_forecast(truth), truth, latitudes=(0, 30), init="2018-01-01T00")
        first, second, difference = (next(iter(panel.collections)).get_array() for panel in figure.axes[:3])
        np.testing.assert_allclose(first, np.sin(phase[1:4, 0]), atol=1e-6)
        np.testing.assert_allclose(second, first)
        np.testing.assert_allclose(difference, 0, atol=1e-12)
        low, high = figure.axes[0].get_ylim()
        assert low > high  # time runs downwards
        assert figure.get_suptitle() == "From 2018-01-01 00 UTC, 0°N to 30°N"

    def test_analyses_anomalies_and_errors(self):
        truth = analysis(*GLOBE, steps=12)
        figure = plot.hovmoller(truth, anomalies=True)
        cells = next(iter(figure.axes[0].collections)).get_array()
        assert cells.shape == (12, 64)
        np.testing.assert_allclose(cells.mean(axis=1), 0, atol=1e-9)
        with pytest.raises(ValueError, match=r"\(95, 99\).*no grid point"):
            plot.hovmoller(truth, latitudes=(95, 99))
        with pytest.raises(ValueError, match="truth needs a forecast"):
            plot.hovmoller(truth, truth)
        with pytest.raises(ValueError, match="2 fields.*'t2m'.*variable="):
            plot.hovmoller(truth.assign(z500=truth.t2m))


class TestHovmollerOfTruth:
    def sections(self, figure):
        return [np.ma.filled(meshes(panel)[0].get_array().astype(float), np.nan) for panel in figure.axes[:3]]

    def test_truth_is_selected_at_the_points_of_the_forecast(self):
        truth = with_noise(analysis(*GLOBE, steps=12))
        cut = truth.sel(latitude=slice(20, 80), longitude=slice(30, 100))
        forecast = perfect_forecast(cut)
        forecast["t2m"] = (forecast.t2m + 0.5).assign_attrs(truth.t2m.attrs)
        expected = self.sections(plot.hovmoller(forecast, cut))
        turned = truth.assign_coords(longitude=(truth.longitude + 180) % 360 - 180).sortby("longitude")
        for other in (truth, truth.isel(latitude=slice(None, None, -1)), turned.transpose("longitude", ...)):
            found = self.sections(plot.hovmoller(forecast, other))
            for one, two in zip(found, expected, strict=True):
                np.testing.assert_allclose(one, two, rtol=1e-12)
        np.testing.assert_allclose(expected[2], 0.5)

    def test_truth_at_other_points_is_refused_as_by_maps(self):
        truth = analysis(*GLOBE, steps=12)
        forecast = perfect_forecast(truth)
        region = perfect_forecast(truth.isel(longitude=slice(30, 50)))
        shifted = truth.assign_coords(longitude=truth.longitude + 2.8125)
        for one, other in (
            (forecast, shifted),
            (region, truth.isel(longitude=slice(0, 20))),
            (forecast, truth.isel(longitude=slice(0, 40))),
            (forecast, truth.isel(latitude=slice(0, 10))),
        ):
            for draw in (plot.maps, plot.hovmoller):
                with pytest.raises(ValueError, match="truth has no l.*one grid"):
                    draw(one, other)

    def test_means_are_weighted_by_area_and_leave_missing_cells_out(self):
        truth = with_noise(analysis(*GLOBE, steps=12))
        truth["t2m"] = truth.t2m.where((truth.latitude < 40) | (truth.longitude > 50))
        figure = plot.hovmoller(truth, latitudes=(30, 60))
        inside = (truth.latitude >= 30) & (truth.latitude <= 60)
        weights = latitude_weights(truth.latitude).where(inside, 0)
        expected = truth.t2m.weighted(weights).mean("latitude")
        np.testing.assert_allclose(self.sections(figure)[0], expected.values - 273.15)

    def test_a_field_is_not_read_for_every_time(self, monkeypatch):
        truth = analysis(*GLOBE, steps=12)
        reads = []

        class Counting(xr.backends.BackendArray):
            shape, dtype = truth.t2m.shape, truth.t2m.dtype

            def __getitem__(self, key):
                reads.append(key)
                return truth.t2m.values[key.tuple if hasattr(key, "tuple") else key]

        lazy = xr.Variable(truth.t2m.dims, xr.core.indexing.LazilyIndexedArray(Counting()), {"units": "K"})
        plot.hovmoller(truth.assign(t2m=lazy))
        assert len(reads) == 1


class TestTimesOfAHovmoller:
    def drawn(self, truth):
        figure = plot.hovmoller(truth)
        pixels(figure)
        panel = figure.axes[0]
        low, high = sorted(panel.get_ylim())
        ticks = [text.get_text() for text, y in zip(panel.get_yticklabels(), panel.get_yticks(), strict=True)
                 if low <= y <= high]  # fmt: skip
        return panel, ticks

    def at(self, times):
        one = analysis(*GLOBE, steps=1)
        return xr.concat([one] * len(times), "time").assign_coords(time=("time", times))

    @pytest.mark.parametrize(
        "times",
        [
            pd.date_range("2004-01-01", "2004-03-01", freq="6h"),
            pd.date_range("2004-01-01", "2004-01-05", freq="6h"),
            pd.date_range("2004-01-01", "2004-01-02", freq="1h"),
            pd.date_range("2001-01-01", periods=40, freq="MS"),
        ],
    )
    def test_ticks_differ_and_the_year_is_labeled(self, times):
        panel, ticks = self.drawn(self.at(times.as_unit("ns")))
        assert len(ticks) > 2 and len(set(ticks)) == len(ticks)
        assert str(times[0].year) in panel.get_ylabel()

    def test_another_calendar(self):
        months = xr.date_range("2001-01", periods=14, freq="MS", calendar="360_day", use_cftime=True)
        _, ticks = self.drawn(self.at(months))
        assert ticks[:2] == ["2001-01", "2001-03"]
        days = xr.date_range("2001-02-27", periods=4, freq="1D", calendar="360_day", use_cftime=True)
        assert self.drawn(self.at(days))[1] == ["2001-02-27", "2001-02-28", "2001-02-29", "2001-02-30"]

    def test_gaps_stay_open(self):
        times = pd.date_range("2004-01-01", periods=20, freq="6h", unit="ns")
        panel, _ = self.drawn(self.at(times.delete(slice(5, 15))))
        (mesh,) = meshes(panel)
        assert mesh.get_array().shape == (11, 64)
        missing = np.ma.getmaskarray(mesh.get_array()).all(axis=1)
        assert missing.tolist() == [False] * 5 + [True] + [False] * 5
        edges = mesh.get_coordinates()[:, 0, 1]
        assert np.diff(edges).tolist() == pytest.approx([0.25] * 5 + [2.5] + [0.25] * 5)

    def test_months_have_no_gaps_and_times_increase(self):
        panel, _ = self.drawn(self.at(pd.date_range("2001-01-01", periods=14, freq="MS", unit="ns")))
        assert not np.ma.getmaskarray(meshes(panel)[0].get_array()).any()
        times = pd.to_datetime(["2001-01-02", "2001-01-03", "2001-01-03"]).as_unit("ns")
        with pytest.raises(ValueError, match="2001-01-03 00 UTC follows 2001-01-03 00 UTC.*[Ss]ort"):
            plot.hovmoller(self.at(times))
