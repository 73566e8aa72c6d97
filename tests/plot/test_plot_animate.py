"""Animations of forecasts."""

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
from plot_factories import GLOBE, analysis, perfect_forecast

from simvp_climate import plot


class TestFilms:
    def test_a_frame_for_each_lead(self, tmp_path):
        from PIL import Image

        truth = analysis(*GLOBE, steps=12)
        film = plot.animate(perfect_forecast(truth), truth, path=tmp_path / "film.gif", progress=False, width=4)
        assert [path.name for path in tmp_path.iterdir()] == ["film.gif"]
        with Image.open(tmp_path / "film.gif") as image:
            assert image.n_frames == 3
            frames = []
            for at in range(3):
                image.seek(at)
                frames.append(np.asarray(image.convert("RGB")).astype(int))
        assert abs(frames[2] - frames[0]).max() > 50
        assert film._fig.axes[0].get_title() == "Forecast +18 h"

    def test_errors(self, tmp_path):
        forecast = perfect_forecast(analysis(*GLOBE))
        with pytest.raises(ValueError, match=r"film\.avi.*\.gif or \.mp4"):
            plot.animate(forecast, path=tmp_path / "film.avi")
        with pytest.raises(FileNotFoundError, match="no folder"):
            plot.animate(forecast, path=tmp_path / "no" / "film.gif")
        with pytest.raises(ValueError, match="2 fields"):
            plot.animate(forecast.assign(z500=forecast.t2m), path=tmp_path / "film.gif")
        with pytest.raises(ValueError, match="frames_per_second=0 "):
            plot.animate(forecast, frames_per_second=0)
