"""The tables of size, speed, memory and quality of the student's variants, with what was published of them."""

from collections.abc import Callable, Mapping
from typing import Any

from stages.reporting import onnx_tables, published
from stages.reporting.beside import Beside
from stages.reporting.compressed import CORPUS, ENOUGH_ROUNDS, STSB, TITLES, Measurements, machine_text
from stages.reporting.labels import number, title
from stages.reporting.markdown import DASH, Footnotes, section
from stages.reporting.published import NAMES, PAPER, REPRODUCTION, PublishedRow
from stages.reporting.summary import TEACHER

Row = Mapping[str, Any]
OF_FIRST, FASTER = "of the first", "gain in rows/s"
RANDOM = "**The weights are random: these losses say nothing about quality, only that every variant runs.**"
STSB_PAIRS = 1500  # of the dev set that the paper timed


def render(found: Measurements) -> str:
    """Write the sections of tables.md about compression."""
    return "\n\n".join(
        [_sizes(found), _speeds(found), _teacher_speed(found), _quality(found), *onnx_tables.render(found)]
    )


def _variants(figures: Callable[[str, Row], dict[str, float]], note: str = "") -> list[PublishedRow]:
    """Make a published row of every variant; the first has no ratio to itself, and alone a memory that means much."""
    rows = published.load_published("reproduction")["compression"]
    made = []
    for name, row in rows.items():
        found = {key: value for key, value in figures(name, row).items() if name != "baseline" or key not in RATIOS}
        made.append(PublishedRow(name, REPRODUCTION, found, 2, note if name == "baseline" else "", TITLES[name]))
    return made


RATIOS = (OF_FIRST, FASTER)


def _sizes(found: Measurements) -> str:
    columns = ["Parameters", "Zeros in Linear weights", "MiB", OF_FIRST, "MiB compressed"]
    notes, rows = Footnotes(), []
    for name, row in found.compression.items():
        cells = [f"{row['parameters']:,}", f"{100 * row['sparsity']:.1f} %", number(row["size_mb"], 2)]
        rows.append([TITLES[name], *cells, number(found.ratio(name, "baseline"), 2), number(row["compressed_mb"], 2)])
    ours = {
        name: {"MiB": row["size_mb"], OF_FIRST: found.ratio(name, "baseline")}
        for name, row in found.compression.items()
    }
    gains = published.gains()
    theirs = _variants(lambda name, row: {"MiB": row["size_mb"], OF_FIRST: gains[name]["size"]})
    absolute = ("MiB",) if found.published_size else ()
    rows += Beside(columns, ours, TITLES.__getitem__, absolute, (OF_FIRST,)).lines(theirs, notes)
    note = (
        f"Pruned: {found.prune['method']}, amount {found.prune['amount']:g}. Zeros: of the Linear weights without the "
        "vocabulary projection, which is the embedding's matrix. Compressed as a download is (DEFLATE)."
    )
    return section("Size", note, ["Variant", *columns], rows, notes)


def _speeds(found: Measurements) -> str:
    lengths, middle = list(found.compression["baseline"]["latency_ms"]), found.middle
    columns = ["load ms", "first inference ms", *(f"ms at {length}" for length in lengths)]
    columns += [f"rounds at {middle}", f"p90 at {middle}", "speed-up", "rows/s", FASTER, "peak MiB"]
    first, notes, rows, ours = found.compression["baseline"], Footnotes(), [], {}
    for name, row in found.compression.items():
        span, faster = found.span(name), row["throughput"] / first["throughput"]
        cells = [TITLES[name], number(row["load_ms"], 0), number(row["cold_start_ms"], 1)]
        cells += [number(row["latency_ms"][length]["p50"], 1) for length in lengths]
        cells += [f"{span.low:.1f} to {span.high:.1f}", number(row["latency_ms"][middle]["p90"], 1)]
        cells += [f"{found.latency('baseline') / found.latency(name):.2f}x", number(row["throughput"], 1)]
        rows.append([*cells, f"{faster:.2f}x", number(row["peak_memory_mb"], 1)])
        ours[name] = {"first inference ms": row["cold_start_ms"], "rows/s": row["throughput"], FASTER: faster}
    ours["baseline"]["peak MiB"] = first["peak_memory_mb"]
    absolute = ("first inference ms", "rows/s", "peak MiB") if found.published_size else ()
    beside = Beside(columns, ours, TITLES.__getitem__, absolute, (FASTER,), {FASTER: "x"})
    rows += beside.lines(_published_speeds(), notes)
    return section("Speed and memory", _speed_note(found), ["Variant", *columns], rows, notes)


def _published_speeds() -> list[PublishedRow]:
    gains, note = published.gains(), published.load_published("reproduction")["compression_note"].rstrip(".")

    def figures(name: str, row: Row) -> dict[str, float]:
        measured = {"first inference ms": row["cold_start_ms"], "rows/s": row["throughput"]}
        memory = {"peak MiB": row["peak_memory_mb"]} if name == "baseline" else {}
        return measured | memory | {FASTER: gains[name]["speed"]}

    return _variants(figures, note)


def _machine(found: Measurements) -> str:
    machine = found.summary["machine"]
    return f"{machine_text(machine)}; torch {machine['torch']}, onnxruntime {machine['onnxruntime']}."


