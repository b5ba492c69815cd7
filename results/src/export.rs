//! The report formats, in one ordered list: a new format is one file and one line here.

use crate::Record;

/// How a terminal wants to be written to; formats for files ignore it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Columns of text.
    pub width: usize,
    /// Whether to send colours.
    pub color: bool,
}

impl Default for Style {
    fn default() -> Self {
        Style {
            width: 100,
            color: false,
        }
    }
}

/// A report format.
pub trait Exporter {
    /// Its name on the command line.
    fn name(&self) -> &'static str;
    /// The whole report on these records, of one run or several.
    fn render(&self, records: &[Record]) -> String;
}

/// Every format, in the order in which help lists them.
pub fn exporters(style: Style) -> Vec<Box<dyn Exporter>> {
    vec![
        Box::new(crate::terminal::Terminal { style }),
        Box::new(crate::markdown::Markdown),
        Box::new(crate::json::Json),
    ]
}

/// The format called `name`.
pub fn exporter(name: &str, style: Style) -> Option<Box<dyn Exporter>> {
    exporters(style).into_iter().find(|e| e.name() == name)
}
