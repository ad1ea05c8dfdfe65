"""A search on disk: what there is of it, what is left to do, its trials and its results.

``OUTPUT_DIR/NAME/`` holds ``search.yaml`` (the settings), ``ledger.jsonl`` (what was begun and how it
ended), ``trials/`` (one run directory per setting and seed), ``results.md``, ``.csv`` and ``.json``,
``report.html``, ``hparams/`` for TensorBoard, and ``best``, a link to the best model directory.
"""
