"""`python -m taskvault` is the same as `tv`."""

from taskvault.cli import main

if __name__ == "__main__":
    main()
