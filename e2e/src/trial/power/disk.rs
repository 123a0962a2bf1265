//! A disk with a volatile cache: what was written is on the disk when a flush was answered, and until then a power cut may
//! keep all of a write, its first sectors, or nothing.
//!
//! Served to an emulator over the NBD protocol (`doc/proto.md` of the NBD project): the fixed newstyle handshake with one
//! export, simple replies, and the commands that QEMU sends to a server without further abilities.

use std::{
    fs::File,
    io::{self, Read, Write},
    ops::Range,
    os::unix::{
        fs::FileExt as _,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::{Context as _, Result};

use super::dice::Dice;

const SECTOR: usize = 512;
/// QEMU splits what is larger.
const LENGTH_MAX: u32 = 32 << 20;

const GREETING: u64 = 0x4e42_444d_4147_4943;
const OPTION: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;
/// Fixed newstyle, and no zeroes after an old option.
const HANDSHAKE_FLAGS: u16 = 0b11;
const OPT_ABORT: u32 = 2;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERR_UNSUPPORTED: u32 = (1 << 31) + 1;
/// There are flags, and FLUSH is known.
const EXPORT_FLAGS: u16 = 0b101;
const CMD_READ: u16 = 0;
const CMD_WRITE: u16 = 1;
const CMD_DISCONNECT: u16 = 2;
const CMD_FLUSH: u16 = 3;

/// The disk. Its server ends with the emulator's connection.
#[derive(Clone)]
pub(super) struct VolatileDisk(Arc<Mutex<State>>);

struct State {
    file: File,
    length: u64,
    unflushed: Vec<(u64, Vec<u8>)>,
    cut: Option<Cut>,
    /// Nothing is answered any more.
    dead: bool,
}

/// When the power goes.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    /// After so many writes more.
    pub writes: u64,
    /// Only those count that begin here.
    pub part: Range<u64>,
    /// At the flush behind them, which is not done.
    pub at_flush: bool,
}

impl VolatileDisk {
    /// Serves a disk file on a new socket.
    pub(super) fn serve(path: &Path, socket: &Path) -> Result<Self> {
        let file = File::options().read(true).write(true).open(path).context("open the disk")?;
        let length = file.metadata().context("measure the disk")?.len();
        let disk =
            Self(Arc::new(Mutex::new(State { file, length, unflushed: Vec::new(), cut: None, dead: false })));
        let listener = UnixListener::bind(socket).context("listen for an emulator")?;
        let server = disk.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let disk = server.clone();
                // An emulator that is killed ends its connection in the middle of anything.
                thread::spawn(move || disk.answer(stream));
            }
        });
        Ok(disk)
    }

    /// From then on nothing is answered any more.
    pub(super) fn cut(&self, cut: Cut) {
        self.state().cut = Some(cut);
    }

    /// Whether that has come.
    pub(super) fn is_cut(&self) -> bool {
        self.state().dead
    }

    /// What the cut left of the writes that were not flushed. To be called when the emulator is dead. Gives how many there
    /// were.
    pub(super) fn lose_power(&self, dice: &mut Dice) -> Result<usize> {
        let mut state = self.state();
        (state.cut, state.dead) = (None, false);
        let unflushed = std::mem::take(&mut state.unflushed);
        for (offset, bytes) in &unflushed {
            let sectors = (bytes.len() / SECTOR) as u64;
            let kept = match dice.below(3) {
                0 => 0,
                1 => sectors,
                _ => dice.below(sectors + 1),
            };
            let kept = usize::try_from(kept).unwrap_or_default() * SECTOR;
            state.file.write_all_at(&bytes[..kept], *offset).context("write to the disk")?;
        }
        Ok(unflushed.len())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, mut stream: UnixStream) -> io::Result<()> {
        if !self.shake_hands(&mut stream)? {
            return Ok(());
        }
        loop {
            let magic: u32 = u32::from_be_bytes(take(&mut stream)?);
            let _flags: [u8; 2] = take(&mut stream)?;
            let command = u16::from_be_bytes(take(&mut stream)?);
            let cookie: [u8; 8] = take(&mut stream)?;
            let offset = u64::from_be_bytes(take(&mut stream)?);
            let length = u32::from_be_bytes(take(&mut stream)?);
            if magic != REQUEST || command == CMD_DISCONNECT || length > LENGTH_MAX {
                return Ok(());
            }
            let mut data = vec![0; if command == CMD_FLUSH { 0 } else { length as usize }];
            if command == CMD_WRITE {
                stream.read_exact(&mut data)?;
            }
            let mut state = self.state();
            let done = match command {
                CMD_READ => state.read(offset, &mut data),
                CMD_WRITE => {
                    state.write(offset, std::mem::take(&mut data));
                    Ok(())
                }
                CMD_FLUSH => state.flush(),
                _ => Err(io::ErrorKind::Unsupported.into()),
            };
            let cut = state.dead;
            drop(state);
            if cut {
                // The emulator waits until it is killed, as a machine does whose power goes.
                return stream.read_to_end(&mut Vec::new()).map(|_| ());
            }
            // 22: an invalid argument.
            let error: u32 = if done.is_ok() { 0 } else { 22 };
            let head = [&REPLY.to_be_bytes()[..], &error.to_be_bytes(), &cookie].concat();
            stream.write_all(&head)?;
            if command == CMD_READ && done.is_ok() {
                stream.write_all(&data)?;
            }
        }
    }

    /// Whether the emulator wants the disk.
    fn shake_hands(&self, stream: &mut UnixStream) -> io::Result<bool> {
        let hello = [&GREETING.to_be_bytes()[..], &OPTION.to_be_bytes(), &HANDSHAKE_FLAGS.to_be_bytes()];
        stream.write_all(&hello.concat())?;
        let _: [u8; 4] = take(stream)?;
        loop {
            let _: [u8; 8] = take(stream)?;
            let option = u32::from_be_bytes(take(stream)?);
            let length = u32::from_be_bytes(take(stream)?);
            stream.read_exact(&mut vec![0; length.min(LENGTH_MAX) as usize])?;
            match option {
                OPT_GO => {
                    let size = self.state().length.to_be_bytes();
                    // Information 0 is of the export.
                    let export = [&0_u16.to_be_bytes()[..], &size, &EXPORT_FLAGS.to_be_bytes()].concat();
                    reply(stream, option, REP_INFO, &export)?;
                    reply(stream, option, REP_ACK, &[])?;
                    return Ok(true);
                }
                OPT_ABORT => return Ok(false),
                _ => reply(stream, option, REP_ERR_UNSUPPORTED, &[])?,
            }
        }
    }
}

