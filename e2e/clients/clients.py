"""Asks through the `openai` and `anthropic` clients, as people do: clients.py BASE_URL MEDIA_FOLDER.

Each line of the output is a question and what came of it; the first thing that is not as expected ends the run with a traceback.
"""

import base64
import pathlib
import sys

import anthropic
import openai

BASE = sys.argv[1]
MEDIA = pathlib.Path(sys.argv[2])

PNG = (MEDIA / "picture.png").read_bytes()
WAV = (MEDIA / "tone.wav").read_bytes()
MP3 = (MEDIA / "tone.mp3").read_bytes()
CLIP = (MEDIA / "clip.mp4").read_bytes()

ai = openai.OpenAI(base_url=f"{BASE}/v1", api_key="none", max_retries=0)
claude = anthropic.Anthropic(base_url=BASE, api_key="none", max_retries=0)


def b64(content):
    return base64.b64encode(content).decode()


def data_url(kind, content):
    return f"data:{kind};base64,{b64(content)}"


def check(what, found, expected):
    print(f"{what}: {found}")
    assert found == expected, f"{what}: {found!r} instead of {expected!r}"


def took(what, said, carried):
    """A server refuses what it does not take. Which of those that do it was hangs on how busy each seems to be, and a gateway
    tells the picker of an answer's end after the client."""
    check(what, said.partition(" took ")[2], carried)


def refused(what, error, ask, **expected):
    """The client's own exception, with the fields of our error in it."""
    try:
        ask()
    except error as caught:
        body = caught.body.get("error", caught.body)
        found = {key: body.get(key) for key in expected}
        check(what, found, expected)
        return
    raise AssertionError(f"{what}: nothing was refused")


def chat(*parts, **more):
    parts = [{"type": "text", "text": "what?"}, *parts]
    return ai.chat.completions.create(model="chat", messages=[{"role": "user", "content": list(parts)}], **more)


image = {"type": "image_url", "image_url": {"url": data_url("image/png", PNG)}}
audio = {"type": "input_audio", "input_audio": {"data": b64(WAV), "format": "wav"}}
video = {"type": "video_url", "video_url": {"url": data_url("video/mp4", CLIP)}}

# --- chat

took("chat, text", chat().choices[0].message.content, "text")
took("chat, image", chat(image).choices[0].message.content, "text+image")
took("chat, audio", chat(audio).choices[0].message.content, "text+audio")
answer = chat(modalities=["text", "audio"], audio={"voice": "alloy", "format": "wav"})
check("chat, audio out", base64.b64decode(answer.choices[0].message.audio.data)[:4], b"RIFF")
words = "".join(chunk.choices[0].delta.content or "" for chunk in chat(image, stream=True))
took("chat, streamed", words, "text+image")
tool = [
    {"role": "user", "content": "look"},
    {"role": "tool", "tool_call_id": "t", "content": [image]},
]
answer = ai.chat.completions.create(model="chat", messages=tool)
took("chat, image in a tool's result", answer.choices[0].message.content, "text+image")
refused("chat, video", openai.BadRequestError, lambda: chat(video), code="unsupported_modality", param="messages[0].content[1]")
refused(
    "chat, a model that is not there",
    openai.NotFoundError,
    lambda: ai.chat.completions.create(model="chatt", messages=[{"role": "user", "content": "hi"}]),
    code="model_not_found",
    message='the model "chatt" does not exist; did you mean "chat"?',
)
inside = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}}
refused("chat, a private address", openai.BadRequestError, lambda: chat(inside), code="media_host_not_allowed")

# --- completions, embeddings

took("completions", ai.completions.create(model="chat", prompt="hi").choices[0].text, "text")
check("embeddings", len(ai.embeddings.create(model="vectors", input=["a", "b"]).data[0].embedding) > 0, True)

# --- responses

answer = ai.responses.create(model="chat", input="hi")
took("responses, text", answer.output_text, "text")
content = [
    {"type": "input_text", "text": "what?"},
    {"type": "input_image", "detail": "auto", "image_url": data_url("image/png", PNG)},
]
answer = ai.responses.create(model="chat", input=[{"role": "user", "content": content}])
took("responses, image", answer.output_text, "text+image")
pdf = {"type": "input_file", "filename": "a.pdf", "file_data": data_url("application/pdf", b"%PDF-1.7")}
answer = ai.responses.create(model="chat", input=[{"role": "user", "content": [pdf]}])
took("responses, a document", answer.output_text, "image")
events = ai.responses.create(model="chat", input="hi", stream=True)
words = "".join(event.delta for event in events if event.type == "response.output_text.delta")
took("responses, streamed", words, "text")

