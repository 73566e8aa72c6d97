"""Wind at 10 m, both components, 6-hourly to 5 days, from its past and 500 hPa geopotential.

The recipe scores each component and the vector: the RMSE of wind10 is the root mean square length of the error
vector.

Model: SimVPv2, 16 channels in encoder and decoder (two layers each), 96 in the translator (four blocks), 0.72 million
weights. It takes four states and predicts the next four, as changes from the last one; later leads come from a
rollout.
Schedule: one epoch in batches of 4; AdamW, learning rate up to 8e-3 in the first tenth of the steps, then down to
zero along a cosine; a rollout of two network calls, 48 h, in the last quarter of the steps. The exponential moving
average of the weights is kept.

Result to expect on five years of a SIMULATED climate (jcm, a general circulation model, on the grid of the bundled
sample; trained on 2001 to 2003, epoch chosen on 2004, scored on 2005 every 12 h, latitude-weighted):

    wind10 RMSE, m s-1  SimVPv2  persistence  climatology
    24 h                   1.36         5.24         5.89
    72 h                   3.82         7.54         5.89
    120 h                  5.45         7.87         5.89

The z500 RMSE of the same network is 109 / 325 / 495 m2 s-2 at 24 / 72 / 120 h. Measured on 2026-11-25 with
`--train-until 2003 --valid-until 2004`, one core AMD EPYC shared with other work, 5 min 50 s of processor time in
all.

OpenSTL publishes an RMSE of 1.2276 m s-1, the mean over both components, for SimVPv2 (gSTA) on ERA5 at 5.625 degrees,
trained on 2010 to 2015 and scored on 2017 and 2018. It is for hourly forecasts, pooled over leads of 1 to 12 h and
not weighted by latitude. This recipe was not measured in that setting.
"""

from functools import partial

import common

import simvp_climate as sc

TASK = sc.Task(["u10", "v10", "z500"], history=4, horizon=4, step="6h")
MODEL = sc.SimVPv2Config(16, 96, spatial_layers=2, blocks=4, drop_path=0.0)
CONFIG = sc.TrainConfig(epochs=1, batch_size=4, optimizer="adamw", learning_rate=8e-3, rollout=2)

if __name__ == "__main__":
    common.run(
        TASK, MODEL, CONFIG, partial(common.evaluate, horizon=20, variable="u10", vectors={"wind10": ("u10", "v10")})
    )
