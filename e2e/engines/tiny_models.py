"""Writes models that a real vLLM loads in seconds: two layers and random weights, one token for each byte of text.

    python tiny_models.py FOLDER NAME…

Each in FOLDER/NAME. Nothing is downloaded. What they answer is noise, and the same each time.

    text      Qwen2          text; with `--runner pooling --convert embed` it embeds
    lora      an adapter of text, as PEFT writes them
    vision    Qwen2-VL       text, images, video
    audio     Qwen2-Audio    text, audio
    omni      Qwen2.5-Omni   text, images, video, audio; its thinker, without the talker
    whisper   Whisper        transcription, translation
"""

import json
import sys
from pathlib import Path

import torch
import transformers  # imports parts of itself as they are named
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

LONGEST = 32768
START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
# By the names that processors look for. Models may choose what stands for a picture in text; here, all choose the same.
MEDIA = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "audio_token": "<|AUDIO|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}

TEMPLATE = (
    "{%- for message in messages -%}<|im_start|>{{ message['role'] }}\n"
    "{%- if message['content'] is string -%}{{ message['content'] }}{%- else -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'text' -%}{{ part['text'] }}"
    "{%- elif part['type'] in ('image', 'image_url') -%}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- elif part['type'] in ('video', 'video_url') -%}<|vision_start|><|video_pad|><|vision_end|>"
    "{%- elif part['type'] in ('audio', 'audio_url', 'input_audio') -%}<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{%- endif -%}{%- endfor -%}{%- endif -%}<|im_end|>\n{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
)

LANGUAGE = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,  # of 32, as vLLM's kernels for CPU want them
    "num_key_value_heads": 1,
    "max_position_embeddings": LONGEST,
    "bos_token_id": None,
}
# Time, height and width share the half of a head.
SPACE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]}
EARS = {"d_model": 64, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 128}


def letters() -> dict[str, int]:
    """Bytes are tokens: the alphabet of byte-level BPE, and no merges."""
    return {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}


def special(marks: list[str]) -> list[AddedToken]:
    return [AddedToken(mark, special=True, normalized=False) for mark in marks]


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE(vocab=letters(), merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(special([PAD, START, END, *MEDIA.values()]))
    outer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token=END,
        pad_token=PAD,
        model_max_length=LONGEST,
        clean_up_tokenization_spaces=False,
        extra_special_tokens=MEDIA,
    )
    outer.chat_template = TEMPLATE
    return outer


def eyes() -> dict:
    # Patches of 14, four of which are a token: one for each 28 × 28.
    size = {"shortest_edge": 28 * 28, "longest_edge": 64 * 28 * 28}
    return {
        "image_processor": transformers.Qwen2VLImageProcessor(size=size),
        "video_processor": transformers.Qwen2VLVideoProcessor(size=size),
    }


def save(folder: Path, model, processor) -> None:
    """What turns input into numbers is a tokenizer, or a processor that has one."""
    words = getattr(processor, "tokenizer", processor)
    # Printable letters come first, and only they are ever likeliest: answers are text, and end where they have to.
    head = model.get_output_embeddings() or model.thinker.lm_head
    head.weight.data[94:] = 0
    model.generation_config.do_sample = True
    model.generation_config.top_k = 1  # the likeliest, whatever a request says of temperature
    model.generation_config.eos_token_id = words.eos_token_id
    model.generation_config.pad_token_id = words.pad_token_id
    model.to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)


def text(folder: Path) -> None:
    words = tokenizer()
    config = transformers.Qwen2Config(**LANGUAGE, eos_token_id=words.eos_token_id)
    save(folder, transformers.Qwen2ForCausalLM(config), words)


def lora(folder: Path) -> None:
    rank, width, tensors = 4, LANGUAGE["hidden_size"], {}
    for layer in range(LANGUAGE["num_hidden_layers"]):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{name}.lora_A.weight"] = torch.randn(rank, width)
        tensors[f"{name}.lora_B.weight"] = torch.randn(width, rank)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 8, "target_modules": ["q_proj"]}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))


