"""Maps of skill and significance."""

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
from matplotlib.collections import QuadMesh
from plot_factories import GLOBE, skill_of_the_globe

from simvp_climate import plot


class TestSkillMap:
    def test_dots_stand_where_it_is_significant(self):
        figure = plot.skill_map(skill_of_the_globe(), lead=["24h", "72h"])
        first, second = figure.axes[:2]
        dots = [
            [c for c in panel.collections if not isinstance(c, QuadMesh) and len(c.get_offsets()) > 1]
            for panel in (first, second)
        ]
        assert not dots[0] and len(dots[1]) == 1
        places = dots[1][0].get_offsets()
        assert len(places) == 16 * 4 and set(places[:, 0]) == set(GLOBE[1][:8:2])
        assert first.get_title().startswith("t2m") and figure.get_suptitle() == "12 blocks of 5 initializations"

    def test_blue_is_better(self):
        panel = plot.skill_map(skill_of_the_globe()).axes[0]
        mesh = next(c for c in panel.collections if isinstance(c, QuadMesh))
        low, high = (mesh.cmap(mesh.norm(x)) for x in (-0.9, 0.9))
        assert low[0] > low[2] and high[2] > high[0]

    def test_errors(self):
        with pytest.raises(ValueError, match=r"\['t2m'\].*sc\.metrics\.skill_map"):
            plot.skill_map(skill_of_the_globe()[["t2m"]])
        with pytest.raises(ValueError, match="'48h' must be one of"):
            plot.skill_map(skill_of_the_globe(), lead="48h")

    def test_percent_and_a_region(self):
        skill = skill_of_the_globe()
        figure = plot.skill_map(skill, units="%", region=(20, 60, -100, -40))
        panel, bar = figure.axes
        mesh = next(c for c in panel.collections if isinstance(c, QuadMesh))
        north = skill.t2m.isel(lead_time=-1).sel(latitude=slice(20, 60))
        inside = north.isel(longitude=(north.longitude >= 260) & (north.longitude <= 320))
        np.testing.assert_allclose(mesh.get_array(), 100 * inside)
        assert (mesh.norm.vmin, mesh.norm.vmax) == (-100, 100) and "Skill [%]" in bar.get_xlabel()
        for options, message in (({"units": "K"}, "'K' of the skill must be"), ({"region": "x"}, "region='x' must be")):
            with pytest.raises(ValueError, match=message):
                plot.skill_map(skill, **options)
