"""Searching: the space, the plan, the state on disk, and the ranked results.

``OUTPUT_DIR/NAME/`` contains ``search.yaml`` (the settings), ``ledger.jsonl`` (start and outcome of every
trial), ``trials/`` (one run directory per setting and seed), ``results.md``, ``.csv`` and ``.json``,
``report.html``, ``hparams/`` for TensorBoard, and ``best``, a link to the best model directory.
"""
