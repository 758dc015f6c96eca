"""Orders to a running pipeline, from the words of a command: which tables to read beside the log, which to build anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdcsync.change import Step
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.pending import FILL, KEPT, Pending

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cdcsync.assembly import Assembly
    from cdcsync.change import Table
    from cdcsync.lanes import Lanes
    from cdcsync.pipeline import Pipeline


def orders(name: str, ends: Callable[[], tuple[Assembly | None, Pipeline | Lanes | None]]) -> dict[str, Any]:
    """Return what a pipeline's control socket takes whole lines for; `ends` gives its parts once it runs."""

    def running() -> tuple[Assembly, Pipeline | Lanes]:
        assembly, pipeline = ends()
        if pipeline is None or assembly is None:
            msg = "the pipeline is still starting"
            raise Fatal(msg, hint="ask again when `cdcsync status` says that it runs")
        return assembly, pipeline

    return {
        "snapshot": lambda asked: {"pipeline": name, **snapshot(*running(), asked)},
        "rebuild": lambda asked: {"pipeline": name, **rebuild(*running(), asked)},
    }


def snapshot(assembly: Assembly, pipeline: Pipeline | Lanes, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Pass an order to read tables on to the source. Raises Fatal when it cannot be taken."""
    action = str(asked.get("action", "read"))
    tables = assembly.to_be_read(_names(asked))
    _refuse_filling(assembly, pipeline, action, tables)
    pending: list[Pending] = []
    if asked.get("keys") is not None:
        keys = assembly.keys_of(tables, asked["keys"])
        pending = [Pending(0, tables[0], (), first=False, keys=keys, gone=bool(asked.get("gone")))]
    number = pipeline.order(action, tables, str(asked.get("where", "")), pending)
    return {"action": action, "tables": tables, "number": number}


def _refuse_filling(assembly: Assembly, pipeline: Pipeline | Lanes, action: str, tables: Sequence[str]) -> None:
    """Raise Fatal where rows would go into a new table that is being filled, and not into the one that is there."""
    state = pipeline.figures()["snapshot"].get("rebuild")
    if action == "read" and state and state["stage"] != KEPT and _targets(assembly, tables) & set(state["tables"]):
        raise _under_way(assembly, state)


def rebuild(assembly: Assembly, pipeline: Pipeline | Lanes, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Let tables be built anew, or end that. Raises Fatal when it cannot be."""
    action = Step(str(asked.get("action", Step.BEGIN)))
    state = pipeline.figures()["snapshot"].get("rebuild")
    if action is Step.BEGIN:
        if state:
            raise _under_way(assembly, state)
        pending = _anew(assembly, pipeline, _names(asked))
        targets = list(dict.fromkeys(name for each in pending for name in each.into))
        number = pipeline.order(action, targets, "", pending)
        return {"action": action.value, "tables": targets, "number": number}
    if not state:
        msg = "no table is being built anew"
        raise Fatal(msg, hint=f"`cdcsync rebuild {assembly.config.name} TABLE` begins", status=ExitStatus.CONFIG)
    if action is Step.BACK and state["stage"] != KEPT:
        msg = "the new table has not taken its place yet: there is nothing to go back to"
        raise Fatal(msg, hint="`--cancel` drops the new one", status=ExitStatus.CONFIG)
    number = pipeline.order(action, state["tables"], "")
    return {"action": action.value, "tables": state["tables"], "number": number}


def _targets(assembly: Assembly, tables: Sequence[str]) -> set[str]:
    return {each.qualified for each in assembly.together(tables)[1]}


def _names(asked: Mapping[str, Any]) -> list[str]:
    return [str(name) for name in asked.get("tables") or ()]


def _under_way(assembly: Assembly, state: Mapping[str, Any]) -> Fatal:
    name, tables = assembly.config.name, ", ".join(state["tables"])
    if state["stage"] == KEPT:
        msg = f"the former {tables} is still there, kept current"
        hint = f"`cdcsync rebuild {name} --finish` drops it, `--rollback` brings it back"
    else:
        msg = f"{tables} is being built anew"
        hint = f"wait until it is done, or `cdcsync rebuild {name} --cancel`"
    return Fatal(msg, hint=hint, status=ExitStatus.CONFIG)


def _anew(assembly: Assembly, pipeline: Pipeline | Lanes, names: Sequence[str]) -> list[Pending]:
    """Return what has to be read: all source tables of the targets of those named."""
    if assembly.sink.obstacles is None:
        msg = f"a {assembly.config.sink.system} sink cannot build tables anew beside those that are there"
        raise Fatal(msg, hint="copy everything again into another target", status=ExitStatus.CONFIG)
    assembly.to_be_read(names)
    sources, targets = assembly.together(names)
    _refuse_lossy(assembly, sources)
    busy = sorted({table.qualified for table in sources} & set(pipeline.figures()["snapshot"].get("tables_left", ())))
    if busy:
        msg = f"{', '.join(busy)} is being read already"
        raise Fatal(msg, hint="wait until it is done: `cdcsync status` tells", status=ExitStatus.CONFIG)
    found = assembly.sink.obstacles(assembly.config.sink.config, assembly.sink_context(), targets)
    if found:
        msg = "what belongs to the table that is there would stay with it:\n" + "\n".join(found)
        raise Fatal(msg, hint="drop these, and make them again afterwards", status=ExitStatus.CONFIG)
    failed = pipeline.figures()["snapshot"].get("failed", {})
    return [
        Pending(
            0,
            table.qualified,
            (),
            first=False,
            only=any(each.qualified in failed for each in sources),
            stage=FILL,
            into=tuple(each.qualified for each in assembly.mapping.tables([table])),
        )
        for table in sources
    ]


def _refuse_lossy(assembly: Assembly, sources: Sequence[Table]) -> None:
    """Raise Fatal where a target holds more than the rows that its source has now."""
    kept = [
        table.qualified
        for table in sources
        for plan in assembly.mapping.plans(table)
        if plan.history or plan.delete != "hard" or not plan.target.key
    ]
    if kept:
        msg = f"the target of {', '.join(dict.fromkeys(kept))} holds rows that are gone from the source"
        hint = "they would be lost: only `delete: hard` without `history` can be built anew"
        raise Fatal(msg, hint=hint, status=ExitStatus.CONFIG)
