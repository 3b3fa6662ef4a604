//! The simulated disk against a model that remembers every state since the last sync: what was
//! synced is there after a crash, what was not may be, and nothing else ever is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use clusterkit_raft::disk::{Directory, DiskFile};
use clusterkit_sim::disk::SimDisk;
use clusterkit_sim::{Rng, Unsynced};

const SECTOR: usize = 512;
/// Some sectors, some pages, and lengths in the middle of both.
const LENGTH_MAX: u64 = 20_000;

/// What a file was and may be.
#[derive(Clone, Default)]
struct Model {
    now: Vec<u8>,
    /// Every content since the last sync, the synced one first.
    since: Vec<Vec<u8>>,
    /// Every length the file may be left with.
    lengths: BTreeSet<usize>,
}

impl Model {
    fn new() -> Self {
        let mut model = Self::default();
        model.synced();
        model
    }

    fn write(&mut self, offset: usize, data: &[u8]) {
        let end = offset + data.len();
        // Page by page, as the system would write it back.
        let mut at = offset;
        while at < end {
            let until = end.min((at / 4_096 + 1) * 4_096);
            self.now.resize(self.now.len().max(until), 0);
            self.now[at..until].copy_from_slice(&data[at - offset..until - offset]);
            self.lengths.insert(until);
            self.since.push(self.now.clone());
            at = until;
        }
    }

    fn set_len(&mut self, length: usize) {
        self.now.resize(length, 0);
        self.lengths.insert(length);
        self.since.push(self.now.clone());
    }

    fn synced(&mut self) {
        self.since = vec![self.now.clone()];
        self.lengths = BTreeSet::from([self.now.len()]);
    }

    fn allows(&self, found: &[u8]) -> Result<(), String> {
        if !self.lengths.contains(&found.len()) {
            let (length, allowed) = (found.len(), &self.lengths);
            return Err(format!("length {length}, allowed {allowed:?}"));
        }
        for (number, sector) in found.chunks(SECTOR).enumerate() {
            let fits = |then: &Vec<u8>| {
                sector
                    .iter()
                    .enumerate()
                    .all(|(i, byte)| *byte == then.get(number * SECTOR + i).copied().unwrap_or(0))
            };
            if !self.since.iter().any(fits) {
                return Err(format!("sector {number} was never like this"));
            }
        }
        Ok(())
    }
}

