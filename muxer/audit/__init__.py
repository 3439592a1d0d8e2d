"""The audit: is every call recording muxed, whole, readable and where its metadata say?

`spans` divides the audited time, `call_rules` judges one call (pure), `auditor` reads RWS and the storages, `ledger` keeps
what was found, `deep_check` compares a file with its sources, `orphans` looks for files without metadata, `repair` hands
findings to the normal job, `report` and `html_report` show them.
"""
