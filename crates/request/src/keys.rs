//! The keys that mean something below the root of a body; those of the root are in `fields`.

/// Declares [`Key`], with each key's spelling. One list, so that no place can know a key that others do not.
macro_rules! keys {
    ($($name:ident = $text:literal,)*) => {
        /// A key that means something below the root. A repeated one would be read in two ways.
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
    Content = b"content",
    Type = b"type",
    Text = b"text",
    ImageUrl = b"image_url",
    Url = b"url",
    Uri = b"uri",
    AudioPath = b"audio_path",
    Format = b"format",
    Result = b"result",
    PromptString = b"prompt_string",
    MultimodalData = b"multimodal_data",
    Uuid = b"uuid",
    InputImage = b"input_image",
    ImagePil = b"image_pil",
    ImageEmbeds = b"image_embeds",
    VideoUrl = b"video_url",
    AudioUrl = b"audio_url",
    InputAudio = b"input_audio",
    AudioEmbeds = b"audio_embeds",
    VideoEmbeds = b"video_embeds",
    PromptEmbeds = b"prompt_embeds",
    Image = b"image",
    Images = b"images",
    Audio = b"audio",
    Video = b"video",
    Data = b"data",
    Source = b"source",
    MediaType = b"media_type",
    Output = b"output",
    File = b"file",
    FileData = b"file_data",
    FileUrl = b"file_url",
    FileId = b"file_id",
    Fps = b"fps",
    MaxFrames = b"max_frames",
    NumFrames = b"num_frames",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_bit_and_is_found() {
        const { assert!(COUNT <= 64, "seen keys are bits of a u64") };
        assert_eq!(Key::of(b"num_frames"), Some(Key::NumFrames));
        assert_eq!(Key::of(b"content"), Some(Key::Content));
        assert_eq!(Key::of(b"contents"), None);
        assert_eq!(Key::MaxFrames.as_str(), "max_frames");
    }
}
