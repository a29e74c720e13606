"""`python -m sageserve` is `sageserve`. Knows nothing. Read next: `sageserve.cli.main`."""

from sageserve.cli.main import main

if __name__ == "__main__":
    main()
