//! GRUB, as far as the configuration needs it that lies on the disk: the shell that runs it, the environment block, and
//! the choice of an entry. Written from GRUB's manual and from what its 2.06 does; shares nothing with the agent.

use std::{cmp::Reverse, collections::BTreeMap};

use super::firmware::{Entry, Files};

const CONFIG: &str = "efi/debian/grub.cfg";
pub const ENV: &str = "evenkeel/grub/grubenv";
const HEADER: &str = "# GRUB Environment Block\n";
/// Words that begin or end a part of the script, and may have a command behind them.
const KEYWORDS: [&str; 5] = ["if", "elif", "else", "then", "do"];

/// What one start of GRUB does.
pub struct Started {
    /// The environment block after each time that it was written.
    pub written: Vec<Vec<u8>>,
    /// What boots.
    pub slot: String,
    pub digest: String,
    /// Whether the kernel is told that the try was counted.
    pub counted: bool,
}

/// A word: pieces of text, those that name a variable, and whether quotes keep it although it is empty.
#[derive(Clone, Debug, Default)]
struct Word {
    pieces: Vec<(bool, String)>,
    kept: bool,
}

type Statement = Vec<Word>;

struct Shell<'a> {
    files: &'a Files,
    block: Vec<u8>,
    can_write: bool,
    written: Vec<Vec<u8>>,
    variables: BTreeMap<String, String>,
    menu: Vec<(Vec<String>, Vec<Statement>)>,
    linux: Vec<String>,
    initrd: String,
    /// Whether a kernel was started: nothing comes behind it.
    booted: bool,
}

/// Starts GRUB; `can_write` tells whether the disk takes its writes.
pub fn start(files: &Files, can_write: bool) -> Result<Started, String> {
    let mut shell = Shell::new(files, can_write)?;
    shell.source(CONFIG)?;
    let wanted = shell.variables.get("default").cloned().unwrap_or_default();
    // Without the wanted one GRUB takes the first.
    let place = shell.place(&wanted).or((!shell.menu.is_empty()).then_some(0)).ok_or("the menu is empty")?;
    let (args, body) = shell.menu[place].clone();
    for (number, arg) in (1..).zip(&args[1..]) {
        shell.variables.insert(format!("{number}"), arg.clone());
    }
    shell.run(&body);
    if !shell.booted {
        return Err("nothing boots any more".into());
    }
    let option = |key: &str| shell.linux.iter().find_map(|word| word.strip_prefix(key)).map(str::to_owned);
    let missing = || format!("the script of {args:?} has no slot or digest");
    Ok(Started {
        slot: option("evenkeel.slot=").ok_or_else(missing)?,
        digest: option("evenkeel.digest=").ok_or_else(missing)?,
        counted: shell.linux.iter().any(|word| word == "evenkeel.trial"),
        written: shell.written,
    })
}

/// Every entry, the one that boots next first.
pub fn entries(files: &Files) -> Result<Vec<Entry>, String> {
    let next = start(files, true)?.slot;
    let env = Shell::new(files, true)?.environment();
    let number = |name: &str| env.get(name).and_then(|value| value.parse::<u32>().ok()).unwrap_or(0);
    let mut entries = Vec::new();
    for path in files.keys() {
        let script = path.strip_prefix("evenkeel/grub/").and_then(|name| name.split_once('.'));
        let Some((name, "cfg")) = script else { continue };
        let mut shell = Shell::new(files, true)?;
        shell.source(path)?;
        let option = |key: &str| {
            let found = shell.linux.iter().find_map(|word| word.strip_prefix(key)).map(str::to_owned);
            found.ok_or_else(|| format!("{path} has no {key}: {:?}", shell.linux))
        };
        let slot = option("evenkeel.slot=")?;
        let (left, given) = (number("evenkeel_tries"), number("evenkeel_given"));
        let tries = (env.get("evenkeel_trial") == Some(&slot)).then(|| (left, given.saturating_sub(left)));
        entries.push(Entry {
            file: name.to_owned(),
            tries,
            digest: option("evenkeel.digest=")?,
            kernel: shell.linux.first().and_then(|path| shell.file(path)).cloned(),
            initrd: shell.file(&shell.initrd).cloned(),
            order: (slot != next, String::new(), Reverse(0), name.to_owned()),
            slot,
        });
    }
    entries.sort_by(|a, b| a.order.cmp(&b.order));
    Ok(entries)
}

