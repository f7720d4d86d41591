"""The page itself, in gradio, and its server. Only the command imports it, once it has told gradio what holds."""

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import sleep
from typing import Any

import gradio as gr
from gradio import route_utils
from starlette.middleware import Middleware

from configs.modalities import GREY, TEXT
from tools.demo.cards import STYLE, WORDS, camera_word, error_of, heading_of, query_of, results_of, status_of
from tools.demo.engine import MOST, Engine
from tools.demo.gallery import UNKNOWN, cameras_in
from tools.demo.guard import Guard, is_local
from tools.demo.uploads import MAX_UPLOAD, Items, check_sentence, read_upload, with_item
from utils.errors import ConfigError, DataError
from utils.interrupts import asked, deferred

FIRST = 12  # results, until the visitor asks for another number
SESSION_S = 3600  # after which a query that nobody looks at is forgotten
CLEAN_S = (60, 300)  # how often uploads that never became a query are looked for, and their age
SUFFIXES = [".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"]  # that the file dialogue offers
TICK_S = 0.2
WAITING = 32  # requests


class OwnUpload(route_utils.GradioUploadFile):
    """An upload that lies in a folder of its own: gradio names it by the content, so equal images shared one file."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sha.update(os.urandom(16))


route_utils.GradioUploadFile = OwnUpload


def serve(engine: Engine, host: str, port: int, folder: Path, ready: Callable[[str], object]) -> None:
    """Serve the page until Ctrl-C; `ready` is called with its address. `folder` takes the uploads.

    Raises ConfigError where it cannot be served there, see `check_address`.
    """
    page = make_page(engine, folder)
    try:
        _, address, _ = page.queue(max_size=WAITING).launch(
            server_name=f"[{host}]" if ":" in host else host,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            inbrowser=False,
            inline=False,
            ssr_mode=False,
            enable_monitoring=False,
            max_file_size=MAX_UPLOAD,
            footer_links=[],
            app_kwargs={"middleware": [Middleware(Guard, local=is_local(host))]},
            theme=gr.themes.Default(font="system-ui", font_mono="ui-monospace"),
            css=STYLE,
        )
    except (OSError, ValueError) as error:
        page.close(verbose=False)
        raise ConfigError(f"--host {host} --port {port}: no page can be served there; name others") from error
    try:
        ready(address)
        with suppress(KeyboardInterrupt), deferred():
            while not asked():
                sleep(TICK_S)
    finally:
        page.close(verbose=False)


def make_page(engine: Engine, folder: Path) -> gr.Blocks:
    """Return the page: what is searched for and how at the left, the ranked images beside it, or below on a phone."""
    cameras, reads_text = cameras_in(engine.gallery), TEXT in engine.reads
    quiet = {"api_visibility": "private", "show_progress": "minimal"}
    with gr.Blocks(title="ReID search", analytics_enabled=False, delete_cache=CLEAN_S) as page:
        items = gr.State({}, time_to_live=SESSION_S)
        gr.HTML(heading_of(engine.title, engine.gallery))
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                images = [name for name in engine.reads if name != TEXT]
                drops = {name: _make_box(WORDS[name]) for name in images}
                sentence = gr.Textbox(label=_label(WORDS[TEXT]), max_lines=3, visible=reads_text, submit_btn="Search")
                query = gr.HTML()
                names = [(f"{camera_word(camera)} ({count:,})", camera) for camera, count in cameras.items()]
                chosen = gr.Dropdown(
                    names, value=[], multiselect=True, label="Cameras (none: all)", visible=set(cameras) != {UNKNOWN}
                )
                number = gr.Slider(1, MOST, value=FIRST, step=1, label="Number of results")
                maps = gr.Checkbox(label="Show where the model looks", visible=not engine.overlays.why_not)
                clear = gr.Button("Clear")
            with gr.Column(scale=3, min_width=320):
                status, results = gr.HTML(), gr.HTML()
        how, found = [number, chosen, maps], [query, status, results]
        for name, box in drops.items():
            drop = partial(_drop, engine, folder, name)
            box.upload(drop, [box, items, *how], [items, box, sentence, *found], **quiet)
        sentence.submit(partial(_type, engine), [sentence, items, *how], [items, *found], **quiet)
        for control in how:
            control.change(partial(_search, engine), [items, *how], found, trigger_mode="always_last", **quiet)
        clear.click(lambda: ({}, "", "", "", ""), None, [items, sentence, *found], **quiet)
    return page


def _make_box(words: str) -> gr.File:
    """Return a box for uploads that gives the path of a file and opens nothing, nor fetches an address.

    A class of its own would do, but gradio writes a file of types beside the source of each.
    """
    box = gr.File(label=_label(words), file_types=SUFFIXES, height=125)
    box.preprocess = lambda payload: None if payload is None else payload.path
    box.async_move_resource_to_block_cache = _keep_upload
    return box


async def _keep_upload(place: str | Path | None) -> str | None:
    """Return the path of an upload, which lies where uploads do."""
    if place is not None and "://" in str(place):
        raise gr.Error("an address is no upload")
    return None if place is None else str(place)


def _label(words: str) -> str:
    """Return words as the label of a field; gradio takes some lower-case words for names of its own texts."""
    return words[0].upper() + words[1:]


def _drop(engine: Engine, folder: Path, modality: str, path: str | None, items: Items, *how: Any) -> tuple:
    """Return the query with an uploaded image, the box emptied for the next one, the sentence, and what is found."""
    same = gr.skip()
    if path is None:
        return same, None, same, same, same, same
    try:
        given = read_upload(path, folder, engine.settings, modality in GREY)
    except DataError as error:
        return same, None, same, same, error_of(str(error)), same
    items = with_item(items, modality, given, engine.takes_several)
    return items, None, items.get(TEXT, ""), *_search(engine, items, *how)


def _type(engine: Engine, sentence: str, items: Items, *how: Any) -> tuple:
    """Return the query with a sentence, or without one where it is empty, and what is found."""
    try:
        words = check_sentence(sentence) if sentence.strip() else None
    except DataError as error:
        return gr.skip(), gr.skip(), error_of(str(error)), gr.skip()
    items = with_item(items, TEXT, words, engine.takes_several)
    return items, *_search(engine, items, *how)


def _search(engine: Engine, items: Items, number: float, cameras: list[int], maps: bool) -> tuple:
    """Return query, status and results as markup; after a mistake of the visitor's the old ones stay."""
    if not items:
        return "", "", ""
    try:
        answer = engine.answer(items, int(number), cameras, maps)
    except (ConfigError, DataError) as error:
        return gr.skip(), error_of(str(error)), gr.skip()
    total = len(engine.gallery.names)
    return query_of(answer.query, answer.sentence), status_of(answer, total, cameras), results_of(answer)
