#!python
"""The command `tv` where its native launcher could not be compiled."""

from taskvault.cli import main

main()
