"""`gunicorn tests.chaos.web:create_app()`: the product's web process, with failpoints if CHAOS_FAILPOINTS asks."""

from tests.chaos import failpoints


def create_app():
    """The application, behind the failpoints."""
    failpoints.install()
    from api.app import create_app as product

    return product()
