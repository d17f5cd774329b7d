"""The request parsers of vLLM and vLLM-Omni, set up so that record.py can ask them what they read.

vLLM: its own routers, request models and exception handlers are mounted on a FastAPI application. Behind the routes
stand handlers that call the same code as vLLM's do (conversion, content-part parser, sampling parameters) and stop
where a tokenizer or a model would begin. Stand-ins replace the model (it takes every kind of media, without limits),
the network and the decoders of media; base64 is really decoded.

vLLM-Omni: only its request models, and the parameter lists of its form routes, are taken from the wheel; the rest of
it needs a whole installation. Which of two rival fields is read is restated here.
"""
import ast
import importlib
import json
import sys
import types
import typing
import zipfile
from pathlib import Path
from types import SimpleNamespace

from fastapi import Depends, FastAPI, File, Form, HTTPException, Request, UploadFile
from fastapi.responses import JSONResponse

import vllm.connections as connections
import vllm.renderers.chat_utils as chat_utils
from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
from vllm.entrypoints.generate.base.protocol import validate_request_mm_kwargs
from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
from vllm.entrypoints.pooling.embed.io_processor import EmbedIOProcessor
from vllm.entrypoints.pooling.embed.protocol import CohereEmbedContent, CohereEmbedInput, CohereEmbedRequest
from vllm.entrypoints.pooling.scoring import utils as scoring
from vllm.entrypoints.scale_out.token_in_token_out.mm_features import mm_kwargs_from_features
from vllm.entrypoints.serve.engine.protocol import ErrorInfo, ErrorResponse
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.entrypoints.serve.exception_handling.register import init_exception_handler
from vllm.entrypoints.serve.utils.api_utils import validate_json_request
from vllm.multimodal.media import audio as audio_io
from vllm.multimodal.media import image as image_io
from vllm.multimodal.media import video as video_io
from vllm.renderers.embed_utils import safe_load_prompt_embeds
from vllm.renderers.online_renderer import OnlineRenderer

OMNI_VERSION = "0.30.0"
VOCABULARY = CONTEXT = 1 << 20
# The handlers' answer to a request that was understood; vLLM's routes pass it on with its code.
OK = ErrorResponse(error=ErrorInfo(message="recorded", type="recorded", code=200))


class Reads:
    """What one request made the engine read."""

    def __init__(self):
        self.model = None
        self.text = False
        self.count = {"image": 0, "audio": 0, "video": 0}

    def add(self, modality):
        self.count[modality] += 1


NOW = Reads()  # of the request at hand; record.py asks one at a time


def begin():
    global NOW
    NOW = Reads()
    return NOW


# ---------------------------------------------------------------- stand-ins for the model, the network, the decoders

class NoLimits:
    """A multimodal configuration without limits."""
    media_io_kwargs = None
    interleave_mm_strings = False
    enable_mm_embeds = False

    def get_limit_per_prompt(self, modality):
        return 999


def model_config():
    limits = NoLimits()
    return SimpleNamespace(
        hf_config=SimpleNamespace(model_type="stand_in"), hf_text_config=SimpleNamespace(model_type="stand_in"),
        multimodal_config=limits, get_multimodal_config=lambda: limits, is_multimodal_model=True,
        allowed_local_media_path="", allowed_media_domains=None, enable_prompt_embeds=False, max_model_len=CONTEXT,
        is_encoder_decoder=False, encoder_config=None, architecture="StandIn", model="stand-in", dtype=None,
        logits_processors=None, max_logprobs=1 << 20, runner_type="generate", hf_overrides=None,
        get_vocab_size=lambda: VOCABULARY, skip_tokenizer_init=False, tokenizer="stand-in",
    )


class AnyModel:
    @staticmethod
    def get_placeholder_str(modality, number):
        return {"image": "<image>", "audio": "<audio>", "video": "<video>"}.get(modality.removesuffix("_embeds"))


