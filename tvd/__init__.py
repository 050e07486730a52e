"""The daemon: one owner process per vault, its run engine, eviction, audit and gateways."""
