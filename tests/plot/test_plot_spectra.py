"""Spectra by zonal wavenumber."""

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
from plot_factories import GLOBE, analysis, noisy, perfect_forecast

from simvp_climate import plot
from simvp_climate.data.grid import latitude_weights
from simvp_climate.metrics.spectral import variance_by_wavenumber, zonal_spectrum


class TestSpectra:
    def test_ratios_by_lead(self):
        truth = noisy()
        forecast = perfect_forecast(truth)
        ratio = variance_by_wavenumber(forecast.assign(t2m=280 + 2 * (forecast.t2m - 280)), truth)
        panel = plot.spectra(ratio).axes[0]
        drawn = [line for line in panel.lines if len(line.get_xdata()) == 32]
        assert [line.get_label() for line in drawn] == ["+6 h", "+12 h", "+18 h"]
        np.testing.assert_allclose(drawn[0].get_ydata(), 4, rtol=1e-6)
        assert panel.get_xscale() == "log"

    def test_spectra_of_forecast_and_truth(self):
        truth = noisy()
        forecast = perfect_forecast(truth)
        figure = plot.spectra({"model": zonal_spectrum(forecast), "truth": zonal_spectrum(truth)}, lead="6h")
        panel = figure.axes[0]
        assert [line.get_label() for line in panel.lines] == ["model, +6 h", "truth"]
        spectrum = zonal_spectrum(truth).t2m.weighted(latitude_weights(truth)).mean(("time", "latitude"))
        np.testing.assert_allclose(panel.lines[1].get_ydata(), spectrum[1:])
        assert panel.get_ylabel() == "Energy [K² m]"

    def test_other_datasets_and_no_spectra_are_refused(self):
        with pytest.raises(ValueError, match="no zonal_wavenumber"):
            plot.spectra(analysis(*GLOBE))
        with pytest.raises(ValueError, match="spectra={}"):
            plot.spectra({})
