"""Maps are right at every width: no text leaves the figure or lies on another."""

import cartopy.crs as ccrs
import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
from matplotlib.quiver import QuiverKey
from matplotlib.text import Text
from plot_factories import GLOBE, analysis, perfect_forecast, pixels, with_noise

from simvp_climate import plot


def drawn_texts(figure):
    """Return the texts that are visible in a figure, with their boxes in pixels."""
    pixels(figure, dpi=150)
    texts = [text for text in figure.findobj(Text) if text.get_visible()]
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = [label for tick in axis.get_major_ticks() for label in (tick.label1, tick.label2)]
            low, high = sorted(axis.get_view_interval())
            # matplotlib keeps ticks beyond the axis, which are not drawn
            hidden = [
                label
                for tick in axis.get_major_ticks()
                for label in (tick.label1, tick.label2)
                if not axis.get_visible() or not low - 1e-9 <= tick.get_loc() <= high + 1e-9
            ]
            assert set(hidden) <= set(labels)
            texts = [text for text in texts if text not in hidden]
        texts += [key.text for key in axes.findobj(QuiverKey)]
    return [(text.get_text(), text.get_window_extent()) for text in dict.fromkeys(texts) if text.get_text().strip()]


def check(figure):
    """Assert that no text is cut or lies on another, and return all texts."""
    texts = drawn_texts(figure)
    for position, (text, box) in enumerate(texts):
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
        assert inside, f"{text!r} is cut: {box.extents} in {figure.bbox.extents}"
        for other, other_box in texts[:position]:
            wide = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
            high = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
            assert min(wide, high) < 1.5, f"{text!r} lies on {other!r}"
    return [text for text, _ in texts]


@pytest.fixture(scope="module")
def truth():
    truth = with_noise(analysis(*GLOBE, steps=6), 2)
    waves = 54000 + 2500 * np.cos(np.deg2rad(2 * truth.latitude)) * (1 + 0.2 * np.sin(np.deg2rad(4 * truth.longitude)))
    height = (truth.t2m * 0 + waves).assign_attrs(units="m2 s-2", long_name="Geopotential at 500 hPa")
    wind = (truth.t2m * 0 + 25 * np.cos(np.deg2rad(truth.latitude))).assign_attrs(units="m s-1")
    return truth.assign(z500=height, u10=wind, v10=(wind / 2).assign_attrs(wind.attrs))


@pytest.fixture(scope="module")
def forecast(truth):
    noise = np.random.default_rng(2).normal(size=truth.t2m.shape)
    other = truth.assign({name: (truth[name] * (1 + 0.01 * noise)).assign_attrs(truth[name].attrs) for name in truth})
    return perfect_forecast(other, inits=2)


WIDTHS = (3.5, 7, 16)


@pytest.mark.parametrize("width", WIDTHS)
def test_rows_of_variables_with_letters(width, forecast, truth):
    texts = check(plot.maps(forecast, truth, variable=["z500", "t2m"], letters=True, width=width))
    assert {"z500", "t2m", "(d)", "From 2018-01-01 06 UTC, valid 2018-01-02 00 UTC"} <= {*texts}
    assert any(text.replace("\n", " ").startswith("(c) Forecast minus truth, RMSE") for text in texts)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_region_with_contours_and_arrows(width, forecast, truth):
    options = {"variable": "t2m", "contours": "z500", "arrows": ("u10", "v10"), "region": "europe"}
    texts = check(plot.maps(forecast, truth, **options, width=width))
    assert "20 m s⁻¹" in texts and {"40°N", "60°N"} <= {*texts}
    assert any("contours of z500 every" in text.replace("\n", " ") for text in texts)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_globe_with_arrows(width, forecast, truth):
    texts = check(plot.maps(forecast, truth, variable="t2m", arrows=("u10", "v10"), lead=["6h", "18h"], width=width))
    assert {"+6 h", "+18 h", "20 m s⁻¹"} <= {*texts}


@pytest.mark.parametrize(("width", "projection"), [(3.5, None), (16, "pole")])
def test_forecasts_alone(width, projection, forecast):
    projection = projection and ccrs.NorthPolarStereo()
    texts = check(plot.maps(forecast, contours=False, width=width, projection=projection, letters=True))
    assert "(a) t2m, +18 h" in texts
    check(plot.maps(forecast, variable="t2m", arrows=("u10", "v10"), width=width, projection=projection))
