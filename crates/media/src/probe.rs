//! Reads headers as bytes stream by: format, size in pixels, length in time.
//!
//! Each format is a small state machine that says how many bytes it wants and how many to skip, so that a header is read wherever it
//! stands (the `moov` of a video that was recorded comes after all its pictures) and nothing else is kept. The libraries that know these
//! formats want a file to seek in or a long prefix; `benches/probe.rs` has the comparison.

mod audio;
mod boxes;
mod ebml;
mod image;
mod number;

use routing::{Format, Modality};

/// What an item says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    pub format: Option<Format>,
    /// Bytes, decoded.
    pub bytes: u64,
    /// In pixels; of a video, of its largest picture.
    pub size: Option<(u32, u32)>,
    /// Length of audio or video, in milliseconds.
    pub milliseconds: Option<u64>,
    /// Pictures in a video.
    pub frames: Option<u32>,
}

/// Reads the header of one item.
#[derive(Debug, Default)]
pub struct Probe {
    gathered: Vec<u8>,
    /// Bytes that the machine wants to see together before it is asked.
    want: usize,
    /// Bytes to pass by before that.
    skip: u64,
    machine: Machine,
    steps: u32,
    facts: Facts,
}

/// What a machine asks for next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Pass by so many bytes from the beginning of what was seen, then show so many.
    Skip { bytes: u64, then: usize },
    /// It has seen enough.
    Done,
}

#[derive(Debug, Default)]
enum Machine {
    #[default]
    Unknown,
    Image(image::Image),
    Boxes(boxes::Boxes),
    Wav(audio::Wav),
    Flac,
    Ogg(audio::Ogg),
    Mp3(audio::Mp3),
    Ebml(ebml::Ebml),
    Done,
}

/// So many bytes tell one format from another.
const SIGNATURE: usize = 16;

/// Most steps for one item: an hour of Ogg has some 4,000 pages. Whoever sends more of the smallest pieces is not read to the end.
const MAX_STEPS: u32 = 100_000;

/// No machine wants more at once: twice a page header of Ogg, the largest of them.
const MAX_WANT: usize = 1024;

// === impl Facts ===

impl Facts {
    pub fn pixels(&self) -> Option<u64> {
        self.size.map(|(width, height)| u64::from(width) * u64::from(height))
    }

    /// Pictures per second.
    pub fn frame_rate(&self) -> Option<f64> {
        let milliseconds = self.milliseconds.filter(|milliseconds| *milliseconds > 0)?;
        #[expect(clippy::cast_precision_loss, reason = "a video is far shorter than 2^52 ms")]
        self.frames.map(|frames| f64::from(frames) * 1000.0 / milliseconds as f64)
    }

    /// The modality that the content is of, whatever it was sent as.
    pub fn modality(&self) -> Option<Modality> {
        self.format.map(Format::modality)
    }

    fn grow_to(&mut self, width: u32, height: u32) {
        let pixels = u64::from(width) * u64::from(height);
        if width > 0 && height > 0 && self.pixels().is_none_or(|before| before < pixels) {
            self.size = Some((width, height));
        }
    }
}

// === impl Probe ===

impl Probe {
    pub fn feed(&mut self, mut bytes: &[u8]) {
        self.facts.bytes += bytes.len() as u64;
        if matches!(self.machine, Machine::Unknown) && self.want == 0 {
            self.want = SIGNATURE;
        }
        while !bytes.is_empty() && !matches!(self.machine, Machine::Done) {
            let skipped = self.skip.min(bytes.len() as u64);
            self.skip -= skipped;
            bytes = &bytes[usize::try_from(skipped).unwrap_or(bytes.len())..];
            // What stands whole in the chunk is looked at where it stands, and gathered only if a chunk cut it.
            if self.gathered.is_empty() && bytes.len() >= self.want {
                let passed = self.step(&bytes[..self.want], bytes.len());
                bytes = &bytes[passed..];
                continue;
            }
            let taken = self.want.saturating_sub(self.gathered.len()).min(bytes.len());
            self.gathered.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            while self.skip == 0 && self.gathered.len() >= self.want && !matches!(self.machine, Machine::Done) {
                let mut seen = std::mem::take(&mut self.gathered);
                let passed = self.step(&seen, seen.len());
                seen.drain(..passed);
                self.gathered = seen;
            }
        }
    }

