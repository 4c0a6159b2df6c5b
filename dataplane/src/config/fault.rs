//! What is wrong with a configuration, told so that a person can act on it.

use core::cell::RefCell;
use core::fmt;
use core::ops::Range;
use serde::Serialize;
use std::rc::Rc;

/// How bad a fault is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can be used, but probably does not do what was meant.
    Warning,
}

impl Severity {
    /// The name as displayed and serialised.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// One fault.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Fault {
    /// How bad.
    pub severity: Severity,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key, such as `service[2] "web".backend[0].weight`; empty if the text is not TOML.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// The whole line, for the caret.
    #[serde(skip)]
    source: String,
    /// How many of its characters are meant, from `column` on.
    #[serde(skip)]
    width: usize,
}

/// Faults of one file, in the order of its lines.
///
/// `Display` prints them as a compiler would; `Serialize` gives `{"file": …, "faults": [{"severity",
/// "line", "column", "path", "message", "remedy"}, …]}`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Faults {
    /// The name given to [`super::Config::parse`].
    pub file: String,
    /// The faults.
    pub faults: Vec<Fault>,
}

impl std::error::Error for Faults {}

impl Faults {
    /// How many of them are of this severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.faults.iter().filter(|fault| fault.severity == severity).count()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.faults.is_empty() {
            return Ok(());
        }
        for fault in &self.faults {
            fault.write(&self.file, f)?;
            f.write_str("\n")?;
        }
        let counted = |severity: Severity| match self.count(severity) {
            0 => None,
            1 => Some(format!("1 {}", severity.name())),
            n => Some(format!("{n} {}s", severity.name())),
        };
        let counts: Vec<String> =
            [Severity::Error, Severity::Warning].into_iter().filter_map(counted).collect();
        writeln!(f, "{}: {}", self.file, counts.join(", "))
    }
}

impl Fault {
    fn write(&self, file: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        write!(f, "{}: ", self.severity.name())?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        writeln!(f, "{}", self.message)?;
        writeln!(f, "{gutter}--> {file}:{}:{}", self.line, self.column)?;
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{number} | {}", self.source)?;
        // Tabs are kept, so that the caret lines up however wide they are shown.
        let before = self.source.chars().chain(core::iter::repeat(' ')).take(self.column - 1);
        let before: String = before.map(|c| if c == '\t' { c } else { ' ' }).collect();
        writeln!(f, "{gutter} | {before}{}", "^".repeat(self.width))?;
        writeln!(f, "{gutter} = help: {}", self.remedy)
    }
}

/// The path of a key or value, such as `service[2] "web".ports[0]`. It is put together when it is told: of
/// tens of thousands, hardly one ever is.
#[derive(Clone, Debug)]
pub(super) struct Path {
    section: Rc<SectionPath>,
    /// Empty for the section itself.
    key: &'static str,
    index: Option<usize>,
}

/// The path of a section.
#[derive(Debug)]
enum SectionPath {
    /// As it is told.
    Told(Box<str>),
    /// A table of an array of tables, and its name, if it has one that can be told.
    Nth { array: Path, index: usize, name: Option<Box<str>> },
}

impl Path {
    pub(super) fn new(section: impl Into<Box<str>>) -> Path {
        Path::of(SectionPath::Told(section.into()))
    }

    /// Of the table with this index of an array of tables.
    pub(super) fn table(array: Path, index: usize, name: Option<&str>) -> Path {
        Path::of(SectionPath::Nth { array, index, name: name.map(Box::from) })
    }

    fn of(section: SectionPath) -> Path {
        Path { section: Rc::new(section), key: "", index: None }
    }

    /// Of a key of this section.
    pub(super) fn key(&self, key: &'static str) -> Path {
        if self.key.is_empty() {
            return Path { section: Rc::clone(&self.section), key, index: None };
        }
        Path { key, ..Path::new(self.to_string()) }
    }

    /// Of an element of this array.
    pub(super) fn element(&self, index: usize) -> Path {
        Path { index: Some(index), ..self.clone() }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.section.is_root() || self.key.is_empty() { "" } else { "." };
        write!(f, "{}{dot}{}", self.section, self.key)?;
        self.index.map_or(Ok(()), |index| write!(f, "[{index}]"))
    }
}

