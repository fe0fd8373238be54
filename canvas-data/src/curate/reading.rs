//! One reading of a source: passes judge, then those choose that compare.

use super::curation::{Curation, Progress, READ};
use super::fates::Fates;
use super::ledger::{self, CurationError, Dropped, Header, Judged, Ledger, Named, io_error};
use super::outcome::Place;
use super::{Choose, Chosen, Noted, Rejection, Subject, Trouble, Verdict};
use crate::Source;
use std::fs;
use std::ops::{ControlFlow, Range};
use std::panic::resume_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// The passes at these positions over the images that are left.
pub(super) struct Reading<'a> {
    pub curation: &'a Curation<'a>,
    pub source: &'a dyn Source,
    pub number: usize,
    pub place: &'a Place,
    pub runs: &'a [Range<usize>],
    /// Checksum of all that came before.
    pub after: String,
}

impl Reading<'_> {
    /// Settles the fates of these passes, and says the checksum of all that came before and in it.
    pub fn run(
        &self,
        fates: &mut Fates,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<String, CurationError> {
        fs::create_dir_all(&self.place.folder).map_err(io_error(&self.place.folder))?;
        let mut sum = blake3::Hasher::new();
        sum.update(self.after.as_bytes());

        let mut judged = Fates::new(fates.len());
        for run in self.runs {
            let (lines, seal, found) = self.judge_run(run.clone(), fates)?;
            for line in &lines {
                if let Some(dropped) = &line.dropped {
                    judged.drop(line.number, (self.position(&dropped.pass), dropped.reason.clone()));
                }
            }
            sum.update(seal.as_bytes());
            let progress = Progress { reading: self.number, images: run.end, of: fates.len(), found };
            if watch(progress).is_break() {
                return Err(CurationError::Stopped);
            }
        }
        for position in self.place.positions.clone().filter(|&position| position > 0) {
            if let Some(whole) = self.curation.passes[position - 1].whole() {
                let seal = self.choose(position, whole, fates, &judged)?;
                sum.update(seal.as_bytes());
            }
        }
        for image in 0..fates.len() {
            if fates.is_kept(image)
                && let Some(kind) = judged.of(image)
            {
                fates.drop(image, kind.clone());
            }
        }
        Ok(sum.finalize().to_hex().to_string())
    }

    /// The verdicts on a run of images, the file's checksum, and whether they were written down already.
    fn judge_run(
        &self,
        run: Range<usize>,
        fates: &Fates,
    ) -> Result<(Vec<Judged>, String, bool), CurationError> {
        let header = self.header([run.start, run.end], self.after.clone(), self.place.positions.clone());
        let path = self.place.run(&run);
        let lines = match ledger::read(&path)?.filter(|old| self.is_of(&header, &old.header, &old.lines)) {
            Some(old) if old.header == header && !old.lines.iter().any(was_unread) => {
                return Ok((old.lines, old.seal, true));
            }
            Some(old) => self.judge_again(old, &header)?,
            None => {
                let left = run.filter(|&image| fates.is_kept(image));
                let mut lines: Vec<_> = left.map(|image| self.blank(image)).collect();
                self.judge_lines(&mut lines, self.place.positions.start)?;
                lines
            }
        };
        let seal = ledger::write(&path, &header, &lines)?;
        Ok((lines, seal, false))
    }

    /// The lines of a file: those that could not be read from the beginning, the others by the passes that are not as they were.
    fn judge_again(&self, old: Ledger, header: &Header) -> Result<Vec<Judged>, CurationError> {
        let first = self.place.positions.start;
        let alike = old.header.passes.iter().zip(&header.passes).take_while(|(old, new)| old == new).count();
        let (unread, mut lines): (Vec<_>, Vec<_>) = old.lines.into_iter().partition(was_unread);
        lines.iter_mut().for_each(|line| forget(line, &old.header.passes[alike..]));
        self.judge_lines(&mut lines, first + alike)?;
        let mut unread: Vec<_> = unread.into_iter().map(|line| self.blank(line.number)).collect();
        self.judge_lines(&mut unread, first)?;
        lines.append(&mut unread);
        lines.sort_by_key(|line| line.number);
        Ok(lines)
    }

    /// Whether a file is about the images that this one will be about.
    fn is_of(&self, new: &Header, old: &Header, lines: &[Judged]) -> bool {
        let same_key =
            |line: &Judged| line.number < new.images[1] && self.source.key(line.number) == line.key;
        (old.curation, old.images, &old.after) == (new.curation, new.images, &new.after)
            && lines.iter().all(same_key)
    }

    /// Lets the passes from this position on judge the lines that are not dropped yet, on several threads.
    fn judge_lines(&self, lines: &mut [Judged], from: usize) -> Result<(), CurationError> {
        if from == self.place.positions.end || lines.is_empty() {
            return Ok(());
        }
        let chunks = Mutex::new(lines.chunks_mut(self.curation.batch));
        let stop = AtomicBool::new(false);
        let work = || {
            while !stop.load(Ordering::Relaxed) {
                let chunk = chunks.lock().expect("no thread panics while it holds this").next();
                let Some(chunk) = chunk else { break };
                self.judge_chunk(chunk, from).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..self.curation.threads).map(|_| scope.spawn(work)).collect();
            let ends: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
            ends.into_iter().try_for_each(|end| end.unwrap_or_else(|panic| resume_unwind(panic)))
        })
    }

    fn judge_chunk(&self, lines: &mut [Judged], from: usize) -> Result<(), CurationError> {
        let mut subjects = Vec::with_capacity(lines.len());
        for (place, line) in lines.iter_mut().enumerate().filter(|(_, line)| line.dropped.is_none()) {
            match self.source.read(line.number) {
                Ok(record) => {
                    subjects.push((place, Subject::new(line.number, record, &*self.curation.decode)));
                }
                Err(fault) if from == 0 => line.dropped = Some(dropped(READ, fault.into())),
                Err(fault) => return Err(CurationError::reading(fault)),
            }
        }
        for pass in &self.curation.passes[from.max(1) - 1..self.place.positions.end - 1] {
            if subjects.is_empty() {
                break;
            }
            let all: Vec<&Subject<'_>> = subjects.iter().map(|(_, subject)| subject).collect();
            let verdicts = pass.judge_all(&all);
            let (name, found, expected) = (pass.name(), verdicts.len(), all.len());
            assert_eq!(found, expected, "{name}: verdicts ({found}) must be as many as images ({expected})");
            for ((place, _), verdict) in subjects.iter().zip(verdicts) {
                write_down(&mut lines[*place], name, verdict)?;
            }
            subjects.retain(|(place, _)| lines[*place].dropped.is_none());
        }
        Ok(())
    }

    /// Lets a pass choose among the images that are left for it, or finds what it chose from the same notes; says the file's checksum.
    fn choose(
        &self,
        position: usize,
        whole: &dyn Choose,
        fates: &mut Fates,
        judged: &Fates,
    ) -> Result<String, CurationError> {
        let name = self.curation.name(position);
        let takes_part =
            |image: usize| fates.is_kept(image) && judged.of(image).is_none_or(|(by, _)| *by > position);
        let notes = self.show(name, &takes_part, |noted| {
            let mut sum = blake3::Hasher::new();
            for Noted { number, note } in noted {
                sum.update(format!("{number} {note}\n").as_bytes());
            }
            sum.finalize().to_hex().to_string()
        })?;
        let header = self.header([0, fates.len()], notes, position..position + 1);
        let path = self.place.choice(position);
        let (lines, seal) = match ledger::read(&path)?.filter(|old| old.header == header) {
            Some(old) => (old.lines, old.seal),
            None => {
                let lines = self.chosen(whole, name, &takes_part)?;
                let seal = ledger::write(&path, &header, &lines)?;
                (lines, seal)
            }
        };
        for line in &lines {
            let reason = line.dropped.as_ref().map(|dropped| dropped.reason.clone()).unwrap_or_default();
            fates.drop(line.number, (position, reason));
        }
        Ok(seal)
    }

    /// Shows what a pass noted of the images that take part.
    fn show<T>(
        &self,
        name: &str,
        takes_part: &dyn Fn(usize) -> bool,
        see: impl FnOnce(&mut dyn Iterator<Item = Noted>) -> T,
    ) -> Result<T, CurationError> {
        let mut failure = None;
        let mut noted = self
            .runs
            .iter()
            .map_while(|run| self.place.lines(run).map_err(|error| failure = Some(error)).ok())
            .flatten()
            .filter(|line| takes_part(line.number))
            .map(|mut line| Noted { number: line.number, note: line.notes.remove(name).unwrap_or_default() });
        let seen = see(&mut noted);
        drop(noted);
        failure.map_or(Ok(seen), Err)
    }

    fn chosen(
        &self,
        whole: &dyn Choose,
        name: &str,
        takes_part: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Judged>, CurationError> {
        let chosen = self.show(name, takes_part, |noted| whole.choose(noted))?;
        let mut chosen = chosen.map_err(|trouble| stopped_by(name, &trouble))?;
        chosen.sort_by_key(|chosen| chosen.number);
        for pair in chosen.windows(2) {
            assert_ne!(pair[0].number, pair[1].number, "{name}: dropped image {} twice", pair[0].number);
        }
        for Chosen { number, .. } in &chosen {
            assert!(takes_part(*number), "{name}: dropped image {number}, which it was not shown");
        }
        Ok(chosen.into_iter().map(|chosen| self.line(name, chosen)).collect())
    }

    fn line(&self, name: &str, chosen: Chosen) -> Judged {
        let like = chosen.like.map(|image| self.source.key(image));
        let dropped = Dropped { like, ..dropped(name, chosen.rejection) };
        Judged { dropped: Some(dropped), ..self.blank(chosen.number) }
    }

    fn blank(&self, image: usize) -> Judged {
        Judged { number: image, key: self.source.key(image), dropped: None, notes: Default::default() }
    }

    fn header(&self, images: [usize; 2], after: String, positions: Range<usize>) -> Header {
        let passes = positions.map(|position| self.curation.named(position, self.source)).collect();
        Header { curation: 1, images, after, passes }
    }

    fn position(&self, name: &str) -> usize {
        let mut positions = self.place.positions.clone();
        let found = positions.find(|&position| self.curation.name(position) == name);
        found.unwrap_or_else(|| panic!("{name}: a pass that judged must be one of this reading"))
    }
}

