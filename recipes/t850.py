"""Temperature at 850 hPa, 6-hourly to 5 days, from its past and 500 hPa geopotential.

Model: SimVPv2, 16 channels in encoder and decoder (two layers each), 96 in the translator (four blocks), 0.72 million
weights. It takes four states and predicts the next four, as changes from the last one; later leads come from a
rollout.
Schedule: two epochs in batches of 4; AdamW, learning rate up to 8e-3 in the first tenth of the steps, then down to
zero along a cosine; a rollout of two network calls, 48 h, in the last quarter of the steps. The exponential moving
average of the weights is kept.

Result to expect on five years of a SIMULATED climate (jcm, a general circulation model, on the grid of the bundled
sample; trained on 2001 to 2003, epoch chosen on 2004, scored on 2005 every 12 h, latitude-weighted):

    t850 RMSE, K        SimVPv2  persistence  climatology
    24 h                   0.53         2.24         2.76
    72 h                   1.58         3.50         2.75
    120 h                  2.38         3.69         2.75

The z500 RMSE of the same network is 99 / 306 / 472 m2 s-2 at 24 / 72 / 120 h; persistence has 416 / 702 / 777.
Measured on 2026-11-25 with `--train-until 2003 --valid-until 2004`, one core AMD EPYC shared with other work, 10 min
50 s of processor time in all.
"""

from functools import partial

import common

import simvp_climate as sc

TASK = sc.Task(["t850", "z500"], history=4, horizon=4, step="6h")
MODEL = sc.SimVPv2Config(16, 96, spatial_layers=2, blocks=4, drop_path=0.0)
CONFIG = sc.TrainConfig(epochs=2, batch_size=4, optimizer="adamw", learning_rate=8e-3, rollout=2)

if __name__ == "__main__":
    common.run(TASK, MODEL, CONFIG, partial(common.evaluate, horizon=20, variable="t850"))