impl SectionPath {
    /// Whether it is the whole file.
    fn is_root(&self) -> bool {
        matches!(self, SectionPath::Told(path) if path.is_empty())
    }
}

impl fmt::Display for SectionPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SectionPath::Told(path) => f.write_str(path),
            SectionPath::Nth { array, index, name: None } => write!(f, "{array}[{index}]"),
            SectionPath::Nth { array, index, name: Some(name) } => write!(f, "{array}[{index}] \"{name}\""),
        }
    }
}

/// A key or value in the file: its path, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) path: Path,
    pub(super) span: Range<usize>,
}

impl Place {
    /// Of something that is not in the file by itself.
    pub(super) fn new(path: impl Into<Box<str>>, span: Range<usize>) -> Place {
        Place { path: Path::new(path), span }
    }

    /// As if this key were there, in this section.
    pub(super) fn key(&self, key: &'static str) -> Place {
        Place { path: self.path.key(key), span: self.span.clone() }
    }
}

/// A value and where it came from.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// Collects faults while reading and validation go on.
pub(super) struct Sink<'a> {
    text: &'a str,
    /// Where each line starts, bytes.
    lines: Vec<usize>,
    faults: RefCell<Vec<Fault>>,
}

impl<'a> Sink<'a> {
    pub(super) fn new(text: &'a str) -> Sink<'a> {
        // Byte by byte, which is faster than to search for what is near: a line is short.
        let newlines = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n');
        let lines = core::iter::once(0).chain(newlines.map(|(at, _)| at + 1)).collect();
        Sink { text, lines, faults: RefCell::new(Vec::new()) }
    }

    pub(super) fn error(&self, place: &Place, message: impl Into<String>, remedy: impl Into<String>) {
        self.push(Severity::Error, place, message.into(), remedy.into());
    }

    pub(super) fn warning(&self, place: &Place, message: impl Into<String>, remedy: impl Into<String>) {
        self.push(Severity::Warning, place, message.into(), remedy.into());
    }

    fn push(&self, severity: Severity, place: &Place, message: String, remedy: String) {
        let (start, line) = self.line_at(place.span.start);
        let source = line_of(&self.text[start..]);
        let from = place.span.start.max(start) - start;
        let before = source.char_indices().take_while(|(at, _)| *at < from).count();
        let until = place.span.end.max(place.span.start) - start;
        let width = source.char_indices().filter(|(at, _)| (from..until).contains(at)).count().max(1);
        self.faults.borrow_mut().push(Fault {
            severity,
            line,
            column: before + 1,
            path: place.path.to_string(),
            message,
            remedy,
            source: source.to_owned(),
            width,
        });
    }

    /// The line a place is on, from 1, to refer to it from elsewhere.
    pub(super) fn line(&self, place: &Place) -> usize {
        self.line_at(place.span.start).1
    }

    /// Whether something below `section` is already known to be wrong, so that what would follow from
    /// it is better not mentioned.
    pub(super) fn has_errors_in(&self, section: &(impl fmt::Display + ?Sized)) -> bool {
        let section = section.to_string();
        self.any(|fault| fault.severity == Severity::Error && fault.path.starts_with(&section))
    }

    pub(super) fn has_errors(&self) -> bool {
        self.any(|fault| fault.severity == Severity::Error)
    }

    fn any(&self, is: impl Fn(&Fault) -> bool) -> bool {
        self.faults.borrow().iter().any(is)
    }

    /// Everything collected, in the order of the file.
    pub(super) fn into_faults(self, file: &str) -> Faults {
        let mut faults = self.faults.into_inner();
        faults.sort_by_key(|fault| (fault.line, fault.column));
        Faults { file: file.to_owned(), faults }
    }

    /// Where the line with byte `at` starts, and its number from 1.
    fn line_at(&self, at: usize) -> (usize, usize) {
        let number = self.lines.partition_point(|start| *start <= at);
        (self.lines[number - 1], number)
    }
}

/// `text` up to its first line end.
fn line_of(text: &str) -> &str {
    text.lines().next().unwrap_or("")
}
