"""Spectra by zonal wavenumber."""

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
from plot_factories import GLOBE, analysis, noisy, own_axes, perfect_forecast

from simvp_climate import plot
from simvp_climate.data.grid import latitude_weights
from simvp_climate.metrics.spectral import variance_by_wavenumber, zonal_spectrum


class TestSpectra:
    def test_spectra_above_their_ratio(self):
        truth = noisy()
        forecast = perfect_forecast(truth)
        variance = variance_by_wavenumber(forecast.assign(t2m=280 + 2 * (forecast.t2m - 280)), truth)
        figure = plot.spectra(variance)
        upper, lower = figure.axes
        drawn = [line for line in lower.lines if len(line.get_xdata()) == 32]
        assert [line.get_label() for line in drawn] == ["+6 h", "+12 h", "+18 h"]
        np.testing.assert_allclose(drawn[0].get_ydata(), 4, rtol=1e-6)
        for panel in (upper, lower):
            assert panel.get_xscale() == panel.get_yscale() == "log"
        # twice the anomalies have four times the variance of the truth, which is black
        black, first = upper.lines[:2]
        assert black.get_color() == "black" and upper.get_ylabel() == "Variance [K²]"
        np.testing.assert_allclose(black.get_ydata(), variance.t2m_truth.mean("lead_time"))
        np.testing.assert_allclose(first.get_ydata(), 4 * variance.t2m_truth[:, 0])
        texts = [text.get_text() for text in figure.legends[0].get_texts()]
        assert texts == ["truth", "+6 h", "+12 h", "+18 h"]

    def test_wavenumbers_without_variance_in_the_truth_are_gray(self):
        longitude = np.deg2rad(GLOBE[1])
        waves = sum(np.cos(k * longitude + k) / k**1.5 for k in range(1, 22))
        truth = analysis(*GLOBE, values=280 + np.broadcast_to(waves, (32, 64)))
        forecast = perfect_forecast(truth)
        noise = 0.01 * np.random.default_rng(0).normal(size=forecast.t2m.shape)
        variance = variance_by_wavenumber(forecast.assign(t2m=forecast.t2m + noise), truth)
        figure = plot.spectra(variance)
        for panel in figure.axes:
            (gray,) = panel.patches
            assert gray.get_x() == 21.5 and gray.get_x() + gray.get_width() > 32
        # the ratio there, to almost nothing, has no effect on the axis
        assert float(variance.t2m.max()) > 100 and figure.axes[1].get_ylim()[1] < 3
        assert not [line for line in figure.axes[1].lines if line.get_marker() == "^"]
        assert figure.legends[0].get_texts()[-1].get_text() == "truth has little variance"

    def test_spectra_of_forecast_and_truth(self):
        truth = noisy()
        forecast = perfect_forecast(truth)
        spectra = {"model": zonal_spectrum(forecast), "truth": zonal_spectrum(truth)}
        upper, lower = plot.spectra(spectra, lead="6h").axes
        assert [line.get_label() for line in upper.lines] == ["truth", "model, +6 h"]
        spectrum = zonal_spectrum(truth).t2m.weighted(latitude_weights(truth)).mean(("time", "latitude"))
        np.testing.assert_allclose(upper.lines[0].get_ydata(), spectrum[1:])
        np.testing.assert_allclose(lower.lines[0].get_ydata() * spectrum[1:], upper.lines[1].get_ydata())
        assert upper.get_ylabel() == "Energy [K² m]"
        (alone,) = plot.spectra({"model": zonal_spectrum(forecast)}, lead="6h").axes
        assert [line.get_label() for line in alone.lines] == ["model, +6 h"]

    def test_axes_of_the_user_have_the_ratio_or_both(self):
        truth = noisy()
        variance = variance_by_wavenumber(perfect_forecast(truth), truth)
        _, panel = own_axes()
        plot.spectra(variance, ax=panel)
        assert panel.get_ylabel() == "Ratio to truth"
        _, panels = own_axes((2, 1))
        plot.spectra(variance, ax=panels)
        assert [panel.get_ylabel().replace("\n", " ") for panel in panels] == ["Variance [K²]", "Ratio to truth"]

    def test_other_datasets_and_no_spectra_are_refused(self):
        with pytest.raises(ValueError, match="no zonal_wavenumber"):
            plot.spectra(analysis(*GLOBE))
        with pytest.raises(ValueError, match="spectra={}"):
            plot.spectra({})