def install_stand_ins():
    tracker = chat_utils.BaseMultiModalItemTracker
    tracker.model_cls = AnyModel
    tracker.mm_processor = SimpleNamespace(info=SimpleNamespace(validate_num_items=lambda modality, number: None))
    tracker.video_processor_name = None

    # Every item of media goes through here, whatever its spelling.
    plain_add = tracker.add

    def add(self, modality, item):
        answer = plain_add(self, modality, item)
        if modality.removesuffix("_embeds") in NOW.count:
            NOW.add(modality.removesuffix("_embeds"))
        return answer

    tracker.add = add

    async def fetch(self, url, **_):
        return b"fetched"

    connections.HTTPConnection.async_get_bytes = fetch
    connections.HTTPConnection.get_bytes = lambda self, url, **_: b"fetched"
    for decoder in (image_io.ImageMediaIO, audio_io.AudioMediaIO, video_io.VideoMediaIO):
        decoder.load_bytes = lambda self, data: "decoded"
        decoder.load_file = lambda self, path: "decoded"


# ---------------------------------------------------------------- vLLM's rendering, up to the chat template

class Renderer:
    """Stands where the tokenizer and the template would: has vLLM parse the messages, and stops."""
    tokenizer = None

    def __init__(self, config):
        self.config = config

    def get_tokenizer(self):
        return None

    async def render_chat_async(self, conversations, chat_params, tok_params, prompt_extras=None, skip_mm_cache=False):
        for messages in conversations:
            await self.parse(messages, chat_params.media_io_kwargs, chat_params.mm_processor_kwargs)
        return [[] for _ in conversations], [{"type": "token", "prompt_token_ids": [1]} for _ in conversations]

    async def parse(self, messages, media_io_kwargs=None, mm_processor_kwargs=None):
        # Only once for each request: pydantic keeps lists of parts as iterators that are then used up.
        conversation, _, _ = await chat_utils.parse_chat_messages_async(
            messages, self.config, "openai", media_io_kwargs=media_io_kwargs, mm_processor_kwargs=mm_processor_kwargs)
        for message in conversation:
            NOW.text |= has_text(message)

    async def render_cmpl_async(self, prompts, tok_params=None, prompt_extras=None, skip_mm_cache=False):
        for prompt in prompts:
            if isinstance(prompt, bytes):
                safe_load_prompt_embeds(self.config, prompt)
            else:
                NOW.text = True
        return [{"type": "token", "prompt_token_ids": [1]} for _ in prompts] or [{}]

    def render_completion_suffix(self, prompt, suffix):
        return None


def has_text(message):
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return (
        isinstance(content, str)
        or any(isinstance(p, str) or isinstance(p, dict) and p.get("type") in ("text", "tool_reference") for p in parts)
        or bool(message.get("reasoning") or message.get("tool_calls"))
    )


class Parser:
    """A tool and reasoning parser that changes nothing."""
    tool_parser_cls = object
    reasoning_parser_cls = None
    always_adjust_request = False

    def __init__(self, *args, **kwargs):
        pass

    def adjust_request(self, request):
        return request


def online_renderer(config):
    self = OnlineRenderer.__new__(OnlineRenderer)
    self.__dict__.update(
        renderer=Renderer(config), model_config=config, parser=Parser, use_harmony=False, enable_auto_tools=True,
        chat_template=None, chat_template_content_format="openai", default_chat_template_kwargs={},
        trust_request_chat_template=False, trust_request_mm_kwargs=False, exclude_tools_when_tool_choice_none=False,
        reasoning_parser=None,
    )
    return self


# ---------------------------------------------------------------- what stands behind vLLM's routes

