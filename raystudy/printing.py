"""What the command line says to a person: the documents of `--json` as text and tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_facts(document: dict[str, Any], indent: str = "") -> None:
    for key, value in document.items():
        if isinstance(value, dict) and value:
            print(f"{indent}{key}:")
            print_facts(value, indent + "  ")
        else:
            print(f"{indent}{key}: {value}")


def print_plan(found: dict[str, Any]) -> None:
    cluster = "this machine" if found["cluster"] == "this machine" else "the declared cluster"
    verdict = "fits" if found["feasible"] else "can never run as it is"
    print(f"{found['name']}: {found['trials']} trials; on {cluster} it {verdict}")
    facts = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    facts.add_column(no_wrap=True)
    facts.add_column()
    for name, text in _plan_facts(found):
        facts.add_row(name, text)
    Console(highlight=False, markup=False).print(facts)
    if not found["arms"]:
        return
    table = Table(title=f"Arms of {found['name']}")
    printed = {arm["name"]: str(arm["printed"].get("parameters", "")) for arm in found["arms"]}
    headings = ["arm", "parameters", *(["printed"] if any(printed.values()) else []), "GB"]
    for heading in headings:
        table.add_column(heading, no_wrap=True, justify="left" if heading == "arm" else "right")
    table.add_column("differs in")
    own_workers = len({str(arm["workers"]) for arm in found["arms"]}) > 1
    for arm in found["arms"]:
        memory = f"{arm['memory_gb']:.3g}" + (" !" if arm["fits"] is False else "")
        cells = [arm["name"], f"{arm['parameters']:,}", *([printed[arm["name"]]] if "printed" in headings else [])]
        differs = arm["config"] | ({"workers": _team(arm["workers"])} if own_workers else {})
        table.add_row(*cells, memory, _settings(differs))
    Console().print(table)
    for arm in found["arms"]:
        if arm["note"]:
            print(f"{arm['name']}: {arm['note']}")


def _plan_facts(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """A plan's lines beside its arms: what each is about, and what is said."""
    search, resources, limits = found["search"], found["resources"], found["limits"]
    yield from (("problem", problem) for problem in found["problems"])
    yield from (("warning", warning) for warning in found["warnings"])
    if search:
        least, most = search["parameters"]["min"], search["parameters"]["max"]
        sizes = "no network" if least is None else f"{least:,} to {most:,} parameters"
        memory = f"at most about {search['memory_gb']['max']:.3g} GB to train one"
        yield "search", f"{search['sampler']}, pruner {search['pruner']}; {sizes}, {memory}"
        for name, parameter in search["space"].items():
            yield f"  {name}", _range(parameter)
        yield from (("  constraint", constraint) for constraint in search["constraints"])
    nodes = " + ".join(f"{node['count']} x {_node(node)}" for node in resources["nodes"]) or "none"
    yield "nodes", nodes
    workers = resources["workers"]
    team = f"{_team(workers)} workers"
    each_with = "each worker with" if workers == 1 else f"each on {team} with"
    shared = f"; {resources['trials_per_gpu']} share a GPU" if resources["trials_per_gpu"] else ""
    yield "trials", f"{resources['concurrent_trials']} at once, {each_with} {resources['bundle']}{shared}"
    each = limits["finalists"]
    product = f"{each['configurations']} configurations x {each['folds']} folds x {each['seeds']} seeds"
    runs = f"{each['runs']} ({product})" if each["runs"] > 1 else "1"
    yield "retrainings", f"{runs}, one at a time, on at most {resources['finalist_workers']} workers"
    money = limits["money"]
    used = [f"{limits['cpu_hours']:g} CPU-hours", f"{limits['gpu_hours']:g} GPU-hours"]
    used += [f"{money['amount']:g} {money['currency']}"] if money else []
    yield "at most", f"{', '.join(used)} (a bound, no forecast: {limits['basis']})"
    if money and money["search"] is not None:
        yield "", f"the search itself stops at {money['search']:g} {money['currency']} (`budget.cost`)"
    yield "deadlock", f"{'none possible' if found['deadlock']['safe'] else 'not safe'}: {found['deadlock']['why']}"


def _team(workers: int | tuple[int, int]) -> str:
    return str(workers) if isinstance(workers, int) else f"{workers[0]} to {workers[1]}"


def _node(node: dict[str, Any]) -> str:
    parts = [f"{node['cpus']:g} CPU"]
    parts += [f"{node['gpus']:g} GPU"] if node["gpus"] else []
    parts[-1] += f" of {node['gpu_memory_gb']:.0f} GB" if node["gpus"] and node["gpu_memory_gb"] else ""
    parts += [f"{node['memory_gb']:.0f} GB"] if node["memory_gb"] else []
    return f"({', '.join(parts)})"