def vision(folder: Path) -> None:
    words = tokenizer()
    number = words.convert_tokens_to_ids
    config = transformers.Qwen2VLConfig(
        text_config={**LANGUAGE, "eos_token_id": words.eos_token_id, "rope_parameters": SPACE},
        vision_config={"depth": 2, "embed_dim": 64, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2},
        image_token_id=number(MEDIA["image_token"]),
        video_token_id=number(MEDIA["video_token"]),
        vision_start_token_id=number(MEDIA["vision_bos_token"]),
        vision_end_token_id=number(MEDIA["vision_eos_token"]),
    )
    processor = transformers.Qwen2VLProcessor(**eyes(), tokenizer=words, chat_template=TEMPLATE)
    save(folder, transformers.Qwen2VLForConditionalGeneration(config), processor)


def audio(folder: Path) -> None:
    words = tokenizer()
    config = transformers.Qwen2AudioConfig(
        audio_config={**EARS, "num_mel_bins": 128},
        text_config={**LANGUAGE, "eos_token_id": words.eos_token_id},
        audio_token_index=words.convert_tokens_to_ids(MEDIA["audio_token"]),
    )
    sounds = transformers.WhisperFeatureExtractor(feature_size=128)
    processor = transformers.Qwen2AudioProcessor(feature_extractor=sounds, tokenizer=words, chat_template=TEMPLATE)
    save(folder, transformers.Qwen2AudioForConditionalGeneration(config), processor)
    # This release of transformers says `model` once more than checkpoints do, and than vLLM reads.
    weights = folder / "model.safetensors"
    tensors = {name.replace("model.model.", "model."): tensor for name, tensor in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})


def omni(folder: Path) -> None:
    words = tokenizer()
    number = words.convert_tokens_to_ids
    width = LANGUAGE["hidden_size"]
    thinker = {
        "text_config": {
            **LANGUAGE,
            "eos_token_id": words.eos_token_id,
            "tie_word_embeddings": False,
            "rope_parameters": SPACE,
        },
        "vision_config": {
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "out_hidden_size": width,
            "fullatt_block_indexes": [1],
        },
        "audio_config": {**EARS, "num_mel_bins": 128, "output_dim": width},
        "image_token_index": number(MEDIA["image_token"]),
        "video_token_index": number(MEDIA["video_token"]),
        "audio_token_index": number(MEDIA["audio_token"]),
        "vision_start_token_id": number(MEDIA["vision_bos_token"]),
        "vision_end_token_id": number(MEDIA["vision_eos_token"]),
        "audio_start_token_id": number(MEDIA["audio_bos_token"]),
        "audio_end_token_id": number(MEDIA["audio_eos_token"]),
    }
    config = transformers.Qwen2_5OmniConfig(enable_audio_output=False, thinker_config=thinker)
    sounds = transformers.WhisperFeatureExtractor(feature_size=128)
    processor = transformers.Qwen2_5OmniProcessor(
        **eyes(), feature_extractor=sounds, tokenizer=words, chat_template=TEMPLATE
    )
    save(folder, transformers.Qwen2_5OmniForConditionalGeneration(config), processor)


def whisper(folder: Path) -> None:
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    # Prompts are made of these, and the language is the one whose mark is likeliest.
    tasks = ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
    marks = [f"<|{name}|>" for name in ["startoftranscript", *LANGUAGES, *tasks]]
    words = transformers.WhisperTokenizer(vocab=letters(), merges=[], pad_token=PAD)
    words.add_tokens(special(marks), special_tokens=True)
    end = words.eos_token_id
    config = transformers.WhisperConfig(
        **EARS,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=128,
        vocab_size=384,
        max_target_positions=64,  # an answer goes on until here, which ought not to take long
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=words.convert_tokens_to_ids(marks[0]),
        begin_suppress_tokens=None,
    )
    processor = transformers.WhisperProcessor(transformers.WhisperFeatureExtractor(), words)
    save(folder, transformers.WhisperForConditionalGeneration(config), processor)


def main() -> None:
    folder, *names = sys.argv[1:]
    writers = {writer.__name__: writer for writer in (text, lora, vision, audio, omni, whisper)}
    for name in names:
        torch.manual_seed(7)
        writers[name](Path(folder, name))


main()
