//! Every disk that a power cut may leave: what was flushed is there; of what was not, any sectors.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use crate::recorder::{Bytes, Op, Recorder, Sectors};

/// What happened on a disk.
pub struct Story<K> {
    pub file: Arc<File>,
    pub before: Sectors,
    pub known: K,
    pub ops: Vec<Op<K>>,
}

/// A disk after a cut.
pub struct Cut<K> {
    /// The last thing that had begun.
    pub at: usize,
    pub sectors: Sectors,
    pub known: K,
}

/// Numbers that look random, the same in every run.
pub struct Dice(pub u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One of `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        (self.next() >> 11) % sides
    }
}

type Writes<'a> = Vec<&'a [(u64, Bytes)]>;

impl<K: Clone> Story<K> {
    /// The disks of all cuts in a range of the story, each once: of what was not flushed all, none, all but the last
    /// write, only the last, its first half; and so many random choices of sectors.
    pub fn cuts(&self, range: std::ops::Range<usize>, random: u64, mut visit: impl FnMut(Cut<K>)) {
        let (mut durable, mut known) = (self.before.clone(), self.known.clone());
        let mut pending = Writes::new();
        let mut seen = HashSet::new();
        let mut notes = 0;
        for (at, op) in self.ops.iter().enumerate() {
            match op {
                Op::Write(sectors) => pending.push(sectors),
                Op::Flush => {
                    durable.extend(pending.drain(..).flatten().cloned());
                    seen.clear();
                }
                Op::Note(note) => {
                    known = note.clone();
                    notes += 1;
                }
            }
            if !range.contains(&at) {
                continue;
            }
            for choice in choices(&pending, random, &mut Dice(at as u64 + 0x9E37_79B9_7F4A_7C15)) {
                let chosen: BTreeMap<u64, Bytes> = choice.into_iter().collect();
                if seen.insert(fingerprint(&chosen, notes)) {
                    let mut sectors = durable.clone();
                    sectors.extend(chosen);
                    visit(Cut { at, sectors, known: known.clone() });
                }
            }
        }
    }

    /// The same without one of its flushes.
    pub fn without(&self, flush: usize) -> Self {
        let mut ops = self.ops.clone();
        ops.remove(flush);
        Self { file: self.file.clone(), before: self.before.clone(), known: self.known.clone(), ops }
    }

    /// Where the flushes are.
    pub fn flushes(&self) -> Vec<usize> {
        self.ops.iter().enumerate().filter_map(|(at, op)| matches!(op, Op::Flush).then_some(at)).collect()
    }

    pub fn recorder(&self, cut: &Cut<K>) -> Arc<Recorder<K>> {
        Arc::new(Recorder::new(self.file.clone(), cut.sectors.clone()))
    }
}

fn choices(pending: &Writes<'_>, random: u64, dice: &mut Dice) -> Vec<Vec<(u64, Bytes)>> {
    let all = |writes: &[&[(u64, Bytes)]]| writes.concat();
    let Some((last, before)) = pending.split_last() else { return vec![Vec::new()] };
    let half = &last[..last.len() / 2];
    let torn = [all(before), half.to_vec()].concat();
    let mut choices = vec![all(pending), Vec::new(), all(before), last.to_vec(), torn, half.to_vec()];
    for _ in 0..random {
        // Many or few, so that one that is missing and one that is alone are both likely.
        let sides = 2 + dice.roll(6);
        let keep = dice.roll(2) == 0;
        let sectors = all(pending).into_iter();
        choices.push(sectors.filter(|_| (dice.roll(sides) == 0) != keep).collect());
    }
    choices
}

fn fingerprint(chosen: &BTreeMap<u64, Bytes>, notes: usize) -> u64 {
    let mut hash = DefaultHasher::new();
    notes.hash(&mut hash);
    for (sector, bytes) in chosen {
        (sector, bytes.as_slice()).hash(&mut hash);
    }
    hash.finish()
}