def _range(parameter: dict[str, Any]) -> str:
    """A searched key's kind and values in a few words."""
    chosen = parameter.get("choices")
    values = ", ".join(map(str, chosen)) if chosen else f"{parameter['low']:g} to {parameter['high']:g}"
    seeded = f", seeded from the {parameter['seed_from'].replace('_', ' ')}" if parameter.get("seed_from") else ""
    when = f", when {_settings(parameter['when'])}" if parameter["when"] else ""
    return f"{parameter['kind']}: {values}{seeded}{when}"


def print_presets(found: list[dict[str, Any]]) -> None:
    table = Table()
    for heading in ("preset", "parameters", "as published", "predicts"):
        table.add_column(heading, no_wrap=True)
    table.add_column("settings, where they are not the default")
    for one in found:
        published = one["parameters_as_published"] or one["parameters"]
        predicts = "\n".join(one["targets"])
        row = (one["preset"], f"{one['parameters']:,}", f"{published:,}", predicts, _settings(one["differs"]))
        table.add_row(*row, end_section=True)
    Console().print(table)
    print("As published, DNAPerceiver allocates 20,000 positions (`position_rows: 20000`) and reads 10,500 of them.")


def _settings(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in settings.items())


def print_dimension(found: dict[str, Any]) -> None:
    console, everything = Console(), {found["representation"]: found, **found["others"]}
    title = (
        f"Intrinsic dimension of {found['num_points']:,} distinct genes: {found['representation']}, {found['input']}"
    )
    table = Table("estimator", "estimate", "10-90 %", "points", "seconds", title=title)
    for name in [*found["estimates"], *found["refused"]]:
        value = found["estimates"].get(name)
        spread = "{:.1f} - {:.1f}".format(*found["spread"][name]) if name in found["spread"] else ""
        points, seconds = found["points"].get(name), found["seconds"].get(name)
        table.add_row(
            name,
            "refused" if value is None else f"{value:.1f}",
            spread,
            "" if points is None else f"{points:,}",
            "" if seconds is None else f"{seconds:.2f}",
        )
    console.print(table)
    beside = Table("representation", "consensus", "interval", "mean", "refused", title="What each representation says")
    for name, one in everything.items():
        interval = "-" if one["interval"] is None else "{:.1f} - {:.1f}".format(*one["interval"])
        consensus, mean = ("-" if one[key] is None else f"{one[key]:.1f}" for key in ("consensus", "mean"))
        num_asked = len(one["estimates"]) + len(one["refused"])
        beside.add_row(name, consensus, interval, mean, f"{len(one['refused'])} of {num_asked}")
    console.print(beside)
    for name, one in everything.items():
        for flag in one["flags"]:
            print(f"{name}: {flag}")
        for reason in dict.fromkeys(one["refused"].values()):
            refused = ", ".join(estimator for estimator, why in one["refused"].items() if why == reason)
            print(f"{name}, {refused} refused: {reason}")
    if found["page"]:
        print(f"curves and tables: {found['page']}")


