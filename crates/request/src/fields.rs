//! What each field at the root of a body holds: the table `fields.tsv`, a row for each, with where it was read. What is read and what the
//! documentation says are made from it.

use std::sync::LazyLock;

use routing::Operation;

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// A key of a JSON body, or the name of a form's part up to its first `[`.
    pub name: &'static str,
    pub holds: Holds,
    shapes: u32,
    /// Which engines or clients know it, and where that was read.
    pub source: &'static str,
}

/// Declares [`Holds`] and [`Shape`], with the words that the table says them by.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$about])* $variant,)* }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            fn of(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == word)
            }
        }
    };
}

words! {
    /// What a field holds.
    Holds {
        /// The model's name.
        Model = "model",
        /// Whether the answer is to come as events.
        Stream = "stream",
        /// The modalities of the answer.
        Modalities = "modalities",
        /// The response that this one follows.
        Previous = "previous",
        /// What caches are to be kept apart by.
        Salt = "salt",
        /// Messages of a conversation.
        Messages = "messages",
        /// A string, a content part, or a list of those.
        Content = "content",
        /// Texts, tokens, objects of text or media, or lists of those.
        Documents = "documents",
        /// Text or tokens that the model reads.
        Text = "text",
        /// What templates write into the prompt beside that.
        Words = "words",
        Image = "image",
        Audio = "audio",
        Video = "video",
        /// Media of which the content tells what it is.
        File = "file",
        /// A number, a switch or a word: nothing that an engine fetches, opens or runs.
        Setting = "setting",
        /// More fields of the same table.
        Bag = "bag",
        /// Tensors in the place of text or media.
        Embeds = "embeds",
        /// Arguments for the reader of media.
        Processor = "processor",
        /// What engines and routers tell each other, or what has an engine open, fetch, write, load or run something.
        Internal = "internal",
        /// Names for media or caches that clients would share.
        Shared = "shared",
    }
}

words! {
    /// Bodies whose fields mean the same.
    Shape {
        Chat = "chat",
        Completions = "completions",
        Responses = "responses",
        Messages = "messages",
        Embeddings = "embeddings",
        Tokenize = "tokenize",
        Generate = "generate",
        Videos = "videos",
        ImageGenerations = "image-generations",
        ImageEdits = "image-edits",
        Speech = "speech",
        Transcriptions = "transcriptions",
        Pooling = "pooling",
        Score = "score",
        Rerank = "rerank",
        Classify = "classify",
        /// Objects in open bodies that nobody knows, however deep.
        Anywhere = "anywhere",
    }
}

