//! The keys that mean something somewhere.

/// Declares [`Key`], with each key's spelling. One list, so that no place can know a key that others do not.
macro_rules! keys {
    ($($name:ident = $text:literal,)*) => {
        /// A key that means something somewhere. A repeated one would be read in two ways.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Key { $($name,)* }

        impl Key {
            pub(crate) fn of(key: &[u8]) -> Option<Self> {
                match key {
                    $($text => Some(Self::$name),)*
                    _ => None,
                }
            }

            pub(crate) const fn as_str(self) -> &'static str {
                let bytes: &'static [u8] = match self { $(Self::$name => $text,)* };
                match str::from_utf8(bytes) {
                    Ok(text) => text,
                    Err(_) => "",
                }
            }
        }

        #[cfg(test)]
        pub(crate) const COUNT: usize = [$(stringify!($name)),*].len();
    };
}

keys! {
    Model = b"model",
    Messages = b"messages",
    Content = b"content",
    Type = b"type",
    Text = b"text",
    ImageUrl = b"image_url",
    Url = b"url",
    Stream = b"stream",
    Modalities = b"modalities",
    Uuid = b"uuid",
    Prompt = b"prompt",
    Input = b"input",
    PreviousResponseId = b"previous_response_id",
    ContentParts = b"content_parts",
    InputImage = b"input_image",
    ImagePil = b"image_pil",
    ImageEmbeds = b"image_embeds",
    VideoUrl = b"video_url",
    AudioUrl = b"audio_url",
    InputAudio = b"input_audio",
    AudioEmbeds = b"audio_embeds",
    VideoEmbeds = b"video_embeds",
    Lora = b"lora",
    FrameInterpolationModelPath = b"frame_interpolation_model_path",
    KvTransferParams = b"kv_transfer_params",
    EcTransferParams = b"ec_transfer_params",
    MaskImage = b"mask_image",
    ReferenceImage = b"reference_image",
    PromptEmbeds = b"prompt_embeds",
    InputEmbeds = b"input_embeds",
    Image = b"image",
    Images = b"images",
    Audio = b"audio",
    Video = b"video",
    Mask = b"mask",
    Data = b"data",
    Source = b"source",
    System = b"system",
    MediaType = b"media_type",
    Instructions = b"instructions",
    Output = b"output",
    File = b"file",
    FileData = b"file_data",
    FileUrl = b"file_url",
    FileId = b"file_id",
    InputReference = b"input_reference",
    ImageReference = b"image_reference",
    VideoReference = b"video_reference",
    RefAudio = b"ref_audio",
    Query = b"query",
    Queries = b"queries",
    Documents = b"documents",
    Text1 = b"text_1",
    Text2 = b"text_2",
    Data1 = b"data_1",
    Data2 = b"data_2",
    Items = b"items",
    InputIds = b"input_ids",
    TokenIds = b"token_ids",
    Tokens = b"tokens",
    ImageData = b"image_data",
    VideoData = b"video_data",
    AudioData = b"audio_data",
    Features = b"features",
    MmProcessorKwargs = b"mm_processor_kwargs",
    MediaIoKwargs = b"media_io_kwargs",
    Fps = b"fps",
    MaxFrames = b"max_frames",
    NumFrames = b"num_frames",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_bit_and_is_found() {
        const { assert!(COUNT <= 128, "seen keys are bits of a u128") };
        assert_eq!(Key::of(b"num_frames"), Some(Key::NumFrames));
        assert_eq!(Key::of(b"model"), Some(Key::Model));
        assert_eq!(Key::of(b"models"), None);
        assert_eq!(Key::MaxFrames.as_str(), "max_frames");
    }
}
