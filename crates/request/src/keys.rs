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
                $(if key == $text.as_bytes() { return Some(Self::$name); })*
                None
            }

            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }

        #[cfg(test)]
        pub(crate) const COUNT: usize = [$($text),*].len();
    };
}

keys! {
    Model = "model",
    Messages = "messages",
    Content = "content",
    Type = "type",
    Text = "text",
    ImageUrl = "image_url",
    Url = "url",
    Stream = "stream",
    Modalities = "modalities",
    Uuid = "uuid",
    Prompt = "prompt",
    Input = "input",
    InputImage = "input_image",
    ImagePil = "image_pil",
    ImageEmbeds = "image_embeds",
    VideoUrl = "video_url",
    AudioUrl = "audio_url",
    InputAudio = "input_audio",
    AudioEmbeds = "audio_embeds",
    PromptEmbeds = "prompt_embeds",
    InputEmbeds = "input_embeds",
    Image = "image",
    Images = "images",
    Audio = "audio",
    Video = "video",
    Mask = "mask",
    Data = "data",
    Source = "source",
    System = "system",
    MediaType = "media_type",
    Instructions = "instructions",
    Output = "output",
    File = "file",
    FileData = "file_data",
    FileUrl = "file_url",
    FileId = "file_id",
    InputReference = "input_reference",
    RefAudio = "ref_audio",
    Query = "query",
    Queries = "queries",
    Documents = "documents",
    Text1 = "text_1",
    Text2 = "text_2",
    Data1 = "data_1",
    Data2 = "data_2",
    Items = "items",
    InputIds = "input_ids",
    TokenIds = "token_ids",
    Tokens = "tokens",
    ImageData = "image_data",
    VideoData = "video_data",
    AudioData = "audio_data",
    Features = "features",
    MmProcessorKwargs = "mm_processor_kwargs",
    MediaIoKwargs = "media_io_kwargs",
    Fps = "fps",
    MaxFrames = "max_frames",
    NumFrames = "num_frames",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_bit_and_is_found() {
        const { assert!(COUNT <= 64, "seen keys are bits of a u64") };
        assert_eq!(Key::of(b"num_frames"), Some(Key::NumFrames));
        assert_eq!(Key::of(b"model"), Some(Key::Model));
        assert_eq!(Key::of(b"models"), None);
    }
}