impl<'a> Shell<'a> {
    fn new(files: &'a Files, can_write: bool) -> Result<Self, String> {
        let block = files.get(ENV).cloned().ok_or("there is no environment block")?;
        if block.len() != 1024 || !block.starts_with(HEADER.as_bytes()) {
            return Err(format!("the environment block is none: {:?}", String::from_utf8_lossy(&block)));
        }
        let (variables, menu, written) = (BTreeMap::new(), Vec::new(), Vec::new());
        Ok(Self {
            files,
            block,
            can_write,
            written,
            variables,
            menu,
            linux: Vec::new(),
            initrd: String::new(),
            booted: false,
        })
    }

    fn file(&self, path: &str) -> Option<&'a Vec<u8>> {
        self.files.get(&path.trim_start_matches('/').to_lowercase())
    }

    /// An entry by its ID or its number.
    fn place(&self, name: &str) -> Option<usize> {
        let by_id = self.menu.iter().position(|(args, _)| args[0] == name);
        by_id.or_else(|| name.parse().ok()).filter(|place| *place < self.menu.len())
    }

    fn environment(&self) -> BTreeMap<String, String> {
        let text = String::from_utf8_lossy(&self.block).into_owned();
        let lines =
            text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
        lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// In its place, and what is behind it is moved.
    fn save(&mut self, name: &str) -> bool {
        let text = String::from_utf8_lossy(&self.block).into_owned();
        let value = self.variables.get(name).cloned().unwrap_or_default();
        let mark = format!("\n{name}=");
        let end = text.rfind('\n').map_or(0, |at| at + 1);
        let mut changed = match text.find(&mark) {
            Some(at) => {
                let from = at + mark.len();
                let rest = from + text[from..].find('\n').unwrap_or(0);
                format!("{}{value}{}", &text[..from], &text[rest..end])
            }
            None => format!("{}{name}={value}\n", &text[..end]),
        };
        if changed.len() > self.block.len() || !self.can_write {
            return false;
        }
        changed.push_str(&"#".repeat(self.block.len() - changed.len()));
        self.block = changed.into_bytes();
        self.written.push(self.block.clone());
        true
    }

    fn source(&mut self, path: &str) -> Result<bool, String> {
        let text = self.file(path).ok_or_else(|| format!("{path} is not there"))?;
        let statements = statements(&String::from_utf8_lossy(text));
        Ok(self.run(&statements))
    }

    fn run(&mut self, statements: &[Statement]) -> bool {
        self.block(statements, 0, &[], true).1
    }

    /// Runs up to one of `ends`, or only looks for it; gives its place and the last command's outcome.
    fn block(&mut self, all: &[Statement], mut at: usize, ends: &[&str], live: bool) -> (usize, bool) {
        let mut outcome = true;
        while let Some(statement) = all.get(at) {
            let first = literal(&statement[0]);
            if ends.contains(&first) || self.booted {
                break;
            }
            at = match first {
                "if" => self.conditional(all, at + 1, live),
                "for" => self.each(all, at, live),
                "menuentry" => {
                    let end =
                        (at..all.len()).find(|at| literal(&all[*at][0]) == "}").expect("a closed entry");
                    if live {
                        let mut words = self.words(&statement[1..statement.len() - 1]);
                        let id = words.iter().position(|word| word == "--id").expect("an ID");
                        let name = words.remove(id + 1);
                        words[id] = name;
                        words.swap(0, id);
                        words.swap(1, id);
                        self.menu.push((words, all[at + 1..end].to_vec()));
                    }
                    end + 1
                }
                _ => {
                    if live {
                        outcome = self.command(statement);
                    }
                    at + 1
                }
            };
        }
        (at, outcome)
    }

    fn conditional(&mut self, all: &[Statement], mut at: usize, live: bool) -> usize {
        let mut done = false;
        loop {
            let (then, holds) = self.block(all, at, &["then"], live && !done);
            if self.booted {
                return all.len();
            }
            let take = live && !done && holds;
            (at, _) = self.block(all, then + 1, &["elif", "else", "fi"], take);
            if self.booted {
                return all.len();
            }
            done |= take;
            match literal(&all[at][0]) {
                "elif" => at += 1,
                "else" => return self.block(all, at + 1, &["fi"], live && !done).0 + 1,
                _ => return at + 1,
            }
        }
    }

    fn each(&mut self, all: &[Statement], at: usize, live: bool) -> usize {
        let name = literal(&all[at][1]).to_owned();
        let values = self.words(&all[at][3..]);
        let mut end = self.block(all, at + 2, &["done"], false).0;
        for value in values.into_iter().filter(|_| live) {
            self.variables.insert(name.clone(), value);
            end = self.block(all, at + 2, &["done"], true).0;
            if self.booted {
                return all.len();
            }
        }
        end + 1
    }

    /// Words with the values of variables in them, which are several words where no quotes keep them together.
    fn words(&self, words: &[Word]) -> Vec<String> {
        let value = |name: &str| self.variables.get(name).map_or("", String::as_str);
        let expand = |word: &Word| -> Vec<String> {
            let text: String =
                word.pieces.iter().map(|(named, text)| if *named { value(text) } else { text }).collect();
            let plain = word.kept || word.pieces.iter().all(|(named, _)| !named);
            if plain { vec![text] } else { text.split_whitespace().map(str::to_owned).collect() }
        };
        words.iter().flat_map(expand).collect()
    }

    fn command(&mut self, statement: &[Word]) -> bool {
        let words = self.words(statement);
        let Some((name, args)) = words.split_first() else { return true };
        match (name.as_str(), args) {
            ("set", [setting]) => {
                let (name, value) = setting.split_once('=').expect("a setting");
                self.variables.insert(name.to_owned(), value.to_owned());
                true
            }
            ("load_env", [_, path, names @ ..]) if self.file(path).is_some() => {
                let found = self.environment();
                let wanted = found.into_iter().filter(|(name, _)| names.contains(name));
                self.variables.extend(wanted);
                true
            }
            ("save_env", [_, _, name]) => self.save(name),
            ("[", [conditions @ .., close]) if close == "]" => {
                conditions.split(|word| word == "-a").all(|condition| self.holds(condition))
            }
            ("source", [path]) => self.source(path).unwrap_or(false),
            ("linux", [kernel, ..]) => {
                self.linux = args.to_vec();
                self.file(kernel).is_some()
            }
            // Without a kernel there is nothing to give it to.
            ("initrd", [path]) => {
                self.initrd.clone_from(path);
                self.linux.first().is_some_and(|kernel| self.file(kernel).is_some())
                    && self.file(path).is_some()
            }
            ("boot", []) => {
                self.booted = true;
                true
            }
            other => panic!("GRUB's model does not know {other:?}"),
        }
    }

    fn holds(&self, condition: &[String]) -> bool {
        match condition.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["-n", text] => !text.is_empty(),
            ["-z", text] => text.is_empty(),
            ["-f", path] => self.file(path).is_some(),
            [one, "=", other] => one == other,
            [one, "!=", other] => one != other,
            ref other => panic!("GRUB's model does not know {other:?}"),
        }
    }
}

