"""The page `/docs`: every endpoint and field, to be tried out, without a word to any other server.

FastAPI's own page loads Swagger UI from a public address. The package fastapi-offline has the same files; where it is not installed,
there is no page, and `/openapi.json` says the same.
"""

from __future__ import annotations

from importlib import resources
from importlib.util import find_spec

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

PACKAGE = "fastapi_offline"
FILES = "/docs/files"
"""Where the page's scripts are; like the page itself they need no key."""


def add_docs(app: FastAPI) -> bool:
    """Gives the application its page; returns whether it could."""
    if find_spec(PACKAGE) is None:
        return False
    folder = resources.files(PACKAGE) / "static"
    app.mount(FILES, StaticFiles(directory=str(folder)))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=app.openapi_url or "/openapi.json",
            title=f"{app.title} · API",
            swagger_js_url=f"{FILES}/swagger-ui-bundle.js",
            swagger_css_url=f"{FILES}/swagger-ui.css",
            swagger_favicon_url=f"{FILES}/favicon.png",
            # Otherwise the page asks validator.swagger.io whether the schema is right.
            swagger_ui_parameters={"validatorUrl": None},
        )

    return True
