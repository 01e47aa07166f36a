"""Every figure of the paper from real pass rates and responses, and from the paper's own points, in numbers.

python bench/paper_figures.py [PART ...]: `published` (each picture of the paper's points against the readings: a file
paper_figures.json beside the data folder, where there is one, else the package's own table, and against numbers that
the paper prints), `responses` (Figure 1 right), `passk` (Figure 2 right), `caps` (Figure 4, 3 and 4) and `models`
(Figure 1 left, Tables 6 and 7); all when none is named. All but the first need the data folder, and say so without
it. With FIGURES_TO=FOLDER the pictures are kept. Writes bench/results/paper_figures.json.
"""

import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
from parts import run_parts

from dart_math_nb.data.files import read_json, read_rows
from dart_math_nb.data.load import data_folder
from dart_math_nb.evaluate.paper import paper_frame
from dart_math_nb.grade import grade_response
from dart_math_nb.report.against_teacher import paper_teacher, plot_teacher, teacher_frame
from dart_math_nb.report.averages import average_frame, paper_averages, plot_averages
from dart_math_nb.report.beside import draw_beside, paper_points, paper_scaling
from dart_math_nb.report.caps import N_PAPER, cap_curve, plot_raw, plot_reached
from dart_math_nb.report.domains import domain_frame, domain_pairs, plot_domains
from dart_math_nb.report.figures import (
    cost_frame,
    plot_responses,
    plot_scaling,
    responses_frame,
    scaling_frame,
)
from dart_math_nb.report.html import new_axes
from dart_math_nb.report.passk import passk_frame, plot_passk, running_frame
from dart_math_nb.report.set_tables import paper_levels
from dart_math_nb.report.training_time import paper_times
from dart_math_nb.sample.strategy import StrategyCfg

OUT = Path(__file__).parent / "results" / "paper_figures.json"
CAPS = [256, 512, 1024, 2048, 4096, 8192]  # Of the paper's Figure 4
K_UNIFORM, K_PROP, K_VRT = 40, 192, 52  # Of the paper's sets
READINGS = {  # Panel here -> name in the file of readings, and its scale of y
    **{b: (f"fig3/{b}", 1) for b in ("Mistral-7B", "Llama3-8B", "DeepSeekMath-7B")},
    **{t: (f"fig4/{t}", 1) for t in ("MATH", "GSM8K")},
    "raw_samples": ("fig4/raw_samples", 1e7),
    "achieving_ratio": ("fig4/achieving_ratio", 1),
    "passk": ("fig2/passk", 1),
}
SERIES = {
    "vrt": "VRT",
    "uni": "DARS-Uniform",
    "prop": "DARS-Prop2Diff",
    "vrtc": "VRT + Cover",
    "propnc": "DARS-Prop2Diff - Cover",
}
MODELS = {  # Two students, as it were, and one that stands for a teacher
    "gemma-2-9b-it": "gemma-2-9b-it",
    "Qwen2-7B": "Qwen2-7B-Instruct",
    "Qwen2-72B": "Qwen2-72B-Instruct",
}
BASE, TEACHER = "gemma-2-9b-it", "Qwen2-72B"