def _speed_note(found: Measurements) -> str:
    some = found.compression["baseline"]
    few = " (too few to judge small differences by)" if found.rounds < ENOUGH_ROUNDS else ""
    return (
        f"{_machine(found)} Each model in {found.rounds} fresh processes{few}, PyTorch's perhaps "
        "forks of one that has imported it and run no model, the models taking turns. Latency: median of one row by "
        f"its tokens; at {found.middle} tokens also the lowest and highest round's median, the 90th percentile and the "
        "speed-up over the first variant. Rows a second in batches of "
        f"{some['throughput_batch']} x {some['throughput_length']} tokens. Peak memory: in a process of its own, "
        "growth of resident memory over that before loading, in single inferences, where freed memory goes back to the "
        "system; ONNX without the memory arena that its times are taken with."
    )


LOSSES = {"mlm_loss": "MLM loss", "distill_loss": "distillation loss", "cosine_loss": "cosine loss"}
ACCURACY = {"accuracy": "masked tokens right", "covered": "tokens covered"}


def _quality(found: Measurements) -> str:
    keys = {key: name for key, name in (LOSSES | ACCURACY).items() if any(key in row for row in found.quality.values())}
    change, points = "change of MLM loss, 95 % interval", "change of tokens right, points"
    notes, rows = Footnotes(), []
    mark = notes.mark("held-out text", found.notes[CORPUS])
    for name, row in found.quality.items():
        cells = [number(row[key], 4) if key in row else DASH for key in keys]
        rows.append([TITLES[name], *cells, _change(row, "mlm_loss", 1, 4), _change(row, "accuracy", 100, 1)])
    columns, ours = (
        [*keys.values(), change, points],
        {name: {LOSSES[key]: row[key] for key in LOSSES} for name, row in found.quality.items()},
    )
    theirs = [
        PublishedRow(name, REPRODUCTION, {LOSSES[key]: row[key] for key in LOSSES}, 4, "", TITLES[name])
        for name, row in published.load_published("reproduction")["quality"].items()
    ]
    rows += Beside(columns, ours, TITLES.__getitem__, [LOSSES[key] for key in found.comparable_losses]).lines(
        theirs, notes
    )
    return section("Quality", _quality_note(found), ["Variant", *(name + mark for name in columns)], rows, notes)


def _quality_note(found: Measurements) -> str:
    note = (
        f"On the same held-out text, each variant as it runs, {found.masked_tokens:,} masked tokens. "
        "Changes are to the first variant, paired by block of text, with a bootstrap interval: one that holds 0 shows "
        "no difference."
    )
    return f"{RANDOM} {note}" if found.making.random else note


def _change(row: Row, key: str, unit: float, digits: int) -> str:
    if f"{key}_difference" not in row:
        return DASH
    low, high = (unit * row[f"{key}_difference_{end}"] for end in ("low", "high"))
    return f"{low:+z.{digits}f} to {high:+z.{digits}f}"


SHARE = "of BERT's parameters"
TIMED = ("Pairs", "Seconds", "Speed-up")


def _teacher_speed(found: Measurements) -> str:
    columns = ["Parameters", SHARE, "Pairs", "Seconds", "Speed-up"]
    slowest = max((row["inference_seconds"] for row in found.speed.values()), default=0.0)
    largest = max((row["parameters"] for row in found.speed.values()), default=1)
    notes, rows, ours = Footnotes(), [], {}
    mark = notes.mark(STSB, found.notes[STSB])
    for name, row in found.speed.items():
        seconds, share = row["inference_seconds"], row["parameters"] / largest
        cells = [f"{row['parameters']:,}", number(share, 2), f"{row['samples']:,}", number(seconds, 2)]
        rows.append([title(name), *cells, f"{slowest / seconds:.2f}x"])
        compared = {} if name == TEACHER else {SHARE: share, "Speed-up": slowest / seconds}
        ours[name] = {"Seconds": seconds, **compared}
    absolute = ("Seconds",) if found.published_size and found.making.source == "hub" else ()
    pairs = {row["samples"] for row in found.speed.values()}
    beside = Beside(columns, ours, title, absolute, (SHARE, "Speed-up"), {"Speed-up": "x"})
    rows += beside.lines(_published_passes(pairs), notes)
    note = (
        "One pass over the first pairs of STS-B, from text to score with a classification head, one at a time. Times "
        "of different machines do not compare, the speed-up does."
    )
    return section(
        "Speed of teacher and student",
        f"{note} {_machine(found)}",
        ["Model", *(name + mark if name in TIMED else name for name in columns)],
        rows,
        notes,
    )


def _published_passes(pairs: set[int]) -> list[PublishedRow]:
    """Make rows of the published passes over STS-B; their seconds only where ours is over as many pairs."""
    reproduction, paper = (published.load_published(name) for name in ("reproduction", "paper"))
    sources = {
        PAPER: (STSB_PAIRS, {n: (r["parameters_million"], r["stsb_seconds"]) for n, r in paper["size_speed"].items()}),
        REPRODUCTION: (
            reproduction["settings"]["speed"]["samples"],
            {n: (float(r["parameters"].rstrip("M")), r["seconds"]) for n, r in reproduction["speed"].items()},
        ),
    }
    made = []
    for source, (samples, models) in sources.items():
        parameters, seconds = models[TEACHER]
        for name, (own, took) in models.items():
            ratios = {} if name == TEACHER else {SHARE: own / parameters, "Speed-up": seconds / took}
            figures = ratios | ({"Seconds": took} if pairs == {samples} else {})
            made.append(PublishedRow(name, source, figures, 2, "", NAMES[name]))
    return made
