"""Write the tables of README and docs from the files under ``benchmarks/results/``.

python -m benchmarks.tables          # rewrites what stands between the two marks
python -m benchmarks.tables --check  # exit status 1 if a document is not what the files say
"""

import json
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.provenance import RESULTS, ROOT

BEGIN, END = "<!-- results: python -m benchmarks.tables -->", "<!-- end of results -->"
PICTURES = (
    "bench_models.png",
    "control_reward_learning_HalfCheetah.png",
    "control_reward_learning_Hopper.png",
)


def claims(content: dict[str, Any]) -> list[str]:
    """One row per claim: how often it held."""
    lines = [
        "**Claims**: `python -m benchmarks.claims KEY --seed N` runs any of them again.",
        "",
        "| claim | what it says | held | figures of the last seed |",
        "|---|---|--:|---|",
    ]
    for key, claim in content["claims"].items():
        runs = [one for one in claim["runs"] if not one["quick"]]
        if runs:
            held = sum(one["holds"] for one in runs)
            figures = ", ".join(f"{k} {_short(v)}" for k, v in runs[-1]["figures"].items())
            seeds = f"{held} of {len(runs)} seeds"
            lines.append(f"| `{key}` | {claim['claim']} | {seeds} | {figures} |")
    return lines


def control(module: str, content: dict[str, Any]) -> list[str]:
    """Interquartile means of the final true returns."""
    lines = [
        f"**Learning curves**: `python -m benchmarks.control.{module}`, PPO; the true return of 20"
        " fresh episodes per seed, interquartile mean over seeds, 95 % bootstrap interval.",
        "",
        "| environment | agent learns from | true return | 95 % interval | labels | seeds"
        " | steps |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for env, conditions in content["results"].items():
        for condition, one in conditions.items():
            low, high = one["interval_95"]
            between = f"{low:.0f} to {high:.0f}" if len(one["seeds"]) > 1 else "—"
            steps = ", ".join(f"{steps:,}" for steps in one["steps"])
            lines.append(
                f"| `{env}` | {condition} | {one['iqm']:.0f} | {between}"
                f" | {max(one['labels']):,} | {len(one['seeds'])} | {steps} |"
            )
    return lines


def fit(content: dict[str, Any]) -> list[str]:
    """How fast reward models are fitted."""
    small, large = content["small"], content["large"]
    return [
        f"| fitting 3 reward networks of {_units(small)}, pairs/s over imitation"
        f" {content['imitation']}'s | {small['ratio']:.1f}× | ≥ 10× |",
        f"| the same for {_units(large)}, share of the matrix products' own speed"
        f" | {large['ratio']:.2f} | ≥ 0.80 |",
    ]


def overhead(content: dict[str, Any]) -> list[str]:
    """What learning the reward costs beside plain Stable-Baselines3."""
    return [
        "| wall time per step of reward learning over plain Stable-Baselines3 (PPO, Pendulum, 8"
        f" environments, {content['labels']} labels, {content['steps']:,} steps)"
        f" | {content['ratio']:.2f}× (processor time {content['ratio_cpu']:.2f}×) | ≤ 1.10× |"
    ]


def labels(content: dict[str, Any]) -> list[str]:
    """How fast scripted raters answer."""
    return [
        f"| labels/s of {name}, 50-step segments, over imitation's gatherer"
        f" | {ratio:,.0f}× | ≥ 50× |"
        for name, ratio in content["ratios"].items()
    ]


def memory(content: dict[str, Any]) -> list[str]:
    """What a stored step takes."""
    return [
        f"| memory of {content['steps']:,} stored Hopper steps over the raw columns"
        f" | {content['ratio']:.3f}× | ≤ 1.1× |"
    ]


def text(content: dict[str, Any]) -> list[str]:
    """How fast a language model writes and learns."""
    size = f"GPT-2 of {content['parameters'] / 1e6:.1f} M, {content['device'].upper()}"
    lengths = f"{content['responses']} responses of {content['response_tokens']} tokens"
    found = content["settings"]
    costs = max(one["environment_over_generation"] for one in found.values())
    memory = max(one["memory"] for one in found.values())
    return [
        *(
            f"| GRPO, tokens/s of writing and learning over TRL {content['trl']}'s ({size};"
            f" {lengths}; {name}) | {one['ratio_total']:.2f}× | ≥ 1.3× |"
            for name, one in found.items()
        ),
        f"| the same, cost of the environment over bare writing | {costs:.1%} | ≤ 5 % |",
        f"| the same, peak memory over TRL's | {memory:.2f}× | ≤ 1× |",
    ]


def self_play(content: dict[str, Any]) -> list[str]:
    """What self-play costs beside plain Stable-Baselines3."""
    return [
        "| wall time per step of SPO over plain Stable-Baselines3 (PPO, Pendulum, 8 environments,"
        f" a queue of {content['queue']}) | {content['ratio']:.2f}× | ≤ 1.10× |"
    ]


def planning(content: dict[str, Any]) -> list[str]:
    """How fast many boards are solved at once."""
    return [
        f"| V*, Q* and successor features of {content['mdps']} random MDPs in one batch, over"
        f" {name} | {ratio:.0f}× | ≥ 20× |"
        for name, ratio in content["ratios"].items()
    ]


def populations(content: dict[str, Any]) -> list[str]:
    """What fitting the models of many raters costs."""
    return [
        f"| fitting {name.upper()} over Bradley-Terry, {content['members']} networks of {width}"
        f" | {ratio:.2f}× | ≤ 1.5× |"
        for width, each in content["ratios_to_bradley_terry"].items()
        for name, ratio in each.items()
    ]


def rlpd(content: dict[str, Any]) -> list[str]:
    """What many critics cost beside two."""
    width = content["width"][0]
    return [
        f"| one RLPD update of {content['critics']} critics over a Stable-Baselines3 SAC update of"
        f" 2, {width} units wide, batch {content['batch']}; the actor's after every tenth"
        f" | {content['ratio']:.2f}× | ≤ 2.5× |"
    ]


def judging(content: dict[str, Any]) -> list[str]:
    """What asking an endpoint costs beside the endpoint."""
    return [
        f"| {content['captions']:,} captions judged at an endpoint that answers in"
        f" {1e3 * content['delay_s']:.0f} ms, {content['concurrency']} questions at once, over the"
        f" endpoint's own limit | {content['ratio']:.2f}× | ≤ 1.10× |"
    ]


CASES = {
    "ranking": "ranking, its model's 32 gradient steps per update included",
    "ranking unlearned": "ranking, without these steps",
    "retrieval": "retrieval",
}
"""What is annotated."""


def annotating(content: dict[str, Any]) -> list[str]:
    """What an annotator costs whoever acts."""
    return [
        "| environment steps/s with an annotator at work all the time, over those without"
        f" ({CASES[case]}; {found['on']['labels_per_s']:.0f} labels/s)"
        f" | {found['ratio']:.2f} | ≥ 0.90 |"
        for case, found in content["cases"].items()
    ]


def bench(content: dict[str, Any]) -> list[str]:
    """Interquartile means of every score, by model."""
    by_model = content["by_model"]
    scores = [name for name in next(iter(by_model.values())) if name != "train_accuracy"]
    seeds, tasks = content["seeds"], len(content["tasks"])
    lines = [
        f"Interquartile means over {tasks} tasks, all raters and {seeds} seeds"
        f" ({content['cells']:,} cells); intervals, and every rater by itself, are in"
        " `benchmarks/results/bench_models.json`:",
        "",
        f"| model | {' | '.join(name.replace('_', ' ') for name in scores)} |",
        f"|---|{'--:|' * len(scores)}",
    ]
    for model, found in by_model.items():
        values = [found[name]["value"] for name in scores]
        told = ("—" if one is None else f"{one:.2f}" for one in values)
        lines.append(f"| `{model}` | {' | '.join(told)} |")
    return lines


def learned(content: dict[str, Any]) -> list[str]:
    """True return of policies that PPO learned on each model's reward, by rater."""
    each = content["by_model_and_rater"]
    raters = list(next(iter(each.values())))
    lines = [
        f"The true return of policies that PPO learned on `{'`, `'.join(content['tasks'])}`"
        f" (`--policy-steps 50000`; {content['seeds']} seeds, {content['cells']} cells;"
        " `benchmarks/results/bench_models_learned.json`), with 95 % intervals:",
        "",
        f"| model | {' | '.join(f'`{one}`' for one in raters)} |",
        f"|---|{'--:|' * len(raters)}",
    ]
    for model, found in each.items():
        told = (found[one]["true_return"] for one in raters)
        values = (f"{one['value']:.2f} [{one['low']:.2f}, {one['high']:.2f}]" for one in told)
        lines.append(f"| `{model}` | {' | '.join(values)} |")
    return lines


SPEED: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "speed_overhead": overhead,
    "speed_self_play": self_play,
    "speed_reward_model_fit": fit,
    "speed_populations": populations,
    "speed_planning": planning,
    "speed_labels": labels,
    "speed_memory": memory,
    "speed_text": text,
    "speed_text_cuda": text,
    "speed_rlpd": rlpd,
    "speed_judging": judging,
    "speed_annotating": annotating,
}


