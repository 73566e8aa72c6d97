"""500 hPa geopotential, 6-hourly to 5 days, from 500 hPa geopotential alone.

Grid: any; the sample has 64 x 32 cells of 5.625 degrees. Periods of the sample: trained on January 2001 to August
2003, the epoch chosen on September to December 2003, scored on January to April 2004 every 12 h. Other data are split
at --train-until and --valid-until; by default as in WeatherBench (trained to 2015, epoch chosen on 2016, scored on
2017 and 2018).
Model: SimVPv2, 16 channels in encoder and decoder (four layers each), 96 in the translator (four blocks), 0.47
million weights. It takes four states and predicts the next four, as changes from the last one; later leads come from
a rollout.
Schedule: two epochs in batches of 12; AdamW, learning rate up to 3e-3 in the first tenth of the steps, then down to
zero along a cosine. The exponential moving average of the weights is kept.

Result to expect on the bundled sample, a SIMULATED climate (test period January to April 2004, latitude-weighted):

    z500 RMSE, m2 s-2   SimVPv2  persistence  climatology
    6 h                      37          128          630
    24 h                    130          434          629
    72 h                    410          703          628
    120 h                   574          778          627

Measured on 2026-11-23 with `python recipes/z500.py`, on one core of a 2.8 GHz Xeon.
"""

from functools import partial

import common

import simvp_climate as sc

TASK = sc.Task(["z500"], history=4, horizon=4, step="6h")
MODEL = sc.SimVPv2Config(16, 96, spatial_layers=4, blocks=4, mlp_ratio=4, drop_path=0.0)
CONFIG = sc.TrainConfig(epochs=2, batch_size=12, optimizer="adamw", learning_rate=3e-3)

if __name__ == "__main__":
    common.run(TASK, MODEL, CONFIG, partial(common.evaluate, horizon=20, variable="z500"), sample=True)
