"""`python -m dbsync`."""

from dbsync.cli.main import main

if __name__ == "__main__":
    main()
