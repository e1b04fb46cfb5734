"""The page of one language: the tabs, and Gradio's application around them.

In: what the server's routes share. Out: an ASGI application. Importing this imports Gradio.
"""

from __future__ import annotations

import html
import json
import warnings
from importlib import resources
from typing import Any

import gradio as gr
from fastapi import FastAPI

from glmkit.playground.chatting import chat_tab
from glmkit.playground.choosing import choose_tab
from glmkit.playground.comparing import compare_tab
from glmkit.playground.desk import Desk
from glmkit.playground.explaining import explain_tab
from glmkit.playground.filling import fill_tab
from glmkit.playground.login import LOGOUT
from glmkit.playground.running import Running
from glmkit.playground.theme import make_theme
from glmkit.playground.understanding import understand_tab
from glmkit.playground.words import WORDS, Speaker
from glmkit.playground.writing import write_tab
from glmkit.serving.server import Server

TOLD = ("often", "large", "away", "media_kind", "media_many", "media_large")
"""What the page's script says."""

TABS = (fill_tab, write_tab, chat_tab, understand_tab, explain_tab, compare_tab, choose_tab)


def make_page(server: Server, say: Speaker, running: Running) -> FastAPI:
    """Returns the application, to be called at a root path that ends in the language.

    Args:
        server: What the server's routes share.
        say: The language.
        running: What pages wait for.
    """
    desk = Desk(server, say, running)
    name = server.settings.name
    with gr.Blocks(title=f"{name} · glmkit", analytics_enabled=False, fill_width=False) as blocks:
        gr.HTML(_header(desk), elem_id="header")
        with gr.Tabs(elem_id="tabs"):
            for draw in TABS:
                draw(desk)
    host = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    folder = resources.files("glmkit.playground")
    style, script = ((folder / f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    told = {name: WORDS[name].say(say.chinese) for name in TOLD}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        gr.mount_gradio_app(
            host,
            blocks,
            path="",
            footer_links=[],
            run_history=False,
            show_error=False,
            ssr_mode=False,
            enable_monitoring=False,
            pwa=False,
            mcp_server=False,
            theme=make_theme(),
            css=style,
            head=f"<script>const glmWords = {json.dumps(told)};\n{script}</script>",
        )
    return host


def _header(desk: Desk) -> str:
    say: Any = desk.say
    settings = desk.server.settings
    other = "/en/" if say.chinese else "/zh/"
    leave = ""
    if settings.api_keys:
        leave = f'<form method="post" action="{LOGOUT}"><button type="submit">{html.escape(say("leave"))}</button></form>'
    return (
        f'<header class="glm-header"><div><h1>glmkit <span>{html.escape(say("title"))}</span></h1>'
        f"<p>{html.escape(say('lead'))}</p></div>"
        f'<nav><span class="model">{html.escape(settings.name)}</span>'
        f'<a href="{other}" hreflang="{"en" if say.chinese else "zh-CN"}" id="other-language">{html.escape(say("other_language"))}</a>'
        f'<a href="/docs" target="_blank" rel="noopener">{html.escape(say("api"))}</a>{leave}</nav></header>'
        f'<p class="note hint">{html.escape(say("hint"))}</p>'
    )
