"""Total cloud cover, 6-hourly to 3 days, from its past, 500 hPa geopotential and 2 m temperature.

Forecasts are clipped to [0, 1].

Model: SimVPv2, 16 channels in encoder and decoder (two layers each), 96 in the translator (four blocks), 0.72 million
weights. It takes four states and predicts the next four, as changes from the last one; later leads come from a
rollout.
Schedule: one epoch in batches of 4; AdamW, learning rate up to 8e-3 in the first tenth of the steps, then down to
zero along a cosine; a rollout of two network calls, 48 h, in the last quarter of the steps. The exponential moving
average of the weights is kept.

Result to expect on a SIMULATED climate (`tools/make_sample.py recipes.zarr --recipes`; trained on January 2001 to
August 2003, epoch chosen on September to December 2003, scored on January to April 2004 every 12 h, area-weighted):

    tcc RMSE, 1         SimVPv2  persistence  climatology
    24 h                  0.167        0.274        0.252
    48 h                  0.203        0.326        0.252
    72 h                  0.225        0.337        0.252

Measured on 2026-11-25 with `--train-until 2003-08 --valid-until 2003-12`, one core AMD EPYC shared with other work,
4 min 30 s of processor time in all.

OpenSTL publishes an RMSE of 0.2158 (as a fraction) for SimVPv2 (gSTA) on ERA5 at 5.625 degrees, trained on 2010 to
2015 and scored on 2017 and 2018. It is for hourly forecasts, pooled over leads of 1 to 12 h and not weighted by
latitude. This recipe was not measured in that setting.
"""

from functools import partial

import common

import simvp_climate as sc

TASK = sc.Task(["tcc", "z500", "t2m"], history=4, horizon=4, step="6h", transforms={"tcc": (0, 1)})
MODEL = sc.SimVPv2Config(16, 96, spatial_layers=2, blocks=4, drop_path=0.0)
CONFIG = sc.TrainConfig(epochs=1, batch_size=4, optimizer="adamw", learning_rate=8e-3, rollout=2)

if __name__ == "__main__":
    common.run(TASK, MODEL, CONFIG, partial(common.evaluate, horizon=12, variable="tcc"))
