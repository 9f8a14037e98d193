"""The sections of the proof's page on its results."""

from proof.published import Published
from proof.sizes import ARMS, BOTH, BYTES, DOCUMENTS, LIVE, LIVE_60, ORACLE, WEAK, Condition
from proof.words import COMMANDS, in_words, table


def main_results(proof: Published) -> str:
    """Every arm of the main conditions: losses, gains, and how few tokens are enough."""
    parts = ["## Results\n"]
    for c in proof.main:
        parts += [f"### {in_words(c)}\n", f"![Loss of every arm](proof/{c.name}.svg)\n", _table_of(proof, c)]
        parts += [_reached(proof, c)]
    return "\n".join(parts)


def _table_of(proof: Published, c: Condition) -> str:
    outcome, budgets = proof.outcome, proof.outcome.budgets(c.name)
    longest = budgets[-1]
    head = ("arm", "tokens trained on", *(f"loss at {b:,}" for b in budgets), "gain over all", "over random")
    oracle = ORACLE in outcome.arms(c.name)
    rows = []
    for arm in [a for a in (*ARMS, ORACLE, WEAK, BYTES) if a in outcome.arms(c.name)]:
        mine = outcome.budgets(c.name, arm)
        losses = [f"{outcome.mean(c.name, arm, b):.3f}" if b in mine else "" for b in budgets]
        gains = [
            str(outcome.gain(c.name, arm, longest, over=over)) if arm not in ("all", over) else ""
            for over in ("all", "random-30")
        ]
        share = f"{outcome.oracle_share(c.name, arm, longest):.0%}" if oracle and arm != "all" else ""
        trained = f"{outcome.mean(c.name, arm, longest, 'tokens_trained'):,.0f}"
        rows.append((f"`{arm}`", trained, *losses, *gains, *((share,) if oracle else ())))
    return (
        table((*head, *(("of the oracle's gain",) if oracle else ())), rows)
        + "\nTokens trained on and gains are those at the longest budget. A gain is the mean of the paired differences "
        "in nats, with its bootstrap interval of 95 % over seeds; above zero, the arm is better.\n"
    )


def _reached(proof: Published, c: Condition) -> str:
    rows = []
    for arm in [a for a in (*ARMS, ORACLE) if a in proof.outcome.arms(c.name) and a != "all"]:
        every, mean = proof.outcome.reached(c.name, arm), proof.outcome.reached_in_mean(c.name, arm)
        cells = [(f"{of.seen:.0%}", f"{of.trained:.1%}") if of else ("not reached", "") for of in (every, mean)]
        rows.append((f"`{arm}`", *cells[0], *cells[1]))
    beaten = _beats(proof, c)
    return (
        "The shortest budget by which an arm is at the end loss of all tokens, or below it. Every budget is a run of "
        f"its own, so nothing lies between {_listed(proof, c)} of the tokens seen:\n\n"
        + table(("arm", "seen, **every seed**", "trained on", "seen, **mean of the seeds**", "trained on"), rows)
        + f"\n{beaten}\n"
    )


def _listed(proof: Published, c: Condition) -> str:
    """The budgets of a condition as shares of the longest one."""
    budgets = proof.outcome.budgets(c.name)
    return " and ".join(f"{budget / budgets[-1]:.0%}" for budget in budgets[-2:])


def _beats(proof: Published, c: Condition) -> str:
    """Whether live selection beats its control and whole documents at every budget."""
    outcome, said = proof.outcome, []
    for over in ("random-30", DOCUMENTS):
        if over not in outcome.arms(c.name):
            continue
        gains = [outcome.gain(c.name, LIVE, b, over=over) for b in outcome.budgets(c.name)]
        verdict = (
            "is better than" if all(g.low > 0 for g in gains)
            else "is worse than" if all(g.high < 0 for g in gains)
            else "is not everywhere apart from"
        )  # fmt: skip
        said.append(f"`{LIVE}` {verdict} `{over}`, by budget: {', '.join(map(str, gains))}.")
    return " ".join(said)


def decisions(proof: Published) -> str:
    """Which command to use, by condition and length of training."""
    rows = []
    for c in proof.conditions:
        where = "within documents" if c.noise else "between documents" if c.target < 100 else "nowhere"
        share = f"{c.noise} % of tokens" if c.noise else f"{100 - c.target} % of tokens"
        for budget in proof.outcome.budgets(c.name):
            best = proof.outcome.best(c.name, budget, without=proof.not_offered(c))
            gain = proof.outcome.gain(c.name, best, budget)
            if best != "all" and gain.low <= 0:
                best, gain = "all", proof.outcome.gain(c.name, "all", budget)
            rows.append((where, share, f"{budget:,}", f"`{best}`", "" if best == "all" else str(gain)))
    used = [arm for arm in COMMANDS if any(row[3] == f"`{arm}`" for row in rows)]
    commands = "\n".join(f"# {arm}\n" + COMMANDS[arm].replace("; ", "\n") for arm in used)
    return f"""## Which command to use

The best arm of each condition and length of training, if its gain over all tokens is above zero with its interval:

{table(("unwanted text lies", "how much", "tokens you train for", "use", "gain"), rows)}

```
{commands}
```

`rho-score tune` makes this choice on your own data.
"""


def crossover(proof: Published) -> str:
    """The gain by the share of noise and of the target; empty if only main conditions were run."""
    if len(proof.conditions) == len(proof.main):
        return ""
    rows = []
    for c in proof.conditions:
        budget = proof.outcome.longest(c.name)
        arms = [LIVE, LIVE_60, DOCUMENTS, BOTH]
        gains = [str(proof.outcome.gain(c.name, a, budget)) if a in proof.outcome.arms(c.name) else "" for a in arms]
        rows.append((f"`{c.name}`", f"{proof.outcome.mean(c.name, 'all', budget):.3f}", *gains))
    return f"""## Where selection stops paying

![Gain by the share of noise and of the target](proof/crossover.svg)

Gain over all tokens at the longest budget. Left, documents of the target with noise inside; right, mixtures; clean
text of the target alone stands at the left end of the one and at the right end of the other.

{table(("condition", "loss of `all`", *(f"`{a}`" for a in (LIVE, LIVE_60, DOCUMENTS, BOTH))), rows)}
"""


def price(proof: Published) -> str:
    """What general loss and what arithmetic are paid."""
    rows, times = [], []
    for c in proof.main:
        budget = proof.outcome.longest(c.name)
        for arm in [a for a in (*ARMS, ORACLE) if a in proof.outcome.arms(c.name)]:
            training = proof.outcome.mean(c.name, arm, budget, "flops_training")
            before = proof.outcome.mean(c.name, arm, budget, "flops_before")
            times += [before / training] if before else []
            price = proof.outcome.gain(c.name, arm, budget, column="others")
            rows.append(
                (f"`{c.name}`", f"`{arm}`", f"{proof.outcome.mean(c.name, arm, budget, 'others'):.3f}",
                 "" if arm == "all" else str(price), f"{training:.2e}", f"{before:.2e}")
            )  # fmt: skip
    return f"""## The price

What is not wanted gets worse: the loss of held-out interface texts and source. And a reference has to be trained and run.
Operations are 6 a parameter and token for training and 2 for scoring; a reference that serves many runs is paid once.
At this scale it is most of the bill: reference, base model and scores cost {min(times):.1f} to {max(times):.1f} times as much as the
longest runs themselves. What these runs save in tokens pays for a reference only if it serves longer runs, or several.

{table(("condition", "arm", "loss of other text", "gain over all", "operations of training", "before it"), rows)}
"""