class Handlers:
    """One object for every route: each method notes what came, and answers OK or the engine's own refusal."""

    def __init__(self):
        self.config = model_config()
        self.online = online_renderer(self.config)

    async def create_chat_completion(self, request, raw):
        NOW.model = request.model
        return await self.chat(request)

    async def chat(self, request):
        result = await self.online.render_chat(request)
        if isinstance(result, ErrorResponse):
            return result
        if not getattr(request, "use_beam_search", False):
            request.to_sampling_params(16, {})
        return OK

    async def create_batch_chat_completion(self, request, raw):
        NOW.model = request.model
        for messages in request.messages:
            await self.online.renderer.parse(messages)
        return OK

    async def create_completion(self, request, raw):
        NOW.model = request.model
        result = await self.online.render_completion(request)
        if isinstance(result, ErrorResponse):
            return result
        if not request.use_beam_search:
            request.to_sampling_params(16, {})
        return OK

    async def create_responses(self, request, raw):
        NOW.model = request.model
        serving = SimpleNamespace(use_harmony=False, enable_store=True, create_error_response=create_error_response)
        refusal = OpenAIServingResponses._validate_create_responses_input(serving, request)
        if refusal is not None:
            return refusal
        result = await self.online.render_responses(request)
        if isinstance(result, ErrorResponse):
            return result
        request.to_sampling_params(16, {})
        return OK

    async def create_messages(self, request, raw):
        NOW.model = request.model
        return await self.chat(AnthropicServingMessages.to_chat_completion_request(request))

    count_tokens = create_messages

    async def create_transcription(self, audio, request, raw):
        NOW.model, NOW.text = request.model, bool(request.prompt)
        NOW.add("audio")
        request.to_sampling_params(16, {})
        return OK

    create_translation = create_transcription

    async def create_tokenize(self, request, raw):
        NOW.model = request.model
        if not hasattr(request, "messages"):
            NOW.text = True
            return OK
        self.refuse_kwargs(request)
        refusal = self.online.validate_chat_template(request.chat_template, request.chat_template_kwargs, False)
        if refusal is not None:
            return refusal
        await self.online.renderer.parse(request.messages, request.media_io_kwargs, request.mm_processor_kwargs)
        return OK

    async def create_detokenize(self, request, raw):
        NOW.model, NOW.text = request.model, bool(request.tokens)
        return OK

    async def serve_tokens(self, request, raw):
        NOW.model, NOW.text = request.model, True
        if request.content_parts:
            tracker = chat_utils.AsyncMultiModalItemTracker(self.config)
            parser = tracker.create_parser()
            kinds = {"image_url": parser.parse_image, "audio_url": parser.parse_audio, "video_url": parser.parse_video}
            for part in request.content_parts:
                parse = kinds.get(part.get("type", ""))  # vLLM passes over any other type
                if parse is not None:
                    parse(part.get("url"), part.get("uuid"))
            await tracker.resolve_items()
        elif request.features:
            for modality, hashes in request.features.mm_hashes.items():
                for _ in hashes if modality in NOW.count else []:
                    NOW.add(modality)
            mm_kwargs_from_features(request.features)
        return OK

    async def __call__(self, request, raw):
        """Pooling routes call their handler itself, and want a response of it."""
        NOW.model = getattr(request, "model", None)
        self.refuse_kwargs(request)
        await self.pool(request)
        return JSONResponse(OK.model_dump())

    def refuse_kwargs(self, request):
        validate_request_mm_kwargs(
            mm_processor_kwargs=getattr(request, "mm_processor_kwargs", None),
            media_io_kwargs=getattr(request, "media_io_kwargs", None), trust_request_mm_kwargs=False)

    async def pool(self, request):
        if isinstance(request, CohereEmbedRequest):
            return await self.cohere(request)
        if hasattr(request, "data_1"):
            return self.score(request.data_1, request.data_2)
        if hasattr(request, "query") and hasattr(request, "documents"):
            return self.score(request.query, request.documents)
        messages = getattr(request, "messages", None)
        if messages is not None:
            several = "Batch" in type(request).__name__
            for conversation in messages if several else [messages]:
                await self.online.renderer.parse(list(conversation), getattr(request, "media_io_kwargs", None))
        elif hasattr(request, "input"):
            NOW.text = True
        # What remains has `data` for a plugin of the server, unread here.

    def score(self, first, second):
        data = scoring.validate_score_input(first, second, True, "StandIn")
        for role, items in (("query", data.data_1), ("document", data.data_2)):
            for item in items:
                if isinstance(item, str):
                    NOW.text = True
                    continue
                prompt, _, _ = scoring.parse_score_data_single(item, role, self.config)
                for word in ("<image>", "<audio>", "<video>"):
                    prompt = prompt.replace(word, "")
                NOW.text |= bool(prompt.strip())

    async def cohere(self, request):
        if request.texts is not None:
            NOW.text = True
            return
        inputs = request.inputs
        if request.images is not None:
            inputs = [CohereEmbedInput(content=[CohereEmbedContent(type="image_url", image_url={"url": url})])
                      for url in request.images]
        processor = EmbedIOProcessor.__new__(EmbedIOProcessor)
        for one in inputs or []:
            await self.online.renderer.parse(processor._mixed_input_to_messages(one, task_prefix=None))