# --- audio

say = ai.audio.transcriptions.create(model="listen", file=("a.wav", WAV))
check("transcription", say.text, "asr-0 took audio")
say = ai.audio.translations.create(model="listen", file=("a.mp3", MP3))
check("translation", say.text, "asr-0 took audio")
events = ai.audio.transcriptions.create(model="listen", file=("a.wav", WAV), stream=True)
words = "".join(event.delta for event in events if event.type == "transcript.text.delta")
check("transcription, streamed", words, "asr-0 took audio")
refused(
    "chat with a server that only listens",
    openai.BadRequestError,
    lambda: ai.chat.completions.create(model="listen", messages=[{"role": "user", "content": [audio]}]),
    code="unsupported_operation",
)
check("speech", ai.audio.speech.create(model="say", input="hi", voice="alloy").content[:4], b"RIFF")
refused(
    "transcription by a model that only speaks",
    openai.BadRequestError,
    lambda: ai.audio.transcriptions.create(model="say", file=("a.wav", WAV)),
    code="unsupported_operation",
)

# --- pictures and videos

made = ai.images.generate(model="paint", prompt="a cat")
check("images", base64.b64decode(made.data[0].b64_json), b"paint-0 took text")
made = ai.images.edit(model="paint", image=[("a.png", PNG), ("b.png", PNG)], prompt="a hat")
check("image edits", base64.b64decode(made.data[0].b64_json), b"paint-0 took text+image")
for number in range(4):
    job = ai.videos.create(model="film", prompt="waves", input_reference=("a.png", PNG, "image/png"))
    check(f"video {number}, asked for again", ai.videos.retrieve(job.id).id, job.id)
    check(f"video {number}, content", ai.videos.download_content(job.id).content, f"the video {job.id}".encode())
check("video, deleted", ai.videos.delete(job.id).deleted, True)
refused("video, asked for once more", openai.NotFoundError, lambda: ai.videos.retrieve(job.id), type="NotFoundError")
refused("video of nobody", openai.NotFoundError, lambda: ai.videos.retrieve("video_x"), code="job_not_found")

# --- models

listed = {model.id: model for model in ai.models.list().data}
check("models", sorted(listed), ["chat", "film", "listen", "paint", "say", "vectors"])
check("models, what one takes", listed["listen"].architecture["input_modalities"], ["audio"])
check("one model", ai.models.retrieve("film").architecture["output_modalities"], ["video"])
refused("a model of nobody", openai.NotFoundError, lambda: ai.models.retrieve("nope"), code="model_not_found")

# --- Anthropic


def message(*content, **more):
    return claude.messages.create(
        model="chat", max_tokens=16, messages=[{"role": "user", "content": list(content)}], **more
    )


hi = {"type": "text", "text": "hi"}
picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": b64(PNG)}}
linked = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
document = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": b64(b"%PDF-1.7")}}
words = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "some words"}}
took("messages, text", message(hi).content[0].text, "text")
took("messages, image", message(picture, hi).content[0].text, "text+image")
took("messages, image by URL", message(linked, hi).content[0].text, "text+image")
took("messages, a document", message(document, hi).content[0].text, "text+image")
took("messages, a document of words", message(words, hi).content[0].text, "text")
result = {"type": "tool_result", "tool_use_id": "t", "content": [picture]}
took("messages, a tool's result", message(result, hi).content[0].text, "text+image")
with claude.messages.stream(model="chat", max_tokens=16, messages=[{"role": "user", "content": [picture, hi]}]) as stream:
    took("messages, streamed", "".join(stream.text_stream), "text+image")
counted = claude.messages.count_tokens(model="chat", messages=[{"role": "user", "content": [hi]}])
check("messages, counted", counted.input_tokens, 8)
refused(
    "messages, a model that is not there",
    anthropic.NotFoundError,
    lambda: claude.messages.create(model="nope", max_tokens=1, messages=[{"role": "user", "content": "hi"}]),
    type="not_found_error",
    code="model_not_found",
)
inner = {"type": "image", "source": {"type": "url", "url": "http://localhost/a.png"}}
refused("messages, a private address", anthropic.BadRequestError, lambda: message(inner), type="invalid_request_error")

print("all well")
