"""The page of the metrics, from their table."""

from rho_score.cluster.metrics import COMMANDS, PREFIX, TABLE
from tests.docs_pages.markdown import cell, code

INTRODUCTION = """# Metrics

A run on a Ray cluster counts what it does, and Ray exports the counts on every node for Prometheus.
[Metrics and a dashboard](../operations.md#metrics-and-a-dashboard) says how they are scraped and
shown. A command that works in threads, without a cluster, exports nothing.

Every metric has the labels `run` (the last name of the output, and the first eight digits of its
fingerprint) and `command` ({commands}; `derive` for `import`, `prior` and `kl`; `other` where no
store is written, with the run `unnamed`). `dynamics` counts as `select`. The label `phase` is the
word that the progress line begins with. Ray adds labels of its own, such as `WorkerId`, so a query
takes the sum over them.

Whatever is counted per unit is counted by the driver when the unit is published. A unit that was
tried again counts once, and a run that is resumed goes on from what is published: its counters hold
what this start of the command did. Retries of attempts that were lost are therefore not in them.

| name in Prometheus | type | labels | of | what it is |
|---|---|---|---|---|
"""
NOTE = """
`reason` is `input` (the document could not be read, or has no text to score), `not-finite`,
`failed`, `killed` or `timeout`. `stage` is `read`, `tokenize`, `score` or `publish`.

What Ray exports is up to `metrics_report_interval_ms` old (ten seconds by default), and a gauge is
forgotten when it was not set for two such intervals. A driver hands over its last counts when it
leaves the cluster. Whoever is killed loses what it counted since its last report. The files of a
store, and never the metrics, are the accounts of a run.
"""


def metrics_page() -> str:
    """The page."""
    commands = ", ".join(code(name) for name in COMMANDS.values())
    rows = [
        f"| {code(f'ray_{PREFIX}{m.name}')} | {m.kind} | {', '.join(map(code, m.labels))} | {m.of} | {cell(m.help)} |"
        for m in TABLE
    ]
    return INTRODUCTION.format(commands=commands) + "\n".join(rows) + "\n" + NOTE