ROUTERS = [
    "openai.chat_completion", "openai.completion", "openai.responses", "anthropic", "serve.tokenize",
    "scale_out.token_in_token_out", "speech_to_text.transcription", "speech_to_text.translation", "pooling.pooling",
    "pooling.classify", "pooling.scoring", "pooling.embed",
]
# Where the routes look for their handlers.
STATE = [
    "openai_serving_chat", "openai_serving_chat_batch", "openai_serving_completion", "openai_serving_responses",
    "anthropic_serving_messages", "serving_tokenization", "serving_tokens", "openai_serving_transcription",
    "openai_serving_translation", "serving_pooling", "serving_classification", "serving_scores", "serving_embedding",
]


def new_app():
    app = FastAPI()
    app.state.args = SimpleNamespace(log_error_stack=False, sse_keep_alive_interval=0)
    app.state.enable_server_load_tracking = False
    init_exception_handler(app)
    return app


def vllm_app():
    install_stand_ins()
    app = new_app()
    for name in ROUTERS:
        app.include_router(importlib.import_module(f"vllm.entrypoints.{name}.api_router").router)
    handlers = Handlers()
    for name in STATE:
        setattr(app.state, name, handlers)
    return app


# ---------------------------------------------------------------- vLLM-Omni: speech, images, videos

OMNI_PATHS = ("/audio/speech", "/audio/speech/batch", "/audio/generate", "/images/generations", "/images/edits",
              "/videos", "/videos/sync")
OMNI_FILES = "vllm_omni/entrypoints/openai/"


