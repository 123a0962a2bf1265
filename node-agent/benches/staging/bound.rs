//! What the machine could do at best: each part of the work alone, on everything that the machine has.

use std::{
    io::{self, Read},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use evenkeel_node_agent::disk::{Access, BlockDevice as _, FileDevice, aligned::AlignedBuffer};
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use crate::image::Image;

const PIECE: usize = 256 << 10;
const WRITE: usize = 1 << 20;

/// Inflates all layers and hashes both forms of each, a layer on each core.
pub fn inflate_and_hash(image: &Image) -> Duration {
    let next = AtomicUsize::new(0);
    let begin = Instant::now();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().unwrap().get() {
            scope.spawn(|| {
                while let Some(layer) = image.layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                    std::hint::black_box(Sha256::digest(&layer.bytes));
                    let mut sink = Sink(Sha256::new());
                    let mut stream = MultiGzDecoder::new(&layer.bytes[..]);
                    let mut buffer = vec![0; PIECE];
                    loop {
                        let count = stream.read(&mut buffer).unwrap();
                        if count == 0 {
                            break;
                        }
                        io::Write::write_all(&mut sink, &buffer[..count]).unwrap();
                    }
                    std::hint::black_box(sink.0.finalize());
                }
            });
        }
    });
    begin.elapsed()
}

struct Sink(Sha256);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes as many bytes to a new file, past the cache where that is possible, and flushes.
pub fn write(folder: &Path, bytes: u64) -> Duration {
    let path = folder.join("raw");
    let _ = std::fs::remove_file(&path);
    std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
    let device = FileDevice::open(&path, Access::Write).unwrap();
    let mut buffer = AlignedBuffer::new(WRITE);
    buffer.append(&crate::image::noise(WRITE, 1));
    let begin = Instant::now();
    for at in (0..bytes / WRITE as u64).map(|piece| piece * WRITE as u64) {
        device.write_at(at, &buffer).unwrap();
    }
    device.flush().unwrap();
    let time = begin.elapsed();
    std::fs::remove_file(&path).unwrap();
    time
}
