//! What is wrong with a configuration, told so that a person can act on it.

use core::fmt;
use serde::Serialize;

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
    /// The line of source, and how many of its characters from `column` on are meant.
    #[serde(skip)]
    pub(super) source: String,
    /// See `source`.
    #[serde(skip)]
    pub(super) width: usize,
}

/// Every fault of a configuration, in the order of its lines.
///
/// `Display` prints them as a compiler would; `Serialize` gives `{"file": …, "faults": [{"severity",
/// "line", "column", "path", "message", "remedy"}, …]}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
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
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fault.write(&self.file, f)?;
        }
        Ok(())
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
        let (before, carets) = (" ".repeat(self.column - 1), "^".repeat(self.width.max(1)));
        writeln!(f, "{gutter} | {before}{carets}")?;
        writeln!(f, "{gutter} = help: {}", self.remedy)
    }
}