def kept(ax, name: str) -> str:
    "Draw a picture; keep it where FIGURES_TO says."
    buffer = io.BytesIO()
    ax.figure.savefig(buffer, format="png", dpi=150)
    if folder := os.environ.get("FIGURES_TO"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{name}.png").write_bytes(buffer.getvalue())
    return f"{name}.png, {len(buffer.getvalue()) // 1000} kB"


def readings(panel: str) -> tuple[pd.DataFrame, str]:
    "Points of a panel from the file of readings, else from the package's table."
    folder = data_folder()
    file = folder.parent / "paper_figures.json" if folder else None
    if file is None or not file.exists():
        table = paper_frame("figures")
        table = table[table["panel"] == panel].rename(columns={"series": "strategy"})
        return table[["strategy", "x", "y"]], "the package's table"
    begin, scale = READINGS[panel]
    rows = [
        (SERIES.get(name.rsplit("/", 1)[1], name.rsplit("/", 1)[1]), x, y * scale)
        for name, points in read_json(file).items()
        if name.rsplit("/", 1)[0] == begin
        for x, y in points
    ]
    return pd.DataFrame(rows, columns=["strategy", "x", "y"]), "the file of readings"


def drawn_points(panel: str) -> tuple[pd.DataFrame, str]:
    "What is on the picture of a panel, read back from its lines."
    if panel in ("raw_samples", "achieving_ratio", "passk"):
        ax, scale = new_axes(), 1 if panel == "raw_samples" else 100
        draw_beside(ax, paper_points(panel))
    else:
        ax, scale = plot_scaling(scaling_frame(paper_scaling(panel)), new_axes()), 100
    parts = [
        pd.DataFrame({"x": line.get_xdata(), "y": np.asarray(line.get_ydata(), float) * scale})
        .assign(strategy=str(line.get_label()).removeprefix("paper: "))
        for line in ax.lines
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True), kept(ax, f"published-{panel}")


def published() -> dict:
    "Largest differences between pictures and readings, and between tables and printed numbers."
    found = {}
    for panel in READINGS:
        (theirs, where), (ours, picture) = readings(panel), drawn_points(panel)
        by = ["strategy", "x"]
        both = ours.sort_values(by, ignore_index=True), theirs.sort_values(by, ignore_index=True)
        same = both[0]["strategy"].tolist() == both[1]["strategy"].tolist()
        x, y = ((both[0][c] / both[1][c].astype(float) - 1).abs().max() for c in ("x", "y"))
        points = (both[0]["y"] - both[1]["y"]).abs().max()
        found[panel] = {"points": len(ours), "same_series": same, "against": where}
        found[panel] |= {"x_rel": float(x), "y_rel": float(y), "y_abs": float(points)}
        found[panel]["picture"] = picture
    return {"panels": found, "printed": printed()}


def printed() -> dict:
    "Numbers that the paper prints, and what the functions here make of them."
    fig1 = [28.9, 34.2, 34.3, 37.4, 38.8, 30.8, 35.6, 35.2, 38.7, 39.7]
    bars = [p.get_height() for p in plot_averages(paper_averages()).patches]
    diff = paper_teacher().groupby("model", sort=False)["diff"].mean() * 100
    n_math = np.array([565, 1349, 1592, 1690, 2304])
    levels = paper_levels().set_index("set")[["L1", "L2", "L3", "L4", "L5"]].astype(float)
    rows = levels.loc[["DART-Uniform", "DART-Prop2Diff"]] @ n_math
    covered = paper_levels("coverage").set_index("set").loc["MetaMath", "L1":"L5"].astype(float)
    hours = paper_times()
    return {
        "figure 1 left, bars against printed averages (points)": float(
            np.abs(100 * np.array(bars) - fig1).max()
        ),
        "table 7, mean difference from the teacher (points)": diff.round(2).to_dict(),
        "table 7, printed averages (points)": {"Uniform": -0.1, "Prop2Diff": 0.1},
        "table 3, rows on MATH that it implies over the published sets": (
            rows / [292_301, 521_936]
        ).round(5).tolist(),
        "figure 2 left, MetaMath queries covered, against readings": (
            (covered * n_math).round().astype(int).tolist(),
            [554, 1262, 1381, 1294, 1127],
        ),
        "table 5, GPU hours per epoch": (hours["gpu_hours"] / hours["epochs"]).tolist(),
    }  # fmt: skip


def worlds() -> dict[str, pd.DataFrame]:
    "Counts of draws and of correct ones of real models, by file."
    files = sorted((data_folder() / "pass_rates").glob("*.jsonl.gz"))
    found = {}
    for file in files:
        rows = pd.DataFrame(read_rows(file, ["n", "n_correct"]))[["n", "n_correct"]].astype(int)
        rows.insert(0, "query_id", [f"q{i:05}" for i in range(len(rows))])
        found[file.name.split(".")[0]] = rows
    return found


def rates_of(rows: pd.DataFrame, seed: int = 0) -> np.ndarray:
    "A pass rate per query, drawn from what its counts allow (Jeffreys)."
    c, n = rows["n_correct"], rows["n"]
    return np.random.default_rng(seed).beta(c + 0.5, n - c + 0.5)


def as_draws(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    "The recorded draws in a random order, the same number for each query."
    rng, n = np.random.default_rng(seed), int(rows["n"].min())
    ok = [
        rng.permutation(np.arange(m) < c)[:n]
        for m, c in zip(rows["n"], rows["n_correct"], strict=True)
    ]
    index = pd.MultiIndex.from_product([rows["query_id"], range(n)], names=["query_id", "trial"])
    draws = pd.DataFrame({"correct": np.concatenate(ok)}, index=index).reset_index()
    return draws.assign(finish_reason="stop", error=None)


def quotas_of(p: np.ndarray, n_fail: int = 64, seed: int = 1) -> dict[str, np.ndarray]:
    "Quotas of the paper's sets; fail rates from a pilot."
    fail = 1 - np.random.default_rng(seed).binomial(n_fail, p) / n_fail
    flat = np.full(len(p), K_UNIFORM)
    return {
        "DARS-Prop2Diff": np.maximum(1, np.ceil(K_PROP * fail)).astype(int),
        "DARS-Uniform": flat,
    }


def capped(p: np.ndarray, quota: np.ndarray, seed: int = 2) -> dict[int, pd.DataFrame]:
    "Draws and correct responses of each query under each cap, the same draws for all caps."
    rng = np.random.default_rng(seed)
    needed = quota + rng.negative_binomial(quota, np.maximum(p, 1e-9))
    out = {}
    for cap in CAPS:
        short = np.minimum(rng.binomial(cap, p), quota - 1)
        found = np.where(needed <= cap, quota, short)
        out[cap] = pd.DataFrame(
            {"n_trials": np.minimum(needed, cap), "n_correct": found, "quota": quota}
        )
    return out


def needs_data(part):
    "The part, where there is a data folder."

    def run() -> dict:
        return part() if data_folder() else {"skipped": "no data folder"}

    return run


def responses() -> dict:
    "Figure 1 right: responses per query of the paper's three sets over real difficulty."
    out = {
        "paper": "VRT rises from 0 to 52, Uniform is flat at 40, Prop2Diff peaks at about 190 "
        "among the hardest tenth and is 1 for the easiest quarter"
    }
    for name, rows in worlds().items():
        p, rng = rates_of(rows), np.random.default_rng(3)
        sizes = {"VRT": rng.binomial(K_VRT, p)}
        for strategy, quota in quotas_of(p).items():
            sizes[strategy] = capped(p, quota)[2048]["n_correct"].to_numpy()
        queries = rows[["query_id"]].assign(level=1, fail_rate=1 - rows["n_correct"] / rows["n"])
        sets = {n: queries.loc[queries.index.repeat(k), ["query_id"]] for n, k in sizes.items()}
        frame = responses_frame(sets, queries)
        tenth = (frame["rank"] - 1) * 10 // frame["rank"].max()
        means = frame.groupby(["strategy", tenth], sort=False)["n_responses"].mean()
        out[name] = {
            "n_queries": len(rows),
            "mean_pass_rate": round(float(p.mean()), 3),
            "rows": {n: len(s) for n, s in sets.items()},
            "per_query_by_tenth_hardest_first": {
                n: means[n].sort_index().round(1).tolist() for n in sets
            },
            "picture": kept(plot_responses(frame, new_axes()), f"responses-{name}"),
        }
    return out


def passk() -> dict:
    "Figure 2 right, from the recorded draws of real models: unbiased, and as the paper counts."
    theirs, out = paper_points("passk"), {}
    ks = [1, 2, 4, 8, 10, 16, 32, 40]
    paper = {
        n: dict(zip(part["x"].astype(int), part["y"], strict=True))
        for n, part in theirs.groupby("strategy", sort=False)
    }
    out["paper"] = {
        n: {str(k): points[k] for k in ks if k in points} for n, points in paper.items()
    }
    for name, rows in worlds().items():
        draws = as_draws(rows)
        frame, running = passk_frame({name: draws}), running_frame({name: draws})
        both = running.merge(frame[["k", "pass_at_k"]], on="k", suffixes=("_running", ""))
        shown = frame[frame["k"].isin([*ks, int(frame["k"].max())])]
        out[name] = {
            "n_queries": len(rows),
            "n_draws": int(frame["n_trials"].iloc[0]),
            "unbiased": {
                str(r.k): [round(v, 4) for v in (r.pass_at_k, r.low, r.high)]
                for r in shown.itertuples()
            },
            "running_minus_unbiased_at_most": round(
                float((both["pass_at_k_running"] - both["pass_at_k"]).abs().max()), 4
            ),
            "picture": kept(plot_passk(frame, running, new_axes(), True), f"passk-{name}"),
        }
    return out


def caps() -> dict:
    "Figure 4, 3 and 4: the paper's k and caps over real pass rates; and a replay of recorded draws."
    raw = paper_points("raw_samples").pivot(index="x", columns="strategy", values="y") / N_PAPER
    share = paper_points("achieving_ratio")
    theirs = {n: g["y"].round(4).tolist() for n, g in share.groupby("strategy", sort=False)}
    out = {"caps": CAPS}
    out["paper"] = {
        "draws_per_query": {n: raw[n].round(1).tolist() for n in raw},
        "achieved": theirs,
        "prop2diff_over_uniform": (raw["DARS-Prop2Diff"] / raw["DARS-Uniform"]).round(3).tolist(),
    }
    for name, rows in worlds().items():
        p = rates_of(rows)
        ks = {"DARS-Prop2Diff": K_PROP, "DARS-Uniform": K_UNIFORM}
        runs = [
            (strategy, ks[strategy], cap, result)
            for strategy, quota in quotas_of(p).items()
            for cap, result in capped(p, quota).items()
        ]
        frame = cost_frame(runs)
        each = frame.assign(each=frame["n_trials"] / frame["n_queries"])
        each = each.pivot(index="max_trials", columns="strategy", values="each")
        reached = frame.pivot(index="max_trials", columns="strategy", values="achieved")
        out[name] = {
            "n_queries": len(rows),
            "draws_per_query": {n: each[n].round(1).tolist() for n in each},
            "achieved": {n: reached[n].round(4).tolist() for n in reached},
            "prop2diff_over_uniform": (each["DARS-Prop2Diff"] / each["DARS-Uniform"])
            .round(3)
            .tolist(),
            "pictures": [
                kept(plot_raw(frame, new_axes(), True), f"caps-raw-{name}"),
                kept(plot_reached(frame, new_axes(), True), f"caps-reached-{name}"),
            ],
            "replay": replay(rows, name),
        }  # fmt: skip
    return out


def replay(rows: pd.DataFrame, name: str, n_most: int = 1500) -> dict:
    "The recorded draws of some queries under caps, by the function of the report."
    rows = rows.iloc[:: max(1, len(rows) // n_most)]
    draws, n = as_draws(rows), int(rows["n"].min())
    both = {
        "DARS-Prop2Diff": StrategyCfg("prop2diff", 12, n, n_pilot=8),
        "DARS-Uniform": StrategyCfg("uniform", 4, n),
    }
    curve = cap_curve(draws, both, rows["query_id"].tolist())
    expected = draws.assign(seen=draws.groupby("query_id")["correct"].cumsum())
    reached = {
        cap: float(
            (expected[expected["trial"] < cap].groupby("query_id")["seen"].max() >= 4).mean()
        )
        for cap in curve[curve["strategy"] == "DARS-Uniform"]["max_trials"]
    }
    own = curve[curve["strategy"] == "DARS-Uniform"]
    off = max(abs(reached[r.max_trials] - r.achieved) for r in own.itertuples())
    kept(plot_raw(curve, new_axes(), True), f"caps-replay-{name}")
    columns = ["strategy", "max_trials", "n_trials", "achieved", "n_open"]
    return {
        "n_queries": len(rows),
        "draws": len(draws),
        "rows": curve[columns].round(4).to_dict("records"),
        "achieved_counted_by_hand_differs_by_at_most": off,
    }


def models() -> dict:
    "Figure 1 left and Tables 6 and 7 from the real responses of three models."
    graded = real_models()
    frame = average_frame({"real": graded})
    both = pd.concat([frame, paper_averages()], ignore_index=True)
    math = {m: f[f["benchmark"] == "MATH level 5"] for m, f in graded.items()}
    pairs, against = domain_pairs(math, BASE), teacher_frame(graded, TEACHER)
    return {
        "models": MODELS,
        "averages": frame.drop(columns=["base", "source"]).round(4).to_dict("records"),
        "domains": domain_frame(math).round(4).to_dict("records"),
        "domain_pairs": pairs.round(4).to_dict("records"),
        "against_teacher": against.drop(columns="source").round(4).to_dict("records"),
        "pictures": [
            kept(plot_averages(both), "averages"),
            kept(plot_domains(domain_frame(math)), "domains"),
            kept(plot_teacher(pd.concat([against, paper_teacher()])), "teacher"),
        ],
    }


def real_models() -> dict[str, pd.DataFrame]:
    "Graded responses of some models to the queries that all of them answered."
    parts = []
    for benchmark, file in (("MATH level 5", "zeroeval_math_l5"), ("GSM8K", "zeroeval_gsm")):
        for r in read_rows(data_folder() / "responses" / f"{file}.jsonl.gz"):
            name = next((n for n, m in MODELS.items() if m == r["model"]), None)
            if name and r["resp"]:
                verdict = grade_response(r["resp"], str(r["ref"]))
                domain = r["type"] or "word problems"
                row = (name, benchmark, r["qid"], domain, verdict.correct, verdict.error)
                parts.append(row)
    columns = ["model", "benchmark", "query_id", "domain", "correct", "error"]
    frame = pd.DataFrame(parts, columns=columns).drop_duplicates(["model", "query_id"])
    common = frame.groupby("query_id")["model"].nunique() == len(MODELS)
    frame = frame[frame["query_id"].map(common)]
    return {n: frame[frame["model"] == n].drop(columns="model") for n in MODELS}


if __name__ == "__main__":
    parts = {"published": published}
    parts |= {f.__name__: needs_data(f) for f in (responses, passk, caps, models)}
    run_parts(__doc__, parts, OUT)
