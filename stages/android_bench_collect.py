"""Stage `android-bench-collect`: what was measured on Android devices, of the models that were exported last."""

from pathlib import Path

from stages.core.entry import run

EXPORTED = Path("models/onnx")
RESULTS = Path("android/results")
METRICS = Path("metrics/android")
PLOTS = Path("plots/android-bench-collect")


def main() -> None:
    """Write a row a model and the figure, and name the records that do not count."""
    from stages.android.collection import collect, row
    from stages.android.figure import draw
    from stages.core.artifacts import atomic_path, file_sha256, write_json
    from stages.core.errors import UserError
    from stages.measurement.variants import ONNX_MODELS

    paths = {name: EXPORTED / f"{name}.onnx" for name in ONNX_MODELS}
    for path in paths.values():
        if not path.is_file():
            raise UserError(f"{path}: not found; `dvc repro onnx-export` makes it")
    collection = collect(RESULTS, {name: file_sha256(path) for name, path in paths.items()})
    for reason in collection.skipped:
        print(f"skipped {reason}")
    with atomic_path(METRICS) as metrics, atomic_path(PLOTS) as plots:
        plots.mkdir()
        draw(collection, list(ONNX_MODELS), plots / "latency.png")
        metrics.mkdir()
        for name, path in paths.items():
            write_json(metrics / f"{name}.json", row(name, path.stat().st_size, collection))
    counted = sum(len(entries) for models in collection.configurations.values() for entries in models.values())
    status = f"{counted} measurements count" if counted else "not measured (android/README.md says how)"
    print(f"{status}, {len(collection.skipped)} skipped")


if __name__ == "__main__":
    run(main)
