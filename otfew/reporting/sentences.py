"""A comparison in words: how methods are named, and the sentences below a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from otfew.evaluation.query_balance import BALANCED
from otfew.evaluation.query_balance import parse as parse_balance
from otfew.nodes import cuts_patches
from otfew.reporting.contrasts import OLD, Contrast, all_contrasts, contrasts

DOES = {"chamfer": "each node to its best match, no plan", "product-coupling": "every node with every node"}
"""What the usual controls do."""


def mark(name: str, record: Mapping[str, Any]) -> str:
    """Name a method in a table: whether it is transductive and what it is told then, or transports single nodes."""
    if not record["transductive"]:
        return f"{name} (one node: trivial)" if record.get("one_node") else name
    prior = record.get("class_prior", "")
    told = {"": "", "true": ", true prior: oracle"}.get(prior, f", {prior} prior")
    return f"{name} (transductive{told})"


def words(difference: Mapping[str, Any]) -> str:
    """Put the verdict and Holm's p into words."""
    p = difference["p_holm"]
    return str(difference["verdict"]) if p is None else f"{difference['verdict']} ({_small(p)})"


def _small(p: float) -> str:
    """Format a p-value."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def wide(record: Mapping[str, Any]) -> float | None:
    """Return the half-width over classes, or over photos where every class is in each episode; None where unknown."""
    value: float | None = record["photo_ci"] if "photo_ci" in record else record["class_ci"]
    return value


def transport_lines(results: Mapping[str, Any]) -> list[str]:
    """One sentence for each transport method: what it adds to its controls; last, how missing ones are made to run."""
    lines = []
    absent = False
    for name, adds in sorted(results["transport_adds"].items()):
        if results["methods"].get(name, {}).get("one_node"):
            continue  # said by ``one_node_lines``
        said = [_over(contrast, i == 0) for i, contrast in enumerate(contrasts(adds))]
        found = ", ".join(said) or "unknown"
        reason = adds.get("reason", "")
        between = "; " if said else ", "
        lines.append(f"what transport adds in {name}: {found}{between if reason else ''}{reason}")
        absent |= "did not run" in reason
    if absent:
        lines.append(
            "a control that did not run does so where it is named among the methods, on the same nodes: --methods, "
            "beside the others or beside all"
        )
    return lines


def _over(contrast: Contrast, first: bool) -> str:
    """Say how far a method is over a control, and whether that is more than chance."""
    record, p = contrast.record, contrast.record["p_holm"]
    points = f"{percent(record['mean'], sign=True)} ± {percent(wide(record))}{' points' if first else ''}"
    over = f"{contrast.control}, {OLD}" if contrast.old else contrast.control
    return f"{points} over {over} ({record['verdict']}{'' if p is None else f', p {_small(p)}'})"


def contrast_lines(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what the controls are in the sentences and tables of what transport adds, and where they were chosen on test.

    Args:
        records: Of comparisons, with "transport_adds" and "methods".

    Returns:
        Nothing where no control ran.
    """
    found = [contrast for record in records for _, contrast in all_contrasts(record)]
    if not found:
        return []
    if any(contrast.old for contrast in found):
        return [
            "what transport adds is, in this run of an older format, the difference to the control that was best on "
            "these very episodes, which leans against transport: run the same command again for controls that are "
            "fixed beforehand"
        ]
    named = dict.fromkeys(contrast.named for contrast in found)
    controls = [f"{name} ({DOES[name]})" if name in DOES else name for name in named]
    return [
        f"what transport adds is the difference to {listed(controls, ' and ')}, on the same nodes with the same "
        "options: controls that are fixed beforehand, whatever came out; all these differences are one family for "
        "Holm's correction"
    ]


def percent(value: float | None, *, sign: bool = False) -> str:
    """Format a fraction as per cent with two digits; a dash where there is none."""
    if value is None:
        return "–"
    return f"{100 * value:+.2f}" if sign else f"{100 * value:.2f}"


