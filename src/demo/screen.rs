//! What the demo prints: aligned lines, in colour on a terminal, plain when piped.

use std::io::{self, Write};

/// Width of the labels' column.
const LABEL: usize = 18;
const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const CYAN: &str = "\x1b[36m";
const PLAIN: &str = "\x1b[0m";

#[derive(Debug)]
pub struct Screen<W> {
    out: W,
    colour: bool,
}

impl<W: Write> Screen<W> {
    pub fn new(out: W, colour: bool) -> Self {
        Self { out, colour }
    }

    pub fn title(&mut self, name: &str, what: &str) -> io::Result<()> {
        let (name, what) = (self.dyed(BOLD, name), self.dyed(DIM, what));
        writeln!(self.out, "\n{name}  {what}")
    }

    pub fn section(&mut self, name: &str) -> io::Result<()> {
        let name = self.dyed(BOLD, name);
        writeln!(self.out, "\n{name}")
    }

    /// `label` and what is to be known about it.
    pub fn line(&mut self, label: &str, text: &str) -> io::Result<()> {
        writeln!(self.out, "  {label:LABEL$} {text}")?;
        self.out.flush()
    }

    /// The same with a verdict that is good.
    pub fn good(&mut self, label: &str, text: &str, note: &str) -> io::Result<()> {
        let (text, note) = (self.dyed(GREEN, text), self.dyed(DIM, note));
        self.line(label, format!("{text}  {note}").trim_end())
    }

    pub fn named(&mut self, label: &str, text: &str, note: &str) -> io::Result<()> {
        let (text, note) = (self.dyed(CYAN, text), self.dyed(DIM, note));
        self.line(label, format!("{text}  {note}").trim_end())
    }

    pub fn bad(&mut self, text: &str) -> io::Result<()> {
        let text = self.dyed(RED, text);
        writeln!(self.out, "\n{text}")
    }

    pub fn note(&mut self, text: &str) -> io::Result<()> {
        let text = self.dyed(DIM, text);
        writeln!(self.out, "  {text}")
    }

    /// A table's row: a label and right-aligned cells.
    pub fn row(&mut self, label: &str, cells: &[String], head: bool) -> io::Result<()> {
        let cells: String = cells.iter().map(|cell| format!("{cell:>10}")).collect();
        let cells = if head { self.dyed(DIM, &cells) } else { cells };
        self.line(label, &cells)
    }

    fn dyed(&self, colour: &str, text: &str) -> String {
        if self.colour && !text.is_empty() {
            format!("{colour}{text}{PLAIN}")
        } else {
            text.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(colour: bool) -> String {
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, colour);
        screen.title("demo", "of things").unwrap();
        screen.good("unary", "Hello", "").unwrap();
        screen.row("direct", &["1".to_owned(), "22".to_owned()], false).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn is_plain_when_piped() {
        assert_eq!(
            shown(false),
            "\ndemo  of things\n  unary              Hello\n\
             \x20 direct                      1        22\n"
        );
    }

    #[test]
    fn is_coloured_on_a_terminal() {
        assert!(shown(true).contains("\x1b[32mHello\x1b[0m"));
    }
}
