"""The vault and its filesystem: a library with no network and no daemon."""