def milliseconds(value: float | None) -> str:
    """Format a time with three digits."""
    return "–" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def protocol_lines(results: Mapping[str, Any]) -> list[str]:
    """Say on what the figures rest: data, images, backbone, episodes, intervals, and what did not run."""
    p = results["protocol"]
    data = p["data"]
    variant = f" ({data['variant']})" if data["variant"] else ""
    present = f"{data['classes']} of {data['published_classes']} classes, {data['images']:,} images"
    lines = [f"data: {data['dataset']}{variant}, split {data['split']}: {present}", *data["notes"]]
    lines += domain_lines(data) + _backbone_lines(p)
    lines.append(
        f"{p['episodes']:,} episodes of {p['way']}-way {_shots(p)}-shot with {_queries(p)}, "
        f"{_seeds(p)}, the same for all methods"
    )
    over = "photos" if p.get("fixed_classes") else "classes"
    together = f", {data['units']:,} units of classes that belong together" if "units" in data else ""
    lines.append(
        f"± are halves of 95 % intervals, over episodes and over {over} (jackknife{together}); claims rest on the "
        "wider one, with Holm's correction across methods, and are conditional on these classes and this checkpoint"
    )
    lines += _chance_lines(results)
    lines += _fixed_lines(p)
    key = "photo_ci_missing" if over == "photos" else "class_ci_missing"
    missing = {m["accuracy"].get(key) for m in results["methods"].values()} - {None}
    lines += [f"no interval over {over}: {reason}" for reason in sorted(missing)]
    lines += one_node_lines([name for name, m in results["methods"].items() if m.get("one_node")])
    lines += _noise_lines(results)
    lines += _unknown_lines(results)
    lines.append(
        "ms per episode: from cached features to logits; methods of global vectors start from nodes averaged once"
    )
    lines += _transductive_lines(results)
    lines += [f"not run: {name}: {reason}" for name, reason in sorted(results["not_run"].items())]
    return lines


def _chance_lines(results: Mapping[str, Any]) -> list[str]:
    """Say that nothing was learned where no method's interval lies above what a guess gets right."""
    chance = 1 / results["protocol"]["way"]
    for record in results["methods"].values():
        accuracy = record["accuracy"]
        half = wide(accuracy)
        if accuracy["mean"] - (accuracy["episode_ci"] if half is None else half) > chance:
            return []
    return [
        f"no method is told apart from guessing, which is right in {percent(chance)} %: is the network trained, and "
        "are the labels right?"
    ]


def domain_lines(data: Mapping[str, Any]) -> list[str]:
    """Say where labelled images and where queries come from, where these are two domains.

    Args:
        data: The protocol's part of that name.
    """
    if "domains" not in data:
        return []
    domains = data["domains"]
    support, query = domains["support"], domains["query"]
    if domains["same_images"]:
        what = f"the same {query['images']:,} images: no photo is both in an episode"
    else:
        what = f"{support['images']:,} and {query['images']:,} images"
    return [f"across domains: labelled images {support['name']}, queries {query['name']}; {what}"]


def one_node_lines(names: Sequence[str]) -> list[str]:
    """Say that transport had nothing to choose, where it was between single nodes; nothing where there is no such.

    Args:
        names: Of the methods that did so.
    """
    if not names:
        return []
    return [
        "one node an image: between two of them there is one transport plan, all the mass of the one to the other, so "
        f"that transport is trivial in {', '.join(sorted(names))} and these figures say nothing for or against it"
    ]


def _fixed_lines(protocol: Mapping[str, Any]) -> list[str]:
    """Say what holds where every class is in each episode."""
    if not protocol.get("fixed_classes"):
        return []
    lines = [
        "every class is in each episode: the figures are of these classes, and of other photos of them; each photo is "
        "left out in turn, as one that is labelled and as one that is asked about"
    ]
    if "shrunk_from" in protocol:
        wanted, poorest = protocol["shrunk_from"], protocol["poorest_class"]
        lines.append(
            f"class {poorest['name']} has {poorest['images']} images, so that episodes have {protocol['shot']} "
            f"labelled and {protocol['query']} asked about of each class, in place of {wanted['shot']} and "
            f"{wanted['query']}"
        )
    if protocol["copies_left_out"]:
        lines.append(f"{protocol['copies_left_out']} images are copies of others and have no part")
    return lines


def _unknown_lines(results: Mapping[str, Any]) -> list[str]:
    """Say what the figures of unknown classes are."""
    count = results["protocol"].get("unknown_classes")
    if not count:
        return []
    return [
        f"{count} more classes in each episode have no labelled images, {results['protocol']['query']} images each: "
        "AUROC is the chance that one of these is less sure than one of a known class; log-loss and Brier score (0 to "
        "2) are of the known ones, by a temperature fitted on the other half of the episodes; sureness is how far the "
        "best logit is ahead of their mean; ± are halves of 95 % intervals over episodes"
    ]


def _shots(protocol: Mapping[str, Any]) -> str:
    """Say how many labelled images a class has: "1", or "1- and 5" of a run at several numbers."""
    return listed(protocol.get("shots", [protocol["shot"]]), "- and ")


def _seeds(protocol: Mapping[str, Any]) -> str:
    """Say which seeds drew the episodes."""
    if "seeds" not in protocol:
        return f"seed {protocol['seed']}"
    return f"seeds {listed(protocol['seeds'], ' and ')}"


def listed(things: Sequence[object], last: str) -> str:
    """Write "1, 2 and 3", with the given words before the last."""
    *others, end = map(str, things)
    return f"{', '.join(others)}{last}{end}" if others else end


