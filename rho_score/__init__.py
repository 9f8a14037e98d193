"""rho-score: score every token of a corpus with a reference model, select globally by a quantile.

The flow, a file a step:

    score   config → plan → read → tokens → worker (scorer) → publish; put together in score; verify checks it
            parquet_shards, jsonl_shards: a format of input each; columns, values: ids and groups; reach, preflight: the cluster
    scorer  windows → passes → forward (attention, loss); proof (lengths) says which way it may take
    model   model_files → model (weights, quantized), tokenizer, identity: which files, what they hold, what they hash to
    select  config → prepare → join → excess → histogram (kernel) → cuts → rules → masks → stages; put together in select
            vocabulary, spans: references with another tokenizer; sampling: noise; accounts: what was kept
    after   curve, dynamics; inspect, heatmap, charts, report: from the stores alone
    export  parts → formats, streams (for trainers), originals (whole documents), order; put together in export
    under   storage (any URL, atomic; retries, disk), claims (which run has an output), schema (columns), contents (what files
            must hold), store (what is there), unit_file, engine (Ray), throughput → progress → live, paths, pipes, errors, shown (hostile text and credentials)
"""

__version__ = "0.1.0"