def readme() -> list[str]:
    """All tables of the README whose files are there."""
    parts: list[list[str]] = []
    tables: dict[str, Callable[[dict[str, Any]], list[str]]] = {
        "claims": claims,
        "control_reward_learning": partial(control, "reward_learning"),
        "control_spo": partial(control, "spo"),
    }
    for name, table in tables.items():
        content = _read(name)
        if content:
            parts.append(table(content))
    rows = [row for name, table in SPEED.items() if (found := _read(name)) for row in table(found)]
    if rows:
        head = ["**Speed**, each a ratio in one run (`benchmarks/speed/`):", ""]
        parts.append([*head, "| what | measured | aim |", "|---|--:|--:|", *rows])
    return ["\n".join(part) for part in parts]


def bench_models() -> list[str]:
    """The tables of the benchmark of preference models."""
    parts = ("bench_models", bench), ("bench_models_learned", learned)
    found = ((make, _read(name)) for name, make in parts)
    return ["\n".join(make(content)) for make, content in found if content is not None]


def beside_the_paper() -> list[str]:
    """Interventions by experts of three grades, row by row beside the paper's Table 1."""
    from benchmarks.control.rlif import EXPERTS, METHODS, PAPER
    from prefgym.interventions import load_expert

    content = _read("control_rlif")
    if content is None:
        return []
    grades = {name: [load_expert(name, one).about for one in EXPERTS[name]] for name in EXPERTS}
    lines = [
        "Grades after training, this library's and, in brackets, the paper's Table 1 (a million"
        " steps), by experts of three grades: `python -m benchmarks.control.rlif`, mean of 20 fresh"
        " episodes per seed, interquartile mean over seeds.",
        "",
        "| task | learns from | best expert | middle | worst | seeds | steps |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for name, known in grades.items():
        found = content["results"].get(f"prefgym/{name}-v0", {})
        asked = " | ".join(f"{one['grade']:.0f} ({one['asked']:g})" for one in known)
        lines.append(f"| {name} | the expert itself | {asked} | — | — |")
        for method in METHODS:
            told = [found.get(f"{method} {one}") for one in ("best", "middle", "worst")]
            ours = [None if one is None else _grade(one["iqm"], known[0]) for one in told]
            shown = " | ".join(
                f"{_whole(one)} ({_whole(paper)})"
                for one, paper in zip(ours, PAPER[name][method], strict=True)
            )
            some = [one for one in told if one is not None]
            seeds = min((len(one["seeds"]) for one in some), default=0)
            steps = max((max(one["steps"]) for one in some), default=0)
            lines.append(f"| {name} | {method} | {shown} | {seeds} | {steps:,} |")
    return ["\n".join(lines)]


def _whole(value: float | None) -> str:
    return "—" if value is None else str(round(value))


def _grade(value: float, about: Any) -> float:
    """A return as a percentage of a good agent's."""
    return 100.0 * (value - about["random"]) / (about["good"] - about["random"])


DOCUMENTS: dict[Path, Callable[[], list[str]]] = {
    ROOT / "README.md": readme,
    ROOT / "docs" / "bench.md": bench_models,
    ROOT / "docs" / "experts.md": beside_the_paper,
}


def rewritten(text: str, parts: list[str]) -> str:
    """A document with what stands between the marks renewed."""
    before, rest = text.split(BEGIN)
    return before + "\n\n".join([BEGIN, *parts, END]) + rest.split(END)[1]


def main(arguments: list[str]) -> int:
    """Rewrite, or check."""
    stale = False
    for path, parts in DOCUMENTS.items():
        text = path.read_text(encoding="utf-8")
        new = rewritten(text, parts())
        stale |= new != text
        if "--check" not in arguments:
            path.write_text(new, encoding="utf-8")
    if "--check" in arguments:
        return int(stale)
    for name in PICTURES:
        if (RESULTS / name).exists():
            shutil.copy(RESULTS / name, ROOT / "docs" / name)
    return 0


def _read(name: str) -> dict[str, Any] | None:
    path = Path(RESULTS / f"{name}.json")
    if not path.exists():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _units(settings: dict[str, Any]) -> str:
    hidden = settings["hidden"]
    return f"{len(hidden)}×{hidden[0]} units"


def _short(value: float | None) -> str:
    return "—" if value is None else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