impl State {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)?;
        let end = offset + buffer.len() as u64;
        for (at, bytes) in &self.unflushed {
            let (from, to) = (offset.max(*at), end.min(at + bytes.len() as u64));
            if from < to {
                let place = |base: u64| usize::try_from(from - base).unwrap_or_default();
                let length = usize::try_from(to - from).unwrap_or_default();
                buffer[place(offset)..][..length].copy_from_slice(&bytes[place(*at)..][..length]);
            }
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, data: Vec<u8>) {
        if self.dead {
            return;
        }
        self.unflushed.push((offset, data));
        if let Some(cut) = self.cut.as_mut().filter(|cut| cut.part.contains(&offset)) {
            cut.writes = cut.writes.saturating_sub(1);
            self.dead = cut.writes == 0 && !cut.at_flush;
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.dead |= self.cut.as_ref().is_some_and(|cut| cut.at_flush && cut.writes == 0);
        if !self.dead {
            for (offset, bytes) in std::mem::take(&mut self.unflushed) {
                self.file.write_all_at(&bytes, offset)?;
            }
        }
        Ok(())
    }
}

fn reply(stream: &mut UnixStream, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
    let length = u32::try_from(data.len()).unwrap_or_default();
    let head = [&OPTION_REPLY.to_be_bytes()[..], &option.to_be_bytes(), &kind.to_be_bytes()].concat();
    stream.write_all(&[&head[..], &length.to_be_bytes(), data].concat())
}

fn take<const N: usize>(stream: &mut UnixStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> VolatileDisk {
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 << 10).unwrap();
        VolatileDisk(Arc::new(Mutex::new(State {
            file,
            length: 64 << 10,
            unflushed: Vec::new(),
            cut: None,
            dead: false,
        })))
    }

    fn read(disk: &VolatileDisk, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        disk.state().read(offset, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_was_flushed_stays_and_the_rest_is_kept_torn_or_lost() {
        let mut outcomes = std::collections::BTreeSet::new();
        for seed in 0..64 {
            let disk = disk();
            disk.state().write(0, vec![1; 4096]);
            disk.state().flush().unwrap();
            disk.state().write(2048, vec![2; 4096]);
            assert_eq!(read(&disk, 2047, 2), [1, 2], "a read sees what was written");
            disk.lose_power(&mut Dice::new(seed)).unwrap();
            let kept = read(&disk, 0, 8192);
            assert_eq!(kept[..2048], [1; 2048]);
            let sectors =
                kept[2048..6144].chunks(SECTOR).take_while(|sector| **sector == [2; SECTOR]).count();
            let after = kept[2048 + sectors * SECTOR..4096.max(2048 + sectors * SECTOR)].iter();
            assert!(after.into_iter().all(|byte| *byte == 1), "seed {seed}");
            outcomes.insert(sectors);
        }
        assert_eq!((outcomes.first(), outcomes.last()), (Some(&0), Some(&8)));
        assert!(outcomes.len() > 4, "{outcomes:?}");
    }

    #[test]
    fn nothing_is_written_or_flushed_after_the_cut() {
        let disk = disk();
        disk.cut(Cut { writes: 1, part: 0..u64::MAX, at_flush: false });
        disk.state().write(0, vec![1; 512]);
        assert!(disk.is_cut());
        disk.state().write(512, vec![1; 512]);
        disk.state().flush().unwrap();
        assert_eq!(disk.state().unflushed.len(), 1);
        let mut on_the_disk = [7; 1024];
        disk.state().file.read_exact_at(&mut on_the_disk, 0).unwrap();
        assert_eq!(on_the_disk, [0; 1024]);
    }

    #[test]
    fn a_cut_counts_the_writes_of_its_part_and_may_wait_for_the_flush() {
        let disk = disk();
        disk.cut(Cut { writes: 2, part: 512..1024, at_flush: true });
        for offset in [512, 0, 0] {
            disk.state().write(offset, vec![1; 512]);
        }
        disk.state().flush().unwrap();
        assert!(!disk.is_cut() && disk.state().unflushed.is_empty());
        for offset in [512, 0] {
            disk.state().write(offset, vec![2; 512]);
        }
        assert!(!disk.is_cut());
        disk.state().flush().unwrap();
        assert!(disk.is_cut());
        assert_eq!(disk.state().unflushed.len(), 2);
    }
}
