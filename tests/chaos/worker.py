"""`python -m tests.chaos.worker`: the product's worker, with failpoints if CHAOS_FAILPOINTS asks for them."""

import sys

from tests.chaos import failpoints

if __name__ == "__main__":
    failpoints.install()
    import settings
    from models.catalog import ModelsError
    from worker.__main__ import main

    try:
        main()
    except (settings.BadSetting, ModelsError) as error:
        sys.exit(f"the worker cannot start: {error}")
