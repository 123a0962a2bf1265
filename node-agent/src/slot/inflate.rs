//! A layer's tar stream, out of gzip, zstd or nothing: the first bytes tell, whatever the media type says.

use std::io::{self, BufRead, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// A zstd frame that is to be skipped, which may come first: its lowest four bits are anything (RFC 8878, 3.1.2).
const ZSTD_SKIPPABLE: &[u8] = &[0x50, 0x2a, 0x4d, 0x18];
/// What layers begin with, from some byte on, that some builders make and no specification has. No file has such a name.
const OTHERS: [(usize, &[u8], &str); 3] =
    [(0, b"\xfd7zXZ\0", "xz"), (4, b"1AY&SY", "bzip2"), (0, &[0x04, 0x22, 0x4d, 0x18], "lz4")];
/// Bytes that tell one from the other.
const MAGIC_BYTES: u64 = 10;

type Compressed<R> = Chain<Cursor<Vec<u8>>, R>;

/// The uncompressed bytes of a layer.
pub enum Inflater<R: BufRead> {
    /// One gzip member or more.
    Gzip(Box<MultiGzDecoder<Compressed<R>>>),
    /// One zstd frame or more.
    Zstd(zstd::stream::read::Decoder<'static, Compressed<R>>),
    /// A plain tar.
    Plain(Compressed<R>),
}

impl<R: BufRead> Inflater<R> {
    /// Looks at the first bytes. Fails where they are those of another compression.
    pub fn new(mut layer: R) -> io::Result<Self> {
        let mut magic = Vec::new();
        layer.by_ref().take(MAGIC_BYTES).read_to_end(&mut magic)?;
        let (is_gzip, is_zstd) = (magic.starts_with(GZIP), magic.starts_with(ZSTD) || is_skippable(&magic));
        let is = |at: usize, what: &[u8]| magic.get(at..).is_some_and(|rest| rest.starts_with(what));
        if let Some((.., name)) = OTHERS.iter().find(|(at, what, _)| is(*at, what)) {
            let what = format!("it is compressed with {name}, and only gzip and zstd are known");
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        let compressed = Cursor::new(magic).chain(layer);
        if is_gzip {
            return Ok(Self::Gzip(Box::new(MultiGzDecoder::new(compressed))));
        }
        if is_zstd {
            return Ok(Self::Zstd(zstd::stream::read::Decoder::with_buffer(compressed)?));
        }
        Ok(Self::Plain(compressed))
    }

    /// Reads the compressed bytes to their end, behind the stream's own: who made them checks there that all of them
    /// were right.
    pub fn finish(self) -> io::Result<()> {
        let mut rest = match self {
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.finish(),
            Self::Plain(rest) => rest,
        };
        io::copy(&mut rest, &mut io::sink()).map(|_| ())
    }
}

impl<R: BufRead> Read for Inflater<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
            Self::Plain(bytes) => bytes.read(buffer),
        }
    }
}

fn is_skippable(magic: &[u8]) -> bool {
    magic
        .split_first()
        .is_some_and(|(first, rest)| first & 0xf0 == 0x50 && rest.starts_with(&ZSTD_SKIPPABLE[1..]))
}
