//! The formats of media, as their first bytes tell them.

use std::fmt;
use std::str::FromStr;

use crate::Modality;

/// A media file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    Png,
    Jpeg,
    Gif,
    WebP,
    Avif,
    Heif,
    Bmp,
    Tiff,
    Wav,
    Mp3,
    Flac,
    Ogg,
    M4a,
    Mp4,
    QuickTime,
    WebM,
    Matroska,
    Pdf,
}

/// A word that names no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown media format {0:?}")]
pub struct UnknownFormat(pub String);

impl Format {
    pub const ALL: [Self; 18] = [
        Self::Png,
        Self::Jpeg,
        Self::Gif,
        Self::WebP,
        Self::Avif,
        Self::Heif,
        Self::Bmp,
        Self::Tiff,
        Self::Wav,
        Self::Mp3,
        Self::Flac,
        Self::Ogg,
        Self::M4a,
        Self::Mp4,
        Self::QuickTime,
        Self::WebM,
        Self::Matroska,
        Self::Pdf,
    ];

    /// Its usual name, as InferenceModel spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::Gif => "GIF",
            Self::WebP => "WebP",
            Self::Avif => "AVIF",
            Self::Heif => "HEIF",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
            Self::Wav => "WAV",
            Self::Mp3 => "MP3",
            Self::Flac => "FLAC",
            Self::Ogg => "OGG",
            Self::M4a => "M4A",
            Self::Mp4 => "MP4",
            Self::QuickTime => "QuickTime",
            Self::WebM => "WebM",
            Self::Matroska => "Matroska",
            Self::Pdf => "PDF",
        }
    }

    /// The modality that model servers take it as. A document's pages are looked at as pictures.
    pub const fn modality(self) -> Modality {
        match self {
            Self::Png
            | Self::Jpeg
            | Self::Gif
            | Self::WebP
            | Self::Avif
            | Self::Heif
            | Self::Bmp
            | Self::Tiff
            | Self::Pdf => Modality::Image,
            Self::Wav | Self::Mp3 | Self::Flac | Self::Ogg | Self::M4a => Modality::Audio,
            Self::Mp4 | Self::QuickTime | Self::WebM | Self::Matroska => Modality::Video,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(word: &str) -> Result<Self, UnknownFormat> {
        Self::ALL
            .into_iter()
            .find(|format| format.as_str().eq_ignore_ascii_case(word))
            .ok_or_else(|| UnknownFormat(word.chars().take(64).collect()))
    }
}
