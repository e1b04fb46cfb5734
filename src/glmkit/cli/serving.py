"""The verb serve: a model behind an HTTP interface. Its body imports what it needs."""

from __future__ import annotations

import functools
import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from glmkit.cli.language import say
from glmkit.cli.writing import AssistantModel, Device, Dtype, load_model
from glmkit.embedded import DEFAULT_MODEL
from glmkit.errors import UserError, missing_dependency, nearest

ENGINES = ("local", "ray")


def serve(
    model: Annotated[
        str,
        typer.Argument(
            envvar="GLMKIT_MODEL",
            help=say(
                "Name of an embedded model, folder, training file or hub name.",
                "内置模型名、模型目录、训练检查点或 Hub 名称。",
            ),
        ),
    ] = DEFAULT_MODEL,
    name: Annotated[
        str | None,
        typer.Option(
            help=say(
                "What clients call the model; by default its last word.",
                "客户端使用的模型名；默认为路径的最后一段。",
            )
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            help=say(
                "Address to listen at; by default this machine alone.", "监听地址；默认仅限本机。"
            )
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help=say("Port; 0 finds one.", "端口；0 为自动选择。"))] = 8000,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            help=say(
                "A key that clients must show; others on this machine see it here: prefer a file, or GLMKIT_API_KEYS.",
                "客户端须出示的密钥；命令行对本机他人可见，宜用文件或环境变量 GLMKIT_API_KEYS。",
            )
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help=say("File with keys, one a line.", "密钥文件，每行一个。")),
    ] = None,
    open_to_all: Annotated[
        bool,
        typer.Option(
            "--open-to-all",
            help=say(
                "Let other machines in without a key.", "允许其他机器无密钥访问。"
            ),
        ),
    ] = False,
    max_batch: Annotated[
        int, typer.Option(help=say("Texts written at once.", "同时生成的文本数。"))
    ] = 8,
    max_queue: Annotated[
        int,
        typer.Option(
            help=say("Texts that may wait; then status 429.", "可排队的文本数；超出则返回 429。")
        ),
    ] = 64,
    max_cache_tokens: Annotated[
        int | None,
        typer.Option(
            help=say("Tokens of all running texts together.", "运行中文本的词元总数上限。")
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(help=say("Most tokens of a blank.", "每个空白的词元数上限。")),
    ] = None,
    max_samples: Annotated[int, typer.Option(help=say("Largest n.", "n 的上限。"))] = 8,
    max_texts: Annotated[
        int, typer.Option(help=say("Texts of one request.", "单个请求的文本数上限。"))
    ] = 64,
    max_explained: Annotated[
        int,
        typer.Option(
            help=say(
                "Blanks and labels explained in one request.", "单个请求可解释的空白与标签数上限。"
            )
        ),
    ] = 8,
    max_characters: Annotated[
        int, typer.Option(help=say("Characters of one request.", "单个请求的字符数上限。"))
    ] = 100_000,
    max_body_bytes: Annotated[
        int, typer.Option(help=say("Largest request.", "请求体字节数上限。"))
    ] = 1 << 20,
    max_media: Annotated[
        int,
        typer.Option(
            help=say("Images, sounds and clips of one request.", "单个请求的图片、声音与视频数上限。")
        ),
    ] = 8,
    max_media_bytes: Annotated[
        int,
        typer.Option(
            help=say("Bytes of them together, as files.", "其总字节数上限（按文件计）。")
        ),
    ] = 16 << 20,
    max_media_pixels: Annotated[
        int,
        typer.Option(
            help=say("Pixels of them together, of clips in all frames.", "其解码后的总像素数上限（视频计所有帧）。")
        ),
    ] = 1_000_000_000,
    max_media_seconds: Annotated[
        int, typer.Option(help=say("Seconds of sound together.", "声音的总秒数上限。"))
    ] = 600,
    timeout: Annotated[
        float,
        typer.Option(
            help=say("Seconds that a request may take; then status 504.", "单个请求的时限（秒）；超时返回 504。")
        ),
    ] = 120.0,
    workers: Annotated[
        int,
        typer.Option(
            help=say("Threads for labels, scores, embeddings.", "分类、打分、向量所用的线程数。")
        ),
    ] = 1,
    requests_per_minute: Annotated[
        int,
        typer.Option(
            help=say("For each key (or address); 0 is no limit.", "每个密钥（或地址）每分钟的请求数；0 为不限。")
        ),
    ] = 0,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            help=say(
                "A web page's origin that browsers may call from.", "允许浏览器跨域调用的来源。"
            )
        ),
    ] = None,
    grace: Annotated[
        float,
        typer.Option(
            help=say(
                "Seconds that running requests may go on when it is told to stop.",
                "停止时，运行中的请求可继续的秒数。",
            )
        ),
    ] = 30.0,
    playground: Annotated[
        bool,
        typer.Option(
            "--playground/--no-playground",
            help=say(
                "A page to try the model out at /, where gradio is installed.",
                "在 / 提供体验台（需要已安装 gradio）。",
            ),
        ),
    ] = True,
    log_text: Annotated[
        bool,
        typer.Option(
            "--log-text",
            help=say("Log what users write and get.", "在日志中记录用户输入与输出。"),
        ),
    ] = False,
    engine: Annotated[
        str,
        typer.Option(
            help=say(
                "local: in this process; ray: replicas on Ray Serve.", "local：在本进程中；ray：用 Ray Serve 运行多个副本。"
            )
        ),
    ] = "local",
    replicas: Annotated[
        int, typer.Option(help=say("With ray: fewest replicas.", "ray：最少副本数。"))
    ] = 1,
    max_replicas: Annotated[
        int | None,
        typer.Option(
            help=say("With ray: most replicas, started with the load.", "ray：最多副本数，随负载增减。")
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            help=say(
                "With ray: a cluster, or auto; by default Ray is started here.", "ray：集群地址或 auto；默认在本机启动 Ray。"
            )
        ),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    assistant_model: AssistantModel = None,
) -> None:  # fmt: skip
    """Serves a model: OpenAI's interface and GLM's own, until Ctrl-C or SIGTERM."""
    from glmkit.serving.settings import ServingSettings, read_keys

    if engine not in ENGINES:
        raise UserError(f"--engine {engine!r} must be one of {', '.join(ENGINES)}{nearest(engine, ENGINES)}")  # fmt: skip
    if engine == "local" and (replicas, max_replicas, ray_address) != (1, None, None):
        raise UserError("--replicas, --max-replicas and --ray-address need --engine ray")
    settings = ServingSettings(
        name=name or Path(model).name or Path(model).resolve().name,
        host=host,
        port=port,
        api_keys=read_keys(api_key or (), api_key_file, os.environ),
        open_to_all=open_to_all,
        max_batch=max_batch,
        max_queue=max_queue,
        max_cache_tokens=max_cache_tokens,
        max_new_tokens=max_new_tokens,
        max_samples=max_samples,
        max_texts=max_texts,
        max_explained=max_explained,
        max_characters=max_characters,
        max_body_bytes=max_body_bytes,
        max_media=max_media,
        max_media_bytes=max_media_bytes,
        max_media_pixels=max_media_pixels,
        max_media_seconds=max_media_seconds,
        timeout=timeout,
        workers=workers,
        requests_per_minute=requests_per_minute,
        cors_origins=tuple(cors_origin or ()),
        grace=grace,
        log_text=log_text,
    )
    try:
        from glmkit.serving.app import make_server
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("fastapi", "starlette", "uvicorn", "prometheus_client", "pydantic"):  # fmt: skip
            raise
        raise missing_dependency(str(error.name), "glmkit serve", "serve") from None
    logging.getLogger("glmkit.serving").setLevel(logging.INFO)

    page = None
    # A page's sessions live in one process, and Ray sends each request to any replica.
    if playground and engine == "local" and find_spec("gradio") is not None:
        from glmkit.playground.mounting import mount

        page = mount

    def ready(address: str) -> None:
        place = ""
        if page:
            place = say(f", its playground at {address}/", f"，体验台 {address}/")
        elif playground and engine == "local":
            place = say(
                ' (for a playground: pip install "glmkit[playground]")',
                '（体验台需要 pip install "glmkit[playground]"）',
            )
        typer.echo(
            say(
                f"{settings.name} at {address}/v1{place}, its endpoints explained at {address}/docs; Ctrl-C ends it",
                f"{settings.name}：{address}/v1{place}，接口说明 {address}/docs；按 Ctrl-C 结束",
            ),
            err=True,
        )

    if engine == "local":
        make_server(load_model(model, device, dtype, assistant_model), settings, ready, page).run()
        return
    from glmkit.serving.replicas import Replicas, serve_replicas

    gpus = 1.0 if (device or "").startswith("cuda") else 0.0
    many = Replicas(replicas, max_replicas, gpus=gpus, address=ray_address)
    helper = None if assistant_model is None else _absolute(assistant_model)
    load = functools.partial(load_model, _absolute(model), device, dtype, helper)
    serve_replicas(load, settings, many, ready)


def _absolute(model: str) -> str:
    """Returns a path that means the same in another process's folder; names stay names."""
    return str(Path(model).resolve()) if Path(model).exists() else model
