"""The test suite of each contract, to be subclassed; in-memory twins and injected faults.  Imported by tests only."""
