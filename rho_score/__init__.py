"""rho-score: score every token of a corpus with a reference model, select globally by a quantile.

The flow, a file a step:

    score   config → plan → read → tokens → windows → scorer (loss) → score → store
    select  store → excess → histogram → select → store
    after   inspect, report: from the two stores alone
"""

__version__ = "0.1.0"
