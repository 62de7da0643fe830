"""`python -m batchling_worker.sandbox --port P [--seconds MODEL=S]...`"""

from __future__ import annotations

import click

from .serve import serve


def _speeds(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    speeds = {}
    for value in values:
        model, _, seconds = value.rpartition("=")
        try:
            speeds[model or "*"] = float(seconds)
        except ValueError as error:
            raise click.BadParameter(f"'{value}' is not MODEL=SECONDS.") from error
    return speeds


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default="a free one",
    help="Port on the loopback interface.",
)
@click.option(
    "--seconds",
    "speeds",
    multiple=True,
    callback=_speeds,
    metavar="MODEL=S",
    help="Seconds a batch of MODEL takes.",
)
def main(port: int, speeds: dict[str, float]) -> None:
    """Serve the provider emulators until interrupted."""
    serve(port, speeds=speeds)


if __name__ == "__main__":
    main()