    /// What the bytes told.
    pub fn finish(mut self) -> Facts {
        if matches!(self.machine, Machine::Unknown) {
            let seen = std::mem::take(&mut self.gathered);
            self.machine = machine_of(&seen, &mut self.facts);
            self.step(&seen, seen.len());
        }
        match &mut self.machine {
            Machine::Wav(wav) => wav.finish(&mut self.facts),
            Machine::Mp3(mp3) => mp3.finish(&mut self.facts),
            Machine::Ogg(ogg) => ogg.finish(&mut self.facts),
            Machine::Boxes(boxes) => boxes.finish(&mut self.facts),
            Machine::Ebml(ebml) => ebml.finish(&mut self.facts),
            Machine::Unknown | Machine::Image(_) | Machine::Flac | Machine::Done => {}
        }
        self.facts
    }

    /// Shows the machine what it wants, and does what it says. Answers how many of `there` bytes, which begin with what is shown, it is
    /// done with.
    fn step(&mut self, seen: &[u8], there: usize) -> usize {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            self.machine = Machine::Done;
        }
        let facts = &mut self.facts;
        let next = match &mut self.machine {
            Machine::Unknown => {
                self.machine = machine_of(seen, facts);
                Next::Skip { bytes: 0, then: 0 }
            }
            Machine::Image(image) => image.step(seen, facts),
            Machine::Boxes(boxes) => boxes.step(seen, facts),
            Machine::Wav(wav) => wav.step(seen),
            Machine::Flac => audio::flac(seen, facts),
            Machine::Ogg(ogg) => ogg.step(seen),
            Machine::Mp3(mp3) => mp3.step(seen),
            Machine::Ebml(ebml) => ebml.step(seen, facts),
            Machine::Done => Next::Done,
        };
        match next {
            Next::Done => {
                // What a machine found stays in it, for the end.
                if matches!(self.machine, Machine::Image(_) | Machine::Flac) {
                    self.machine = Machine::Done;
                }
                (self.want, self.skip) = (usize::MAX, u64::MAX);
                there
            }
            Next::Skip { bytes, then } => {
                let here = usize::try_from(bytes).unwrap_or(usize::MAX).min(there);
                self.skip = bytes - here as u64;
                self.want = then.min(MAX_WANT);
                here
            }
        }
    }
}

/// The machine for what begins like this.
fn machine_of(seen: &[u8], facts: &mut Facts) -> Machine {
    let at = |place: usize, mark: &[u8]| seen.get(place..place + mark.len()) == Some(mark);
    let (format, machine) = match seen {
        _ if at(0, b"\x89PNG\r\n\x1a\n") => (Format::Png, Machine::Image(image::Image::Png { begun: false })),
        _ if at(0, b"\xff\xd8\xff") => (Format::Jpeg, Machine::Image(image::Image::Jpeg { begun: false })),
        _ if at(0, b"GIF87a") || at(0, b"GIF89a") => {
            (Format::Gif, Machine::Image(image::Image::Gif(image::Gif::default())))
        }
        _ if at(0, b"RIFF") && at(8, b"WEBP") => (Format::WebP, Machine::Image(image::Image::WebP)),
        _ if at(0, b"BM") && at(6, &[0; 4]) => (Format::Bmp, Machine::Image(image::Image::Bmp)),
        _ if at(0, b"II*\0") || at(0, b"MM\0*") => (Format::Tiff, Machine::Image(image::Image::tiff(seen))),
        _ if (at(0, b"RIFF") || at(0, b"RF64")) && at(8, b"WAVE") => (Format::Wav, Machine::Wav(audio::Wav::default())),
        _ if at(0, b"fLaC") => (Format::Flac, Machine::Flac),
        _ if at(0, b"OggS") => (Format::Ogg, Machine::Ogg(audio::Ogg::default())),
        _ if at(0, b"ID3") || audio::is_mp3(seen) => (Format::Mp3, Machine::Mp3(audio::Mp3::default())),
        _ if at(0, b"\x1a\x45\xdf\xa3") => (Format::Matroska, Machine::Ebml(ebml::Ebml::default())),
        _ if at(4, b"ftyp") => (boxes::format_of_brand(seen), Machine::Boxes(boxes::Boxes::default())),
        _ if at(0, b"%PDF-") => (Format::Pdf, Machine::Done),
        _ => return Machine::Done,
    };
    facts.format = Some(format);
    machine
}

#[cfg(test)]
mod tests;
