"""The mount: translates between the kernel and the filesystem, and decides nothing."""
