"""Fine-tune a forecaster: through longer rollouts, or on other data.

Training starts from the file of a forecaster, by default the pretrained one of the sample. Channels are matched by
name; new variables start from random weights. The statistics of the forecaster are kept, so grid and units must be
the same. Each step trains through a rollout of three network calls, 72 hours, at a tenth of the usual learning rate.

Model: the forecaster's; the pretrained one is a SimVPv2 with 16 channels in encoder and decoder (four layers
each), 96 in the translator (four blocks), 0.47 million weights.
Schedule: one epoch in batches of 8; AdamW, learning rate up to 4e-4 in the first tenth of the steps, then down to
zero along a cosine; a rollout of three network calls in all steps. The exponential moving average of the weights is
kept.

Result to expect from the pretrained forecaster, on the bundled sample (a SIMULATED climate; test period January to
April 2004, latitude-weighted): no gain in RMSE. z500 RMSE before 135 / 388 / 552 / 727 m2 s-2 at 1 / 3 / 5 / 10 days,
after 137 / 390 / 553 / 730; activity before 0.98 / 0.91 / 0.85 / 0.82, after 0.98 / 0.91 / 0.87 / 0.84: the forecasts
blur a little less. The pretrained forecaster was already trained through two calls. Measured on 2026-11-25, one core
AMD EPYC, 3 min 55 s of processor time in all."""

from typing import Annotated

import common
import typer

import simvp_climate as sc

CONFIG = sc.TrainConfig(
    epochs=1, batch_size=8, optimizer="adamw", learning_rate=4e-4, rollout=3, rollout_share=1.0, statistics="inherit"
)


def main(
    pretrained: Annotated[str, typer.Option(help="File of a forecaster. Default: the pretrained one.")] = "",
    data: common.Data = "",
    out: common.Out = None,
    epochs: common.Epochs = None,
    max_steps: common.MaxSteps = None,
    device: common.Device = "auto",
    resume: common.Resume = False,
    train_until: common.TrainUntil = "",
    valid_until: common.ValidUntil = "",
) -> None:
    """Continue training a forecaster, and score it beside the one it started from."""
    folder = common.check_folder(out, resume)
    before = sc.Forecaster.load(pretrained, device) if pretrained else sc.open_pretrained("sample-simvpv2", device)
    train, valid, test = common.open_periods(before.task, data, train_until, valid_until, common.SAMPLE_PERIODS)
    after = sc.train(
        before.task,
        train,
        valid=valid,
        start_from=before,
        config=common.with_length(CONFIG, epochs, max_steps),
        directory=folder,
        device=device,
    )
    if not sc.is_first_process():  # with torchrun or srun, one process evaluates
        return
    forecast = after(test, every="12h", horizon=40).assign_attrs(system="after")
    scores = sc.score(
        forecast,
        test,
        train=train,
        baselines={"before": before(test, every="12h", horizon=40)},
    )
    forecast.to_netcdf(folder / "forecast.nc")
    scores.to_netcdf(folder / "scores.nc")
    sc.plot.scores(scores).savefig(folder / "scores.png")
    sc.plot.scorecard(scores, "before").savefig(folder / "scorecard.png")
    common.print_scores(scores, ["rmse", "activity"])


if __name__ == "__main__":
    common.launch(main)
