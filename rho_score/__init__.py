"""rho-score: score every token of a corpus with a reference model, select globally by a quantile.

The flow, a file a step:

    score   config → plan → read → tokens → worker (scorer) → publish; put together in score; verify checks it
    scorer  windows → passes → forward (attention, loss); proof says which way it may take
    select  config → excess → histogram → masks; put together in select
    after   inspect, heatmap, charts, report: from the two stores alone
    under   storage (any URL, atomic), schema (columns), store (what is there), engine (Ray), model, errors
"""

__version__ = "0.1.0"
