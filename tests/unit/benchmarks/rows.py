"""A small result file with figures that can be checked by eye."""

MACHINE = {
    "commit": "0123456789ab",
    "date": "2025-01-02T03:04:05+00:00",
    "device": "cpu",
    "cpu": "Some CPU",
    "threads": 1,
    "python": "3.11.0",
    "versions": {"torch": "2.13.0", "keras": "3.15.1"},
}
EQUAL = {"ok": True, "difference": 0.0, "loss": 1.0, "reference": "hand-keras"}
OFF = {"ok": False, "difference": 0.2, "why": "its loss after 48 steps is 20.0% off that of x"}


def around(median, spread):
    return {"median": median, "p5": median * (1 - spread), "p95": median * (1 + spread)}


def row(name, label, family, us, spread=0.1, ratio=None, **more):
    return {
        "case": "mlp",
        "title": "MLP, batch 32",
        "contestant": name,
        "label": label,
        "family": family,
        "versions": {"torch": "2.13.0"},
        "device": "cpu",
        "threads": 1,
        "us_per_step": {
            "median": us,
            "p5": us * (1 - spread),
            "p95": us * (1 + spread),
            "all": [us] * 6,
        },
        "wall_us_per_step": {"median": us},
        "cpu_us_per_step": {"median": us},
        "rounds": 6,
        "samples_per_s": {"median": 32e6 / us},
        "ratio": around(us / 5000 if ratio is None else ratio, spread),
        "first_step_s": 1.25,
        "over_floor_us": us - 300,
        "fair": EQUAL,
        **more,
    }


def untimed(name, label, family, **why):
    wanted = ("case", "title", "versions")
    about = {key: value for key, value in row("", "", "", 1.0).items() if key in wanted}
    return {**about, "contestant": name, "label": label, "family": family, **why}


def result(*rows, **more):
    return {"suite": 1, "machine": MACHINE, "left_out": [], "rows": list(rows), **more}


def example():
    agreed = {"ok": False, "difference": 0.05, "outside_us": 1000.0, "benchmark_us": 950.0}
    return result(
        row("hand-keras", "hand loop, Keras parts", "hand", 5000.0),
        row("lightning", "Lightning", "peer", 8000.0, fair=OFF),
        row("record-inductor", "fitkit Record inductor", "record", 1000.0, agreement=agreed),
        untimed("skorch", "skorch", "peer", error="ImportError: no <skorch>"),
        untimed("composer", "Composer", "peer", left_out="needs an old torch"),
        *(
            row(
                "fitkit",
                "fitkit eager",
                "fitkit",
                10.0 * n,
                case=f"batch={n}",
                axis="batch",
                value=n,
            )
            for n in (8, 128)
        ),
        left_out=["cnn"],
    )
