"""How a person comes to the page of a server with API keys: a form that takes a key, and a cookie that stands for it.

In: a key. Out: a signed cookie that says whose it is and until when; the key itself is in no cookie. The secret is the process's own, so
that a restart ends all logins. The cookie opens the page and nothing else: programs send their key with every request.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import secrets
import time
from http.cookies import CookieError, SimpleCookie

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from glmkit.playground.words import Speaker, prefers_chinese
from glmkit.serving.failures import Failure
from glmkit.serving.security import Keys

COOKIE = "glmkit_login"
LOGIN = "/login"
LOGOUT = "/logout"
HOURS = 12
"""After which a person gives the key again."""

_STYLE = """
*{box-sizing:border-box}body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1em;background:#f4f6f5;color:#16211d;
font:16px/1.5 system-ui,"Noto Sans CJK SC","PingFang SC","Microsoft YaHei",sans-serif}
main{background:#fff;border:1px solid #dfe5e2;border-radius:16px;padding:2em;width:100%;max-width:24em}
h1{font-size:1.3em;margin:0 0 .3em}p{margin:0 0 1.2em;color:#52605a}label{display:block;font-weight:600;margin-bottom:.4em}
input,button{width:100%;font:inherit;padding:.65em .8em;border-radius:9px}input{border:1px solid #b9c4bf;background:#fff;color:inherit}
button{margin-top:1em;border:0;background:#0f766e;color:#fff;font-weight:600;cursor:pointer}:focus-visible{outline:3px solid #5eead4;outline-offset:1px}
[role=alert]{color:#a3211c;font-weight:600}
@media(prefers-color-scheme:dark){body{background:#0f1513;color:#e6edea}main{background:#18201d;border-color:#2b3631}p{color:#a3b0aa}
input{background:#0f1513;border-color:#46534d}[role=alert]{color:#ff9c94}}
"""


class Door:
    """Who may see the page.

    Args:
        keys: The server's.
        paths: What the page's paths begin with.
    """

    def __init__(self, keys: Keys, paths: tuple[str, ...]):
        self._keys, self._paths = keys, paths
        self._secret = secrets.token_bytes(32)

    def covers(self, path: str) -> bool:
        """Returns whether a path is the page's."""
        return path in ("/", LOGIN, LOGOUT) or path.startswith(self._paths)

    def is_open(self, path: str) -> bool:
        """Returns whether a path of the page needs no key."""
        return path in (LOGIN, LOGOUT)

    def owner(self, cookies: str) -> str | None:
        """Returns for which key a `Cookie` header stands, or None."""
        try:
            found = SimpleCookie(cookies).get(COOKIE)
        except CookieError:
            return None
        owner, _, rest = (found.value if found else "").partition(".")
        until, _, given = rest.partition(".")
        good = hmac.compare_digest(self._signature(f"{owner}.{until}").encode(), given.encode())
        return f"key {owner}" if good and float(until) > time.time() else None

    def refusal(self, path: str) -> Failure:
        """Returns what a person gets who has not shown a key: the form, in place of a page."""
        failure = Failure(401, "give the API key at /login first", "invalid_api_key")
        if "gradio_api" not in path:
            failure.status = 303
            failure.headers = {"Location": LOGIN, "Cache-Control": "no-store"}
        return failure

    def cookie(self, key: str) -> str | None:
        """Returns the cookie of a key, or None where it is none of the server's."""
        owner = self._keys.owner(f"Bearer {key}")
        if owner is None:
            return None
        signed = f"{owner.removeprefix('key ')}.{int(time.time()) + HOURS * 3600}"
        return f"{signed}.{self._signature(signed)}"

    def _signature(self, signed: str) -> str:
        return hmac.new(self._secret, signed.encode(), hashlib.sha256).hexdigest()

    async def form(self, request: Request) -> Response:
        """Shows the form."""
        if not self._keys:
            return RedirectResponse("/", 303)
        return _form(request, wrong=False)

    async def enter(self, request: Request) -> Response:
        """Takes a key."""
        given = (await request.form()).get("key", "")
        cookie = self.cookie(given.strip() if isinstance(given, str) else "")
        if cookie is None:
            return _form(request, wrong=True)
        answer = RedirectResponse("/", 303)
        # Lax: a form or script of another site sends no cookie; a link to this page does.
        answer.set_cookie(COOKIE, cookie, max_age=HOURS * 3600, httponly=True, samesite="lax", secure=request.url.scheme == "https")  # fmt: skip
        return answer

    async def leave(self, _: Request) -> Response:
        """Forgets a login."""
        answer = RedirectResponse(LOGIN, 303)
        answer.delete_cookie(COOKIE)
        return answer


def _form(request: Request, *, wrong: bool) -> Response:
    say = Speaker(prefers_chinese(request.headers.get("accept-language", "")))
    alert = f'<p role="alert">{html.escape(say("login_wrong"))}</p>' if wrong else ""
    page = (
        f'<!doctype html><html lang="{say.tag}"><head><meta charset="utf-8"><title>glmkit</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style></head><body><main>'
        f"<h1>glmkit</h1><p>{html.escape(say('login_why'))}</p>{alert}"
        f'<form method="post" action="{LOGIN}"><label for="key">{html.escape(say("login_key"))}</label>'
        '<input id="key" name="key" type="password" autocomplete="current-password" required autofocus>'
        f"<button>{html.escape(say('login_enter'))}</button></form></main></body></html>"
    )
    headers = {"Cache-Control": "no-store", "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"}  # fmt: skip
    return HTMLResponse(page, 401 if wrong else 200, headers)
