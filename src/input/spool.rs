//! Standard input, kept for a second pass.

use std::io::{self, Read};

use tempfile::NamedTempFile;

use super::open::Source;

/// A stream copied to a temporary file (in `TMPDIR`), so that it can be read more than once. The file goes with it.
#[derive(Debug)]
pub struct Spool {
    file: NamedTempFile,
    name: String,
}

impl Spool {
    /// Copies standard input to its end.
    ///
    /// # Errors
    /// Where reading fails, or the temporary file cannot be written.
    pub fn stdin() -> io::Result<Self> {
        Self::copy("standard input", &mut io::stdin().lock())
    }

    /// Copies any stream to its end.
    ///
    /// # Errors
    /// As [`Spool::stdin`].
    pub fn copy(name: impl Into<String>, from: &mut dyn Read) -> io::Result<Self> {
        let mut file = NamedTempFile::with_prefix("mailfuse-")?;
        io::copy(from, file.as_file_mut())?;
        Ok(Self { file, name: name.into() })
    }

    /// The copy as a source, under the stream's name.
    pub fn source(&self) -> Source {
        Source::named(self.name.as_str(), self.file.path())
    }
}