fn literal(word: &Word) -> &str {
    match &word.pieces[..] {
        [(false, text)] => text,
        _ => "",
    }
}

/// The script's statements, each keyword one of its own.
fn statements(script: &str) -> Vec<Statement> {
    let mut all: Vec<Statement> = vec![Vec::new()];
    let mut letters = script.chars().peekable();
    let (mut word, mut quote) = (Word::default(), None);
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            (mark @ ('"' | '\''), None) => {
                quote = Some(mark);
                word.kept = true;
            }
            (mark, Some(open)) if mark == open => quote = None,
            ('$', None | Some('"')) => {
                let mut name = String::new();
                while let Some(letter) = letters.next_if(|next| next.is_alphanumeric() || *next == '_') {
                    name.push(letter);
                }
                word.pieces.push((true, name));
            }
            ('\\', None) => word.pieces.extend(letters.next().map(|next| (false, next.to_string()))),
            ('#', None) if word.pieces.is_empty() => while letters.next_if(|next| *next != '\n').is_some() {},
            (' ' | '\n' | ';', None) => {
                finish(&mut word, &mut all);
                if letter != ' ' {
                    all.push(Vec::new());
                }
            }
            _ => match word.pieces.last_mut() {
                Some((false, text)) => text.push(letter),
                _ => word.pieces.push((false, letter.to_string())),
            },
        }
    }
    finish(&mut word, &mut all);
    all.retain(|statement| !statement.is_empty());
    all
}

fn finish(word: &mut Word, all: &mut Vec<Statement>) {
    if word.pieces.is_empty() && !word.kept {
        return;
    }
    let word = std::mem::take(word);
    let keyword = !word.kept && KEYWORDS.contains(&literal(&word));
    let statement = all.last_mut().expect("there is always one");
    let begins = statement.is_empty();
    statement.push(word);
    if keyword && begins {
        all.push(Vec::new());
    }
}
