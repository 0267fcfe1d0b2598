//! What a person sees while a run goes on, on standard error, so that standard output is what was found.
//!
//! On a terminal a few lines are drawn again in place once a second; piped, there is one plain line a second. The escapes are written by hand:
//! going up, clearing to the end and two colours are all that is used. The cursor is never hidden and no mode is set, so that a run that is killed
//! leaves the terminal as it was.

mod view;

use std::io::{IsTerminal, Write};

use crate::{result::run::Second, run::PhaseSpan};
use view::{Line, Tone, View};

/// Of a terminal that does not say.
const COLUMNS: usize = 80;
/// Below it nothing can be laid out, above it lines are hard to read.
const COLUMNS_MIN: usize = 20;
const COLUMNS_MAX: usize = 120;

/// How it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Quiet,
    Lines,
    Screen { colours: bool },
}

pub struct Live {
    mode: Mode,
    view: View,
    /// Lines of the last drawing.
    drawn: usize,
}

impl Live {
    /// `phases` are those of the run, in order.
    pub fn new(quiet: bool, phases: Vec<PhaseSpan>) -> Live {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let terminal = variable("TERM");
        let mode = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Mode::Quiet,
            (false, true) if terminal != "dumb" => Mode::Screen {
                colours: variable("NO_COLOR").is_empty(),
            },
            (false, _) => Mode::Lines,
        };
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].map(variable);
        let locale = locale.into_iter().find(|it| !it.is_empty());
        let blocks = locale.is_some_and(|it| it.to_uppercase().replace('-', "").contains("UTF8"));
        Live {
            mode,
            view: View::new(phases, blocks),
            drawn: 0,
        }
    }

    pub fn show(&mut self, second: &Second) {
        match self.mode {
            Mode::Quiet => {}
            Mode::Lines => eprintln!("{}", view::plain(second)),
            Mode::Screen { colours } => {
                self.view.add(second);
                let lines = self.view.lines(columns());
                let text = redrawn(self.drawn, &lines, colours);
                self.drawn = lines.len();
                // A terminal that is gone is no reason to end a run.
                let _ = std::io::stderr().lock().write_all(text.as_bytes());
            }
        }
    }

    /// The last drawing stays.
    pub fn end(&mut self) {
        self.drawn = 0;
    }
}

fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    let columns = size.map_or(0, |size| usize::from(size.ws_col));
    let columns = if columns == 0 { COLUMNS } else { columns };
    // In the last column some terminals begin a new line.
    (columns - 1).clamp(COLUMNS_MIN, COLUMNS_MAX)
}

/// Goes up over the last drawing, and writes all at once so that nothing flickers.
fn redrawn(drawn: usize, lines: &[Line], colours: bool) -> String {
    let mut text = String::new();
    if drawn > 0 {
        text.push_str(&format!("\x1b[{drawn}A\r\x1b[J"));
    }
    for line in lines {
        let code = match line.tone {
            Tone::Plain => None,
            Tone::Strong => Some("1"),
            Tone::Warning => Some("33"),
        };
        match code.filter(|_| colours) {
            Some(code) => text.push_str(&format!("\x1b[{code}m{}\x1b[0m\n", line.text)),
            None => text.push_str(&format!("{}\n", line.text)),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_takes_the_place_of_the_last() {
        let lines = [
            Line {
                text: "one".to_string(),
                tone: Tone::Strong,
            },
            Line {
                text: "two".to_string(),
                tone: Tone::Plain,
            },
        ];
        assert_eq!(redrawn(0, &lines, false), "one\ntwo\n");
        assert_eq!(
            redrawn(2, &lines, true),
            "\x1b[2A\r\x1b[J\x1b[1mone\x1b[0m\ntwo\n"
        );
    }
}