/// Drives a disk and its model with the same operations.
struct Pair {
    disk: SimDisk,
    directory: Arc<dyn Directory>,
    files: BTreeMap<u32, (Option<Box<dyn DiskFile>>, Model)>,
    names: BTreeMap<String, u32>,
    /// Every state of the names since the last sync of the directory, the synced one first.
    names_since: Vec<BTreeMap<String, u32>>,
    next_file: u32,
    rng: Rng,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let rng = Rng::new(seed);
        let disk = SimDisk::new("node", rng.split("disk"));
        Self {
            directory: disk.directory(),
            disk,
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            names_since: vec![BTreeMap::new()],
            next_file: 0,
            rng: rng.split("operations"),
        }
    }

    fn name(&mut self) -> String {
        (*self.rng.pick(&["a", "b", "c"]).unwrap()).to_owned()
    }

    fn step(&mut self) {
        let name = self.name();
        let length = usize::try_from(self.rng.within(1..=9_000)).unwrap();
        let offset = self.rng.below(LENGTH_MAX - length as u64);
        match self.rng.below(16) {
            0 => self.create(&name),
            1 => {
                let to = self.name();
                self.rename(&name, &to);
            }
            2 => self.remove(&name),
            3 | 4 => {
                self.directory.sync().unwrap();
                self.names_since = vec![self.names.clone()];
            }
            kind => {
                let Some(number) = self.names.get(&name) else {
                    return self.create(&name);
                };
                let (file, model) = self.files.get_mut(number).unwrap();
                let file = file.as_deref().unwrap();
                match kind {
                    5..=7 => {
                        file.sync().unwrap();
                        model.synced();
                    }
                    8 => {
                        file.set_len(offset).unwrap();
                        model.set_len(usize::try_from(offset).unwrap());
                    }
                    _ => {
                        let mut data = vec![0; length];
                        self.rng.fill(&mut data);
                        file.write(offset, &data).unwrap();
                        model.write(usize::try_from(offset).unwrap(), &data);
                    }
                }
            }
        }
        assert_eq!(self.content(&name), self.expected(&name));
    }

    fn create(&mut self, name: &str) {
        let file = self.directory.create(name).unwrap();
        if let Some(number) = self.names.get(name) {
            let (_, model) = self.files.get_mut(number).unwrap();
            model.set_len(0);
            return;
        }
        self.files
            .insert(self.next_file, (Some(file), Model::new()));
        self.names.insert(name.to_owned(), self.next_file);
        self.next_file += 1;
        self.names_since.push(self.names.clone());
    }

    fn rename(&mut self, from: &str, to: &str) {
        let renamed = self.directory.rename(from, to);
        let Some(number) = self.names.remove(from) else {
            assert_eq!(renamed.unwrap_err().kind(), ErrorKind::NotFound);
            return;
        };
        renamed.unwrap();
        self.names.insert(to.to_owned(), number);
        self.names_since.push(self.names.clone());
    }

    fn remove(&mut self, name: &str) {
        let was_there = self.names.remove(name).is_some();
        assert_eq!(self.directory.remove(name).unwrap(), was_there);
        self.names_since.push(self.names.clone());
    }

    fn content(&self, name: &str) -> Option<Vec<u8>> {
        self.directory.read(name).unwrap()
    }

    fn expected(&self, name: &str) -> Option<Vec<u8>> {
        let number = self.names.get(name)?;
        Some(self.files[number].1.now.clone())
    }

    fn crash(&mut self, unsynced: Unsynced) {
        self.disk.crash(unsynced);
        for (file, _) in self.files.values_mut() {
            let file = file.take();
            assert!(file.is_none_or(|file| file.write(0, b"late").is_err()));
        }
        assert!(self.directory.sync().is_err());
        self.directory = self.disk.directory();
        let found: BTreeMap<String, Vec<u8>> = ["a", "b", "c"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), self.content(name)?)))
            .collect();
        if unsynced == Unsynced::Kept {
            for name in ["a", "b", "c"] {
                assert_eq!(found.get(name).cloned(), self.expected(name));
            }
        } else {
            let mut reasons = Vec::new();
            let left = self.names_since.iter().find(|names| {
                let fits = self.fits(names, &found);
                reasons.extend(fits.clone().err());
                fits.is_ok()
            });
            let Some(left) = left else {
                panic!("no state since the last sync explains what is left: {reasons:#?}");
            };
            self.names = left.clone();
            self.names_since = vec![self.names.clone()];
            for (name, number) in &self.names {
                let (_, model) = self.files.get_mut(number).unwrap();
                model.now.clone_from(&found[name]);
                model.synced();
            }
        }
        for (name, number) in &self.names {
            let opened = self.directory.open(name).unwrap();
            self.files.get_mut(number).unwrap().0 = opened;
        }
    }

    fn fits(
        &self,
        names: &BTreeMap<String, u32>,
        found: &BTreeMap<String, Vec<u8>>,
    ) -> Result<(), String> {
        if !names.keys().eq(found.keys()) {
            return Err(format!("other names than {:?}", names.keys()));
        }
        for (name, number) in names {
            let allowed = self.files[number].1.allows(&found[name]);
            allowed.map_err(|reason| format!("{name}, file {number}: {reason}"))?;
        }
        Ok(())
    }
}

#[test]
fn a_crash_takes_only_what_was_not_synced_and_leaves_nothing_that_never_was() {
    for seed in 0..300 {
        let mut pair = Pair::new(seed);
        for _ in 0..6 {
            for _ in 0..pair.rng.within(1..=40) {
                pair.step();
            }
            let all = [Unsynced::Kept, Unsynced::Lost, Unsynced::Torn];
            let unsynced = *pair.rng.pick(&all).unwrap();
            println!("seed {seed}: {unsynced:?}");
            pair.crash(unsynced);
        }
    }
}

#[test]
fn crashes_lose_keep_and_tear() {
    let mut totals = (0, 0, 0, 0);
    for seed in 0..200 {
        let disk = SimDisk::new("node", Rng::new(seed));
        let directory = disk.directory();
        let file = directory.create("a").unwrap();
        directory.sync().unwrap();
        for page in 0..10 {
            file.write(page * 4_096, &[1; 4_096]).unwrap();
        }
        directory.create("b").unwrap();
        let report = disk.crash(Unsynced::Torn);
        assert_eq!(report.kept + report.torn + report.lost, 10);
        totals.0 += report.kept;
        totals.1 += report.torn;
        totals.2 += report.lost;
        totals.3 += report.names_undone;
    }
    let (kept, torn, lost, names) = totals;
    assert!(kept > 400 && torn > 100 && lost > 400, "{totals:?}");
    assert!((50..150).contains(&names), "{totals:?}");
}

#[test]
fn a_seed_crashes_the_same_way_every_time() {
    let run = |seed| {
        let mut pair = Pair::new(seed);
        for _ in 0..60 {
            pair.step();
        }
        let report = pair.disk.crash(Unsynced::Torn);
        pair.directory = pair.disk.directory();
        let left = ["a", "b", "c"].map(|name| pair.content(name));
        (report, left, pair.disk.figures())
    };
    assert!((0..20).all(|seed| run(seed) == run(seed)));
    assert!((0..20).any(|seed| run(seed) != run(seed + 100)));
}