/// Whether an image could not be read, and perhaps can be now.
fn was_unread(line: &Judged) -> bool {
    line.dropped.as_ref().is_some_and(Dropped::may_pass)
}

/// Takes back what these passes said of an image.
fn forget(line: &mut Judged, passes: &[Named]) {
    for pass in passes {
        line.notes.remove(&pass.name);
        line.dropped.take_if(|dropped| dropped.pass == pass.name);
    }
}

fn write_down(line: &mut Judged, name: &str, verdict: Result<Verdict, Trouble>) -> Result<(), CurationError> {
    let verdict = match verdict {
        Ok(verdict) => verdict,
        Err(Trouble::Image(fault)) => Verdict { dropped: Some(fault.into()), ..Verdict::keep() },
        Err(trouble) => return Err(stopped_by(name, &trouble)),
    };
    if !verdict.note.is_null() {
        line.notes.insert(name.to_owned(), verdict.note);
    }
    line.dropped = verdict.dropped.map(|rejection| dropped(name, rejection));
    Ok(())
}

fn dropped(pass: &str, rejection: Rejection) -> Dropped {
    let Rejection { reason, detail } = rejection;
    Dropped { pass: pass.to_owned(), reason: reason.into_owned(), detail, like: None }
}

fn stopped_by(pass: &str, trouble: &Trouble) -> CurationError {
    CurationError::Pass { pass: pass.to_owned(), message: trouble.to_string() }
}