def print_published(found: dict[str, Any]) -> None:
    """A published table with ours beside it, what each row changes, and what becomes of each claim."""
    console = Console(markup=False, highlight=False)
    console.print(found["first_line"])
    title = Text(f"{found['title']}: printed | ours")
    table = Table("row", title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for heading in ("parameters", "s an epoch", "Pearson r2"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict")
    for row in found["rows"]:
        ours = None if row["parameters"] is None else f"{row['parameters'] / 1e6:.2f}M"
        cells = [_beside(row["printed"].get("parameters"), ours)]
        for measure, digits in (("epoch_seconds", 2), ("pearson_r2", 4)):
            both = (row["printed"].get(measure), row[measure])
            cells.append(_beside(*(None if value is None else f"{value:.{digits}f}" for value in both)))
        table.add_row(*map(Text, [row["arm"], *cells, row["verdict"]]))
    console.print(table)
    for said in [f"{row['arm']}: {row['said']}" for row in found["rows"] if row["said"]]:
        console.print(said, soft_wrap=True)
    console.print(f"\n{found['how_judged']}\n")
    for claim in found["claims"]:
        measured = f" ({claim['said']})" if claim["said"] else ""
        console.print(f"{claim['says']}: {claim['verdict'].upper()}{measured}", soft_wrap=True)
    for note in [f"{row['arm']}: {row['note']}" for row in found["rows"] if row["note"]]:
        console.print(f"\n{note}")


def _beside(printed: str | None, ours: str | None) -> str:
    return f"{'-' if printed is None else printed} | {'-' if ours is None else ours}"


def print_check(found: dict[str, Any]) -> None:
    """A data report: what to look at comes last, where the eye is when a command has ended."""
    console = Console(markup=False, highlight=False)
    console.print(f"{found['source']}: {found['headline']}")
    kinds = {"dropped": "left out", "repaired": "repaired", "unmatched": "rows of the given tables without a gene"}
    for kind, title in kinds.items():
        met = _checked(title, "count")
        for reason, one in found[kind].items():
            met.add_row(_such(reason, one["examples"]), f"{one['count']:,}")
        if found[kind]:
            console.print(met)
    levels = _checked("target", "genes", "min", "median", "max", "sd")
    for name, one in found["targets"].items():
        numbers = (_short(one[key]) for key in ("min", "median", "max", "sd"))
        levels.add_row(name, f"{one['n']:,}", *numbers)
    console.print(levels)
    for name, one in found["targets"].items():
        console.print(f"{name}: {one['unit']}")
    for one in found["correlations"]:
        both = f"{' and '.join(one['targets'])} ({one['n']:,} genes)"
        console.print(f"{both}: Pearson r {_short(one['pearson'])}, Spearman {_short(one['spearman'])}")
    checks = _checked("check", "genes", "share")
    for row in found["checks"]:
        share = f"{round(100 * row['genes'] / row['of'], 2):g} %" if row["of"] else "-"
        checks.add_row(_such(row["check"], row["examples"]), f"{row['genes']:,}", share)
    console.print(checks)
    features = _checked("feature", "missing", "mean", "sd")
    for name, one in found["features"].items():
        features.add_row(name, f"{one['missing']:,}", _short(one["mean"]), _short(one["sd"]))
    console.print(features)
    for warning in found["warnings"] or ["none, nothing looked wrong"]:
        console.print(f"warning: {warning}", soft_wrap=True)


def _checked(title: str, *headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(title, overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _such(what: str, examples: list[str]) -> Text:
    """With examples on a line of their own."""
    return Text.assemble(what, (f"\n{', '.join(examples)}" if examples else "", "dim"))


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def print_split(found: dict[str, Any]) -> None:
    """Ways of parting the same genes: what each drops, then what each leaks from one part to another."""
    console = Console(markup=False, highlight=False)
    up, down = found["window_bp"]
    which = f"with a {found['target']} level" if found["target"] else "in all"
    console.print(f"{found['source']}: {found['num_labelled']:,} genes {which}; windows: {up:,} bp up, {down:,} down")
    sizes = _checked("by", "train", "valid", "test", "dropped: overlap", "family")
    leaks = _checked("by", "overlap", "half", "family", "copies", "protein", "window")
    for way, one in found["ways"].items():
        if "refused" in one:
            continue
        dropped = [one["dropped"].get(reason, 0) for reason in ("window_overlap", "family")]
        sizes.add_row(way, *(f"{number:,}" for number in [one["train"], one["valid"], one["test"], *dropped]))
        if "pairs" in one:
            leaks.add_row(way)
        for pair, leak in one.get("pairs", {}).items():
            counts = ("window_overlaps", "window_overlaps_half", "family_members", "identical_proteins")
            cells = [_share(leak[key], leak["held_out"]) for key in counts]
            cells += [_likeness(leak[key]) for key in ("protein_similarity", "window_similarity")]
            leaks.add_row(f"  {pair}", *cells)
    if sizes.row_count:
        console.print(sizes)
    if leaks.row_count:
        console.print(leaks)
        console.print(
            "Of the genes of the second part: those whose window overlaps one of the first, or shares more than half "
            "of it with one; those with a homolog there; those with a copy. Protein and window: how like the nearest "
            "there is, the largest and the median, and how many genes are at 30 % or above (6-mers of residues, "
            "16-mers of bases). What is not known is -."
        )
    for way, one in found["ways"].items():
        if "refused" in one:
            console.print(f"{way}: {one['refused']}", soft_wrap=True)


def _share(count: int | None, num_genes: int) -> str:
    return "-" if count is None else f"{100 * count / num_genes:.1f}%" if count else "0"


def _likeness(nearest: dict[str, float] | None) -> str:
    return "-" if nearest is None else f"{nearest['largest']:.0%}, {nearest['median']:.0%}, {nearest['close']:,}"