#[test]
fn from_an_operation_on_everything_fails_until_the_machine_is_back() {
    let disk = SimDisk::new("node", Rng::new(1));
    let directory = disk.directory();
    let file = directory.create("a").unwrap();
    disk.crash_after(2);
    file.write(0, b"one").unwrap();
    assert!(!disk.is_dead());
    file.write(3, b"two").unwrap();
    assert!(disk.is_dead());
    assert!(file.sync().is_err() && file.len().is_err() && directory.read("a").is_err());
    disk.crash(Unsynced::Kept);
    assert!(!disk.is_dead());
    let left = disk.directory().read("a").unwrap();
    assert_eq!(left.as_deref(), Some(&b"onetwo"[..]));
}

#[test]
fn one_operation_fails_and_what_a_failed_sync_should_have_covered_is_left_to_chance() {
    let mut kept = 0;
    for seed in 0..100 {
        let disk = SimDisk::new("node", Rng::new(seed));
        let directory = disk.directory();
        let file = directory.create("a").unwrap();
        directory.sync().unwrap();
        file.write(0, &[1; 4_096]).unwrap();
        disk.fail_after(0);
        assert!(file.sync().is_err());
        file.write(8_192, &[2; 4_096]).unwrap();
        file.sync().unwrap();
        disk.crash(Unsynced::Lost);
        let left = disk.directory().read("a").unwrap().unwrap();
        assert_eq!(left[8_192..], [2; 4_096], "seed {seed}");
        kept += usize::from(left[..4_096] == [1; 4_096]);
    }
    assert!((20..80).contains(&kept), "{kept}");
}

#[test]
fn a_full_disk_refuses_what_needs_room_and_nothing_else() {
    let disk = SimDisk::new("node", Rng::new(1));
    let directory = disk.directory();
    let file = directory.create("a").unwrap();
    file.write(0, &[1; 8_192]).unwrap();
    disk.full(Some(disk.used_bytes() + 4_096));
    let error = file.write(8_192, &[1; 8_192]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 12_288);
    file.write(0, &[2; 8_192]).unwrap();
    file.sync().unwrap();
    let error = directory.create("b").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    disk.full(None);
    directory.create("b").unwrap();
}

#[test]
fn a_slow_disk_is_late_by_its_syncs() {
    let disk = SimDisk::new("node", Rng::new(1));
    let (one, other) = (disk.directory(), disk.directory());
    let file = one.create("a").unwrap();
    let takes = Duration::from_millis(20)..=Duration::from_millis(30);
    disk.slow(takes.clone());
    file.write(0, b"x").unwrap();
    assert_eq!(one.pending_latency(), Duration::ZERO);
    file.sync().unwrap();
    assert!(takes.contains(&one.pending_latency()));
    assert_eq!(one.pending_latency(), Duration::ZERO);
    other.sync().unwrap();
    assert_eq!(one.pending_latency(), Duration::ZERO);
    assert!(takes.contains(&other.pending_latency()));
}

#[test]
fn a_lock_ends_with_the_process_and_a_dead_one_cannot_release_it() {
    let disk = SimDisk::new("node", Rng::new(1));
    let directory = disk.directory();
    let held = directory.lock("lock").unwrap().unwrap();
    assert!(directory.lock("lock").unwrap().is_none());
    disk.crash(Unsynced::Kept);
    let directory = disk.directory();
    let again = directory.lock("lock").unwrap().unwrap();
    drop(held);
    assert!(directory.lock("lock").unwrap().is_none());
    drop(again);
    assert!(directory.lock("lock").unwrap().is_some());
}

#[test]
fn a_published_file_is_the_one_before_or_the_one_after_wherever_it_crashes() {
    let (mut before, mut after) = (0, 0);
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::new("node", rng.split("disk"));
        disk.directory().publish("note", &[1; 3_000]).unwrap();
        let directory = disk.directory();
        disk.crash_after(rng.within(0..=6));
        let published = directory.publish("note", &[2; 9_000]);
        let all = [Unsynced::Kept, Unsynced::Lost, Unsynced::Torn];
        disk.crash(*rng.pick(&all).unwrap());
        let left = disk.directory().read("note").unwrap().unwrap();
        let is_after = left == [2; 9_000];
        assert!(is_after || left == [1; 3_000], "seed {seed}: torn");
        assert!(is_after || published.is_err(), "seed {seed}: lost");
        before += usize::from(!is_after);
        after += usize::from(is_after && published.is_err());
    }
    assert!(before > 100 && after > 10, "{before} before, {after} after");
}
