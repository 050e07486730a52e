"""Contents and trees: manifests, canonical directories, attributes, indexes, and reading."""