def _queries(protocol: Mapping[str, Any]) -> str:
    """Say how many queries an episode has."""
    balance = parse_balance(protocol.get("query_balance", BALANCED))
    if balance is None:
        return f"{protocol['query']} queries a class"
    return (
        f"{protocol['way'] * protocol['query']} queries, divided among the classes in proportions from a symmetric "
        f"Dirichlet distribution of parameter {balance.alpha:f} (a class may have none)"
    )


def _transductive_lines(results: Mapping[str, Any]) -> list[str]:
    """Say how transductive methods are compared, and what they are told of the classes' shares."""
    methods = {name: m for name, m in results["methods"].items() if m["transductive"]}
    if not methods:
        return []
    lines = [
        "transductive methods see all queries of an episode at once: they are compared among themselves, with a "
        "reference and a correction of their own"
    ]
    if "across_groups" in results:
        across = results["across_groups"]
        lines.append(
            f"across the groups, not between like methods: {across['method']}, which sees all queries at once, is "
            f"{percent(across['mean'], sign=True)} ± {percent(across['episode_ci'])} ± "
            f"{percent(wide(across))} points from {across['to']}, which sees one at a time"
        )
    balanced = results["protocol"].get("query_balance", BALANCED) == BALANCED
    told = {
        "uniform": f"that each class has as many queries, which is {'true' if balanced else 'false'} here",
        "true": "each episode's true shares of the classes: an oracle, since nobody knows them",
        "estimated": "nothing of the classes' shares and estimate them",
    }
    for prior, what in told.items():
        names = sorted(name for name, m in methods.items() if m.get("class_prior") == prior)
        if names:
            lines.append(f"class prior {prior}: told {what}: {', '.join(names)}")
    return lines


def timing_lines(timings: Mapping[str, Any]) -> list[str]:
    """Say how times were taken, where several processes or several numbers of threads had a part in them."""
    setups = timings["episodes_run_by"]
    if len(setups) < 2 and all(setup["processes"] == 1 for setup in setups):
        return []
    ran = ", ".join(
        f"{s['episodes']:,} episodes by {s['processes']} process{'es' if s['processes'] > 1 else ''} "
        f"of {s['threads']} thread{'s' if s['threads'] > 1 else ''}"
        for s in setups
    )
    return [
        f"times are those of one process, while the others run beside it: the seconds of all processes over all "
        f"episodes; {ran}"
    ]


def _patch_lines(protocol: Mapping[str, Any]) -> list[str]:
    """Say what patches are cut from, where methods ran on some."""
    kinds = sorted({method["nodes"] for method in protocol["methods"].values()})
    patches = [kind for kind in kinds if cuts_patches(kind)]
    if not patches:
        return []
    side = protocol["resolution"]
    return [f"{' and '.join(patches)}: patches of whole images at their original resolution, resized to {side} px each"]


def _noise_lines(results: Mapping[str, Any]) -> list[str]:
    """Say where intervals over classes are wide because episodes are few."""
    differences = [m["difference"] for m in results["methods"].values() if "difference" in m]
    over = "photos" if results["protocol"].get("fixed_classes") else "classes"
    shares = [d.get("photo_ci_noise_share" if over == "photos" else "class_ci_noise_share") for d in differences]
    noisy = sum(share is not None and share > 0.5 for share in shares)
    if not noisy:
        return []
    return [
        f"more than half the variance over {over} is sampling noise in {noisy} of {len(differences)} differences: "
        "their intervals err wide, and more --episodes narrow them"
    ]


def _backbone_lines(protocol: Mapping[str, Any]) -> list[str]:
    """Say what the images went through, and what of them it has seen."""
    backbone = protocol["backbone"]
    if backbone is None:
        return ["features: the user's own file; what their backbone was trained on is unknown to this report"]
    crop = "centre crop" if protocol["crop"] == "center" else "no crop"
    lines = [f"images: {protocol['resolution']} px, {crop}", *_patch_lines(protocol)]
    return [*lines, *backbone_lines(backbone, protocol["data"]["classes"])]


def backbone_lines(backbone: Mapping[str, Any], classes: int) -> list[str]:
    """Say what a backbone was trained on, and how many of the evaluated classes it has seen."""
    lines = [f"backbone: {backbone['name']}, trained on {backbone['training_data'] or 'unknown data'}"]
    seen = backbone["test_classes_seen"]
    if backbone["external"]:
        count = "unknown" if seen is None else f"{seen} of {classes}"
        lines.append(f"external data; test classes seen in pretraining: {count}")
    elif seen is None:
        lines.append(
            "whether the backbone has seen the test classes is unknown: its card names no training classes, or has no "
            "checksum that vouches for their list"
        )
    elif seen:
        lines.append(f"LEAK, allowed by --allow-overlap: {seen} of {classes} test classes were seen in training")
    return lines