def unpack_omni(wheel, folder):
    """Only what is looked at, out of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if name.startswith(OMNI_FILES)])
    return Path(folder) / OMNI_FILES


def omni_protocol(folder, name):
    """A module of request models, without the __init__ of its parents (they would patch vLLM)."""
    root = folder.parent.parent
    for parent in ("vllm_omni", "vllm_omni.entrypoints", "vllm_omni.entrypoints.openai",
                   "vllm_omni.entrypoints.openai.protocol", "vllm_omni.inputs"):
        if parent not in sys.modules:
            module = types.ModuleType(parent)
            module.__path__ = [str(root.joinpath(*parent.split(".")[1:]))]
            sys.modules[parent] = module
    # One constant, as it stands in that module, which itself needs the whole of vLLM-Omni.
    data = types.ModuleType("vllm_omni.inputs.data")
    data.DIFFUSION_QUALITY_LEVELS = ("lossless", "high")
    sys.modules[data.__name__] = data
    return importlib.import_module(f"vllm_omni.entrypoints.openai.protocol.{name}")


def signature_of(path, function, scope, then):
    """A function with the parameters of the one in the file, and `then(its arguments)` in place of its body."""
    tree = ast.parse(path.read_text("utf-8"))
    node = next(n for n in ast.walk(tree) if isinstance(n, ast.AsyncFunctionDef) and n.name == function)
    node.decorator_list, node.returns = [], None
    node.body = ast.parse("return await __then__(dict(locals()))").body
    module = ast.fix_missing_locations(ast.Module(body=[node], type_ignores=[]))
    space = scope | {"__then__": then}
    exec(compile(module, path.name, "exec"), space)
    return space[function]


def kind_of(upload):
    kind = (upload.content_type or "").split("/")[0]
    return kind if kind in NOW.count else "image"


def omni_app(folder):
    audio, images, videos = (omni_protocol(folder, name) for name in ("audio", "images", "videos"))
    app = new_app()
    json_only = [Depends(validate_json_request)]

    async def speech(request: audio.OpenAICreateSpeechRequest):
        NOW.model, NOW.text = request.model, True
        voices = [request.ref_audio] if isinstance(request.ref_audio, str) else request.ref_audio or []
        for _ in [*voices, *([request.ref_audio_2] if request.ref_audio_2 else [])]:
            NOW.add("audio")

    async def speeches(request: audio.BatchSpeechRequest):
        NOW.model, NOW.text = request.model, True
        for one in [request, *request.items]:
            if getattr(one, "ref_audio", None):
                NOW.add("audio")

    async def sound(request: audio.OpenAICreateAudioGenerateRequest):
        NOW.model, NOW.text = request.model, True

    async def generation(request: images.ImageGenerationRequest):
        NOW.model, NOW.text = request.model, True

    async def edit(values):
        NOW.model, NOW.text = values["model"], True
        files = values["image"] or values["image_array"] or []
        urls = values["url"] or values["url_array"] or []
        if not files and not urls:
            raise HTTPException(422, "Field 'image' or 'url' is required")
        more = [values[name] for name in ("mask_image", "reference_image") if values[name] is not None]
        for _ in [*files, *urls, *more]:
            NOW.add("image")

    async def film(values):
        NOW.model, NOW.text = values["model"], True
        fields = {k: v for k, v in values.items() if k in videos.VideoGenerationRequest.model_fields and v is not None}
        for kind in NOW.count:  # references are JSON text, of one or of several
            name = f"{kind}_reference"
            if values[name] is not None:
                try:
                    fields[name] = json.loads(values[name])
                    listed = fields[name] if isinstance(fields[name], list) else [fields[name]]
                    for one in listed:
                        one.get(f"{kind}_url")
                        NOW.add(kind)
                except (ValueError, AttributeError) as error:
                    raise HTTPException(400, f"{name}: {error}")
        for name in ("lora", "extra_params"):
            if values[name] is not None:
                fields[name] = json.loads(values[name])
        videos.VideoGenerationRequest(**{k: v for k, v in fields.items() if v is not None})
        kinds = {"input_reference": None, "control_reference": "video", "source_video": "video", "source_audio": "audio"}
        for name, kind in kinds.items():
            if values[name] is not None:
                NOW.add(kind or kind_of(values[name]))
        for one in values["input_references"] or []:
            NOW.add(kind_of(one))

    scope = {"Request": Request, "UploadFile": UploadFile, "File": File, "Form": Form, "Annotated": typing.Annotated,
             "Any": typing.Any, "SecondStr": videos.SecondStr, "SizeStr": videos.SizeStr}
    edits = signature_of(folder / "api_server.py", "edit_images", scope, edit)
    films = signature_of(folder / "video/generation/helpers.py", "_parse_video_form", scope, film)
    app.post("/v1/audio/speech", dependencies=json_only)(speech)
    app.post("/v1/audio/speech/batch", dependencies=json_only)(speeches)
    app.post("/v1/audio/generate", dependencies=json_only)(sound)
    app.post("/v1/images/generations", dependencies=json_only)(generation)
    app.post("/v1/images/edits")(edits)
    app.post("/v1/videos")(films)
    app.post("/v1/videos/sync")(films)
    return app