type Row = (&'static str, Holds);

/// Fields of one shape, by name; and at which of them those begin that begin with a byte.
#[derive(Debug)]
struct Rows {
    all: Vec<Row>,
    begins: [u16; 257],
}

static TABLE: LazyLock<Vec<Field>> = LazyLock::new(|| read(include_str!("../fields.tsv")));

static BY_SHAPE: LazyLock<Vec<Rows>> = LazyLock::new(|| {
    let rows = |shape: &Shape| {
        let known = TABLE.iter().filter(|field| field.is_of(*shape));
        let mut all: Vec<Row> = known.map(|field| (field.name, field.holds)).collect();
        all.sort_unstable_by_key(|(name, _)| *name);
        let begin = |byte: usize| all.partition_point(|(name, _)| usize::from(name.as_bytes()[0]) < byte);
        let begins = std::array::from_fn(|byte| u16::try_from(begin(byte)).unwrap_or(u16::MAX));
        Rows { all, begins }
    };
    Shape::ALL.iter().map(rows).collect()
});

/// A field's place among those of its shape is less than this.
pub(crate) const MAX_FIELDS: usize = 320;

impl Shape {
    /// Of the body of a request.
    pub const fn of_operation(operation: Operation) -> Option<Self> {
        Some(match operation {
            Operation::ChatCompletions => Self::Chat,
            Operation::Completions => Self::Completions,
            Operation::Responses => Self::Responses,
            Operation::Messages => Self::Messages,
            Operation::Embeddings => Self::Embeddings,
            Operation::Tokenize => Self::Tokenize,
            Operation::Generate => Self::Generate,
            Operation::Videos => Self::Videos,
            Operation::ImageGenerations => Self::ImageGenerations,
            Operation::ImageEdits => Self::ImageEdits,
            Operation::Speech => Self::Speech,
            Operation::Transcriptions | Operation::Translations => Self::Transcriptions,
            Operation::Pooling => Self::Pooling,
            Operation::Score => Self::Score,
            Operation::Rerank => Self::Rerank,
            Operation::Classify => Self::Classify,
            Operation::Realtime | Operation::Other => return None,
        })
    }

    /// Whether a field that the table does not know is refused. Engines' own interfaces are so: each release of each engine acts on other
    /// fields there. In open bodies engines ignore what they do not know.
    pub const fn is_closed(self) -> bool {
        !matches!(
            self,
            Self::Chat
                | Self::Completions
                | Self::Responses
                | Self::Messages
                | Self::Embeddings
                | Self::Tokenize
                | Self::Anywhere
        )
    }

    /// What a field holds, with its name and its place among those of the shape.
    pub(crate) fn field(self, name: &[u8]) -> Option<(usize, &'static str, Holds)> {
        let Rows { all, begins } = &BY_SHAPE[self as usize];
        let first = usize::from(*name.first()?);
        let (begin, end) = (usize::from(begins[first]), usize::from(begins[first + 1]));
        let place = begin + all[begin..end].iter().position(|(known, _)| known.as_bytes() == name)?;
        Some((place, all[place].0, all[place].1))
    }
}

impl Field {
    /// Every row, by name.
    pub fn all() -> &'static [Self] {
        &TABLE
    }

    pub const fn is_of(&self, shape: Shape) -> bool {
        self.shapes & 1 << shape as u32 != 0
    }
}

#[expect(clippy::expect_used, reason = "the text of this crate, never data, decides; a test reads it")]
fn read(text: &'static str) -> Vec<Field> {
    let row = |line: &'static str| {
        let mut columns = line.split('\t');
        let mut next = || columns.next().expect("a row has four columns");
        let (name, holds, shapes, source) = (next(), next(), next(), next());
        let shapes = shapes.split(',').map(|shape| Shape::of(shape).expect("a known shape"));
        Field {
            name,
            holds: Holds::of(holds).expect("a known word"),
            shapes: shapes.fold(0, |all, shape| all | 1 << shape as u32),
            source,
        }
    };
    text.lines().skip(1).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_says_one_thing_of_each_field() {
        assert!(Field::all().is_sorted_by_key(|field| (field.name, field.holds.as_str())));
        assert!(Field::all().iter().all(|field| !field.source.is_empty() && field.name.len() < 64));
        for shape in Shape::ALL {
            let rows = &BY_SHAPE[*shape as usize].all;
            assert!(!rows.is_empty() && rows.len() <= MAX_FIELDS, "{shape:?}");
            assert!(rows.is_sorted_by(|(a, _), (b, _)| a < b), "{shape:?} has a field twice");
        }
        for shape in Shape::ALL {
            for (place, row) in BY_SHAPE[*shape as usize].all.iter().enumerate() {
                assert_eq!(shape.field(row.0.as_bytes()), Some((place, row.0, row.1)));
            }
        }
        let holds = |shape: Shape, name: &str| shape.field(name.as_bytes()).map(|(.., holds)| holds);
        assert_eq!(holds(Shape::Videos, "reference_url"), Some(Holds::File));
        assert_eq!(holds(Shape::Videos, "output_path"), Some(Holds::Internal));
        assert_eq!(holds(Shape::Chat, "temperature"), None);
        assert_eq!(holds(Shape::Speech, "temperature"), Some(Holds::Setting));
        assert_eq!(holds(Shape::Anywhere, "kv_transfer_params"), Some(Holds::Internal));
    }
}
